package llm

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRefusal(t *testing.T) {
	f := func(form Form, r Refusal, want string) {
		t.Helper()
		require.Equal(t, "x"+want, string(r.AppendJSON([]byte("x"), form)))
		require.True(t, json.Valid([]byte(want)))
	}
	notFound := Refusal{Status: 404, Code: "model_not_found", Param: "model", Message: `The model "x\y" does not exist.`}
	f(OpenAIForm, notFound, `{"error":{"message":"The model \"x\\y\" does not exist.","type":"invalid_request_error","param":"model","code":"model_not_found"}}`)
	f(AnthropicForm, notFound, `{"type":"error","error":{"type":"not_found_error","message":"The model \"x\\y\" does not exist."}}`)
	f(OpenAIForm, Refusal{Status: 401, Message: "No key."}, `{"error":{"message":"No key.","type":"authentication_error","param":null,"code":null}}`)
	f(OpenAIForm, Refusal{Status: 429, Type: "tokens", Code: "rate_limit_exceeded", Message: "Later."},
		`{"error":{"message":"Later.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`)
	f(OpenAIForm, Refusal{Status: 400, Message: "a\n\t\x00\xff é😀"}, `{"error":{"message":"a\n\u0009\u0000`+"\ufffd"+` é😀","type":"invalid_request_error","param":null,"code":null}}`)
}

func TestRefusalTypes(t *testing.T) {
	for status, want := range map[int][2]string{
		400: {"invalid_request_error", "invalid_request_error"},
		401: {"authentication_error", "authentication_error"},
		403: {"permission_error", "permission_error"},
		404: {"invalid_request_error", "not_found_error"},
		413: {"invalid_request_error", "request_too_large"},
		422: {"invalid_request_error", "invalid_request_error"},
		429: {"rate_limit_error", "rate_limit_error"},
		500: {"server_error", "api_error"},
		502: {"server_error", "api_error"},
		503: {"server_error", "overloaded_error"},
		504: {"server_error", "timeout_error"},
		529: {"server_error", "overloaded_error"},
	} {
		for form, want := range want {
			var body struct{ Error struct{ Type string } }
			require.NoError(t, json.Unmarshal(Refusal{Status: status}.AppendJSON(nil, Form(form)), &body))
			require.Equal(t, want, body.Error.Type, "%d %v", status, form)
		}
	}
}

// TestFormOf: the form of an error depends on the path, known or not.
func TestFormOf(t *testing.T) {
	among := []Operation{{"/my/messages", Messages}, {"/my/count/", CountTokens}, {"/my/chat", Chat}}
	for path, want := range map[string]Form{
		"/v1/messages": AnthropicForm, "/v1/messages/": AnthropicForm, "/v1/messages?beta=true": AnthropicForm, "/v1/messages/batches": AnthropicForm,
		"/v1/messages/count_tokens": AnthropicForm, "/v1/messages/batches/b1/results?x": AnthropicForm, "/team-a/v1/messages/render": AnthropicForm,
		"/my/messages": AnthropicForm, "/team-a/my/messages/x": AnthropicForm, "/my/count": AnthropicForm, "/my/count/": AnthropicForm,
		"": OpenAIForm, "/": OpenAIForm, "/v1/messagesx": OpenAIForm, "/v1/chat/completions?to=/v1/messages": OpenAIForm, "/my/chat": OpenAIForm,
		"/my/messages2": OpenAIForm, "/v1/models": OpenAIForm,
	} {
		require.Equal(t, want, FormOf(path, among), path)
	}
	require.Equal(t, OpenAIForm, FormOf("/my/messages", nil))
}

package e2e_test

import (
	"net/http"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// testRestored: OpenAI's own client sees the name that it requested, whatever the
// replica calls the model, in every kind of response and event.
func testRestored(t *testing.T, s *stack.Stack) {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	for name, transport := range map[string]*http.Transport{"HTTP/1.1": {}, "HTTP/2": {Protocols: &h2}} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(transport.CloseIdleConnections)
			var last http.Header
			c := openai.NewClient(
				option.WithBaseURL(s.URL()+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0),
				option.WithHTTPClient(&http.Client{Transport: transport, Timeout: patience}),
				option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
					resp, err := next(r)
					if err == nil {
						last = resp.Header
					}
					return resp, err
				}),
			)
			for model, target := range map[string]string{"llama": "llama-3-8b", "gemma": "gemma"} {
				testRestoredFor(t, &c, model)
				require.Equal(t, target, last.Get("x-modelsim-model"), "the name that the replica uses")
			}
			list, err := c.Models.List(t.Context())
			require.NoError(t, err)
			require.Empty(t, last.Get("x-modelsim-model"), "the gateway responds itself")
			var ids []string
			for _, m := range list.Data {
				ids = append(ids, m.ID)
			}
			require.Subset(t, ids, []string{"llama", "gemma"})
		})
	}
}

func testRestoredFor(t *testing.T, c *openai.Client, model string) {
	question := openai.ChatCompletionNewParams{
		Model: model, MaxTokens: openai.Int(16),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(`What is "model":"llama-3-8b"?`)},
	}
	chat, err := c.Chat.Completions.New(t.Context(), question)
	require.NoError(t, err)
	require.Equal(t, model, chat.Model)
	require.NotEmpty(t, chat.Choices[0].Message.Content)

	question.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := c.Chat.Completions.NewStreaming(t.Context(), question)
	events, tokens := 0, int64(0)
	for stream.Next() {
		require.Equal(t, model, stream.Current().Model)
		events++
		tokens += stream.Current().Usage.CompletionTokens
	}
	require.NoError(t, stream.Err())
	require.Greater(t, events, 16)
	require.EqualValues(t, 16, tokens)

	completion, err := c.Completions.New(t.Context(), openai.CompletionNewParams{
		Model:  openai.CompletionNewParamsModel(model),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("Once upon a time")},
	})
	require.NoError(t, err)
	require.Equal(t, model, completion.Model)

	embedding, err := c.Embeddings.New(t.Context(), openai.EmbeddingNewParams{
		Model: model,
		Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("a few words")},
	})
	require.NoError(t, err)
	require.Equal(t, model, embedding.Model)
	require.NotEmpty(t, embedding.Data[0].Embedding)
}

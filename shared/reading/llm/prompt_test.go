package llm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// readPrompts are bodies in which "$" stands for text that a server may show to the model.
var readPrompts = []struct {
	name string
	api  API
	body string
}{
	{"content", Chat, `{"messages":[{"role":"user","content":"$"}]}`},
	{"a part", Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"$"}]}]}`},
	{"a part that is a string", Chat, `{"messages":[{"role":"user","content":["$"]}]}`},
	{"a refusal", Chat, `{"messages":[{"role":"assistant","content":[{"type":"refusal","refusal":"$"}]}]}`},
	{"a part of an unknown type", Chat, `{"messages":[{"role":"user","content":[{"type":"new","new":{"deep":["$"]}}]}]}`},
	{"a role of the client's own", Chat, `{"messages":[{"role":"$","content":"hi"}]}`},
	{"a type of the client's own", Chat, `{"messages":[{"role":"user","type":"$","content":"hi"}]}`},
	{"a speaker's name", Chat, `{"messages":[{"role":"user","content":"hi","name":"$"}]}`},
	{"reasoning", Chat, `{"messages":[{"role":"assistant","content":"hi","reasoning":"$"}]}`},
	{"reasoning content", Chat, `{"messages":[{"role":"assistant","content":"hi","reasoning_content":"$"}]}`},
	{"a call's name", Chat, `{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"$","arguments":"{}"}}]}]}`},
	{"a call's arguments", Chat, `{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"q\":\"$\"}"}}]}]}`},
	{"a call's id", Chat, `{"messages":[{"role":"assistant","tool_calls":[{"id":"$","type":"function","function":{"name":"f","arguments":"{}"}}]}]}`},
	{"a call's id in the answer", Chat, `{"messages":[{"role":"tool","tool_call_id":"$","content":"hi"}]}`},
	{"a legacy call", Chat, `{"messages":[{"role":"assistant","function_call":{"name":"f","arguments":"$"}}]}`},
	{"a tool's name", Chat, `{"tools":[{"type":"function","function":{"name":"$"}}]}`},
	{"a tool's description", Chat, `{"tools":[{"type":"function","function":{"name":"f","description":"$"}}]}`},
	{"a parameter's description", Chat, `{"tools":[{"type":"function","function":{"parameters":{"type":"object","properties":{"url":{"type":"string","description":"$"}}}}}]}`},
	{"a parameter's values", Chat, `{"tools":[{"type":"function","function":{"parameters":{"properties":{"type":{"type":"string","enum":["a","$"]}}}}}]}`},
	{"a parameter's default", Chat, `{"tools":[{"type":"function","function":{"parameters":{"properties":{"data":{"url":"$"}}}}}]}`},
	{"a legacy function", Chat, `{"functions":[{"name":"f","description":"$"}]}`},
	{"a document's text", Chat, `{"documents":[{"title":"t","text":"$"}]}`},
	{"a document's title", Chat, `{"documents":[{"title":"$","text":"t"}]}`},
	{"a document's source", Chat, `{"documents":[{"source":{"type":"base64","data":"$"}}]}`},
	{"a template's arguments", Chat, `{"chat_template_kwargs":{"persona":"$"}}`},
	{"a schema", Chat, `{"response_format":{"type":"json_schema","json_schema":{"schema":{"description":"$"}}}}`},
	{"a member that nobody knows yet", Chat, `{"context":{"notes":["$"]}}`},
	{"a member of another API", Chat, `{"system":"$"}`},
	{"a URL outside media", Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"hi","url":"$"}]}]}`},
	{"data outside a source", Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"hi","data":"$"}]}]}`},
	{"a file's name", Chat, `{"messages":[{"role":"user","content":[{"type":"file","file":{"filename":"$","file_data":"data:;base64,AA"}}]}]}`},
	{"after an image", Chat, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"$"}]},{"url":"y"}]}`},
	{"completions", Completions, `{"prompt":["a","$"]}`},
	{"completions, suffix", Completions, `{"prompt":"a","suffix":"$"}`},
	{"responses, a tool", Responses, `{"input":"hi","tools":[{"type":"function","name":"f","description":"$","parameters":{}}]}`},
	{"responses, a call", Responses, `{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{\"q\":\"$\"}"}]}`},
	{"responses, a custom call", Responses, `{"input":[{"type":"custom_tool_call","input":"$"}]}`},
	{"responses, reasoning", Responses, `{"input":[{"type":"reasoning","summary":[{"type":"summary_text","text":"$"}]}]}`},
	{"responses, a stored prompt", Responses, `{"prompt":{"id":"p","variables":{"city":"$"}}}`},
	{"responses, an output part", Responses, `{"input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"$"}]}]}`},
	{"embeddings, messages", Embeddings, `{"messages":[{"role":"user","content":[{"type":"text","text":"$"}]}]}`},
	{"embeddings, instructions", Embeddings, `{"input":"hi","instruction":"$"}`},
	{"messages, system", Messages, `{"system":[{"type":"text","text":"$"}]}`},
	{"messages, a tool", Messages, `{"tools":[{"name":"f","description":"$","input_schema":{"type":"object"}}]}`},
	{"messages, a tool's schema", Messages, `{"tools":[{"name":"f","input_schema":{"properties":{"a":{"description":"$"}}}}]}`},
	{"messages, a call", Messages, `{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"url":"$"}}]}]}`},
	{"messages, a call with a source", Messages, `{"messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"source":{"type":"base64","data":"$"}}}]}]}`},
	{"messages, thinking", Messages, `{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"$","signature":"s"}]}]}`},
	{"messages, a plain document", Messages, `{"messages":[{"content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"$"}}]}]}`},
	{"messages, a plain document, other order", Messages, `{"messages":[{"content":[{"type":"document","source":{"data":"$","media_type":"text/plain","type":"text"}}]}]}`},
	{"messages, a document of no type", Messages, `{"messages":[{"content":[{"type":"document","source":{"data":"$"}}]}]}`},
	{"messages, a document of two types", Messages, `{"messages":[{"content":[{"type":"document","source":{"type":"base64","data":"$","type":"text"}}]}]}`},
	{"messages, a document of a long type", Messages, `{"messages":[{"content":[{"type":"document","source":{"type":"a type longer than any word of the protocol","data":"$"}}]}]}`},
	{"messages, a document of a long type, other order", Messages, `{"messages":[{"content":[{"type":"document","source":{"data":"$","type":"a type longer than any word of the protocol"}}]}]}`},
	{"messages, a document of parts", Messages, `{"messages":[{"content":[{"type":"document","source":{"type":"content","content":[{"type":"text","text":"$"}]}}]}]}`},
	{"messages, a document's title", Messages, `{"messages":[{"content":[{"type":"document","title":"$","context":"c","source":{"type":"base64","data":"AA"}}]}]}`},
	{"messages, a search result's source", Messages, `{"messages":[{"content":[{"type":"search_result","source":"$","title":"t"}]}]}`},
	{"messages, a tool's result", Messages, `{"messages":[{"content":[{"type":"tool_result","content":[{"type":"text","text":"$"}]}]}]}`},
	{"count tokens", CountTokens, `{"tools":[{"name":"f","description":"$"}]}`},
	{"rerank", Rerank, `{"query":"q","documents":[{"content":[{"type":"text","text":"$"}]}],"instruction":"i"}`},
	{"rerank, instructions", Rerank, `{"query":"q","documents":["d"],"instruction":"$"}`},
	{"score", Score, `{"data_1":{"content":[{"type":"text","text":"$"}]}}`},
	{"images", Images, `{"prompt":"a cat","negative_prompt":"$"}`},
	{"speech", Audio, `{"input":"hi","ref_text":"$"}`},
}

func TestTextIsRead(t *testing.T) {
	const secret = "project aurora, ünder and longer than a word of the protocol"
	for _, c := range readPrompts {
		for _, text := range []string{"aurora", secret} {
			body := []byte(strings.ReplaceAll(c.body, "$", text))
			require.True(t, json.Valid(body), c.name)
			for i := range body {
				got, err := read(c.api, Want{Prompt: true}, jsonscan.Limits{}, body, body[:i], body[i:])
				require.NoError(t, err, c.name)
				require.Contains(t, got.Prompt, text, "%s cut at %d", c.name, i)
				require.Zero(t, got.PromptTokens, c.name)
				require.Empty(t, got.Repeated, c.name)
			}
		}
	}
}

func TestWhatIsNotTextIsNotRead(t *testing.T) {
	for _, c := range []struct {
		name string
		api  API
		body string
	}{
		{"an image", Chat, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"$","detail":"$"}}]}]}`},
		{"an image as a string", Chat, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":"$"}]}]}`},
		{"sound", Chat, `{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"$","format":"wav"}}]}]}`},
		{"a file", Chat, `{"messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"$"}}]}]}`},
		{"a video", Embeddings, `{"messages":[{"role":"user","content":[{"type":"video_url","video_url":{"url":"$"}}]}]}`},
		{"image embeddings", Chat, `{"messages":[{"role":"user","content":[{"type":"image_embeds","image_embeds":"$"}]}]}`},
		{"an image of messages", Messages, `{"messages":[{"content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"$"}}]}]}`},
		{"an image of messages, other order", Messages, `{"messages":[{"content":[{"type":"image","source":{"data":"$","media_type":"image/png","type":"base64"}}]}]}`},
		{"an image by URL", Messages, `{"messages":[{"content":[{"type":"image","source":{"url":"$","type":"url"}}]}]}`},
		{"an image in a tool's result", Messages, `{"messages":[{"content":[{"type":"tool_result","content":[{"type":"image","source":{"data":"$","type":"base64"}}]}]}]}`},
		{"a signature", Messages, `{"messages":[{"content":[{"type":"thinking","signature":"$"}]}]}`},
		{"an image of responses", Responses, `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"$"}]}]}`},
		{"encrypted reasoning", Responses, `{"input":[{"type":"reasoning","encrypted_content":"$"}]}`},
		{"who asks", Chat, `{"user":"$","metadata":{"a":"$"},"safety_identifier":"$","prompt_cache_key":"$","stop":["$"]}`},
		{"images to edit", ImageEdits, `{"images":[{"image_url":"$"}]}`},
		{"another service", Unknown, `{"messages":[{"content":"$"}],"x":"$"}`},
	} {
		body := []byte(strings.ReplaceAll(c.body, "$", strings.Repeat("QUJD", 30)))
		for i := range body {
			got, err := read(c.api, Want{Prompt: true, PromptLimit: 40}, jsonscan.Limits{}, body, body[:i], body[i:])
			require.NoError(t, err, c.name)
			require.Equal(t, facts{}, got, "%s cut at %d", c.name, i)
		}
	}
}

// An image whose type stands after its data is taken back, and with it that it was too long; not so if text was lost.
func TestImageIsTakenBack(t *testing.T) {
	const image = `{"messages":[{"content":[{"type":"text","text":"before"},{"type":"image","source":{"data":"$",EXTRA"type":"base64"}},{"type":"text","text":"after"}]}]}`
	for _, c := range []struct {
		extra string
		want  facts
	}{
		{``, facts{Prompt: "before\nafter", Joined: "beforeafter", PromptBytes: 11}},
		{`"note":"hidden",`, facts{Prompt: "before", PromptBytes: 17, PromptCut: true}},
	} {
		body := []byte(strings.NewReplacer("$", strings.Repeat("QUJD", 30), "EXTRA", c.extra).Replace(image))
		got, err := read(Messages, Want{Prompt: true, PromptLimit: 40}, jsonscan.Limits{}, body, body)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestJoined(t *testing.T) {
	f := func(api API, body, want string) {
		t.Helper()
		for i := range body {
			got, err := read(api, Want{Prompt: true}, jsonscan.Limits{}, []byte(body), []byte(body[:i]), []byte(body[i:]))
			require.NoError(t, err)
			require.Equal(t, want, got.Joined)
		}
	}
	f(Chat, `{"messages":[{"content":"a"},{"content":["b"]},{"content":[{"text":"c"}]}]}`, "")
	f(Chat, `{"messages":[{"content":[{"type":"text","text":"auro"},{"text":"ra","type":"text","x":"y"}]},{"content":["b","c"]}]}`, "aurora\nbc")
	f(Chat, `{"messages":[{"content":[{"type":"text","text":"auro"},{"type":"image_url","image_url":{"url":"x"}},"ra"]}]}`, "aurora")
	f(Messages, `{"system":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"messages":[{"content":[{"type":"tool_result","content":[{"text":"c"},{"text":"d"}]}]}]}`, "ab\ncd")
	f(Responses, `{"input":[{"content":[{"text":"a"},{"text":"b"}]},{"output":[{"text":"c"},{"text":"d"}]}]}`, "ab\ncd")
	f(Completions, `{"prompt":["a","b"]}`, "")
	f(Chat, `{"tools":[{"content":[{"text":"a"},{"text":"b"}]}]}`, "")
}

func TestTemplatesAndVectors(t *testing.T) {
	f := func(api API, body string, template, embeds bool, tokens int) {
		t.Helper()
		for i := range body {
			got, err := read(api, Want{}, jsonscan.Limits{}, []byte(body), []byte(body[:i]), []byte(body[i:]))
			require.NoError(t, err)
			require.Equal(t, facts{Template: template, PromptEmbeds: embeds, PromptTokens: tokens}, got)
		}
	}
	for _, api := range []API{Chat, Embeddings, Score, Pooling, Rerank} {
		f(api, `{"chat_template":"{{ 1 }}"}`, true, false, 0)
	}
	f(Chat, `{"chat_template":""}`, true, false, 0)
	f(Chat, `{"chat_template":["x"]}`, true, false, 0)
	f(Chat, `{"chat_template":null}`, false, false, 0)
	f(Chat, `{"chat_template_kwargs":{"chat_template":"x"}}`, true, false, 0)
	f(Chat, `{"chat_template_kwargs":{"chat_template":{"a":1}}}`, true, false, 0)
	f(Chat, `{"chat_template_kwargs":{"chat_template":null,"enable_thinking":false,"n":5}}`, false, false, 0)
	f(Completions, `{"prompt_embeds":"QUJD"}`, false, true, 0)
	f(Completions, `{"prompt_embeds":["QUJD"]}`, false, true, 0)
	f(Completions, `{"prompt_embeds":null}`, false, false, 0)
	f(Chat, `{"messages":[{"content":[{"type":"prompt_embeds","prompt_embeds":"QUJD"}]}]}`, false, true, 0)
	f(Completions, `{"input_embeds":[[0.5,1]]}`, false, true, 0)
	f(Completions, `{"prompt_token_ids":[1,2]}`, false, false, 2)
	f(Completions, `{"input_ids":[[1,2],[3]]}`, false, false, 3)
	f(Embeddings, `{"input":[1,[2]]}`, false, false, 2)
	f(Embeddings, `{"input":[{"x":1},{"y":[2]},3]}`, false, false, 1)
	f(Chat, `{"tools":[{"function":{"parameters":{"minimum":0,"maximum":9}}}],"top_p":0.5,"seed":1}`, false, false, 0)
	f(Completions, `{"prompt":[{"a":{"b":[1]},"c":[1,2],"d":3}]}`, false, false, 0)
	f(Completions, `{"prompt":[[1,2],{"a":{"b":[1]},"c":[1,2]}]}`, false, false, 2)
	f(Unknown, `{"chat_template":"x","prompt_embeds":"x","prompt_token_ids":[1]}`, false, false, 0)
}

// What stands escaped within the JSON of arguments is read as servers unpack it.
func TestArgumentsAreUnpacked(t *testing.T) {
	f := func(arguments, want string) {
		t.Helper()
		quoted, err := json.Marshal(arguments)
		require.NoError(t, err)
		body := `{"messages":[{"tool_calls":[{"function":{"arguments":` + string(quoted) + `,"name":"f"}}]}]}`
		for i := range body {
			got, err := read(Chat, Want{Prompt: true}, jsonscan.Limits{}, []byte(body), []byte(body[:i]), []byte(body[i:]))
			require.NoError(t, err)
			require.Equal(t, want, got.Prompt)
			require.Equal(t, len(arguments)+1, got.PromptBytes)
		}
	}
	f(`{"q":"x"}`, "{\"q\":\"x\"}\nf")
	f(`\u0061uror\u00e4`, "\\u0061uror\\u00e4\naurorä\nf")
	f(`\ud83d\ude00\ud83d\u0061\ud83d`, "\\ud83d\\ude00\\ud83d\\u0061\\ud83d\n😀\ufffda\ufffd\nf")
	f(`\"\\\/\b\f\n\r\t\uzzzz\u12`, "\\\"\\\\\\/\\b\\f\\n\\r\\t\\uzzzz\\u12\n\"\\/\b\f\n\r\tuzzzzu12\nf")
	f(`a\`, "a\\\na\\\nf")

	body := []byte(`{"messages":[{"function_call":{"arguments":"\\u0061bc"}}]}`)
	got, err := read(Chat, Want{Prompt: true, PromptLimit: 16}, jsonscan.Limits{}, body, body)
	require.NoError(t, err)
	require.True(t, got.PromptCut, "the unpacked text does not fit")
	got, err = read(Chat, Want{Prompt: true, PromptLimit: 17}, jsonscan.Limits{}, body, body)
	require.NoError(t, err)
	require.False(t, got.PromptCut, "there is, were it as long as the packed one")
	require.Equal(t, "\\u0061bc\nabc", got.Prompt)
}

// Whatever is unpacked or cut, the prompt keeps to its limit, and is said to be cut if there was more.
func TestThePromptKeepsToItsLimit(t *testing.T) {
	for _, arguments := range []string{`\`, `\n`, `{"q":"\u00e4"}`, `é\u0061`, "plain"} {
		quoted, err := json.Marshal(arguments)
		require.NoError(t, err)
		body := []byte(`{"messages":[{"function_call":{"arguments":` + string(quoted) + `}}]}`)
		whole, err := read(Chat, Want{Prompt: true}, jsonscan.Limits{}, body, body)
		require.NoError(t, err, arguments)
		for limit := 1; limit < 2*len(whole.Prompt)+2; limit++ {
			got, err := read(Chat, Want{Prompt: true, PromptLimit: limit}, jsonscan.Limits{}, body, body)
			require.NoError(t, err)
			require.LessOrEqual(t, len(got.Prompt), limit, arguments)
			if !got.PromptCut {
				require.Equal(t, whole.Prompt, got.Prompt, "%s within %d", arguments, limit)
			}
		}
	}
}

// Undoing escapes agrees with encoding/json for all strings.
func TestUnescapeProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := strings.ToValidUTF8(rapid.String().Draw(rt, "s"), "")
		packed, err := json.Marshal(s)
		require.NoError(t, err)
		require.Equal(t, s, string(appendUnescaped(nil, packed[1:len(packed)-1])))
	})
}

func TestPromptAllocatesNothing(t *testing.T) {
	r := new(RequestScanner)
	for _, c := range readPrompts {
		body := []byte(c.body)
		run := func() {
			r.Reset(c.api, Want{Prompt: true, PromptLimit: 1 << 17}, jsonscan.Limits{})
			if r.Feed(body) != nil || r.End() != nil {
				panic("refused")
			}
		}
		require.Zero(t, testing.AllocsPerRun(20, run), c.name)
	}
}

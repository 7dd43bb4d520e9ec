package sim_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
)

const hello = `{"model":"llama","messages":[{"role":"user","content":"hello"}],"max_tokens":3}`

func start(t *testing.T, cfg sim.Config) *sim.Server {
	t.Helper()
	server := sim.New(cfg)
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() { server.Close() })
	return server
}

// call makes one request; a fault may be "".
func call(t *testing.T, method, url, body, fault string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if fault != "" {
		req.Header.Set(sim.FaultHeader, fault)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res, string(answer), err
}

func post(t *testing.T, url, body string) (*http.Response, string) {
	t.Helper()
	res, answer, err := call(t, http.MethodPost, url, body, "")
	require.NoError(t, err)
	return res, answer
}

// members removes what changes from run to run.
func members(t *testing.T, answer string) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(answer), &m), answer)
	require.NotEmpty(t, m["id"])
	require.NotEmpty(t, m["created"])
	delete(m, "id")
	delete(m, "created")
	return m
}

func TestWholeAnswers(t *testing.T) {
	server := start(t, sim.Config{})
	for _, test := range []struct{ name, path, body, want string }{
		{
			"chat", "/v1/chat/completions", hello,
			`{"object":"chat.completion","model":"llama","choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown","refusal":null,
			"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,
			"token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0-modelsim","usage":{"prompt_tokens":3,"total_tokens":6,
			"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":0,"multimodal_tokens":null},"completion_tokens_details":null},
			"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}`,
		},
		{
			"completions, no model", "/v1/completions", `{"prompt":"hello","max_tokens":2}`,
			`{"object":"text_completion","model":"` + sim.DefaultModel + `","choices":[{"index":0,"text":"The quick","logprobs":null,"finish_reason":"length",
			"stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}],"service_tier":null,
			"system_fingerprint":"vllm-0.32.0-modelsim","usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0,
			"created_cache_tokens":null,"multimodal_tokens":null},"completion_tokens_details":null},"kv_transfer_params":null,"ec_transfer_params":null,
			"metrics":null}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			res, answer := post(t, server.URL()+test.path, test.body)
			require.Equal(t, http.StatusOK, res.StatusCode)
			require.Equal(t, "application/json", res.Header.Get("Content-Type"))
			var want map[string]any
			require.NoError(t, json.Unmarshal([]byte(test.want), &want))
			require.Equal(t, want, members(t, answer))
		})
	}
}

// TestTokensAndUsage checks how many tokens are generated and what the usage reports.
func TestTokensAndUsage(t *testing.T) {
	for _, test := range []struct {
		name, path, body  string
		echo              bool
		prompt, generated int64
		finish, text      string
	}{
		{name: "default of 16", path: "chat/completions", body: `{"messages":[{"role":"user","content":"12345678"}]}`, prompt: 4, generated: 16, finish: "length"},
		{
			name: "max_completion_tokens wins", path: "chat/completions", body: `{"max_completion_tokens":2,"max_tokens":9,"messages":[{"role":"user","content":""}]}`,
			prompt: 2, generated: 2, finish: "length", text: "The quick",
		},
		{name: "max_completion_tokens is a chat member", path: "completions", body: `{"max_completion_tokens":2,"max_tokens":1,"prompt":"a"}`, prompt: 1, generated: 1, finish: "length", text: "The"},
		{name: "the last of a repeated member", path: "completions", body: `{"max_tokens":1,"prompt":"a","max_tokens":2,"prompt":"12345"}`, prompt: 2, generated: 2, finish: "length", text: "The quick"},
		{name: "null is absent", path: "completions", body: `{"max_tokens":null,"model":null,"stream":null,"stream_options":null,"prompt":"a"}`, prompt: 1, generated: 16, finish: "length"},
		{name: "n is ignored", path: "completions", body: `{"n":3,"max_tokens":1,"prompt":"a"}`, prompt: 1, generated: 1, finish: "length", text: "The"},
		{name: "list of prompts", path: "completions", body: `{"max_tokens":1,"prompt":["1234","5678"]}`, prompt: 2, generated: 1, finish: "length", text: "The"},
		{name: "token ids", path: "completions", body: `{"max_tokens":1,"prompt":[1,2,3]}`, prompt: 3, generated: 1, finish: "length", text: "The"},
		{name: "parts and tools", path: "chat/completions", body: `{"max_tokens":1,"tools":[{"a":1}],"messages":[{"role":"user","content":[{"type":"text","text":"hello"},
			{"type":"image_url","image_url":{"url":"data:"}}]}]}`, prompt: (9 + 6 + 5 + 64) / 4, generated: 1, finish: "length", text: "The"},
		{
			name: "echo ends by itself", path: "chat/completions", body: `{"messages":[{"role":"system","content":"x"},{"role":"user","content":"say \"ä\" <\n>"}]}`, echo: true,
			prompt: 7, generated: 3, finish: "stop", text: "say \"ä\" <\n>",
		},
		{name: "echo cut", path: "completions", body: `{"max_tokens":2,"prompt":"abcdefghijkl"}`, echo: true, prompt: 3, generated: 2, finish: "length", text: "abcdefgh"},
		{name: "echo of nothing", path: "completions", body: `{"max_tokens":1,"prompt":""}`, echo: true, prompt: 0, generated: 1, finish: "length", text: "The"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := start(t, sim.Config{Echo: test.echo})
			url := server.URL() + "/v1/" + test.path
			res, answer := post(t, url, test.body)
			require.Equal(t, http.StatusOK, res.StatusCode, answer)
			require.Equal(t, test.prompt, gjson.Get(answer, "usage.prompt_tokens").Int(), answer)
			require.Equal(t, test.generated, gjson.Get(answer, "usage.completion_tokens").Int(), answer)
			require.Equal(t, test.prompt+test.generated, gjson.Get(answer, "usage.total_tokens").Int(), answer)
			require.Equal(t, test.finish, gjson.Get(answer, "choices.0.finish_reason").String(), answer)
			text := gjson.Get(answer, "choices.0.message.content").String() + gjson.Get(answer, "choices.0.text").String()
			if test.text != "" {
				require.Equal(t, test.text, text)
			}

			// The stream reports the same.
			body := strings.Replace(test.body, "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1)
			if strings.Contains(body, `"stream":null`) {
				return
			}
			_, answer = post(t, url, body)
			var streamed strings.Builder
			for _, event := range events(t, answer) {
				streamed.WriteString(gjson.Get(event, "choices.0.delta.content").String() + gjson.Get(event, "choices.0.text").String())
			}
			require.Equal(t, text, streamed.String())
			require.Contains(t, answer, fmt.Sprintf(`"completion_tokens":%d,`, test.generated))
			require.Contains(t, answer, fmt.Sprintf(`"finish_reason":"%s"`, test.finish))
		})
	}
}

// events are the data of an event stream, which must be well formed to the last byte.
func events(t *testing.T, stream string) (data []string) {
	t.Helper()
	require.True(t, strings.HasSuffix(stream, "\n\n"), stream)
	for _, event := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		value, ok := strings.CutPrefix(event, "data: ")
		require.True(t, ok, event)
		require.NotContains(t, value, "\n")
		require.True(t, value == "[DONE]" || gjson.Valid(value), value)
		data = append(data, value)
	}
	return data
}

func TestStreams(t *testing.T) {
	const (
		chatHead = `{"id":"chatcmpl-r1","object":"chat.completion.chunk","created":0,"model":"m","choices":[`
		textHead = `{"id":"cmpl-r1","object":"text_completion","created":0,"model":"m","choices":[`
		role     = chatHead + `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]`
		tail     = `,"prompt_token_ids":null,"prompt_text":null}`
		token1   = chatHead + `{"index":0,"delta":{"content":"The"},"logprobs":null,"finish_reason":null,"token_ids":null}]`
		token2   = chatHead + `{"index":0,"delta":{"content":" quick"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]`
		details  = `"usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0`
		who      = `,"system_fingerprint":"vllm-0.32.0-modelsim"}`
		usage    = details + `,"created_cache_tokens":0}}` + who
	)
	messages := `"model":"m","messages":[{"role":"u","content":"hello"}],"max_tokens":2,"stream":true`
	for _, test := range []struct {
		name, path, body string
		want             []string
	}{
		{"chat without usage", "chat/completions", `{` + messages + `}`, []string{role + tail, token1 + "}", token2 + who, "[DONE]"}},
		{"chat, usage false", "chat/completions", `{` + messages + `,"stream_options":{"include_usage":false}}`, []string{role + tail, token1 + "}", token2 + who, "[DONE]"}},
		{
			"chat with usage", "chat/completions", `{` + messages + `,"stream_options":{"include_usage":true}}`,
			[]string{role + tail, token1 + "}", token2 + "}", chatHead + "]," + usage, "[DONE]"},
		},
		{
			"chat, empty options mean usage", "chat/completions", `{` + messages + `,"stream_options":{}}`,
			[]string{role + tail, token1 + "}", token2 + "}", chatHead + "]," + usage, "[DONE]"},
		},
		{"chat, usage in every chunk", "chat/completions", `{` + messages + `,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, []string{
			role + `,"usage":{"prompt_tokens":2,"total_tokens":2,"completion_tokens":0,"completion_tokens_details":null}` + tail,
			token1 + `,"usage":{"prompt_tokens":2,"total_tokens":3,"completion_tokens":1,"completion_tokens_details":null}}`,
			token2 + `,"usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"completion_tokens_details":null}}`,
			chatHead + "]," + usage, "[DONE]",
		}},
		{"completions with usage", "completions", `{"model":"m","prompt":"hello","max_tokens":2,"stream":true,"stream_options":{"include_usage":true}}`, []string{
			textHead + `{"index":0,"text":"The","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}`,
			textHead + `{"index":0,"text":" quick","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}`,
			textHead + "]," + details + "}}" + who, "[DONE]",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := start(t, sim.Config{})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL()+"/v1/"+test.path, strings.NewReader(test.body))
			require.NoError(t, err)
			req.Header.Set("X-Request-Id", "r1")
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, "text/event-stream; charset=utf-8", res.Header.Get("Content-Type"))
			answer, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			got := events(t, string(answer))
			for i, event := range got {
				if created := gjson.Get(event, "created").Raw; created != "" {
					got[i] = strings.Replace(event, `"created":`+created, `"created":0`, 1)
				}
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestErrors(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"llama", "llama-alias"}, LoRAs: []string{"sql"}, StrictModels: true, MaxModelLen: 100, MaxBody: 10000})
	chat := "/v1/chat/completions"
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		message                  string
	}{
		{"no JSON", "POST", chat, `{"model":`, 400, "JSON decode error: the body is not valid JSON"},
		{"empty", "POST", chat, ``, 400, "JSON decode error: the body is not valid JSON"},
		{"invalid UTF-8", "POST", chat, "{\"model\":\"\xff\",\"messages\":[]}", 400, "JSON decode error: the body is not valid JSON"},
		{"too deep", "POST", chat, strings.Repeat("[", 5000) + strings.Repeat("]", 5000), 400, "JSON decode error: the body is not valid JSON"},
		{"not an object", "POST", chat, `[]`, 400, "Input should be a valid dictionary: the body is not a JSON object"},
		{"no messages", "POST", chat, `{"model":"llama"}`, 400, "Field required: messages"},
		{"no prompt", "POST", "/v1/completions", `{"model":"llama","messages":[]}`, 400, "Field required: prompt"},
		{"no input", "POST", "/v1/embeddings", `{"model":"llama"}`, 400, "Field required: input"},
		{"messages no list", "POST", chat, `{"messages":"x"}`, 400, "Input should be a valid list: messages"},
		{"message no object", "POST", chat, `{"messages":["x"]}`, 400, "Input should be a valid dictionary: messages"},
		{"prompt no text", "POST", "/v1/completions", `{"prompt":{}}`, 400, "Input should be a valid string or list: prompt"},
		{"model no string", "POST", chat, `{"model":7,"messages":[]}`, 400, "Input should be a valid string: model"},
		{"stream no boolean", "POST", chat, `{"stream":"yes","messages":[]}`, 400, "Input should be a valid boolean: stream"},
		{"max_tokens no integer", "POST", chat, `{"max_tokens":1.5,"messages":[]}`, 400, "Input should be a valid integer: max_tokens"},
		{"max_tokens zero", "POST", chat, `{"max_tokens":0,"messages":[]}`, 400, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"},
		{"stream options without stream", "POST", chat, `{"stream_options":{"include_usage":true},"messages":[]}`, 400, "Stream options can only be defined when `stream=True`. (parameter=stream_options)"},
		{"dimensions", "POST", "/v1/embeddings", `{"input":"x","dimensions":100000}`, 400, "dimensions must be at most 4096, got 100000."},
		{"unknown model", "POST", chat, `{"model":"gpt","messages":[]}`, 404, "The model `gpt` does not exist. Valid aliases: llama, llama-alias."},
		{
			"too long", "POST", "/v1/completions", `{"model":"llama","prompt":"` + strings.Repeat("x", 401) + `"}`, 400,
			"This model's maximum context length is 100 tokens. However, your prompt contains at least 101 input tokens, which exceeds this limit even without " +
				"any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=101)",
		},
		{"too large", "POST", chat, strings.Repeat(" ", 10001), 413, "The body is longer than 10000 bytes."},
		{"bad fault", "POST", "/admin/fault", "status=200", 400, `fault "status=200": must be 400 to 599`},
	} {
		t.Run(test.name, func(t *testing.T) {
			res, answer, err := call(t, test.method, server.URL()+test.path, test.body, "")
			require.NoError(t, err)
			require.Equal(t, test.status, res.StatusCode, answer)
			require.True(t, gjson.Valid(answer), answer)
			require.Equal(t, test.message, gjson.Get(answer, "error.message").String())
			require.EqualValues(t, test.status, gjson.Get(answer, "error.code").Int())
			require.NotEmpty(t, gjson.Get(answer, "error.type").String())
		})
	}
	for path, status := range map[string]int{chat: 405, "/v1/nowhere": 404} {
		res, answer, err := call(t, http.MethodGet, server.URL()+path, "", "")
		require.NoError(t, err)
		require.Equal(t, status, res.StatusCode)
		require.Equal(t, `{"detail":"`+http.StatusText(status)+`"}`, answer)
	}
	for _, name := range []string{"llama", "llama-alias", "sql"} {
		res, _ := post(t, server.URL()+chat, `{"model":"`+name+`","messages":[]}`)
		require.Equal(t, http.StatusOK, res.StatusCode, name)
	}
}

// TestTold: every response, whatever its status, contains the replica's name and what arrived.
func TestTold(t *testing.T) {
	server := start(t, sim.Config{Name: "a1"})
	large := `{"messages":[{"role":"user","content":"` + strings.Repeat("long text ", 50000) + `"}],"model":"large"}`
	for _, test := range []struct {
		name, method, path, body string
		chunked                  bool
		status                   int
		model, headers           string
	}{
		{"chat", "POST", "/v1/chat/completions", hello, false, 200, "llama", "accept-encoding,content-length,host,user-agent,x-zebra"},
		{"chunked", "POST", "/v1/chat/completions", large, true, 200, "large", "accept-encoding,host,transfer-encoding,user-agent,x-zebra"},
		{"stream", "POST", "/v1/completions", `{"stream":true,"prompt":"a","model":"ä % b"}`, false, 200, "%C3%A4 %25 b", "accept-encoding,content-length,host,user-agent,x-zebra"},
		{"bad JSON", "POST", "/v1/chat/completions", `{"model":"m"`, false, 400, "", "accept-encoding,content-length,host,user-agent,x-zebra"},
		{"model after the mistake", "POST", "/v1/chat/completions", `{"stream":1,"model":"m"}`, false, 400, "m", "accept-encoding,content-length,host,user-agent,x-zebra"},
		{"models", "GET", "/v1/models", "", false, 200, "", "accept-encoding,host,user-agent,x-zebra"},
		{"metrics", "GET", "/metrics", "", false, 200, "", "accept-encoding,host,user-agent,x-zebra"},
		{"health", "GET", "/health", "", false, 200, "", "accept-encoding,host,user-agent,x-zebra"},
		{"ping", "POST", "/ping", "x", false, 200, "", "accept-encoding,content-length,host,user-agent,x-zebra"},
		{"version", "GET", "/version", "", false, 200, "", "accept-encoding,host,user-agent,x-zebra"},
		{"nowhere", "PUT", "/nowhere", "abc", false, 404, "", "accept-encoding,content-length,host,user-agent,x-zebra"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var body io.Reader = strings.NewReader(test.body)
			if test.chunked {
				body = struct{ io.Reader }{body} // of unknown length
			}
			req, err := http.NewRequestWithContext(t.Context(), test.method, server.URL()+test.path, body)
			require.NoError(t, err)
			req.Header.Set("X-Zebra", "1")
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			sum := sha256.Sum256([]byte(test.body))
			require.Equal(t, test.status, res.StatusCode)
			require.Equal(t, "a1", res.Header.Get("x-modelsim-replica"))
			require.Equal(t, []string{test.model}, res.Header.Values("x-modelsim-model"))
			require.Equal(t, fmt.Sprint(len(test.body)), res.Header.Get("x-modelsim-body-bytes"))
			require.Equal(t, hex.EncodeToString(sum[:]), res.Header.Get("x-modelsim-body-sha256"))
			require.Equal(t, test.headers, res.Header.Get("x-modelsim-headers"))
		})
	}
}

func TestPrefixCache(t *testing.T) {
	server := start(t, sim.Config{LoRAs: []string{"sql"}})
	system := strings.Repeat("You are a helpful assistant. ", 40) // 1160 bytes
	cached := func(model, salt, question string) int64 {
		body, err := json.Marshal(map[string]any{"model": model, "cache_salt": salt, "messages": []map[string]string{
			{"role": "system", "content": system}, {"role": "user", "content": question},
		}})
		require.NoError(t, err)
		_, answer := post(t, server.URL()+"/v1/chat/completions", string(body))
		return gjson.Get(answer, "usage.prompt_tokens_details.cached_tokens").Int()
	}
	const shared = (1 + len("system") + 1 + 1160) / 64 * 16 // whole blocks of 16 tokens of 4 bytes
	require.Zero(t, cached("llama", "", "What is an inlet?"))
	require.EqualValues(t, shared, cached("llama", "", "And a fjord?"), "the system prompt is shared")
	require.EqualValues(t, shared, cached("llama", "", "And a fjord?"), "so is all but the block that is not full")
	require.EqualValues(t, shared, cached("other-name", "", "And a fjord?"), "a served name is no other model")
	require.Zero(t, cached("sql", "", "And a fjord?"), "an adapter computes other keys and values")
	require.Zero(t, cached("llama", "s", "And a fjord?"), "so does a salt")

	whole := `{"prompt":"` + strings.Repeat("abcd", 32) + `","max_tokens":1}` // 2 blocks and no rest
	for _, want := range []int64{0, 16, 16} {
		_, answer := post(t, server.URL()+"/v1/completions", whole)
		require.Equal(t, want, gjson.Get(answer, "usage.prompt_tokens_details.cached_tokens").Int(), "the last token is always computed")
	}
}

func TestModels(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"llama", "alias"}, LoRAs: []string{"sql"}, MaxModelLen: 4096})
	_, answer, err := call(t, http.MethodGet, server.URL()+"/v1/models", "", "")
	require.NoError(t, err)
	require.Equal(t, "list", gjson.Get(answer, "object").String())
	require.Equal(t, `["llama","alias","sql"]`, gjson.Get(answer, "data.#.id").Raw)
	require.Equal(t, `[null,null,"llama"]`, gjson.Get(answer, "data.#.parent").Raw)
	require.Equal(t, `[4096,4096,null]`, gjson.Get(answer, "data.#.max_model_len").Raw)
}

func TestEmbeddings(t *testing.T) {
	server := start(t, sim.Config{})
	url := server.URL() + "/v1/embeddings"
	_, answer := post(t, url, `{"model":"m","input":["hello","world","hello"],"dimensions":4}`)
	vectors := gjson.Get(answer, "data.#.embedding").Array()
	require.Len(t, vectors, 3)
	require.Len(t, vectors[0].Array(), 4)
	require.Equal(t, vectors[0].Raw, vectors[2].Raw, "the same text, the same vector")
	require.NotEqual(t, vectors[0].Raw, vectors[1].Raw)
	require.EqualValues(t, 4, gjson.Get(answer, "usage.prompt_tokens").Int())
	require.EqualValues(t, 4, gjson.Get(answer, "usage.total_tokens").Int())

	_, answer = post(t, url, `{"model":"m","input":"hello","dimensions":4,"encoding_format":"base64"}`)
	raw, err := base64.StdEncoding.DecodeString(gjson.Get(answer, "data.0.embedding").String())
	require.NoError(t, err)
	require.Len(t, raw, 16)
}

// TestOpenAIClient: the official client understands every response.
func TestOpenAIClient(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"llama"}, LoRAs: []string{"sql"}, StrictModels: true})
	client := openai.NewClient(option.WithBaseURL(server.URL()+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	params := openai.ChatCompletionNewParams{Model: "llama", MaxTokens: openai.Int(4), Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")}}

	chat, err := client.Chat.Completions.New(t.Context(), params)
	require.NoError(t, err)
	require.Equal(t, "The quick brown fox", chat.Choices[0].Message.Content)
	require.EqualValues(t, "length", chat.Choices[0].FinishReason)
	require.EqualValues(t, 4, chat.Usage.CompletionTokens)
	require.EqualValues(t, 3, chat.Usage.PromptTokens)

	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := client.Chat.Completions.NewStreaming(t.Context(), params)
	var all openai.ChatCompletionAccumulator
	for stream.Next() {
		require.True(t, all.AddChunk(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, "The quick brown fox", all.Choices[0].Message.Content)
	require.EqualValues(t, 7, all.Usage.TotalTokens)

	text, err := client.Completions.New(t.Context(), openai.CompletionNewParams{
		Model: "sql", MaxTokens: openai.Int(2),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("select")},
	})
	require.NoError(t, err)
	require.Equal(t, "The quick", text.Choices[0].Text)

	models, err := client.Models.List(t.Context())
	require.NoError(t, err)
	require.Len(t, models.Data, 2)
	require.Equal(t, "sql", models.Data[1].ID)

	vectors, err := client.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: "llama", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("hello")}})
	require.NoError(t, err)
	require.Len(t, vectors.Data[0].Embedding, 8)

	params.Model = "gpt"
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{} // not without a stream
	_, err = client.Chat.Completions.New(t.Context(), params)
	var apiErr *openai.Error
	require.ErrorAs(t, err, &apiErr)
	require.Equal(t, http.StatusNotFound, apiErr.StatusCode)
	require.Equal(t, "The model `gpt` does not exist. Valid aliases: llama.", apiErr.Message)
}

// scrape reads /metrics strictly: "name{label=value,…}" -> value; histograms give _count, _sum and checked buckets.
func scrape(t *testing.T, server *sim.Server) map[string]float64 {
	t.Helper()
	res, text, err := call(t, http.MethodGet, server.URL()+"/metrics", "", "")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, text)
	require.Equal(t, "text/plain; version=0.0.4; charset=utf-8", res.Header.Get("Content-Type"))
	return parseMetrics(t, text)
}

var (
	familyLine = regexp.MustCompile(`^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (gauge|counter|histogram)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"`)
)

// parseMetrics checks a text against the Prometheus text format 0.0.4: HELP and TYPE once and before their samples, all
// samples of a family together, no duplicates, buckets cumulative up to +Inf, which equals the count.
func parseMetrics(t *testing.T, text string) map[string]float64 {
	t.Helper()
	require.True(t, strings.HasSuffix(text, "\n"))
	values := map[string]float64{}
	families := map[string]bool{}
	var family, kind, help string
	var bucket float64
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			help, _, _ = strings.Cut(rest, " ")
			continue
		}
		if m := familyLine.FindStringSubmatch(line); m != nil {
			family, kind, bucket = m[1], m[2], 0
			require.Equal(t, help, family, "TYPE without HELP")
			require.False(t, families[family], "family %s twice", family)
			families[family] = true
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		require.NotNil(t, m, "no sample: %s", line)
		name := m[1]
		value, err := strconv.ParseFloat(m[3], 64)
		require.NoError(t, err, line)
		var labels []string
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, pair[1]+"="+strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(pair[2]))
		}
		require.True(t, slices.IsSorted(labels), line)
		id := name + "{" + strings.Join(labels, ",") + "}"
		require.NotContains(t, values, id)
		values[id] = value
		if kind != "histogram" {
			require.Equal(t, family, name, line)
			continue
		}
		switch name {
		case family + "_bucket":
			require.GreaterOrEqual(t, value, bucket, line)
			bucket = value
		case family + "_count":
			require.Equal(t, bucket, value, line)
		default:
			require.Equal(t, family+"_sum", name, line)
		}
	}
	return values
}

func TestMetrics(t *testing.T) {
	server := start(t, sim.Config{Models: []string{`llama "3"`}, LoRAs: []string{"sql"}, MaxLoRAs: 4, KVBlocks: 100})
	prompt := strings.Repeat("abcd", 40) // 40 tokens, 2 full blocks
	for range 3 {
		post(t, server.URL()+"/v1/completions", `{"model":"x","max_tokens":5,"prompt":"`+prompt+`"}`)
	}
	got := scrape(t, server)
	const labels = `{engine=0,model_name=llama "3"}`
	for name, want := range map[string]float64{
		"vllm:num_requests_running" + labels:                                               0,
		"vllm:num_requests_waiting" + labels:                                               0,
		"vllm:kv_cache_usage_perc" + labels:                                                0,
		"vllm:prompt_tokens_total" + labels:                                                120,
		"vllm:generation_tokens_total" + labels:                                            15,
		"vllm:prefix_cache_queries_total" + labels:                                         120,
		"vllm:prefix_cache_hits_total" + labels:                                            64,
		"vllm:num_preemptions_total" + labels:                                              0,
		"vllm:time_to_first_token_seconds_count" + labels:                                  3,
		"vllm:inter_token_latency_seconds_count" + labels:                                  12,
		"vllm:e2e_request_latency_seconds_count" + labels:                                  3,
		"vllm:request_prompt_tokens_sum" + labels:                                          120,
		"vllm:request_generation_tokens_sum" + labels:                                      15,
		"vllm:request_params_max_tokens_sum" + labels:                                      15,
		"vllm:request_queue_time_seconds_count" + labels:                                   3,
		"vllm:request_prefill_time_seconds_count" + labels:                                 3,
		"vllm:request_decode_time_seconds_count" + labels:                                  3,
		"vllm:request_inference_time_seconds_count" + labels:                               3,
		"vllm:request_time_per_output_token_seconds_count" + labels:                        3,
		`vllm:request_success_total{engine=0,finished_reason=length,model_name=llama "3"}`: 3,
		`vllm:request_success_total{engine=0,finished_reason=abort,model_name=llama "3"}`:  0,
		"vllm:cache_config_info{block_size=16,enable_prefix_caching=True,engine=0,kv_cache_size_tokens=1600,num_gpu_blocks=100}": 1,
	} {
		value, found := got[name]
		require.True(t, found, "%s is missing", name)
		require.Equal(t, want, value, name)
	}
	require.Contains(t, got, "vllm:lora_requests_info{max_lora=4,running_lora_adapters=,waiting_lora_adapters=}")
}

// TestWaiting: a full replica lets requests wait, shows them, and serves them when there is a free slot.
func TestWaiting(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"m"}, LoRAs: []string{"sql", "chat"}, MaxNumSeqs: 1, KVBlocks: 10})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	hang := func(ctx context.Context, model string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL()+"/v1/completions", strings.NewReader(`{"prompt":"x","model":"`+model+`"}`))
		if err != nil {
			panic(err)
		}
		req.Header.Set(sim.FaultHeader, "hang")
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
		}
	}
	var hanging sync.WaitGroup
	hanging.Go(func() { hang(ctx, "sql") })
	const labels = "{engine=0,model_name=m}"
	eventually(t, func() bool { return scrape(t, server)["vllm:num_requests_running"+labels] == 1 })
	answered := make(chan string, 1)
	hanging.Go(func() {
		res, err := http.Post(server.URL()+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"x","model":"chat","max_tokens":1}`))
		if err != nil {
			answered <- err.Error()
			return
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		answered <- gjson.GetBytes(answer, "choices.0.text").String()
	})
	eventually(t, func() bool { return scrape(t, server)["vllm:num_requests_waiting"+labels] == 1 })
	got := scrape(t, server)
	require.Equal(t, 1.0, got["vllm:num_requests_running"+labels])
	require.InDelta(t, 0.1, got["vllm:kv_cache_usage_perc"+labels], 1e-9, "its prompt is 1 of 10 blocks")
	require.Contains(t, got, "vllm:lora_requests_info{max_lora=1,running_lora_adapters=sql,waiting_lora_adapters=chat}")
	require.Empty(t, answered)

	leave() // the client that hangs goes away
	require.Equal(t, "The", <-answered)
	hanging.Wait()
	eventually(t, func() bool {
		got = scrape(t, server)
		return got["vllm:num_requests_running"+labels] == 0 && got["vllm:num_requests_waiting"+labels] == 0
	})
	require.Zero(t, got["vllm:kv_cache_usage_perc"+labels])
	require.Equal(t, 1.0, got[`vllm:request_success_total{engine=0,finished_reason=abort,model_name=m}`])
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for !condition() {
		require.NoError(t, t.Context().Err())
	}
}

// TestShutdown: a stream in flight is finished, new connections are refused; Close cuts it.
func TestShutdown(t *testing.T) {
	server := sim.New(sim.Config{Speed: 1, Timing: engine.Timing{PrefillRate: 1e9, TokenTime: 10e6}})
	require.NoError(t, server.Start("127.0.0.1:0"))
	res, err := http.Post(server.URL()+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"x","stream":true,"max_tokens":20}`))
	require.NoError(t, err)
	defer res.Body.Close()
	first, err := bufio.NewReader(res.Body).ReadBytes('\n')
	require.NoError(t, err)
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(context.Background()) }()
	rest, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(rest), "[DONE]", string(first))
	require.NoError(t, <-stopped)
	_, err = http.Get(server.URL() + "/health")
	require.Error(t, err)

	server = sim.New(sim.Config{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	hung := make(chan error, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodPost, server.URL()+"/v1/completions", strings.NewReader(`{"prompt":"x"}`))
		req.Header.Set(sim.FaultHeader, "hang")
		_, err := http.DefaultClient.Do(req)
		hung <- err
	}()
	const running = "vllm:num_requests_running{engine=0,model_name=" + sim.DefaultModel + "}"
	eventually(t, func() bool { return scrape(t, server)[running] == 1 })
	require.NoError(t, server.Close())
	require.Error(t, <-hung)
}

// TestManyAtOnce mixes everything; at the end nothing is held. Run it with -race.
func TestManyAtOnce(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"m"}, LoRAs: []string{"sql"}, MaxNumSeqs: 4, KVBlocks: 40})
	var workers sync.WaitGroup
	failed := make(chan string, 1000)
	for w := range 8 {
		workers.Go(func() {
			for i := range 40 {
				body := fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":%d,"prompt":%q}`, []string{"m", "sql"}[i%2], i%3 == 0, 1+i%7, strings.Repeat("prompt ", 1+(i*w)%40))
				res, err := http.Post(server.URL()+"/v1/completions", "application/json", strings.NewReader(body))
				if err != nil {
					failed <- err.Error()
					continue
				}
				answer, err := io.ReadAll(res.Body)
				res.Body.Close()
				sum := sha256.Sum256([]byte(body))
				if err != nil || res.StatusCode != 200 || res.Header.Get("x-modelsim-body-sha256") != hex.EncodeToString(sum[:]) ||
					res.Header.Get("x-modelsim-model") != []string{"m", "sql"}[i%2] || !bytes.Contains(answer, []byte(`"model":"`+[]string{"m", "sql"}[i%2])) {
					failed <- fmt.Sprintf("%s: %d %v %s", body, res.StatusCode, err, answer)
				}
			}
		})
	}
	workers.Wait()
	close(failed)
	for failure := range failed {
		t.Error(failure)
	}
	got := scrape(t, server)
	const labels = "{engine=0,model_name=m}"
	require.Zero(t, got["vllm:num_requests_running"+labels])
	require.Zero(t, got["vllm:num_requests_waiting"+labels])
	require.Zero(t, got["vllm:kv_cache_usage_perc"+labels])
	require.Equal(t, 320.0, got[`vllm:request_success_total{engine=0,finished_reason=length,model_name=m}`])
}

// TestDepth: only nesting counts, not the number of brackets.
func TestDepth(t *testing.T) {
	server := start(t, sim.Config{})
	nested := func(depth int) string {
		return `{"prompt":"x","extra":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
	}
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"many arrays":         {`{"prompt":"x","extra":[` + strings.Repeat("[],", 3000) + `1]}`, 200},
		"brackets in strings": {`{"prompt":"\"` + strings.Repeat("[{", 3000) + `"}`, 200},
		"deep":                {nested(1000), 200},
		"too deep":            {nested(1001), 400},
	} {
		res, answer := post(t, server.URL()+"/v1/completions", test.body)
		require.Equal(t, test.status, res.StatusCode, "%s: %s", name, answer)
	}
}

func TestLogPerRequest(t *testing.T) {
	var log bytes.Buffer
	server := sim.New(sim.Config{Name: "a1", Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/v1/chat/completions", strings.NewReader(hello)))
	line := log.String()
	require.Equal(t, []any{"request", "a1", "/v1/chat/completions", 200.0, "llama", float64(len(hello))}, []any{
		gjson.Get(line, "msg").Value(),
		gjson.Get(line, "replica").Value(), gjson.Get(line, "path").Value(), gjson.Get(line, "status").Value(), gjson.Get(line, "model").Value(), gjson.Get(line, "bodyBytes").Value(),
	})
}

// TestNothingIsKept: buffers are reused for the next request; a response's headers must not change with them. net/http
// may write headers only after the handler has returned.
func TestNothingIsKept(t *testing.T) {
	server := sim.New(sim.Config{})
	var answers []*httptest.ResponseRecorder
	for i := range 20 {
		answer := httptest.NewRecorder()
		body := fmt.Sprintf(`{"model":"model-%02d","prompt":"x"}`, i)
		server.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/v1/completions", strings.NewReader(body)))
		answers = append(answers, answer)
	}
	for i, answer := range answers {
		require.Equal(t, fmt.Sprintf("model-%02d", i), answer.Header().Get("x-modelsim-model"))
	}
}

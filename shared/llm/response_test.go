package llm

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/jsonscan"
	"github.com/inlet-proxy/inlet/shared/sse"
)

// reading is all that a ResponseScanner says of an answer.
type reading struct {
	usage  Usage
	model  string
	names  []string // the bytes of all ModelSpans
	events int
	broken string
}

func readAnswer(api API, stream bool, answer []byte, chunks ...[]byte) reading {
	r := new(ResponseScanner)
	r.Reset(api, stream)
	var names []string
	add := func() {
		for _, s := range r.ModelSpans() {
			names = append(names, string(answer[s.Start:s.End]))
		}
	}
	for _, c := range chunks {
		c = bytes.Clone(c)
		r.Feed(c)
		for i := range c {
			c[i] = 'X'
		}
		add()
	}
	r.End()
	add()
	got := reading{usage: r.Usage(), model: r.Model(), names: names, events: r.Events()}
	if err := r.Broken(); err != nil {
		got.broken = err.Error()
	}
	return got
}

// answers are as the servers of each API write them.
var answers = []struct {
	name   string
	api    API
	stream bool
	body   string
	want   reading
}{
	{
		"chat", Chat, false, `{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"llama","choices":[{"index":0,"message":{"role":"assistant",
		"content":"{\"usage\":{\"prompt_tokens\":999}}"},"finish_reason":"stop","usage":{"prompt_tokens":999}}],
		"usage":{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":7},"completion_tokens_details":{"reasoning_tokens":5}},"x":{"usage":{"prompt_tokens":999}}}`,
		reading{usage: Usage{true, 12, 8, 20, 4}, model: "llama", names: []string{`"llama"`}},
	},
	{
		"chat, no details", Chat, false, `{"model":"ll\u0061ma","usage":{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8,"prompt_tokens_details":null}}`,
		reading{usage: Usage{true, 12, 8, 20, 0}, model: "llama", names: []string{`"ll\u0061ma"`}},
	},
	{"chat, no usage", Chat, false, `{"model":"llama","usage":null,"choices":[]}`, reading{model: "llama", names: []string{`"llama"`}}},
	{"chat, no total", Chat, false, `{"usage":{"prompt_tokens":12,"completion_tokens":8}}`, reading{usage: Usage{true, 12, 8, 20, 0}}},
	{
		"chat, odd usage", Chat, false, `{"model":["x"],"usage":{"prompt_tokens":"12","completion_tokens":{"prompt_tokens":5},"total_tokens":-3,"prompt_tokens_details":[7]}}`,
		reading{usage: Usage{Known: true}},
	},
	{"chat, usage of no object", Chat, false, `{"model":null,"usage":[{"prompt_tokens":5}],"model":{"model":"x"}}`, reading{}},
	{"chat, an error", Chat, false, `{"error":{"message":"no","type":"x","param":null,"code":null}}`, reading{}},
	{"chat, wrappers of other APIs", Chat, false, `{"response":{"usage":{"prompt_tokens":1}},"message":{"usage":{"prompt_tokens":1}}}`, reading{}},
	{
		"chat, cut", Chat, false, `{"model":"llama","usage":{"prompt_tokens":12`,
		reading{model: "llama", names: []string{`"llama"`}, broken: "invalid JSON: unexpected end at byte 44"},
	},
	{"chat, no JSON", Chat, false, `upstream connect error`, reading{broken: "invalid JSON: unexpected character at byte 0"}},
	{"chat stream", Chat, true, `data: {"id":"c","object":"chat.completion.chunk","model":"llama","choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}

data: {"id":"c","model":"llama","choices":[{"index":0,"delta":{"content":"Hi data: [DONE]"},"finish_reason":"stop"}]}

: keep alive

data: {"id":"c","model":"llama","choices":[],"usage":{"prompt_tokens":12,"total_tokens":14,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}}

data: [DONE]

`, reading{usage: Usage{true, 12, 2, 14, 3}, model: "llama", names: []string{`"llama"`, `"llama"`, `"llama"`}, events: 3}},
	{
		"chat stream, continuous usage", Chat, true, "data: {\"usage\":{\"prompt_tokens\":5,\"total_tokens\":6,\"completion_tokens\":1}}\r\n\r\n" +
			"data: {\"usage\":{\"prompt_tokens\":5,\"total_tokens\":7,\"completion_tokens\":2}}\r\n\r\ndata: {\"usage\":null}\r\n\r\n",
		reading{usage: Usage{true, 5, 2, 7, 0}, events: 3},
	},
	{
		"chat stream, split data", Chat, true, "data: {\"model\":\ndata: \"llama\",\"usage\":{\"prompt_tokens\":5}}\n\n",
		reading{usage: Usage{true, 5, 0, 5, 0}, model: "llama", events: 1},
	},
	{
		"chat stream, cut", Chat, true, "data: {\"model\":\"a\"}\n\ndata: {\"model\":\"a\",\"usage\":{\"prompt_tokens\":5}}",
		reading{usage: Usage{true, 5, 0, 5, 0}, model: "a", names: []string{`"a"`, `"a"`}, events: 2, broken: "the stream ended within an event"},
	},
	{
		"chat stream, a bad event", Chat, true, "data: {\"model\":\"a\"}\n\ndata: {\"model\"\n\ndata: \"b\"\n\ndata: 7\n\ndata: {\"usage\":{\"prompt_tokens\":5}}\n\ndata: {,}\n\n",
		reading{usage: Usage{true, 5, 0, 5, 0}, model: "a", names: []string{`"a"`}, events: 6, broken: "event 2: invalid JSON: unexpected end at byte 8"},
	},
	{"chat stream, tail of nothing", Chat, true, "data: [DONE]\n\n: bye", reading{}},
	{"chat stream, no empty line after the end", Chat, true, "data: {\"model\":\"a\"}\n\ndata: [DONE]\n", reading{model: "a", names: []string{`"a"`}, events: 1}},
	{
		"completions", Completions, false, `{"id":"cmpl-1","object":"text_completion","model":"m","choices":[{"text":"x"}],"usage":{"prompt_tokens":3,"total_tokens":10,"completion_tokens":7}}`,
		reading{usage: Usage{true, 3, 7, 10, 0}, model: "m", names: []string{`"m"`}},
	},
	{
		"embeddings", Embeddings, false, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2.5e-3]}],"model":"e5","usage":{"prompt_tokens":8,"total_tokens":8}}`,
		reading{usage: Usage{true, 8, 0, 8, 0}, model: "e5", names: []string{`"e5"`}},
	},
	{
		"responses", Responses, false, `{"id":"resp_1","object":"response","model":"m","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}],
		"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":16},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0,"cached_tokens":99},"total_tokens":123}}`,
		reading{usage: Usage{true, 36, 87, 123, 16}, model: "m", names: []string{`"m"`}},
	},
	{"responses stream", Responses, true, `event: response.created
data: {"type":"response.created","response":{"id":"resp_1","model":"m","usage":null},"sequence_number":0}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"Hi","sequence_number":1}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","response":{"model":"no"},"model":"m","usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":16},"output_tokens":87,"total_tokens":123}}}

`, reading{usage: Usage{true, 36, 87, 123, 16}, model: "m", names: []string{`"m"`, `"m"`}, events: 3}},
	{
		"messages", Messages, false, `{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"Hi"}],
		"usage":{"input_tokens":10,"cache_creation_input_tokens":100,"cache_read_input_tokens":1000,"output_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":100}}}`,
		reading{usage: Usage{true, 1110, 5, 1115, 1000}, model: "claude", names: []string{`"claude"`}},
	},
	{"messages stream", Messages, true, `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","model":"claude","usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"usage"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

`, reading{usage: Usage{true, 30, 15, 45, 5}, model: "claude", names: []string{`"claude"`}, events: 5}},
	{"messages stream, all told at the end", Messages, true, "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}\n\n" +
		"data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":25,\"output_tokens\":15}}\n\n", reading{usage: Usage{true, 25, 15, 40, 0}, events: 2}},
	{"empty", Chat, false, ``, reading{broken: "invalid JSON: unexpected end at byte 0"}},
	{"empty stream", Chat, true, ``, reading{}},
}

func TestAnswers(t *testing.T) {
	for _, c := range answers {
		body := []byte(c.body)
		require.Equal(t, c.want, readAnswer(c.api, c.stream, body, body), c.name)
		for i := range body {
			require.Equal(t, c.want, readAnswer(c.api, c.stream, body, body[:i], body[i:]), "%s cut at %d", c.name, i)
		}
		var singles [][]byte
		for i := range body {
			singles = append(singles, body[i:i+1])
		}
		require.Equal(t, c.want, readAnswer(c.api, c.stream, body, singles...), c.name)
	}
}

// One answer must leave no trace in the next, wherever it stopped.
func TestResponseResetForgets(t *testing.T) {
	r := new(ResponseScanner)
	for _, left := range answers {
		for _, c := range answers {
			r.Reset(left.api, left.stream)
			r.Feed([]byte(left.body[:len(left.body)*2/3]))
			r.Reset(c.api, c.stream)
			r.Feed([]byte(c.body))
			r.End()
			require.Equal(t, c.want.usage, r.Usage(), "%s after %s", c.name, left.name)
			require.Equal(t, c.want.model, r.Model(), "%s after %s", c.name, left.name)
			require.Equal(t, c.want.events, r.Events())
			require.Equal(t, c.want.broken != "", r.Broken() != nil)
		}
	}
}

func TestResponseStopsWhereItCannotGoOn(t *testing.T) {
	r := new(ResponseScanner)
	r.Reset(Chat, true)
	r.Feed([]byte("data: {\"usage\":{\"prompt_tokens\":5}}\n\n"))
	r.Feed(append([]byte("data: "), bytes.Repeat([]byte("x"), sse.DefaultMaxEvent)...))
	require.ErrorIs(t, r.Broken(), sse.ErrTooLong)
	r.Feed([]byte("\n\ndata: {\"usage\":{\"prompt_tokens\":9}}\n\n"))
	r.End()
	require.Equal(t, Usage{true, 5, 0, 5, 0}, r.Usage(), "what was read stays")

	r.Reset(Chat, false)
	r.Feed([]byte(`{"model":"a",}`))
	want := &jsonscan.Error{Code: jsonscan.Syntax, Offset: 13}
	require.Equal(t, want, r.Broken())
	r.Feed([]byte(`{"model":"b"}`))
	r.End()
	require.Equal(t, want, r.Broken())
	require.Equal(t, "a", r.Model())

	r.Reset(Chat, false)
	r.Feed([]byte(`{"model":"` + strings.Repeat("m", 2*MaxModelBytes) + `"}`))
	r.End()
	require.NoError(t, r.Broken())
	require.Empty(t, r.Model(), "a name of that length is none")
}

func FuzzResponse(f *testing.F) {
	for _, c := range answers {
		f.Add(uint8(c.api), c.stream, []byte(c.body), uint(len(c.body)/2))
	}
	f.Fuzz(func(t *testing.T, api uint8, stream bool, body []byte, at uint) {
		i := int(at % uint(len(body)+1))
		want := readAnswer(API(api), stream, body, body)
		require.Equal(t, want, readAnswer(API(api), stream, body, body[:i], body[i:]))
		for _, name := range want.names {
			require.True(t, json.Valid([]byte(name)))
			require.Equal(t, byte('"'), name[0])
		}
	})
}

func TestResponseAllocatesNothing(t *testing.T) {
	r := new(ResponseScanner)
	stream, whole := streamAnswer(50), []byte(answers[0].body)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for _, size := range []int{len(stream), 100} {
			r.Reset(Chat, true)
			for i := 0; i < len(stream); i += size {
				r.Feed(stream[i:min(i+size, len(stream))])
			}
			r.End()
			if r.Usage().Total != 62 || r.Events() != 51 || r.Broken() != nil {
				panic("the usage was not read")
			}
		}
		r.Reset(Chat, false)
		r.Feed(whole)
		r.End()
		if r.Usage().Total != 20 || r.Broken() != nil {
			panic("the usage was not read")
		}
	}))
}

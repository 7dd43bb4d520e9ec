package llm

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// restored is the name that every model is given in these tests.
const restored = "public \"7b\""

// reading is all that a ResponseScanner says of an answer.
type reading struct {
	usage  Usage
	names  []string // in the table: the model's names, as they stand in the answer
	out    string   // the answer with its model's name restored
	events int
	broken string
}

func readAnswer(t require.TestingT, api API, stream bool, model string, chunks ...[]byte) reading {
	r := new(ResponseScanner)
	r.Reset(api, stream, model)
	var out strings.Builder
	for _, c := range chunks {
		// A chunk is only valid during Feed.
		c = bytes.Clone(c)
		n, with := r.Feed(c)
		require.LessOrEqual(t, n, len(c))
		require.True(t, n > 0 || len(with) == 0, "nothing is added where nothing is replaced")
		out.Write(with)
		out.Write(c[n:])
		for i := range c {
			c[i] = 'X'
		}
	}
	r.End()
	got := reading{usage: r.Usage(), out: out.String(), events: r.Events()}
	if err := r.Broken(); err != nil {
		got.broken = err.Error()
	}
	return got
}

// of is what a scanner is to say of an answer, given the table's names.
func (want reading) of(body string) reading {
	quoted, err := json.Marshal(restored)
	if err != nil {
		panic(err)
	}
	var out strings.Builder
	for _, name := range want.names {
		before, after, found := strings.Cut(body, name)
		if !found {
			panic("the table names what is not there")
		}
		out.WriteString(before)
		out.Write(quoted)
		body = after
	}
	want.names, want.out = nil, out.String()+body
	return want
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
		reading{usage: Usage{true, 12, 8, 20, 4}, names: []string{`"llama"`}},
	},
	{
		"chat, no details", Chat, false, `{"model":"ll\u0061ma","usage":{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8,"prompt_tokens_details":null}}`,
		reading{usage: Usage{true, 12, 8, 20, 0}, names: []string{`"ll\u0061ma"`}},
	},
	{"chat, no usage", Chat, false, `{"model":"llama","usage":null,"choices":[]}`, reading{names: []string{`"llama"`}}},
	{"chat, no total", Chat, false, `{"usage":{"prompt_tokens":12,"completion_tokens":8}}`, reading{usage: Usage{true, 12, 8, 20, 0}}},
	{
		"chat, odd usage", Chat, false, `{"model":["x"],"usage":{"prompt_tokens":"12","completion_tokens":{"prompt_tokens":5},"total_tokens":-3,"prompt_tokens_details":[7]}}`,
		reading{},
	},
	{"chat, usage of no object", Chat, false, `{"model":null,"usage":[{"prompt_tokens":5}],"model":{"model":"x"}}`, reading{}},
	{"chat, an error", Chat, false, `{"error":{"message":"no","type":"x","param":null,"code":null}}`, reading{}},
	{"chat, wrappers of other APIs", Chat, false, `{"response":{"usage":{"prompt_tokens":1}},"message":{"usage":{"prompt_tokens":1}}}`, reading{}},
	{
		"chat, cut", Chat, false, `{"model":"llama","usage":{"prompt_tokens":12`,
		reading{names: []string{`"llama"`}, broken: "invalid JSON: unexpected end at byte 44"},
	},
	{"chat, no JSON", Chat, false, `upstream connect error`, reading{broken: "invalid JSON: unexpected character at byte 0"}},
	{"chat stream", Chat, true, `data: {"id":"c","object":"chat.completion.chunk","model":"llama","choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}

data: {"id":"c","model":"llama","choices":[{"index":0,"delta":{"content":"Hi data: [DONE]"},"finish_reason":"stop"}]}

: keep alive

data: {"id":"c","model":"llama","choices":[],"usage":{"prompt_tokens":12,"total_tokens":14,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}}

data: [DONE]

`, reading{usage: Usage{true, 12, 2, 14, 3}, names: []string{`"llama"`, `"llama"`, `"llama"`}, events: 3}},
	{
		"chat stream, continuous usage", Chat, true, "data: {\"usage\":{\"prompt_tokens\":5,\"total_tokens\":6,\"completion_tokens\":1}}\r\n\r\n" +
			"data: {\"usage\":{\"prompt_tokens\":5,\"total_tokens\":7,\"completion_tokens\":2}}\r\n\r\ndata: {\"usage\":null}\r\n\r\n",
		reading{usage: Usage{true, 5, 2, 7, 0}, events: 3},
	},
	{
		"chat stream, split data", Chat, true, "data: {\"model\":\ndata: \"llama\",\"usage\":{\"prompt_tokens\":5}}\n\n",
		reading{usage: Usage{false, 5, 0, 5, 0}, names: []string{`"llama"`}, events: 1},
	},
	{
		"chat stream, cut", Chat, true, "data: {\"model\":\"a\"}\n\ndata: {\"model\":\"a\",\"usage\":{\"prompt_tokens\":5}}",
		reading{usage: Usage{false, 5, 0, 5, 0}, names: []string{`"a"`, `"a"`}, events: 2, broken: "the stream ended within an event"},
	},
	{
		"chat stream, a bad event", Chat, true, "data: {\"model\":\"a\"}\n\ndata: {\"model\"\n\ndata: \"b\"\n\ndata: 7\n\ndata: {\"usage\":{\"prompt_tokens\":5}}\n\ndata: {,}\n\n",
		reading{usage: Usage{false, 5, 0, 5, 0}, names: []string{`"a"`}, events: 6, broken: "event 2: invalid JSON: unexpected end at byte 8"},
	},
	{
		"chat stream, almost the end", Chat, true, "data: [DO\n\ndata: [DONE]\ndata:\n\ndata: [1]\n\ndata: {\"model\":\"a\"}\n\n",
		reading{names: []string{`"a"`}, events: 4, broken: "event 1: invalid JSON: unexpected end at byte 3"},
	},
	{"chat stream, tail of nothing", Chat, true, "data: [DONE]\n\n: bye", reading{}},
	{"chat stream, no empty line after the end", Chat, true, "data: {\"model\":\"a\"}\n\ndata: [DONE]\n", reading{names: []string{`"a"`}, events: 1}},
	{
		"completions", Completions, false, `{"id":"cmpl-1","object":"text_completion","model":"m","choices":[{"text":"x"}],"usage":{"prompt_tokens":3,"total_tokens":10,"completion_tokens":7}}`,
		reading{usage: Usage{true, 3, 7, 10, 0}, names: []string{`"m"`}},
	},
	{
		"embeddings", Embeddings, false, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2.5e-3]}],"model":"e5","usage":{"prompt_tokens":8,"total_tokens":8}}`,
		reading{usage: Usage{true, 8, 0, 8, 0}, names: []string{`"e5"`}},
	},
	{
		"responses", Responses, false, `{"id":"resp_1","object":"response","model":"m","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}],
		"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":16},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0,"cached_tokens":99},"total_tokens":123}}`,
		reading{usage: Usage{true, 36, 87, 123, 16}, names: []string{`"m"`}},
	},
	{"responses stream", Responses, true, `event: response.created
data: {"type":"response.created","response":{"id":"resp_1","model":"m","usage":null},"sequence_number":0}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"Hi","sequence_number":1}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","response":{"model":"no"},"model":"m","usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":16},"output_tokens":87,"total_tokens":123}}}

`, reading{usage: Usage{true, 36, 87, 123, 16}, names: []string{`"m"`, `"m"`}, events: 3}},
	{
		"messages", Messages, false, `{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"Hi"}],
		"usage":{"input_tokens":10,"cache_creation_input_tokens":100,"cache_read_input_tokens":1000,"output_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":100}}}`,
		reading{usage: Usage{true, 1110, 5, 1115, 1000}, names: []string{`"claude"`}},
	},
	{"messages stream", Messages, true, `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","message":{"message":{"message":{"model":"no"}},"model":"no"},"model":"claude","usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"usage"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

`, reading{usage: Usage{true, 30, 15, 45, 5}, names: []string{`"claude"`}, events: 5}},
	{"messages stream, all told at the end", Messages, true, "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}\n\n" +
		"data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":25,\"output_tokens\":15}}\n\n", reading{usage: Usage{true, 25, 15, 40, 0}, events: 2}},
	{
		"what no strict parser reads, before what is read", Chat, false, `{"choices":[{"message":{"content":"\ud83d"},"logprobs":[NaN,-Infinity,{"` + strings.Repeat("n", 1100) + `":"\x"}],"t":"` + "a\tb\n\xff\xe4" + `"}],
		"big":` + strings.Repeat("7", 2000) + `,"\udc00` + strings.Repeat("n", 1100) + `":Infinity,"deep":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"x":NaN,
		"model":"llama","usage":{"x":NaN,"prompt_tokens":12,"completion_tokens":8,"y":{"prompt_tokens":999,"\ud83d":[.5]}}}`,
		reading{usage: Usage{true, 12, 8, 20, 0}, names: []string{`"llama"`}},
	},
	{"the same in a stream", Messages, true, `data: {"type":"message_start","message":{"content":["\ud83d",NaN],"model":"claude","usage":{"input_tokens":25,"output_tokens":1}}}

data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"\ud83d` + "\xff\x01" + `"},"` + strings.Repeat("n", 1100) + `":{"\udfff":-Infinity}}

data: {"type":"message_delta","delta":{"stop_reason":"\ude00"},"model":"clau\ud83dde` + "\xff\t" + `","usage":{"cost":NaN,"output_tokens":15}}

`, reading{usage: Usage{true, 25, 15, 40, 0}, names: []string{`"claude"`, `"clau\ud83dde` + "\xff\t" + `"`}, events: 3}},
	{
		"a byte order mark", Chat, false, "\xef\xbb\xbf" + `{"model":"llama","usage":{"prompt_tokens":12,"completion_tokens":8}}`,
		reading{usage: Usage{true, 12, 8, 20, 0}, names: []string{`"llama"`}},
	},
	{"empty", Chat, false, ``, reading{broken: "invalid JSON: unexpected end at byte 0"}},
	{"empty stream", Chat, true, ``, reading{}},
}

func TestAnswers(t *testing.T) {
	for _, c := range answers {
		body := []byte(c.body)
		want := c.want.of(c.body)
		require.Equal(t, want, readAnswer(t, c.api, c.stream, restored, body), c.name)
		var singles [][]byte
		for i := range body {
			require.Equal(t, want, readAnswer(t, c.api, c.stream, restored, body[:i], body[i:]), "%s cut at %d", c.name, i)
			singles = append(singles, body[i:i+1])
		}
		require.Equal(t, want, readAnswer(t, c.api, c.stream, restored, singles...), c.name)
		want.out = c.body
		require.Equal(t, want, readAnswer(t, c.api, c.stream, "", body), "%s, nothing to restore", c.name)
	}
}

// How many events came after the usage tells how much of a stream that was cut the usage leaves out.
func TestSinceUsage(t *testing.T) {
	const text, usage = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n"
	const zero, total = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":0}}\n\n", "data: {\"choices\":[],\"usage\":null}\n\n"
	const start = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n"
	const delta, end = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n", "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":3}}\n\n"
	r := new(ResponseScanner)
	for _, c := range []struct {
		api    API
		stream string
		since  int
	}{
		{Chat, "", 0},
		{Chat, text + text, 2},
		{Chat, text + text + usage, 0},
		{Chat, text + text + usage + "data: [DONE]\n\n", 0},
		{Chat, usage + text, 1},
		{Chat, zero + text + zero, 3},
		{Chat, text + usage + total, 1},
		{Messages, start, 0},
		{Messages, start + delta + delta, 2},
		{Messages, start + delta + delta + end, 0},
	} {
		r.Reset(c.api, true, "")
		r.Feed([]byte(c.stream))
		require.Equal(t, c.since, r.SinceUsage(), c.stream)
	}
}

// One answer must leave no trace in the next, wherever it stopped.
func TestResponseResetForgets(t *testing.T) {
	r := new(ResponseScanner)
	for _, left := range answers {
		for _, c := range answers {
			r.Reset(left.api, left.stream, restored)
			r.Feed([]byte(left.body[:len(left.body)*2/3]))
			r.Reset(c.api, c.stream, restored)
			n, with := r.Feed([]byte(c.body))
			require.Equal(t, c.want.of(c.body).out, string(with)+c.body[n:], "%s after %s", c.name, left.name)
			r.End()
			require.Equal(t, c.want.usage, r.Usage(), "%s after %s", c.name, left.name)
			require.Equal(t, c.want.events, r.Events())
			require.Equal(t, c.want.broken != "", r.Broken() != nil)
		}
	}
}

func TestResponseStopsWhereItCannotGoOn(t *testing.T) {
	r := new(ResponseScanner)
	r.Reset(Chat, false, restored)
	r.Feed([]byte(`{"usage":{"prompt_tokens":5},}`))
	want := &jsonscan.Error{Code: jsonscan.Syntax, Offset: 29}
	require.Equal(t, want, r.Broken())
	n, _ := r.Feed([]byte(`{"usage":{"prompt_tokens":9},"model":"b"}`))
	require.Zero(t, n, "what cannot be read is not changed")
	r.End()
	require.Equal(t, want, r.Broken())
	require.Equal(t, Usage{false, 5, 0, 5, 0}, r.Usage(), "what was read stays")
}

// Events have no limit: images come in events of megabytes.
func TestHugeEvents(t *testing.T) {
	r := new(ResponseScanner)
	r.Reset(Images, true, restored)
	r.Feed([]byte(`data: {"b64_json":"`))
	for range 64 {
		n, _ := r.Feed(bytes.Repeat([]byte("A"), 1<<16))
		require.Zero(t, n)
	}
	n, with := r.Feed([]byte("\",\"model\":\"m\",\"usage\":{\"input_tokens\":5}}\n\n"))
	require.Equal(t, `","model":"public \"7b\""`, string(with))
	require.Equal(t, len(`","model":"m"`), n)
	r.End()
	require.NoError(t, r.Broken())
	require.Equal(t, Usage{false, 5, 0, 5, 0}, r.Usage())
}

// Nothing is held back: with each chunk goes what can be known of it.
func TestNamesAreRestoredAtOnce(t *testing.T) {
	r := new(ResponseScanner)
	for _, stream := range []bool{false, true} {
		r.Reset(Chat, stream, "public")
		for _, c := range []struct {
			chunk string
			n     int
			with  string
		}{
			{map[bool]string{true: "data: "}[stream], 0, ""},
			{`{"id":"model","model":`, 0, ""},
			{` "`, 2, ` "public"`},
			{`lla`, 3, ""},
			{`ma\`, 3, ""},
			{`"-8b`, 4, ""},
			{`","x":"model"`, 1, ""},
			{`,"model":"a","model":"b","model":"c`, 35, `,"model":"public","model":"public","model":"public"`},
			{`","model":"public","model":null}`, 1, ""},
			{map[bool]string{true: "\n\n"}[stream], 0, ""},
		} {
			n, with := r.Feed([]byte(c.chunk))
			require.Equal(t, c.n, n, c.chunk)
			require.Equal(t, c.with, string(with), c.chunk)
		}
		r.End()
		require.NoError(t, r.Broken())
	}
}

// A name that is no string to its end may lose what was left out before that showed, and the line break that ends the
// event never: the events that follow are whole.
func TestBrokenNames(t *testing.T) {
	for _, end := range []string{"\n", "\r", "\r\n"} {
		stream := strings.ReplaceAll("data: {\"model\":\"lla\n\ndata: {\"model\":\"b\"}\n\n", "\n", end)
		check := func(chunks ...[]byte) {
			got := readAnswer(t, Chat, true, "public", chunks...)
			_, next, _ := strings.Cut(got.out, end+end)
			require.Equal(t, strings.ReplaceAll("data: {\"model\":\"public\"}\n\n", "\n", end), next, "%q", chunks)
			require.Equal(t, "event 1: invalid JSON: unexpected end at byte 13", got.broken)
		}
		var singles [][]byte
		for i := range stream {
			check([]byte(stream[:i]), []byte(stream[i:]))
			singles = append(singles, []byte(stream[i:i+1]))
		}
		check(singles...)
	}
	const broken = "{\"model\":\"a\nb\",\"n\":1}"
	require.Equal(t, broken, readAnswer(t, Chat, false, "public", []byte(broken)).out)
	require.Equal(t, "{\"model\":\"public\"\nb\",\"n\":1}", readAnswer(t, Chat, false, "public", []byte(broken[:11]), []byte(broken[11:])).out)
}

// document draws a JSON object and its twin in which the model has the public name. Only members on the way to a model's
// name can be anything but copied: everything else is drawn to look like one.
func document(t *rapid.T, api API, depth int) (in, out string) {
	text := rapid.SampledFrom([]string{`""`, `"llama-3-8b"`, `"\"model\":\"llama-3-8b\""`, `"ll\u0061m\u00e4 \ud83d\ude00"`, `"é 😀"`, `"data: [DONE]"`, `"\n\n"`})
	other := rapid.SampledFrom([]string{
		`null`, `true`, `9007199254740993`, `123456789012345678901234567890.10e+5`, `-0`,
		`{"model":"llama-3-8b"}`, `[{"model":"llama-3-8b"}, "model"]`, `{"usage":{"model":"x"},"response":{"model":"x"}}`, `[]`, `{ }`,
	})
	space := rapid.SampledFrom([]string{"", "", " ", "\t ", "  "})
	var b, c strings.Builder
	both := func(s string) { b.WriteString(s); c.WriteString(s) }
	both(space.Draw(t, "space") + "{")
	for i := range rapid.IntRange(0, 5).Draw(t, "members") {
		if i > 0 {
			both("," + space.Draw(t, "space"))
		}
		key := rapid.SampledFrom([]string{"model", "model", `mod\u0065l`, "id", "choices", "usage", "Model", "response", "message", "models"}).Draw(t, "key")
		both(`"` + key + `"` + space.Draw(t, "space") + ":" + space.Draw(t, "space"))
		wraps := depth == 0 && (key == "response" && api == Responses || key == "message" && api == Messages)
		switch {
		case wraps && rapid.Bool().Draw(t, "wrapper"):
			in, out := document(t, api, 1)
			b.WriteString(in)
			c.WriteString(out)
		case rapid.Bool().Draw(t, "string"):
			value := text.Draw(t, "text")
			b.WriteString(value)
			if key == "model" || key == `mod\u0065l` {
				value = `"public"`
			}
			c.WriteString(value)
		case wraps:
			both("7")
		default:
			both(other.Draw(t, "other"))
		}
		both(space.Draw(t, "space"))
	}
	both("}" + space.Draw(t, "space"))
	return b.String(), c.String()
}

// stream draws server-sent events and their twins.
func stream(t *rapid.T, api API) (in, out string) {
	end := rapid.SampledFrom([]string{"\n", "\r\n", "\r"}).Draw(t, "end of line")
	var b, c strings.Builder
	both := func(s string) { b.WriteString(s); c.WriteString(s) }
	for range rapid.IntRange(0, 4).Draw(t, "events") {
		both(rapid.SampledFrom([]string{"", ": {\"model\":\"x\"}" + end, "event: model" + end, end, "id: 1" + end}).Draw(t, "before"))
		before := rapid.SampledFrom([]string{"data: ", "data:", "data:  "}).Draw(t, "field")
		in, out := document(t, api, 0)
		if rapid.Bool().Draw(t, "several lines") {
			// A line may end wherever white space may stand.
			in, out = strings.ReplaceAll(in, "\t", end+before), strings.ReplaceAll(out, "\t", end+before)
		}
		b.WriteString(before + in)
		c.WriteString(before + out)
		both(end + end)
	}
	both(rapid.SampledFrom([]string{"", "data: [DONE]" + end + end, "data:[DONE]", ": bye"}).Draw(t, "after"))
	return b.String(), c.String()
}

// However an answer comes, what goes on is the whole answer rewritten, and what was read of it the same.
func TestAnyAnswerInAnyChunks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		api := rapid.SampledFrom([]API{Chat, Responses, Embeddings, Messages}).Draw(rt, "api")
		events := rapid.Bool().Draw(rt, "stream")
		var in, out string
		if events {
			in, out = stream(rt, api)
		} else {
			in, out = document(rt, api, 0)
		}
		var chunks, done [][]byte
		for rest := []byte(in); len(rest) > 0; {
			n := rapid.IntRange(0, min(len(rest), 20)).Draw(rt, "cut")
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		want := readAnswer(rt, api, events, "", []byte(in))
		require.Empty(rt, want.broken)
		require.Equal(rt, in, want.out)
		require.Equal(rt, want, readAnswer(rt, api, events, "", chunks...), "nothing to restore")
		want.out = out
		require.Equal(rt, want, readAnswer(rt, api, events, "public", []byte(in)))
		require.Equal(rt, want, readAnswer(rt, api, events, "public", chunks...))
		for rest := []byte(out); len(rest) > 0; {
			n := rapid.IntRange(0, min(len(rest), 20)).Draw(rt, "cut")
			done = append(done, rest[:n])
			rest = rest[n:]
		}
		require.Equal(rt, want, readAnswer(rt, api, events, "public", done...), "a name that is the public one already")
	})
}

func FuzzResponse(f *testing.F) {
	for _, c := range answers {
		f.Add(uint8(c.api), c.stream, []byte(c.body), uint(len(c.body)/2))
	}
	f.Fuzz(func(t *testing.T, api uint8, stream bool, body []byte, at uint) {
		i := int(at % uint(len(body)+1))
		want := readAnswer(t, API(api), stream, restored, body)
		got := readAnswer(t, API(api), stream, restored, body[:i], body[i:])
		if want.broken != "" {
			// Only a name that is no string depends on the cut.
			got.out = want.out
		}
		require.Equal(t, want, got)
		if want.broken == "" {
			require.Equal(t, want, readAnswer(t, API(api), stream, restored, []byte(want.out)), "a second time nothing changes")
		}
		want.out = string(body)
		got = readAnswer(t, API(api), stream, "", body[:i], body[i:])
		if want.broken != "" {
			// A model that is not read may be anything, and what follows it is read.
			want.broken, want.usage = got.broken, got.usage
		}
		require.Equal(t, want, got)
	})
}

func TestResponseAllocatesNothing(t *testing.T) {
	r := new(ResponseScanner)
	stream, whole := streamAnswer(50), []byte(answers[0].body)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for _, size := range []int{len(stream), 100} {
			r.Reset(Chat, true, "llama")
			for i := 0; i < len(stream); i += size {
				r.Feed(stream[i:min(i+size, len(stream))])
			}
			r.End()
			if r.Usage().Total != 62 || r.Events() != 51 || r.Broken() != nil {
				panic("the usage was not read")
			}
		}
		r.Reset(Chat, false, "llama")
		r.Feed(whole)
		r.End()
		if r.Usage().Total != 20 || r.Broken() != nil {
			panic("the usage was not read")
		}
	}))
}

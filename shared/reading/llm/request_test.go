package llm

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// facts are a Request in which the prompt and the model's span are readable.
type facts struct {
	Model                     string
	HasModel, ModelIsString   bool
	Raw                       string // the bytes of ModelSpan
	Stream, IncludeUsage      bool
	MaxTokens, Answers        int
	Prompt, Joined            string
	PromptBytes, PromptTokens int
	PromptCut                 bool
	PromptEmbeds, Template    bool
	Repeated                  string
}

// read returns what a scanner makes of a body that arrives in the given chunks.
func read(api API, want Want, lim jsonscan.Limits, body []byte, chunks ...[]byte) (facts, error) {
	r := new(RequestScanner)
	r.Reset(api, want, lim)
	for _, c := range chunks {
		c = bytes.Clone(c)
		err := r.Feed(c)
		for i := range c {
			c[i] = 'X'
		}
		if err != nil {
			return facts{}, err
		}
	}
	if err := r.End(); err != nil {
		return facts{}, err
	}
	q := r.Request()
	f := facts{
		Model: q.Model, HasModel: q.HasModel, ModelIsString: q.ModelIsString, Stream: q.Stream, IncludeUsage: q.IncludeUsage,
		MaxTokens: q.MaxTokens, Answers: q.Answers, Prompt: string(q.Prompt), PromptBytes: q.PromptBytes, PromptTokens: q.PromptTokens,
		PromptCut: q.PromptCut, Repeated: q.Repeated, Joined: string(q.Joined), PromptEmbeds: q.PromptEmbeds, Template: q.Template,
	}
	if q.ModelSpan.Present() {
		f.Raw = string(body[q.ModelSpan.Start:q.ModelSpan.End])
	}
	return f, nil
}

// requests are bodies as the SDKs of each API write them.
var requests = []struct {
	name string
	api  API
	body string
	want facts
}{
	{
		"chat", Chat, `{"model":"llama","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi \"there\"\n"}],
		"stream":true,"stream_options":{"include_usage":true},"max_tokens":128,"temperature":0.7}`,
		facts{
			Model: "llama", HasModel: true, ModelIsString: true, Raw: `"llama"`, Stream: true, IncludeUsage: true, MaxTokens: 128,
			Prompt: "Be brief.\nHi \"there\"\n", PromptBytes: 20,
		},
	},
	{
		"chat, model last, parts", Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"What is this?"},
		{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"text"}},{"type":"text","text":"Answer."}],"name":"content"}],
		"model":"gpt-4o"}`,
		facts{Model: "gpt-4o", HasModel: true, ModelIsString: true, Raw: `"gpt-4o"`, Prompt: "What is this?\nAnswer.\ncontent", Joined: "What is this?Answer.", PromptBytes: 27},
	},
	{
		"chat, tools", Chat, `{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
		"function":{"name":"f","arguments":"{\"content\":\"x\"}"}}]},{"role":"tool","tool_call_id":"c1","content":"42 °C"}],
		"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"model":{"type":"string"},"content":{"type":"string"}}}}}],
		"response_format":{"type":"json_schema","json_schema":{"name":"model","schema":{"model":"x"}}}}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, Prompt: "c1\nf\n{\"content\":\"x\"}\nc1\n42 °C\nf\nmodel\nx", PromptBytes: 26},
	},
	{
		"chat, the larger bound counts", Chat, `{"model":"m","max_completion_tokens":10,"max_tokens":20,"messages":[]}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, MaxTokens: 20},
	},
	{
		"chat, the larger bound counts, other order", Chat, `{"model":"m","max_tokens":1,"max_completion_tokens":10000,"messages":[]}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, MaxTokens: 10000},
	},
	{"chat, answers", Chat, `{"n":3,"best_of":9}`, facts{Answers: 3}}, // a chat has no best_of
	{"completions, answers", Completions, `{"best_of":"4","n":2}`, facts{Answers: 4}},
	{"completions, answers, other order", Completions, `{"n":2,"best_of":1}`, facts{Answers: 2}},
	{"messages, no such member", Messages, `{"n":2}`, facts{}},
	{"chat, max_completion_tokens null", Chat, `{"max_tokens":20,"max_completion_tokens":null}`, facts{MaxTokens: 20}},
	{"chat, other numbers", Chat, `{"max_tokens":1e3}`, facts{MaxTokens: 1000}},
	{"chat, negative", Chat, `{"max_tokens":-1}`, facts{}},
	{"chat, huge", Chat, `{"max_tokens":99999999999999999999999}`, facts{MaxTokens: 1<<31 - 1}},
	{"chat, hugest", Chat, `{"max_tokens":1e999}`, facts{MaxTokens: 1<<31 - 1}},
	{
		"chat, as text", Chat, `{"max_tokens":" 1_0 ","stream":"Yes","stream_options":{"include_usage":"ON"}}`,
		facts{MaxTokens: 10, Stream: true, IncludeUsage: true},
	},
	{"chat, text for one and number for the other", Chat, `{"max_tokens":2,"max_completion_tokens":"+7"}`, facts{MaxTokens: 7}},
	{
		"chat, of another type", Chat, `{"max_tokens":true,"stream":1,"stream_options":{"include_usage":1.0}}`,
		facts{MaxTokens: 1, Stream: true, IncludeUsage: true},
	},
	{"chat, what servers refuse", Chat, `{"max_tokens":"1e3","stream":" true","stream_options":{"include_usage":2}}`, facts{}},
	{"chat, false as text", Chat, `{"max_tokens":"-5","stream":"f","stream_options":{"include_usage":"0"}}`, facts{}},
	{"responses, as text", Responses, `{"max_output_tokens":"50.0","stream":"t"}`, facts{MaxTokens: 50, Stream: true}},
	{"messages, as text", Messages, `{"max_tokens":"0_9","stream":"1"}`, facts{MaxTokens: 9, Stream: true}},
	{"chat, stream options of other shapes", Chat, `{"stream_options":[{"include_usage":true},true]}`, facts{}},
	{"chat, include_usage nested", Chat, `{"stream_options":{"include_usage":{"include_usage":true}}}`, facts{}},
	{"chat, include_usage an array", Chat, `{"stream_options":{"include_usage":[true]}}`, facts{}},
	{
		"chat, look-alikes", Chat, `{"metadata":{"model":"no","stream":true,"messages":[{"content":"no"}]},"stream_options":{"x":{"include_usage":true},"y":[true],"include_usage":false},
		"user":"model","messages":[{"content":"a","model":"no","metadata":{"content":"no"},"role":{"text":"no"}}],"model":"yes","x":[{"model":"no"}],"model ":"no","Model":"no"}`,
		facts{Model: "yes", HasModel: true, ModelIsString: true, Raw: `"yes"`, Prompt: "a\nno\nno\nno\nno\nno\nno", PromptBytes: 7},
	},
	{
		"chat, escaped", Chat, `{"mo\u0064el" : "ll\u0061ma\/8b" ,"messages":[{"c\u006fntent":"\u4f60\u597d"}]}`,
		facts{Model: "llama/8b", HasModel: true, ModelIsString: true, Raw: `"ll\u0061ma\/8b"`, Prompt: "你好", PromptBytes: 6},
	},
	{
		"chat, model twice", Chat, `{"model":"a","stream":true,"model":"b"}`,
		facts{Model: "b", HasModel: true, ModelIsString: true, Raw: `"b"`, Stream: true, Repeated: "model"},
	},
	{
		"chat, model twice by an escape", Chat, `{"mo\u0064el":"a","model":"b"}`,
		facts{Model: "b", HasModel: true, ModelIsString: true, Raw: `"b"`, Repeated: "model"},
	},
	{"chat, model twice, no string", Chat, `{"model":"a","model":{"model":"b"}}`, facts{HasModel: true, Repeated: "model"}},
	{
		"chat, messages twice", Chat, `{"messages":[{"content":"a"}],"messages":[{"content":"b"}]}`,
		facts{Prompt: "a\nb", PromptBytes: 2, Repeated: "messages"},
	},
	{
		"chat, the first that repeats", Chat, `{"stream":true,"model":"a","stream":null,"model":"b","max_tokens":5,"max_tokens":null}`,
		facts{Model: "b", HasModel: true, ModelIsString: true, Raw: `"b"`, Repeated: "stream"},
	},
	{
		"chat, members of others may repeat and are read", Chat, `{"temperature":1,"temperature":2,"input":"a","input":"b","prompt":"c"}`,
		facts{Prompt: "a\nb\nc"},
	},
	{"chat, stream options twice", Chat, `{"stream_options":{"include_usage":true},"stream_options":null}`, facts{Repeated: "stream_options"}},
	{"chat, model null", Chat, `{"model":null}`, facts{HasModel: true}},
	{"chat, model empty", Chat, `{"model":""}`, facts{HasModel: true, ModelIsString: true, Raw: `""`}},
	{"chat, model a number", Chat, `{"model":1}`, facts{HasModel: true}},
	{"chat, model an array", Chat, `{"model":["a","b"]}`, facts{HasModel: true}},
	{"not an object", Chat, `[{"model":"a","messages":[{"content":"x"}]}]`, facts{}},
	{"a string", Chat, `"model"`, facts{}},
	{
		"completions", Completions, `{"model":"m","prompt":"Once upon","suffix":"the end","max_tokens":16,"stream":false}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, MaxTokens: 16, Prompt: "Once upon\nthe end", PromptBytes: 16},
	},
	{"completions, several", Completions, `{"prompt":["a","","bc"]}`, facts{Prompt: "a\nbc", PromptBytes: 3}},
	{"completions, tokens", Completions, `{"prompt":[[1,2,3],[4,-5]]}`, facts{PromptTokens: 5}},
	{
		"responses", Responses, `{"model":"m","instructions":"Be brief.","input":"Hi","max_output_tokens":50,"stream":true,"max_tokens":7}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, Stream: true, MaxTokens: 50, Prompt: "Be brief.\nHi", PromptBytes: 11},
	},
	{
		"responses, items", Responses, `{"input":[{"role":"user","content":"a"},{"type":"message","role":"user","content":[{"type":"input_text","text":"b"},
		{"type":"input_image","image_url":"data:..."},{"type":"input_file","file_data":"UEsDBA=="}]},{"type":"function_call_output","call_id":"c","output":"d"},
		{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"e"}]}],"model":"m","text":{"format":{"type":"text"}}}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, Prompt: "a\nb\nc\nd\nc\ne", PromptBytes: 6},
	},
	{
		"embeddings", Embeddings, `{"input":["one","two"],"model":"e5","encoding_format":"float"}`,
		facts{Model: "e5", HasModel: true, ModelIsString: true, Raw: `"e5"`, Prompt: "one\ntwo", PromptBytes: 6},
	},
	{
		"embeddings, tokens", Embeddings, `{"input":[101,2023,102],"model":"e5"}`,
		facts{Model: "e5", HasModel: true, ModelIsString: true, Raw: `"e5"`, PromptTokens: 3},
	},
	{
		"images", Images, `{"model":"flux","prompt":"a cat","n":1,"size":"1024x1024"}`,
		facts{Model: "flux", HasModel: true, ModelIsString: true, Raw: `"flux"`, Prompt: "a cat", PromptBytes: 5},
	},
	{
		"audio", Audio, `{"model":"tts","input":"Good day","voice":"alloy","instructions":"calmly"}`,
		facts{Model: "tts", HasModel: true, ModelIsString: true, Raw: `"tts"`, Prompt: "Good day\ncalmly", PromptBytes: 14},
	},
	{
		"messages", Messages, `{"model":"claude","max_tokens":1024,"system":"Be kind.","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
		facts{Model: "claude", HasModel: true, ModelIsString: true, Raw: `"claude"`, Stream: true, MaxTokens: 1024, Prompt: "Be kind.\nHi", PromptBytes: 10},
	},
	{
		"messages, blocks", Messages, `{"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[
		{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},
		{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"r"}]},{"type":"tool_result","content":"q"},
		{"type":"document","source":{"type":"content","content":[{"type":"text","text":"d"}]},"title":"no"},{"type":"text","text":"u"}]}],"model":"c"}`,
		facts{Model: "c", HasModel: true, ModelIsString: true, Raw: `"c"`, Prompt: "s\nt\nr\nq\nd\nno\nu", Joined: "rdu", PromptBytes: 8},
	},
	{
		"embeddings, messages", Embeddings, `{"messages":[{"role":"user","content":"a"}],"model":"e5"}`,
		facts{Model: "e5", HasModel: true, ModelIsString: true, Raw: `"e5"`, Prompt: "a", PromptBytes: 1},
	},
	{
		"count tokens", CountTokens, `{"model":"claude","system":"s","messages":[{"role":"user","content":"u"}],"tools":[]}`,
		facts{Model: "claude", HasModel: true, ModelIsString: true, Raw: `"claude"`, Prompt: "s\nu", PromptBytes: 2},
	},
	{
		"rerank", Rerank, `{"model":"bge","query":"q","documents":["a",{"text":"b"},{"content":[{"type":"text","text":"c"}]}],"top_n":2}`,
		facts{Model: "bge", HasModel: true, ModelIsString: true, Raw: `"bge"`, Prompt: "q\na\nb\nc", PromptBytes: 4},
	},
	{
		"score", Score, `{"model":"bge","text_1":"a","text_2":["b","c"],"queries":"d","documents":["e"],"items":["f"],"data_1":"g","data_2":{"content":[{"text":"h"}]}}`,
		facts{Model: "bge", HasModel: true, ModelIsString: true, Raw: `"bge"`, Prompt: "a\nb\nc\nd\ne\nf\ng\nh", PromptBytes: 8},
	},
	{
		"pooling", Pooling, `{"model":"m","input":["a","b"]}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, Prompt: "a\nb", PromptBytes: 2},
	},
	{
		"classify", Classify, `{"model":"m","input":"a"}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, Prompt: "a", PromptBytes: 1},
	},
	{
		"image edits as JSON", ImageEdits, `{"model":"gpt-image","images":[{"image_url":"x"}],"prompt":"a hat","stream":true}`,
		facts{Model: "gpt-image", HasModel: true, ModelIsString: true, Raw: `"gpt-image"`, Stream: true, Prompt: "a hat", PromptBytes: 5},
	},
	{
		"unknown", Unknown, `{"model":"m","messages":[{"content":"x"}],"stream":true,"max_tokens":3}`,
		facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`, Stream: true, MaxTokens: 3},
	},
}

func TestRequests(t *testing.T) {
	for _, c := range requests {
		body := []byte(c.body)
		require.True(t, json.Valid(body), c.name)
		got, err := read(c.api, Want{Prompt: true}, jsonscan.Limits{}, body, body)
		require.NoError(t, err, c.name)
		require.Empty(t, cmp.Diff(c.want, got), c.name)
		for i := range body {
			got, err = read(c.api, Want{Prompt: true}, jsonscan.Limits{}, body, body[:i], body[i:])
			require.NoError(t, err, c.name)
			require.Equal(t, c.want, got, "%s cut at %d", c.name, i)
		}
		want := c.want
		want.Prompt, want.Joined = "", ""
		got, err = read(c.api, Want{}, jsonscan.Limits{}, body, body)
		require.NoError(t, err)
		require.Equal(t, want, got, "%s without the prompt", c.name)
	}
}

// The span is exact: what stands around it is kept, and the result is the same request for another model.
func TestModelSpanSplices(t *testing.T) {
	for _, c := range requests {
		if c.want.Raw == "" || c.want.Repeated != "" {
			continue
		}
		r := new(RequestScanner)
		r.Reset(c.api, Want{}, jsonscan.Limits{})
		require.NoError(t, r.Feed([]byte(c.body)))
		require.NoError(t, r.End())
		span := r.Request().ModelSpan
		spliced := c.body[:span.Start] + `"other\n"` + c.body[span.End:]
		want, got := map[string]any{}, map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(c.body), &want))
		require.NoError(t, json.Unmarshal([]byte(spliced), &got))
		want["model"] = "other\n"
		require.Equal(t, want, got)
	}
}

func TestPromptLimit(t *testing.T) {
	f := func(limit int, prompt string, cut bool) {
		t.Helper()
		body := []byte(`{"messages":[{"content":"ab\n"},{"content":["é\u00e9c",""]},{"content":"d"}]}`)
		want := facts{Prompt: prompt, PromptBytes: 9, PromptCut: cut}
		for i := range body {
			got, err := read(Chat, Want{Prompt: true, PromptLimit: limit}, jsonscan.Limits{}, body, body[:i], body[i:])
			require.NoError(t, err)
			require.Equal(t, want, got, "cut at %d", i)
		}
	}
	f(0, "ab\n\nééc\nd", false)
	f(11, "ab\n\nééc\nd", false)
	f(10, "ab\n\nééc", true)
	f(9, "ab\n\nééc", true)
	f(8, "ab\n\néé", true)
	f(7, "ab\n\né", true)
	f(6, "ab\n\né", true)
	f(5, "ab\n", true)
	f(4, "ab\n", true)
	f(3, "ab\n", true)
	f(2, "ab", true)
	f(1, "a", true)
}

func TestRefusedBodies(t *testing.T) {
	f := func(body string, code jsonscan.Code, offset int64) {
		t.Helper()
		b := []byte(body)
		for i := range b {
			_, err := read(Chat, Want{Prompt: true}, jsonscan.Limits{Depth: 10}, b, b[:i], b[i:])
			require.Equal(t, &jsonscan.Error{Code: code, Offset: offset}, err, "cut at %d", i)
		}
	}
	f(`{"model":"a"`, jsonscan.Incomplete, 12)
	f(`{"model":"a"}{"model":"b"}`, jsonscan.Trailing, 13)
	f(`{"model":'a'}`, jsonscan.Syntax, 9)
	f("{\"model\":\"\xff\"}", jsonscan.UTF8, 10)
	f(`{"metadata":"\ud800"}`, jsonscan.Surrogate, 13)
	f(`{"metadata":`+strings.Repeat("[", 10)+strings.Repeat("]", 10)+`}`, jsonscan.Depth, 21)
	f(`{"model":"`+strings.Repeat("m", MaxModelBytes+1)+`"}`, jsonscan.StringTooLong, 9)
	f(`{"model":"`+strings.Repeat("m", MaxModelBytes+1)+`",}`, jsonscan.StringTooLong, 9)

	long := []byte(`{"model":"` + strings.Repeat("m", MaxModelBytes) + `"}`)
	got, err := read(Chat, Want{}, jsonscan.Limits{}, long, long)
	require.NoError(t, err)
	require.Len(t, got.Model, MaxModelBytes)
}

func TestErrorsStay(t *testing.T) {
	for _, body := range []string{`{"model":"` + strings.Repeat("m", MaxModelBytes+1) + `"}`, `{]`} {
		r := new(RequestScanner)
		r.Reset(Chat, Want{}, jsonscan.Limits{})
		err := r.Feed([]byte(body))
		require.Error(t, err)
		require.Same(t, err, r.Feed([]byte(`{}`)))
		require.Same(t, err, r.End())
		r.Reset(Chat, Want{}, jsonscan.Limits{})
		require.NoError(t, r.Feed([]byte(`{"model":"b"}`)))
		require.NoError(t, r.End())
		require.Equal(t, "b", r.Request().Model)
	}
}

// One request must leave no trace in the next.
func TestResetForgets(t *testing.T) {
	r := new(RequestScanner)
	for _, left := range requests {
		for _, c := range requests {
			r.Reset(left.api, Want{Prompt: true}, jsonscan.Limits{})
			require.NoError(t, r.Feed([]byte(left.body[:len(left.body)/2])))
			r.Reset(c.api, Want{Prompt: true}, jsonscan.Limits{})
			require.NoError(t, r.Feed([]byte(c.body)))
			require.NoError(t, r.End())
			q := r.Request()
			require.Equal(t, c.api, q.API)
			require.Equal(t, c.want.Model, q.Model)
			require.Equal(t, c.want.Prompt, string(q.Prompt))
			require.Equal(t, c.want.PromptTokens, q.PromptTokens)
			require.Equal(t, c.want.MaxTokens, q.MaxTokens)
			require.Equal(t, c.want.Answers, q.Answers)
			require.Equal(t, c.want.Repeated, q.Repeated)
			require.Equal(t, c.want.IncludeUsage, q.IncludeUsage)
		}
	}
}

// One huge prompt must not hold its memory forever.
func TestResetLetsGoOfHugePrompts(t *testing.T) {
	r := new(RequestScanner)
	for _, c := range []struct {
		size int
		keep bool
	}{{keepPrompt / 2, true}, {2 * keepPrompt, false}} {
		r.Reset(Completions, Want{Prompt: true}, jsonscan.Limits{})
		require.NoError(t, r.Feed([]byte(`{"prompt":"`+strings.Repeat("x", c.size)+`"}`)))
		require.NoError(t, r.End())
		require.Len(t, r.Request().Prompt, c.size)
		r.Reset(Completions, Want{Prompt: true}, jsonscan.Limits{})
		require.Equal(t, c.keep, cap(r.Request().Prompt) > 0)
	}
}

// Facts do not depend on the chunks, and agree with what encoding/json reads.
func TestRequestProperty(t *testing.T) {
	text := rapid.SampledFrom([]string{"", "a", "hello, world", "\n", "\"quoted\"", "é", "日本語", "😀", "\\", "model", strings.Repeat("long ", 40)})
	rapid.Check(t, func(rt *rapid.T) {
		type message map[string]any
		var messages []message
		var texts, joined []string
		for range rapid.IntRange(0, 4).Draw(rt, "messages") {
			if s := text.Draw(rt, "text"); rapid.Bool().Draw(rt, "parts") {
				other := text.Draw(rt, "other")
				messages = append(messages, message{"content": []message{{"text": s, "type": "text"}, {"text": other, "type": "text", "x": s}}})
				texts = append(texts, s, other, s)
				if s != "" && other != "" {
					joined = append(joined, s+other)
				}
			} else {
				messages = append(messages, message{"content": s, "role": "user", "type": s})
				texts = append(texts, s)
				if !protocolWord([]byte(s)) {
					texts = append(texts, s)
				}
			}
		}
		want := facts{
			HasModel: true, ModelIsString: true, Model: text.Draw(rt, "model"), MaxTokens: rapid.IntRange(0, 1<<31-1).Draw(rt, "max"),
			Stream: rapid.Bool().Draw(rt, "stream"), Joined: strings.Join(joined, "\n"),
		}
		for _, s := range texts {
			want.PromptBytes += len(s)
		}
		for _, s := range slices.Concat(texts, texts, texts) { // "a", "messages" and "z"
			if s != "" {
				if want.Prompt != "" {
					want.Prompt += "\n"
				}
				want.Prompt += s
			}
		}
		body, err := json.Marshal(map[string]any{
			"model": want.Model, "messages": messages, "stream": want.Stream, "max_tokens": want.MaxTokens,
			"a": messages, "z": messages,
		})
		require.NoError(t, err)
		raw, err := json.Marshal(want.Model)
		require.NoError(t, err)
		want.Raw = string(raw)

		limit := rapid.SampledFrom([]int{0, 1, 10, 60, 1000}).Draw(rt, "limit")
		if limit > 0 && len(want.Prompt) > limit {
			want.PromptCut, want.Joined = true, ""
		}
		var chunks [][]byte
		for rest := body; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 40)).Draw(rt, "cut")
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		whole, err := read(Chat, Want{Prompt: true, PromptLimit: limit}, jsonscan.Limits{}, body, body)
		require.NoError(t, err)
		got, err := read(Chat, Want{Prompt: true, PromptLimit: limit}, jsonscan.Limits{}, body, chunks...)
		require.NoError(t, err)
		require.Equal(t, whole, got)
		require.True(t, strings.HasPrefix(want.Prompt, got.Prompt))
		if limit > 0 {
			require.LessOrEqual(t, len(got.Prompt), limit)
			require.True(t, !want.PromptCut || len(got.Prompt) > limit-5, "cut too early")
		}
		if !want.PromptCut {
			require.Equal(t, want.Prompt, got.Prompt)
		}
		want.Prompt = got.Prompt
		require.Equal(t, want, got)
	})
}

// Whatever stands in a body, chunks make no difference, and what is accepted is valid.
func FuzzRequest(f *testing.F) {
	for _, c := range requests {
		f.Add(uint8(c.api), []byte(c.body), uint(len(c.body)/3), uint(20))
	}
	f.Fuzz(func(t *testing.T, api uint8, body []byte, at, limit uint) {
		want := Want{Prompt: true, PromptLimit: int(limit % 100)}
		whole, err := read(API(api), want, jsonscan.Limits{}, body, body)
		i := int(at % uint(len(body)+1))
		got, splitErr := read(API(api), want, jsonscan.Limits{}, body, body[:i], body[i:])
		require.Equal(t, err, splitErr)
		require.Equal(t, whole, got)
		if err == nil {
			require.True(t, json.Valid(body))
		}
		if got.Raw != "" {
			var s string
			require.NoError(t, json.Unmarshal([]byte(got.Raw), &s))
			require.Equal(t, s, got.Model)
		}
	})
}

func TestRequestAllocatesNothing(t *testing.T) {
	r := new(RequestScanner)
	body := chatBody(4 << 10)
	run := func(want Want, chunk int) func() {
		return func() {
			r.Reset(Chat, want, jsonscan.Limits{})
			for i := 0; i < len(body); i += chunk {
				if err := r.Feed(body[i:min(i+chunk, len(body))]); err != nil {
					panic(err)
				}
			}
			if err := r.End(); err != nil || r.Request().Model != "meta-llama/Llama-3.1-8B-Instruct" {
				panic("the model was not read")
			}
		}
	}
	require.Zero(t, testing.AllocsPerRun(100, run(Want{}, len(body))))
	require.Zero(t, testing.AllocsPerRun(100, run(Want{}, 5)))
	require.Zero(t, testing.AllocsPerRun(100, run(Want{Prompt: true}, len(body))), "the prompt's buffer is used again")
}

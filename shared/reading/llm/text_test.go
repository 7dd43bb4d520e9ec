package llm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// textsOf reads a response in chunks and returns its texts as "kind/choice/item value", with what stands where they say,
// and the response with those texts edited in which edit puts something else.
func textsOf(t require.TestingT, api API, stream bool, edit func(string) string, chunks ...[]byte) (texts []string, out string, err error) {
	r := new(ResponseScanner)
	r.Reset(api, stream, "")
	r.Screen()
	whole := bytes.Join(chunks, nil)
	for _, c := range chunks {
		c = bytes.Clone(c)
		n, with := r.Feed(c)
		require.Zero(t, n)
		require.Empty(t, with)
		for i := range c {
			c[i] = 'X'
		}
	}
	r.End()
	for i := range r.Texts() {
		x := &r.Texts()[i]
		if x.Kind == channelEnd {
			texts = append(texts, fmt.Sprintf("end/%d/%d", x.Choice, x.Item))
			continue
		}
		if !x.IsText() {
			continue
		}
		mark := ""
		if x.Whole {
			mark = "!"
		}
		texts = append(texts, fmt.Sprintf("%s%s/%d/%d %s", mark, x.Kind, x.Choice, x.Item, x.Value))
		require.EqualValues(t, '"', whole[x.Span.Start])
		require.EqualValues(t, '"', whole[x.Span.End-1])
		if with := edit(string(x.Value)); with != string(x.Value) {
			x.Value, x.Edited = []byte(with), true
		}
	}
	return texts, string(r.Splice(nil, whole, 0, r.Texts())), r.Broken()
}

func same(s string) string { return s }

var textCases = []struct {
	name   string
	api    API
	stream bool
	body   string
	want   []string
}{
	{
		"chat", Chat, false, `{"id":"c","model":"m","choices":[{"index":1,"message":{"role":"assistant","content":"Hi\n\u00e9","reasoning_content":"hm","refusal":null,
		"tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"function":{"name":"g","arguments":"{}"}}]},"finish_reason":"stop",
		"logprobs":{"content":[{"token":"Hi","top_logprobs":[{"token":"Ho"}]}]}}],"usage":{"prompt_tokens":1}}`,
		[]string{"text/1/0 Hi\né", "reasoning/1/0 hm", "!other/1/0 f", `arguments/1/0 {"a":1}`, "!other/1/1 g", "arguments/1/1 {}", "end/1/-1"},
	},
	{
		"chat, parts, no index", Chat, false, `{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}]}},{"message":{"content":"c"}}]}`,
		[]string{"text/0/0 a", "text/0/0 b", "text/1/0 c"},
	},
	{"completions", Completions, false, `{"choices":[{"text":"a","index":0,"logprobs":{"tokens":["a"]},"finish_reason":null}]}`, []string{"text/0/0 a"}},
	{
		"messages", Messages, false, `{"type":"message","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"a"},
		{"type":"tool_use","id":"t","name":"f","input":{"id":"x","list":["y",{"type":"z"}],"n":5}}],"stop_reason":"tool_use"}`,
		[]string{"reasoning/0/0 hm", "text/0/0 a", "!other/0/0 f", "!arguments/0/2 x", "!arguments/0/2 y", "!arguments/0/2 z"},
	},
	{
		"responses", Responses, false, `{"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},
		{"type":"message","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[{"token":"a"}]},{"type":"refusal","refusal":"no"}]},
		{"type":"function_call","name":"f","arguments":"{}"}]}`,
		[]string{"!reasoning/0/0 hm", "!text/0/256 a", "!refusal/0/256 no", "!other/0/512 f", "!arguments/0/512 {}"},
	},
	{
		"chat stream", Chat, true, `data: {"choices":[{"delta":{"role":"assistant","content":""},"index":0}]}

data: {"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"reasoning":"b"}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{"}}]},"finish_reason":"stop"}]}

data: [DONE]

`, []string{"text/0/0 a", "reasoning/1/0 b", "arguments/0/1 {", "end/0/-1"},
	},
	{
		"messages stream", Messages, true, `event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"signature_delta","signature":"s"}}

event: content_block_stop
data: {"type":"content_block_stop","index":3}

`, []string{"text/0/2 a", `arguments/0/3 {"a`, "end/0/3"},
	},
	{
		"responses stream, the type comes last", Responses, true, `data: {"delta":"a","output_index":1,"content_index":0,"type":"response.output_text.delta"}

data: {"delta":"b","output_index":1,"type":"response.function_call_arguments.delta"}

data: {"delta":"c","output_index":1,"summary_index":1,"type":"response.reasoning_summary_text.delta"}

data: {"text":"a","output_index":1,"content_index":0,"type":"response.output_text.done"}

data: {"response":{"output":[{"content":[{"text":"a"}]}]},"type":"response.completed"}

`, []string{"text/0/256 a", "arguments/0/256 b", "reasoning/0/257 c", "!text/0/256 a", "end/0/256", "!text/0/0 a"},
	},
	{
		"a responses stream begins without a text", Responses, true, `event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"r","object":"response","status":"in_progress","model":"m","output":[],"error":null,
data: "instructions":null,"tool_choice":"auto","truncation":"disabled","text":{"format":{"type":"text"}},"service_tier":"auto","previous_response_id":"r0"}}

`, nil,
	},
	{"an event that nobody knows", Chat, true, "data: {\"x\":[{\"note\":\"a\"}],\"y\":\"b\"}\n\ndata: \"c\"\n\n", []string{"!other/0/0 a", "!other/0/0 b", "!other/0/0 c"}},
}

func TestTexts(t *testing.T) {
	for _, c := range textCases {
		t.Run(c.name, func(t *testing.T) {
			body := []byte(c.body)
			got, out, err := textsOf(t, c.api, c.stream, same, body)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			require.Equal(t, c.body, out)
			upper, edited, _ := textsOf(t, c.api, c.stream, strings.ToUpper, body)
			require.Equal(t, c.want, upper)
			again, _, err := textsOf(t, c.api, c.stream, same, []byte(edited))
			require.NoError(t, err, edited)
			require.Len(t, again, len(c.want))
			for i := range again {
				kind, value, is := strings.Cut(c.want[i], " ")
				if is {
					require.Equal(t, kind+" "+strings.ToUpper(value), again[i])
				}
			}
			for i := range body {
				cut, _, err := textsOf(t, c.api, c.stream, same, body[:i], body[i:])
				require.NoError(t, err)
				require.Equal(t, c.want, cut, "cut at %d", i)
			}
		})
	}
}

// Token details tell the text too: where it was edited, they go.
func TestTokenDetailsGoWithAnEditedText(t *testing.T) {
	body := `{"choices":[{"index":0,"message":{"content":"key"},"logprobs":{"content":[{"token":"key","bytes":[107]}]}}]}`
	_, out, err := textsOf(t, Chat, false, func(string) string { return "[SECRET]" }, []byte(body))
	require.NoError(t, err)
	require.Equal(t, `{"choices":[{"index":0,"message":{"content":"[SECRET]"},"logprobs":null}]}`, out)
}

// A model names the members of a tool's arguments: those are no token details, and their strings are texts.
func TestMembersOfArgumentsAreNoTokenDetails(t *testing.T) {
	mask := func(s string) string { return strings.ReplaceAll(s, "secret", "[M]") }
	for _, name := range []string{"logprobs", "top_logprobs", "prompt_logprobs", "token_ids", "finish_reason", "model"} {
		for body, want := range map[string]string{
			`{"content":[{"type":"tool_use","name":"f","input":{"NAME":{"a":"my secret"}}}]}`:                             `{"content":[{"type":"tool_use","name":"f","input":{"NAME":{"a":"my [M]"}}}]}`,
			`{"content":[{"type":"tool_use","input":{"NAME":["my secret",{"NAME":"secret"}]}}]}`:                          `{"content":[{"type":"tool_use","input":{"NAME":["my [M]",{"NAME":"[M]"}]}}]}`,
			`{"content":[{"type":"tool_use","input":{"NAME":{"a":1},"b":"secret"}}]}`:                                     `{"content":[{"type":"tool_use","input":{"NAME":{"a":1},"b":"[M]"}}]}`,
			`{"choices":[{"message":{"reasoning_details":[{"NAME":{"content":[{"token":"secret"}]},"text":"secret"}]}}]}`: `{"choices":[{"message":{"reasoning_details":[{"NAME":{"content":[{"token":"[M]"}]},"text":"[M]"}]}}]}`,
			`{"tool":{"parameters":{"NAME":{"a":"secret"}}}}`:                                                             `{"tool":{"parameters":{"NAME":{"a":"[M]"}}}}`,
		} {
			body, want = strings.ReplaceAll(body, "NAME", name), strings.ReplaceAll(want, "NAME", name)
			_, out, err := textsOf(t, Messages, false, mask, []byte(body))
			require.NoError(t, err)
			require.Equal(t, want, out)
		}
	}
}

// Whatever the texts say, a splice does not go back.
func TestSpliceDoesNotGoBack(t *testing.T) {
	r := new(ResponseScanner)
	texts := []Text{{Span: Span{2, 6}, Value: []byte("x"), Edited: true}, {Span: Span{3, 5}, Value: []byte("y"), Edited: true}}
	require.Equal(t, `01"x"67`, string(r.Splice(nil, []byte("01234567"), 0, texts)))
}

func TestTextThatCannotBeReadIsBroken(t *testing.T) {
	for _, body := range []string{"data: mail a@example.com\n\n", "data: {\"a\":\"b\"", "data: {\"a\":" + strings.Repeat("[", 300) + `"x"` + strings.Repeat("]", 300) + "}\n\n"} {
		_, _, err := textsOf(t, Chat, true, same, []byte(body))
		require.Error(t, err, body)
	}
}

func TestTextsInAnyChunks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := rapid.SampledFrom(textCases).Draw(rt, "case")
		var chunks [][]byte
		for rest := []byte(c.body); len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 40)).Draw(rt, "n")
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		got, _, err := textsOf(rt, c.api, c.stream, same, chunks...)
		require.NoError(rt, err)
		require.Equal(rt, c.want, got)
	})
}

// A scanner that is used again allocates nothing, also for responses whose texts are read.
func TestTextsAllocateNothing(t *testing.T) {
	r := new(ResponseScanner)
	body := []byte(textCases[5].body)
	require.Zero(t, testing.AllocsPerRun(50, func() {
		r.Reset(Chat, true, "")
		r.Screen()
		r.Feed(body)
		r.Drop(len(r.Texts()))
		r.End()
	}))
}

func TestTheIDOfAResponse(t *testing.T) {
	for body, want := range map[string]string{
		"data: {\"id\":\"c-1\",\"choices\":[{\"id\":\"no\"}]}\n\ndata: {\"id\":\"c-2\"}\n\n":                        "c-1",
		"data: {\"type\":\"response.created\",\"item\":{\"id\":\"no\"},\"response\":{\"id\":\"resp_\\u0031\"}}\n\n": "resp_1",
		"data: {\"type\":\"x\"}\n\n": "",
	} {
		for i := range body {
			r := new(ResponseScanner)
			r.Reset(Responses, true, "")
			r.Screen()
			r.Feed([]byte(body[:i]))
			r.Feed([]byte(body[i:]))
			require.Equal(t, want, r.ID())
		}
	}
}

// The endings are what the official clients of the APIs expect; docs/writing-a-filter.md says what they raise.
func TestEndings(t *testing.T) {
	refusal := Refusal{Status: 403, Type: "permission_error", Code: "blocked", Message: "Blocked \"now\"."}
	for _, c := range []struct {
		api             API
		filtered, error string
	}{
		{
			Chat, `data: {"id":"i","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"content_filter"},` +
				`{"index":1,"delta":{},"logprobs":null,"finish_reason":"content_filter"}]}` + "\n\ndata: [DONE]\n\n",
			"event: error\ndata: {\"error\":{\"message\":\"Blocked \\\"now\\\".\",\"type\":\"permission_error\",\"param\":null,\"code\":\"blocked\"}}\n\ndata: [DONE]\n\n",
		},
		{
			Completions, `data: {"id":"i","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"content_filter"},` +
				`{"index":1,"text":"","logprobs":null,"finish_reason":"content_filter"}]}` + "\n\ndata: [DONE]\n\n",
			"event: error\ndata: {\"error\":{\"message\":\"Blocked \\\"now\\\".\",\"type\":\"permission_error\",\"param\":null,\"code\":\"blocked\"}}\n\ndata: [DONE]\n\n",
		},
		{
			Messages, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":5}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
			"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"permission_error\",\"message\":\"Blocked \\\"now\\\".\"}}\n\n",
		},
		{
			Responses, `event: response.incomplete` + "\n" + `data: {"type":"response.incomplete","sequence_number":3,"response":{"id":"i","object":"response","created_at":7,"model":"m",` +
				`"status":"incomplete","error":null,"incomplete_details":{"reason":"content_filter"},"output":[],"parallel_tool_calls":false,"tool_choice":"auto","tools":[]}}` + "\n\ndata: [DONE]\n\n",
			`event: response.failed` + "\n" + `data: {"type":"response.failed","sequence_number":3,"response":{"id":"i","object":"response","created_at":7,"model":"m",` +
				`"status":"failed","incomplete_details":null,"error":{"code":"blocked","message":"Blocked \"now\"."},"output":[],"parallel_tool_calls":false,"tool_choice":"auto","tools":[]}}` + "\n\ndata: [DONE]\n\n",
		},
	} {
		e := Ending{API: c.api, ID: "i", Model: "m", Created: 7, Choices: []int{0, 1}, Events: 3, Tokens: 5}
		require.Equal(t, c.filtered, string(e.AppendFiltered(nil, refusal)))
		require.Equal(t, c.error, string(e.AppendError(nil, refusal)))
	}
}

// An API that has no word for a filter ends with the error.
func TestFilteredEndingOfOtherAPIs(t *testing.T) {
	refusal := Refusal{Status: 403, Type: "permission_error", Code: "blocked", Message: "No."}
	for api := range Other + 1 {
		e := Ending{API: api, Choices: []int{0}}
		switch got := string(e.AppendFiltered(nil, refusal)); api {
		case Chat, Completions, Messages, Responses:
			require.NotContains(t, got, "blocked")
		default:
			require.Equal(t, string(e.AppendError(nil, refusal)), got)
			require.Contains(t, got, "blocked")
		}
	}
}

func TestEndingOfAScreenedStream(t *testing.T) {
	const role, finish = `{"index":%d,"delta":{"role":"assistant"}}`, `{"index":%d,"delta":{},"finish_reason":"stop"}`
	choice := func(form string, i int) string {
		return ev(`{"id":"i","model":"m","choices":[` + fmt.Sprintf(form, i) + `]}`)
	}
	for name, c := range map[string]struct {
		gone, withheld, model string
		want                  Ending
	}{
		"nothing known":          {"", "", "", Ending{Choices: []int{0}}},
		"the route's name":       {choice(role, 0), "", "public", Ending{ID: "i", Model: "public", Choices: []int{0}, Events: 1}},
		"only roles":             {choice(role, 0) + choice(role, 2), "", "", Ending{ID: "i", Model: "m", Choices: []int{0, 2}, Events: 2}},
		"one has its end":        {choice(role, 0) + choice(role, 1) + choice(finish, 0), "", "", Ending{ID: "i", Model: "m", Choices: []int{1}, Events: 3}},
		"all have":               {choice(finish, 0), "", "", Ending{ID: "i", Model: "m", Events: 1}},
		"it has not gone on":     {choice(role, 0), choice(finish, 0), "", Ending{ID: "i", Model: "m", Choices: []int{0}, Events: 2}},
		"the model of Responses": {ev(`{"type":"response.created","response":{"id":"r","model":"n","item":{"model":"x"}}}`), "", "", Ending{ID: "r", Model: "n", Choices: []int{0}, Events: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r := new(ResponseScanner)
			r.Reset(Chat, true, "")
			r.Screen()
			r.Feed([]byte(c.gone))
			r.Splice(nil, []byte(c.gone), 0, r.Texts())
			r.Drop(len(r.Texts()))
			r.Feed([]byte(c.withheld))
			c.want.API, c.want.Created = Chat, 7
			require.Equal(t, c.want, r.Ending(c.model, 7))
		})
	}
	require.Equal(t, "data: [DONE]\n\n", string((&Ending{API: Chat}).AppendFiltered(nil, Refusal{})))
}

// What is half a character may have its other half in the next event.
func TestEditsKeepLoneSurrogates(t *testing.T) {
	mask := func(s string) string { return strings.ReplaceAll(s, "secret", "[M]") }
	for text, want := range map[string]string{
		`secret \ud83d`:                    `[M] \ud83d`,
		`\uDE00 secret`:                    `\uDE00 [M]`,
		`\ud83d secret \ud83d\ude00\ude00`: `\ud83d [M] 😀\ude00`,
		`\ufffd\ud83d� secret`:             "�\\ud83d� [M]",
		`\\ud83d secret`:                   `\\ud83d [M]`,
		`\ud83d\ud83d\ude00 secret`:        `\ud83d😀 [M]`,
		`\ud83d\n secret`:                  `\ud83d\n [M]`,
	} {
		_, out, err := textsOf(t, Chat, false, mask, []byte(`{"x":"`+text+`"}`))
		require.NoError(t, err)
		require.Equal(t, `{"x":"`+want+`"}`, out)
	}
}

// FuzzTexts: whatever a response is, its texts do not depend on the chunks, and without edits it is what it was.
func FuzzTexts(f *testing.F) {
	for _, c := range textCases {
		f.Add(c.body, len(c.body)/2, c.stream, uint8(c.api))
	}
	f.Fuzz(func(t *testing.T, body string, at int, stream bool, api uint8) {
		read := func(chunks ...string) (texts []string, out string, broken bool) {
			r := new(ResponseScanner)
			r.Reset(API(api%uint8(Other+1)), stream, "")
			r.Screen()
			for _, c := range chunks {
				r.Feed([]byte(c))
			}
			r.End()
			if r.Broken() != nil {
				return nil, body, true // nobody screens it
			}
			for i := range r.Texts() {
				x := &r.Texts()[i]
				texts = append(texts, fmt.Sprintf("%v %v %v %v", x.Channel, x.Whole, x.Span, string(x.Value)))
			}
			out = string(r.Splice(nil, []byte(body), 0, r.Texts()))
			for i := range r.Texts() {
				r.Texts()[i].Edited = true
			}
			r.Splice(nil, []byte(body), 0, r.Texts())
			return texts, out, false
		}
		texts, out, broken := read(body)
		require.Equal(t, body, out)
		i := 0
		if len(body) > 0 {
			i = int(uint(at) % uint(len(body)))
		}
		cut, _, cutBroken := read(body[:i], body[i:])
		require.Equal(t, broken, cutBroken)
		require.Equal(t, texts, cut)
	})
}

// After StopTexts the scanner reads what it reads of a response that nobody screens, and keeps nothing of it.
func TestStopTexts(t *testing.T) {
	const body = `{"model":"m","choices":[{"message":{"content":"some text"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`
	for i := range body {
		r := new(ResponseScanner)
		r.Reset(Chat, false, "public")
		r.Screen()
		r.Feed([]byte(body[:i]))
		r.StopTexts()
		r.StopTexts()
		n, with := r.Feed([]byte(body[i:]))
		out := string(with) + body[i:][n:]
		r.End()
		require.NoError(t, r.Broken())
		require.Empty(t, r.Texts())
		require.Equal(t, Usage{Known: true, Prompt: 3, Completion: 4, Total: 7}, r.Usage(), "stopped at %d", i)
		if i <= len(`{"model":`) {
			require.Equal(t, strings.Replace(body[i:], `"m"`, `"public"`, 1), out, "stopped at %d", i)
		} else {
			require.Equal(t, body[i:], out, "stopped at %d", i)
		}
	}
}

func TestStopTextsBoundsTheMemory(t *testing.T) {
	r := new(ResponseScanner)
	r.Reset(Chat, false, "")
	r.Screen()
	r.Feed([]byte(`{"choices":[{"message":{"content":"`))
	r.StopTexts()
	x := bytes.Repeat([]byte("x"), 1<<20)
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Feed(x) }))
	require.Zero(t, cap(r.reader.texts.found))
}

// A scanner that waits for the next response keeps little of the last one.
func TestReleaseBoundsTheMemory(t *testing.T) {
	for _, content := range []string{`"` + strings.Repeat("x", 3<<20) + `"`, `["a"` + strings.Repeat(`,"a"`, 10000) + `]`} {
		r := new(ResponseScanner)
		r.Reset(Chat, false, "")
		r.Screen()
		r.Feed([]byte(`{"choices":[{"message":{"content":` + content + `}}]}`))
		r.End()
		r.Release()
		require.Empty(t, r.Texts())
		kept := 0
		for _, x := range r.reader.texts.found[:cap(r.reader.texts.found)] {
			kept += cap(x.Value)
		}
		require.LessOrEqual(t, cap(r.reader.texts.found), textsKept)
		require.LessOrEqual(t, kept, textsKept*valueKept)
	}
}

// A short text may need more memory than it has bytes.
func TestTooManyTextsAreBroken(t *testing.T) {
	for n, broken := range map[int]bool{textsMost: false, textsMost + 1: true} {
		body := []byte(`{"x":[` + strings.Repeat(`"a",`, n) + `1]}`)
		r := new(ResponseScanner)
		r.Reset(Chat, false, "")
		r.Screen()
		r.Feed(body)
		if !broken {
			require.NoError(t, r.Broken())
			continue
		}
		require.Same(t, errManyTexts, r.Broken())
		require.LessOrEqual(t, len(r.reader.texts.found), textsMost)
	}
}

// An event without data says nothing.
func TestEventsWithoutDataHaveNoText(t *testing.T) {
	for _, empty := range []string{"data:\n\n", "event: ping\ndata: \n\n", "data\n\n"} {
		body := "data: {\"x\":\"a\"}\n\n" + empty + "data: {\"x\":\"b\"}\n\n"
		texts, out, err := textsOf(t, Chat, true, same, []byte(body))
		require.NoError(t, err, "%q", empty)
		require.Equal(t, body, out)
		require.Len(t, texts, 2)
	}
}

// pieces joins the texts of a response as the filters see them, each until its end.
func pieces(t *testing.T, api API, stream bool, body string) (all []string) {
	r := new(ResponseScanner)
	r.Reset(api, stream, "")
	r.Screen()
	r.Feed([]byte(body))
	r.End()
	require.NoError(t, r.Broken())
	open := map[Channel]int{}
	for _, x := range r.Texts() {
		if x.Kind == channelEnd {
			for c := range open {
				if x.Ends(c) {
					delete(open, c)
				}
			}
		}
		if !x.IsText() {
			continue
		}
		i, is := open[x.Channel]
		if !is || x.Whole {
			i, all = len(all), append(all, "")
		}
		if all[i] += string(x.Value); !x.Whole {
			open[x.Channel] = i
		}
	}
	return all
}

// Whatever repeats a text token by token goes when the text was edited, and only then.
func TestTokenDetails(t *testing.T) {
	mask := func(s string) string { return strings.ReplaceAll(s, "secret", "[M]") }
	for _, c := range []struct {
		name       string
		stream     bool
		body, want string
	}{
		{
			"all names", false, `{"prompt_token_ids":[1],"choices":[{"index":1,"message":{"content":"secret"},"logprobs":{"content":[]},"token_ids":[1,[2]],"meta_info":{"id":"x","output_token_logprobs":[[-1,5,"sec"]]},"output_ids":[3]}]}`,
			`{"prompt_token_ids":null,"choices":[{"index":1,"message":{"content":"[M]"},"logprobs":null,"token_ids":null,"meta_info":{"id":"x","output_token_logprobs":null},"output_ids":null}]}`,
		},
		{
			"of another choice", false, `{"choices":[{"index":0,"message":{"content":"secret"}},{"index":1,"message":{"content":"a"},"token_ids":[1]}]}`,
			`{"choices":[{"index":0,"message":{"content":"[M]"}},{"index":1,"message":{"content":"a"},"token_ids":[1]}]}`,
		},
		{
			"in an event without text", true, ev(`{"choices":[{"index":0,"delta":{"content":""},"logprobs":{"content":[{"token":"sec"}]}}]}`) + ev(`{"choices":[{"index":0,"delta":{"content":"secret"}}]}`) +
				ev(`{"choices":[{"index":0,"delta":{},"token_ids":[5]}]}`),
			ev(`{"choices":[{"index":0,"delta":{"content":""},"logprobs":null}]}`) + ev(`{"choices":[{"index":0,"delta":{"content":"[M]"}}]}`) + ev(`{"choices":[{"index":0,"delta":{},"token_ids":null}]}`),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, out, err := textsOf(t, Chat, c.stream, mask, []byte(c.body))
			require.NoError(t, err)
			require.Equal(t, c.want, out)
			_, out, err = textsOf(t, Chat, c.stream, same, []byte(c.body))
			require.NoError(t, err)
			require.Equal(t, c.body, out)
		})
	}
}

func ev(data string) string { return "data: " + data + "\n\n" }

// An event that has token details and no text stays behind the text that it tells.
func TestTokenDetailsWaitForTheirText(t *testing.T) {
	details := ev(`{"choices":[{"index":0,"delta":{"content":""},"logprobs":{"content":[{"token":"sec"}]}}]}`)
	other := ev(`{"choices":[{"index":1,"delta":{"content":"x"}}]}`)
	for name, c := range map[string]struct {
		first, then string
		waits, goes bool
	}{
		"text":          {details, ev(`{"choices":[{"index":0,"delta":{"content":"secret"}}]}`), true, true},
		"another's":     {details, other, true, false},
		"the choice":    {details, ev(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`), true, true},
		"the stream":    {details, ev("[DONE]"), true, true},
		"tells nothing": {strings.Replace(details, `{"token":"sec"}`, "", 1), other, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := new(ResponseScanner)
			r.Reset(Chat, true, "")
			r.Screen()
			r.Feed([]byte(c.first))
			require.Equal(t, c.waits, r.Boundary() == 0)
			r.Feed([]byte(c.then))
			for _, x := range r.Texts() {
				require.Equal(t, c.waits || x.Kind == tokenDetails, x.Event == 0)
			}
			require.Equal(t, c.goes, int(r.Boundary()) == len(c.first+c.then))
			stopped := *r
			stopped.StopTexts()
			require.Equal(t, len(c.first+c.then), int(stopped.Boundary()))
			r.End()
			require.Equal(t, len(c.first+c.then), int(r.Boundary()))
		})
	}
}

func TestPieces(t *testing.T) {
	delta := func(d string) string { return `data: {"choices":[{"index":0,"delta":{` + d + "}}]}\n\n" }
	for _, c := range []struct {
		name   string
		api    API
		stream bool
		body   string
		want   []string
	}{
		{
			"two members that say the same", Chat, true, delta(`"reasoning":"sec","reasoning_content":"sec"`) + delta(`"reasoning":"ret","reasoning_content":"ret"`),
			[]string{"secret", "secret"},
		},
		{
			"reasoning and its details", Chat, true, delta(`"reasoning":"sec","reasoning_details":[{"text":"sec","index":0}]`) + delta(`"reasoning":"ret","reasoning_details":[{"text":"ret","index":0}]`),
			[]string{"secret", "secret"},
		},
		{
			"a call in both ways", Chat, true, delta(`"function_call":{"arguments":"sec"},"tool_calls":[{"index":0,"function":{"arguments":"sec"}}]`) +
				delta(`"function_call":{"arguments":"ret"},"tool_calls":[{"index":0,"function":{"arguments":"ret"}}]`),
			[]string{"secret", "secret"},
		},
		{"two texts in one container", Chat, true, delta(`"content":"sec","text":"sec"`) + delta(`"content":"ret","text":"ret"`), []string{"secret", "secret"}},
		{"parts go on", Chat, true, delta(`"content":"s"`) + delta(`"content":[{"type":"text","text":"ec"},{"type":"text","text":"re"}]`) + delta(`"content":"t"`), []string{"secret"}},
		{
			"the first text of a block", Messages, true, "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"sec\"}}\n\n" +
				"data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"ret\"}}\n\n",
			[]string{"secret"},
		},
		{"documents", Rerank, false, `{"results":[{"index":0,"document":{"text":"a"}},{"index":1,"document":{"text":"b"}},{"document":{"text":"c"}}]}`, []string{"a", "b", "c"}},
		{"a member that nobody knows", Chat, true, delta(`"audio":{"transcript":"sec"}`) + "data: {\"choices\":[]}\n\n" + delta(`"audio":{"transcript":"ret"}`), []string{"secret"}},
		{"it ends", Chat, true, delta(`"audio":{"transcript":"sec"}`) + delta(`"role":"assistant"`) + delta(`"audio":{"transcript":"ret"}`), []string{"sec", "ret"}},
		{
			"it ends with an event of its own choice", Chat, true, delta(`"audio":{"transcript":"sec"}`) + "data: {\"choices\":[{\"index\":1,\"delta\":{}}]}\n\n" + delta(`"audio":{"transcript":"ret"}`),
			[]string{"secret"},
		},
		{"strings in a list", Chat, true, delta(`"x":["a","b",{"y":"c"}]`) + delta(`"x":["d","e",{"y":"f"}]`), []string{"ad", "be", "cf"}},
		{"outside a delta they stand alone", Chat, true, "data: {\"provider\":\"X\"}\n\ndata: {\"provider\":\"X\"}\n\n", []string{"X", "X"}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, pieces(t, c.api, c.stream, c.body)) })
	}
}

func TestWhichTextsAreJSON(t *testing.T) {
	for body, want := range map[string]bool{
		`{"choices":[{"message":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}`: true,
		`{"choices":[{"message":{"function_call":{"arguments":"{}"}}}]}`:             true,
		`{"delta":"{","type":"response.function_call_arguments.delta"}`:              true,
		`{"delta":"{","type":"response.mcp_call_arguments.delta"}`:                   true,
		`{"delta":{"type":"input_json_delta","partial_json":"{"}}`:                   true,
		`{"delta":"x","type":"response.custom_tool_call_input.delta"}`:               false,
		`{"choices":[{"message":{"tool_calls":[{"custom":{"input":"x"}}]}}]}`:        false,
		`{"content":[{"type":"tool_use","input":{"a":"x"}}]}`:                        false,
		`{"message":{"tool_calls":[{"function":{"arguments":{"arguments":"x"}}}]}}`:  false,
		`{"choices":[{"message":{"content":"{}"}}]}`:                                 false,
	} {
		r := new(ResponseScanner)
		r.Reset(Responses, false, "")
		r.Screen()
		r.Feed([]byte(body))
		r.End()
		require.Equal(t, want, r.Texts()[0].JSON, body)
	}
}

package chain_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// screener is a scripted filter that screens responses.
type screener struct {
	scripted
	how  *filter.Screening // nil: it does not ask
	unit func(*filter.Exchange, *filter.Unit) filter.Verdict
}

func (s *screener) OnRequest(x *filter.Exchange) filter.Verdict {
	if s.how != nil {
		x.Screen(*s.how)
	}
	return s.scripted.OnRequest(x)
}

func (s *screener) OnResponse(x *filter.Exchange, u *filter.Unit) filter.Verdict {
	s.note("unit")
	return s.unit(x, u)
}

func (s *screener) OnUnscreened(x *filter.Exchange, what filter.Unscreened) {
	if what == filter.Unshown {
		s.note("unshown")
		return
	}
	s.note("unscreened")
	x.Explain("unscreened", s.name)
}

// screened makes a chain of screeners a and b.
func screened(t require.TestingT, options string) (r *rig, a, b *screener) {
	return screenedBy(t, "filters: [a: {}, b: {}]\n"+options)
}

// screenedBy makes it of a document.
func screenedBy(t require.TestingT, document string) (r *rig, a, b *screener) {
	r = &rig{metrics: samples{}}
	pass := func(*filter.Exchange, *filter.Unit) filter.Verdict { return filter.Next }
	a = &screener{scripted: scripted{name: "a", trace: &r.trace, needs: filter.NeedRequest}, unit: pass}
	b = &screener{scripted: scripted{name: "b", trace: &r.trace}, unit: pass}
	c, err := chain.New([]byte(document), []filter.Factory{
		{Name: "a", FailureMode: filter.FailClosed, New: func(*conf.Object, *filter.Deps) filter.Filter { return a }},
		{Name: "b", FailureMode: filter.FailOpen, New: func(*conf.Object, *filter.Deps) filter.Filter { return b }},
	}, &filter.Deps{
		Now: time.Now, Rand: func() uint64 { return 1 }, Metrics: r.metrics,
		Log: func(_ filter.Level, m string) { r.logs = append(r.logs, m) },
	})
	require.NoError(t, err)
	r.chain = c
	return r, a, b
}

// listener is a client that gets a response by way of a Stream, in whatever chunks it comes.
type listener struct {
	s     *chain.Stream
	h     *host
	got   []byte
	begun bool // the headers have come
	act   chain.Action
}

func (r *rig) listen(t require.TestingT, kind string, extra ...string) *listener {
	return r.listenAt(t, "/v1/chat/completions", kind, extra...)
}

func (r *rig) listenAt(t require.TestingT, path, kind string, extra ...string) *listener {
	h := post()
	h.request[":path"] = path
	h.served, h.details = "10.0.0.1:80", "via_upstream"
	h.response["content-type"] = kind
	for i := 0; i < len(extra); i += 2 {
		h.response[extra[i]] = extra[i+1]
	}
	s, act := r.send(h, body)
	require.Equal(t, chain.Continue, act)
	l := &listener{s: s, h: h}
	l.act = s.ResponseHeaders(false)
	l.begun = l.act == chain.Continue
	return l
}

func (l *listener) chunk(b string, end bool) {
	n, with := l.s.ResponseBody([]byte(b), end)
	l.went(string(with) + b[n:])
}

func (l *listener) end() { l.went(string(l.s.ResponseEnd())) }

func (l *listener) went(b string) {
	if l.s.HoldsResponse() {
		return
	}
	l.begun = true
	l.got = append(l.got, b...)
}

// reply gives the reply to the call that a filter waits for.
func (l *listener) reply(r *filter.Reply) {
	before := l.h.resumedResponse
	l.s.Reply(l.h.last, r)
	if l.h.resumedResponse > before {
		l.begun = true
		l.got = append(l.got, l.h.went...)
	}
	l.h.went = nil
}

// chunksOf cuts a response anywhere.
func chunksOf(t *rapid.T, body string) (chunks []string) {
	for body != "" {
		n := rapid.IntRange(1, min(len(body), 60)).Draw(t, "n")
		chunks, body = append(chunks, body[:n]), body[n:]
	}
	return chunks
}

const events = "text/event-stream"

// chat is a stream of text pieces, each of a choice.
type delta struct {
	choice int
	text   string
}

func chatStream(deltas []delta) string {
	var b strings.Builder
	b.WriteString(`data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n: ping\n\n")
	for i, d := range deltas {
		text, _ := json.Marshal(d.text)
		fmt.Fprintf(&b, `data: {"id":"c", "model":"m","choices":[{"index":%d,"delta":{"content":%s},"logprobs":null,"finish_reason":null}],"n":%d.0}`+"\n\n", d.choice, text, i)
	}
	b.WriteString(`data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n")
	b.WriteString(`data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}` + "\n\ndata: [DONE]\n\n")
	return b.String()
}

// said is what a stream says, by choice.
func said(t require.TestingT, stream string) map[int]string {
	texts := map[int]string{}
	for line := range strings.Lines(stream) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var e struct {
			Choices []struct {
				Index int
				Delta struct{ Content string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(data), &e), data)
		for _, c := range e.Choices {
			texts[c.Index] += c.Delta.Content
		}
	}
	return texts
}

var secret = regexp.MustCompile(`<[a-z]{0,6}>`) // at most 8 bytes

func mask(s string) string { return secret.ReplaceAllString(s, "[S\"]") }

// masking replaces secrets in what is shown.
func masking(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
	for i := range u.Pieces {
		for _, at := range secret.FindAllIndex(u.Pieces[i].Text, -1) {
			u.Replace(i, at[0], at[1], "[S\"]")
		}
	}
	return filter.Next
}

func drawDeltas(t *rapid.T) (deltas []delta) {
	for range rapid.IntRange(0, 12).Draw(t, "deltas") {
		deltas = append(deltas, delta{
			rapid.IntRange(0, 1).Draw(t, "choice"),
			strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"<", ">", "<ab>", "x", "é", "\"", "\n", "word ", "<secret>", "<secretive>", "\U0001F600"}), 0, 5).Draw(t, "text"), ""),
		})
	}
	return deltas
}

// What a client gets is what the replica said, masked, however it was cut into events and chunks. At no time has it got
// anything else: no part of a secret goes on before the whole is known.
func TestAStreamIsMaskedInAnyChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		deltas := drawDeltas(t)
		stream := chatStream(deltas)
		want := said(t, stream)
		for i := range want {
			want[i] = mask(want[i])
		}
		r, a, b := screened(t, "")
		a.how = &filter.Screening{Window: rapid.IntRange(0, 40).Draw(t, "window"), Overlap: rapid.IntRange(7, 20).Draw(t, "overlap")}
		a.unit = masking
		asks := rapid.Bool().Draw(t, "a second filter asks")
		if asks {
			b.how = &filter.Screening{Window: 5, Overlap: 3} // less than the other one: the most counts
			b.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict {
				return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
			}
			b.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict {
				require.NotNil(t, x.Unit())
				return filter.Next
			}
		}
		trailers := rapid.Bool().Draw(t, "trailers")
		l := r.listen(t, events)
		require.Equal(t, chain.Hold, l.act)
		check := func() {
			whole, _, _ := cutLast(string(l.got), "\n\n")
			for i, text := range said(t, whole) {
				require.True(t, strings.HasPrefix(want[i], text), "%q is no beginning of %q", text, want[i])
			}
		}
		calls := 0
		answer := func() {
			for len(l.h.calls) > calls {
				calls++
				l.reply(&filter.Reply{Status: 200})
				check()
			}
		}
		chunks := chunksOf(t, stream)
		for i, c := range chunks {
			l.chunk(c, i == len(chunks)-1 && !trailers)
			check()
			if rapid.Bool().Draw(t, "reply now") {
				answer()
			}
		}
		if trailers {
			l.end()
		}
		answer()
		require.Equal(t, want, said(t, string(l.got)))
		if !strings.Contains(fmt.Sprint(want), "[S\"]") {
			require.Equal(t, stream, string(l.got), "with nothing to mask the bytes are the same")
		}
		require.Equal(t, strings.Count(stream, "\n\n"), strings.Count(string(l.got), "\n\n"), "no event is lost")
		require.Contains(t, string(l.got), `"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}`)
		l.s.Done()
		require.Empty(t, r.logs)
		require.EqualValues(t, 7, r.metrics["inlet_output_tokens_total/,,"])
		require.EqualValues(t, 1, r.metrics["inlet_request_total/,,ok"])
	})
}

// cutLast cuts s after the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i+len(sep)], s[i+len(sep):], true
}

func TestAWholeResponseIsEdited(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how, a.unit = &filter.Screening{}, masking
	const said = `{"id":"c","model":"m", "choices":[{"index":0,"message":{"content":"a <b> c\u00e9"},"logprobs":{"content":[{"token":"<b>"}]}},{"index":1,"message":{"content":"caf\u00e9"}}],"usage":{"prompt_tokens":5,"completion_tokens":7}}`
	const want = `{"id":"c","model":"m", "choices":[{"index":0,"message":{"content":"a [S\"] cé"},"logprobs":null},{"index":1,"message":{"content":"caf\u00e9"}}],"usage":{"prompt_tokens":5,"completion_tokens":7}}`
	for n := 1; n < len(said); n++ {
		l := r.listen(t, "application/json", "content-length", fmt.Sprint(len(said)))
		l.chunk(said[:n], false)
		require.False(t, l.begun)
		require.Empty(t, l.h.log, "headers are held as they came")
		l.chunk(said[n:], true)
		require.Equal(t, want, string(l.got))
		require.Equal(t, []string{"response content-length=" + fmt.Sprint(len(want))}, l.h.log)
		l.s.Done()
	}
}

// verdictsOfUnits: each verdict, while nothing has gone on, and in a stream that has begun.
func TestEveryVerdictOnAUnit(t *testing.T) {
	refusal := llm.Refusal{Status: 400, Code: "blocked", Message: "No."}
	wait := filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
	const nested = "event: error\ndata: {\"error\":{\"message\":\"No.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"blocked\"}}\n\ndata: [DONE]\n\n"
	for _, c := range []struct {
		name    string
		verdict filter.Verdict
		mode    string
		first   string // what the client gets if the first unit is judged so: a status, or "all"
		later   string // what the stream ends with if the second one is; "all"
		failed  int
	}{
		{"next", filter.Next, "FailClosed", "all", "all", 0},
		{"deny", filter.Deny(filter.Refusal{Refusal: refusal}), "FailClosed", "400", nested, 0},
		{"filtered", filter.Deny(filter.Refusal{Refusal: refusal, Filtered: true}), "FailClosed", "400", `"delta":{},"logprobs":null,"finish_reason":"content_filter"}]}` + "\n\ndata: [DONE]\n\n", 0},
		{"respond", filter.Respond(&filter.Answer{Status: 203}), "FailClosed", "203", `"code":"internal_error"}}` + "\n\ndata: [DONE]\n\n", 1},
		{"respond, open", filter.Respond(&filter.Answer{Status: 203}), "FailOpen", "203", "all", 1},
		{"fail", filter.Fail("no-data"), "FailClosed", "503", `"code":"unavailable"}}` + "\n\ndata: [DONE]\n\n", 1},
		{"fail, open", filter.Fail("no-data"), "FailOpen", "all", "all", 1},
		{"wait", wait, "FailClosed", "held", "held", 0},
	} {
		for _, in := range []string{"OnResponse", "OnReply"} {
			for unit := 1; unit <= 2; unit++ {
				t.Run(fmt.Sprintf("%s/%s/unit %d", c.name, in, unit), func(t *testing.T) {
					r, a, _ := screened(t, "")
					f := a
					if c.mode == "FailOpen" {
						r, _, f = screened(t, "")
					}
					f.how = &filter.Screening{}
					units := 0
					f.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict {
						if units++; units != unit {
							return filter.Next
						}
						if in == "OnReply" {
							return wait
						}
						return c.verdict
					}
					f.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return c.verdict }
					stream := chatStream([]delta{{0, "one"}, {0, "two"}})
					l := r.listen(t, events)
					l.h.response["content-length"] = "1"
					for event := range strings.SplitAfterSeq(stream, "\n\n") {
						l.chunk(event, false)
						if in == "OnReply" && len(l.h.calls) == 1 && l.h.resumedResponse == 0 && l.h.reply == nil {
							l.reply(&filter.Reply{Status: 200})
						}
					}
					want := c.first
					if unit == 2 {
						want = c.later
					}
					failed := c.failed
					if unit == 1 && strings.HasPrefix(c.name, "respond") {
						failed = 0
					}
					switch want {
					case "all":
						require.True(t, strings.HasSuffix(stream, string(l.got)) && len(l.got) > 300, "%q", l.got)
					case "held":
						require.NotContains(t, string(l.got), "DONE")
						require.True(t, l.s.HoldsResponse())
					case "400", "203", "503":
						require.Equal(t, want, fmt.Sprint(l.h.reply.Status))
						require.Empty(t, l.got)
					default:
						require.True(t, strings.HasSuffix(string(l.got), want), "%q", l.got)
						require.NotContains(t, string(l.got), "two")
						require.Equal(t, 1, l.h.ended)
						require.Contains(t, l.h.log, "response -content-length")
					}
					l.s.Done()
					require.EqualValues(t, failed, r.metrics["inlet_filter_failure_total/"+f.name+","+c.mode+","])
				})
			}
		}
	}
}

func TestUsageIsCountedAfterAStreamWasEnded(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{}
	units := 0
	a.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict {
		if units++; units == 1 {
			return filter.Next
		}
		return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 400, Code: "blocked"}})
	}
	var end filter.End
	var usage llm.Usage
	a.done = func(x *filter.Exchange, e filter.End) { end, usage = e, x.Usage }
	l := r.listen(t, events)
	stream := chatStream([]delta{{0, "one"}, {0, "two"}})
	second := strings.Index(stream, "two")
	l.chunk(stream[:second], false)
	l.chunk(stream[second:], true)
	require.Zero(t, l.h.ended, "its end had come")
	l.s.Done()
	require.True(t, end.Ended)
	require.False(t, end.Complete)
	require.Equal(t, 7, usage.Completion)
	require.EqualValues(t, 1, r.metrics["inlet_request_total/,,ended"])
	require.EqualValues(t, 7, r.metrics["inlet_output_tokens_total/,,"])
}

func TestResponsesThatCannotBeScreened(t *testing.T) {
	long := `{"choices":[{"message":{"content":"` + strings.Repeat("a", 2000) + `"}}]}`
	for _, c := range []struct{ name, kind, coding, body, reason string }{
		{"encoded", "application/json", "gzip", "\x1f\x8b", "response-encoded"},
		{"another media type", "text/plain", "", "hello", "response-media_type"},
		{"not JSON", "application/json", "", "hello", "response-unreadable"},
		{"JSON that is cut", "application/json", "", `{"choices":[`, "response-unreadable"},
		{"too large", "application/json", "", long, "response-too-large"},
		{"an event that is no JSON", events, "", "data: mail a@example.com\n\n", "response-unreadable"},
		{"an event that is cut", events, "", "data: {\"a\":1}", "response-unreadable"},
		{"an event that is too large", events, "", "data: " + long, "response-too-large"},
	} {
		for _, mode := range []string{"FailClosed", "FailOpen"} {
			t.Run(c.name+"/"+mode, func(t *testing.T) {
				r, f, open := screened(t, "limits: {response: 1000B}")
				if mode == "FailOpen" {
					f = open
				}
				f.how = &filter.Screening{}
				h := []string{}
				if c.coding != "" {
					h = []string{"content-encoding", c.coding}
				}
				l := r.listen(t, c.kind, h...)
				if l.act != chain.Replied {
					l.chunk(c.body[:len(c.body)/2], false)
					if l.h.reply == nil {
						l.chunk(c.body[len(c.body)/2:], true)
					}
				}
				require.Equal(t, mode == "FailOpen", slices.Contains(r.trace, f.name+".unscreened"), "%v", r.trace)
				if mode == "FailOpen" {
					require.Equal(t, c.body, string(l.got))
					require.Contains(t, l.h.why, "unscreened="+f.name, "the access log says so")
				} else {
					require.Equal(t, 503, l.h.reply.Status)
					require.Equal(t, c.reason, l.h.reply.Headers[1][1])
					require.Empty(t, l.got)
				}
				l.s.Done()
				require.EqualValues(t, 1, r.metrics["inlet_filter_failure_total/"+f.name+","+mode+","])
			})
		}
	}
}

func TestErrorsAreScreenedWhereAsked(t *testing.T) {
	for _, asked := range []bool{false, true} {
		r, a, _ := screened(t, "")
		a.how, a.unit = &filter.Screening{Errors: asked}, masking
		l := r.listen(t, "application/json", ":status", "400")
		require.Equal(t, asked, l.act == chain.Hold)
		l.chunk(`{"error":{"message":"not <this>"}}`, true)
		require.Equal(t, asked, !strings.Contains(string(l.got), "<this>"), "%s", l.got)
		l.s.Done()
	}
}

// A chain in which no filter asks holds nothing, and does nothing more than before.
func TestNothingIsHeldWhereNobodyAsks(t *testing.T) {
	r, _, _ := screened(t, "countTokens: false")
	l := r.listen(t, events)
	require.Equal(t, chain.Continue, l.act)
	require.False(t, l.s.WantsResponseBody())
	l.s.Done()
	require.NotContains(t, r.trace, "a.unit")
}

// Filters see the text in reverse order, each what those before it have made of it.
func TestScreenersSeeWhatOthersMadeOfIt(t *testing.T) {
	r, a, b := screened(t, "")
	var texts []string
	see := func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		texts = append(texts, string(u.Pieces[0].Text))
		return masking(nil, u)
	}
	a.how, a.unit, b.how, b.unit = &filter.Screening{}, see, &filter.Screening{}, see
	l := r.listen(t, "application/json")
	l.chunk(`{"choices":[{"message":{"content":"a <b>"}}]}`, true)
	require.Equal(t, []string{"a <b>", `a [S"]`}, texts)
	require.Equal(t, `{"choices":[{"message":{"content":"a [S\"]"}}]}`, string(l.got))
	l.s.Done()
}

func TestTheModelsNameIsRestoredInAScreenedResponse(t *testing.T) {
	for _, kind := range []string{"application/json", events} {
		r, a, _ := screened(t, "")
		a.how, a.unit = &filter.Screening{}, masking
		a.request = func(x *filter.Exchange) filter.Verdict { x.RestoreModel("public"); return filter.Next }
		said, want := `{"model":"secret","choices":[{"message":{"content":"<b>"}}]}`, `{"model":"public","choices":[{"message":{"content":"[S\"]"}}]}`
		if kind == events {
			said, want = "data: "+said+"\n\n", "data: "+want+"\n\n"
		}
		for n := range said {
			l := r.listen(t, kind)
			l.chunk(said[:n], false)
			l.chunk(said[n:], true)
			require.Equal(t, want, string(l.got))
			l.s.Done()
		}
	}
}

func TestEditsThatCannotBe(t *testing.T) {
	for name, edits := range map[string]func(*filter.Unit){
		"overlapping": func(u *filter.Unit) { u.Replace(0, 0, 2, "x"); u.Replace(0, 1, 3, "y") },
		"beyond":      func(u *filter.Unit) { u.Replace(0, 0, 99, "x") },
		"no piece":    func(u *filter.Unit) { u.Replace(7, 0, 1, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			r, a, b := screened(t, "")
			edit := func(_ *filter.Exchange, u *filter.Unit) filter.Verdict { edits(u); return filter.Next }
			a.how, a.unit = &filter.Screening{}, edit
			l := r.listen(t, "application/json")
			l.chunk(`{"choices":[{"message":{"content":"text"}}]}`, true)
			require.Equal(t, 500, l.h.reply.Status)
			l.s.Done()
			a.how, b.how, b.unit = nil, &filter.Screening{}, edit
			l = r.listen(t, "application/json")
			l.chunk(`{"choices":[{"message":{"content":"text"}}]}`, true)
			require.Equal(t, `{"choices":[{"message":{"content":"text"}}]}`, string(l.got), "fails open, and unchanged")
			l.s.Done()
		})
	}
}

// An edit that a filter makes before it fails is none.
func TestEditsOfAFilterThatFailsAreUndone(t *testing.T) {
	for _, in := range []string{"OnResponse", "OnReply"} {
		r, _, b := screened(t, "")
		b.how = &filter.Screening{}
		b.unit = func(x *filter.Exchange, u *filter.Unit) filter.Verdict {
			u.Replace(0, 0, 4, "edit")
			if in == "OnReply" {
				return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
			}
			return filter.Fail("no-data")
		}
		b.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Fail("no-data") }
		l := r.listen(t, "application/json")
		l.chunk(`{"choices":[{"message":{"content":"text"}}]}`, true)
		l.reply(&filter.Reply{Status: 200})
		require.Equal(t, `{"choices":[{"message":{"content":"text"}}]}`, string(l.got))
		l.s.Done()
	}
}

// Each event goes on with its own last byte, whatever ends its lines: clients wait for all of it.
func TestEventsAreNotLateWithOtherLineEnds(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", "\r"} {
		r, a, _ := screened(t, "")
		a.how, a.unit = &filter.Screening{}, masking
		l := r.listen(t, events)
		for _, text := range []string{"one", "<two>", "three"} {
			event := `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + end + end
			l.got = nil
			l.chunk(event, false)
			require.Equal(t, strings.ReplaceAll(event, "<two>", `[S\"]`), string(l.got), "%q", end)
		}
		l.s.Done()
	}
}

// Of what one filter wants kept back nothing goes on before it says so.
func TestAFilterMayKeepMore(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{}
	var shown []string
	a.unit = func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		for i := range u.Pieces {
			p := &u.Pieces[i]
			shown = append(shown, fmt.Sprintf("%s/%d", p.Text, p.Seen))
			if at := strings.IndexByte(string(p.Text), '<'); at >= 0 && !strings.Contains(string(p.Text), ">") {
				p.Keep = len(p.Text) - at
			}
		}
		return masking(nil, u)
	}
	l := r.listen(t, events)
	event := func(text string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + "\n\n"
	}
	l.chunk(event("a "), false)
	l.chunk(event("b <se"), false)
	l.chunk(event("cr"), false)
	require.Equal(t, event("a "), string(l.got))
	l.chunk(event("et> c"), false)
	require.Equal(t, event("a ")+event(`b [S\"]`)+event("")+event(" c"), string(l.got))
	require.Equal(t, []string{"a /0", "b <se/0", "b <secr/5", "b <secret> c/7"}, shown)
	l.s.Done()
}

// What has come while a filter waited is shown when the reply is there, if nothing goes on then that would have to wait with it.
func TestWhatCameMeanwhileIsShown(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{Window: 1}
	var units []string
	a.unit = func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		units = append(units, string(u.Pieces[0].Text))
		return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
	}
	a.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict {
		if len(units) == 1 {
			x.Unit().Pieces[0].Keep = 1
		}
		return filter.Next
	}
	l := r.listen(t, events)
	for _, text := range []string{"one", "two", "three"} {
		l.chunk(content(text), false)
	}
	require.Equal(t, []string{"one"}, units)
	l.reply(&filter.Reply{Status: 200})
	require.Equal(t, []string{"one", "onetwothree"}, units, "nothing goes on")
	l.chunk(content("four"), false)
	l.reply(&filter.Reply{Status: 200})
	require.Equal(t, content("one")+content("two")+content("three"), string(l.got))
	require.Len(t, units, 2)
	l.chunk(content("five"), false)
	require.Equal(t, []string{"one", "onetwothree", "fourfive"}, units)
	l.reply(&filter.Reply{Status: 200})
	require.Equal(t, content("one")+content("two")+content("three")+content("four")+content("five"), string(l.got))
	l.s.Done()
}

// What a filter explains of a response is shown, as it stands then.
func TestExplanationsOfAResponse(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{Window: 1}
	a.unit = func(x *filter.Exchange, u *filter.Unit) filter.Verdict {
		x.Amend("saw", string(u.Pieces[0].Text))
		return filter.Next
	}
	l := r.listen(t, events)
	l.chunk(content("one"), false)
	require.Equal(t, "saw=one", l.h.why)
	l.chunk(content("two"), false)
	require.Equal(t, "saw=two", l.h.why)
	l.s.Done()
}

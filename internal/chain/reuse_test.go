package chain_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// talk is one exchange; it ends, whole or not, where it says no more.
type talk struct {
	name    string
	headers []string
	body    []string
	ended   bool // the body's end was seen
	replied bool // the call, if one is made, is answered
	kind    string
	answer  []string
	whole   bool // the answer's end was seen
}

// talks leave a Stream in every state that it can be left in.
func talks(t *testing.T) []talk {
	const jsonType, events = "application/json", "text/event-stream"
	gzip := encode(t, "gzip", body)
	said := []string{`{"model":"secret","usage":{"prompt_tokens":7,"completion_tokens":3}}`}
	form := []string{":path", "/v1/audio/transcriptions", "content-type", boundary}
	passed := []string{":path", "/healthz", "content-length", "9"}
	return []talk{
		{name: "whole", body: []string{body}, ended: true, kind: jsonType, answer: said, whole: true},
		{name: "whole, sized", headers: []string{"content-length", "27"}, body: []string{body}, ended: true, kind: jsonType, answer: said, whole: true},
		{name: "headers only"},
		{name: "body cut before the model", body: []string{`{"messages":[`}},
		{name: "body cut in the model", body: []string{`{"model":"mmmm`}},
		{name: "body cut behind the model", body: []string{`{"model":"m"`, `,"messages":[{"role":"user","content":"\ud83d`}},
		{name: "body cut, sized", headers: []string{"content-length", "99"}, body: []string{`{"model":"m","a":1`}},
		{name: "encoded", headers: []string{"content-encoding", "gzip"}, body: []string{gzip}, ended: true, kind: jsonType, answer: said, whole: true},
		{name: "encoded, cut", headers: []string{"content-encoding", "gzip"}, body: []string{gzip[:9]}},
		{name: "form", headers: form, body: []string{upload("m")}, ended: true, kind: jsonType, answer: said, whole: true},
		{name: "form, cut", headers: form, body: []string{upload("m")[:90]}},
		{name: "a fault", body: []string{`{"model":"m",]`}, ended: true},
		{name: "too large", headers: []string{"content-length", "999999999"}},
		{name: "an unknown coding", headers: []string{"content-encoding", "deflate"}, body: []string{body}},
		{name: "denied", body: []string{`{"model":"deny"}`}, ended: true},
		{name: "calls, left waiting", body: []string{`{"model":"call"}`}, ended: true},
		{name: "calls, left before the body's end", body: []string{`{"model":"call"`}},
		{name: "calls and goes on", body: []string{`{"model":"call"}`}, ended: true, replied: true, kind: jsonType, answer: said, whole: true},
		{name: "answer cut", body: []string{body}, ended: true, kind: jsonType, answer: []string{`{"model":"sec`}},
		{name: "events", body: []string{body}, ended: true, kind: events, answer: []string{"data: " + said[0] + "\n\n", "data: [DONE]\n\n"}, whole: true},
		{name: "events cut", body: []string{body}, ended: true, kind: events, answer: []string{"data: " + said[0] + "\n\n", "data: {\"mod"}},
		{name: "an answer that is not read", body: []string{body}, ended: true, kind: "text/plain", answer: []string{"hello"}, whole: true},
		{name: "passed by", headers: passed, body: []string{"no ", "JSON."}, ended: true, kind: jsonType, answer: said, whole: true},
		{name: "the list of models", headers: []string{":method", "GET", ":path", "/v1/models"}, ended: true, kind: jsonType, answer: said, whole: true},
	}
}

// inspected makes a chain whose filter notes all that it sees of an exchange.
func inspected(t *testing.T, needs filter.Needs) (*chain.Chain, *[]string) {
	var seen []string
	f := &scripted{name: "a", trace: new([]string), needs: needs}
	f.request = func(x *filter.Exchange) filter.Verdict {
		seen = append(seen, fmt.Sprintf("request %s %s %v", x.Request.Model, x.Request.Prompt, x.Request.Form))
		switch x.Request.Model {
		case "deny":
			return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no"}})
		case "call":
			return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
		case "m":
			x.ReplaceInBody(x.Request.ModelSpan, []byte(`"internal"`))
			x.RestoreModel("m")
			x.Explain("a", "renamed")
		}
		return filter.Next
	}
	f.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	f.response = func(x *filter.Exchange) filter.Verdict {
		seen = append(seen, fmt.Sprint("response ", x.Response.Status, x.Response.EventStream))
		x.SetResponseHeader("x-a", "1")
		return filter.Next
	}
	f.done = func(x *filter.Exchange, e filter.End) {
		e.At = time.Time{}
		seen = append(seen, fmt.Sprintf("done %+v usage %+v first byte %v api %v status %d", e, x.Usage, x.Response.FirstByte > 0, x.API, x.Response.Status))
	}
	c, err := chain.New([]byte("filters: [a: {}]\npassThrough: [/healthz]"), []filter.Factory{
		{Name: "a", Strict: true, FailureMode: filter.FailClosed, New: func(*conf.Object, *filter.Deps) filter.Filter { return f }},
	}, &filter.Deps{Now: time.Now, Rand: rand.Uint64, Metrics: samples{}, Log: func(filter.Level, string) {}})
	require.NoError(t, err)
	return c, &seen
}

// play plays a talk on a Stream and returns all that can be seen from outside.
func (k *talk) play(s *chain.Stream, seen *[]string) string {
	*seen = (*seen)[:0]
	h := post(k.headers...)
	h.response["content-type"] = k.kind
	var out []string
	note := func(what string, a any) { out = append(out, fmt.Sprintf("%s %v", what, a)) }
	s.Begin(h)
	note("headers", letters[s.RequestHeaders(len(k.body) == 0 && k.ended)])
	note("wants", s.WantsRequestBody())
	for _, piece := range k.body {
		note("body", letters[s.RequestBody([]byte(piece), false)])
		note("wants", s.WantsRequestBody())
	}
	if k.ended && len(k.body) > 0 {
		note("end", letters[s.RequestEnd()])
	}
	if k.replied {
		s.Reply(h.last, &filter.Reply{Status: 200})
	}
	if k.kind != "" {
		note("answer", letters[s.ResponseHeaders(false)])
		note("wants", s.WantsResponseBody())
		for _, piece := range k.answer {
			n, with := s.ResponseBody([]byte(piece), false)
			note("piece", fmt.Sprintf("%d %s", n, with))
		}
		if k.whole {
			s.ResponseEnd()
		}
	}
	s.Done()
	note("host", h.log)
	note("calls", len(h.calls))
	note("resumed", h.resumed)
	note("why", h.why)
	if h.reply != nil {
		note("reply", fmt.Sprintf("%d %s", h.reply.Status, h.reply.Body))
	}
	return strings.Join(append(out, *seen...), "\n")
}

// A Stream that served one exchange, however it ended, serves the next as a new one would.
func TestAStreamIsUsedAgain(t *testing.T) {
	for _, needs := range []filter.Needs{filter.NeedModel, filter.NeedRequest | filter.NeedPrompt} {
		c, seen := inspected(t, needs)
		all := talks(t)
		for _, before := range all {
			for _, next := range all {
				want := next.play(c.NewStream(), seen)
				s := c.NewStream()
				before.play(s, seen)
				require.Equal(t, want, next.play(s, seen), "%s after %s", next.name, before.name)
			}
		}
	}
}

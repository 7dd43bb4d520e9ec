package chain_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const (
	streaming = `{"model":"m","messages":[],"stream":true}`
	asked     = `body[1:1]="stream_options":{"include_usage":true},`
	usage     = `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`
	finished  = "data: [DONE]\n\n"
	cutUsage  = `data: {"choices":[],"usage":{"prompt_t`
)

// asks has a filter ask for the usage.
func asks(x *filter.Exchange) filter.Verdict { x.AskUsage(); return filter.Next }

// sendStream sends a request, and brings the headers of the response.
func (r *rig) sendStream(t require.TestingT, h *host, body string, response ...string) *listener {
	h.response["content-type"] = events
	for i := 0; i < len(response); i += 2 {
		h.response[response[i]] = response[i+1]
	}
	s, act := r.send(h, body)
	require.Equal(t, chain.Continue, act)
	l := &listener{s: s, h: h}
	l.act = s.ResponseHeaders(false)
	return l
}

func TestAskUsage(t *testing.T) {
	r := newRig(t, "")
	var told llm.Usage
	r.a.request = asks
	r.a.done = func(x *filter.Exchange, _ filter.End) { told = x.Usage }
	r.b.request = func(x *filter.Exchange) filter.Verdict {
		x.ReplaceInBody(x.Request.ModelSpan, []byte(`"other"`))
		return filter.Next
	}
	h := post("content-length", fmt.Sprint(len(streaming)), "accept-encoding", "gzip")
	l := r.sendStream(t, h, streaming, "content-length", "1000")
	require.Equal(t, []string{
		"-accept-encoding", fmt.Sprintf("content-length=%d", len(streaming)+len(asked)-len("body[1:1]=")+4), asked, `body[9:12]="other"`, "response -content-length",
	}, h.log)
	l.chunk(content("a"), false)
	require.Equal(t, content("a"), string(l.got), "at once")
	l.chunk(event(usage)+finished, true)
	require.Equal(t, content("a")+finished, string(l.got))
	l.s.Done()
	require.Equal(t, llm.Usage{Known: true, Prompt: 3, Completion: 2, Total: 5}, told)

	// The next exchange of the Stream has nothing of that.
	r.a.request, r.b.request = nil, nil
	h = post()
	h.response["content-type"] = events
	l.s.Begin(h)
	l.s.RequestHeaders(false)
	l.s.RequestBody([]byte(streaming), true)
	l.s.ResponseHeaders(false)
	require.Empty(t, h.log)
	require.False(t, l.s.WantsResponseBody(), "nobody counts")
	l.s.Done()
}

// What is asked by the client is the client's.
func TestAskUsageOfWhoAsks(t *testing.T) {
	r := newRig(t, "")
	r.a.headers, r.a.needs = asks, filter.NeedRequest|filter.NeedUsage
	l := r.sendStream(t, post(), `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`)
	require.Empty(t, l.h.log)
	for _, c := range event(usage) + finished {
		l.chunk(string(c), false)
	}
	l.chunk("", true)
	require.Equal(t, event(usage)+finished, string(l.got))
	l.s.Done()
}

func TestNotAsked(t *testing.T) {
	for name, c := range map[string]struct {
		options string
		set     func(r *rig, h *host)
		body    string
	}{
		"no stream":  {body: body},
		"no options": {body: `{"stream":true,"stream_options":7}`},
		"Messages":   {body: streaming, set: func(_ *rig, h *host) { h.request[":path"] = "/v1/messages" }},
		"Responses":  {body: streaming, set: func(_ *rig, h *host) { h.request[":path"] = "/v1/responses" }},
		"by a filter that fails": {body: streaming, set: func(r *rig, _ *host) {
			r.a.headers = nil
			r.b.request = func(x *filter.Exchange) filter.Verdict { x.AskUsage(); panic("x") }
		}},
		"where the body is not waited for": {body: streaming, options: "filters: [b: {}]", set: func(r *rig, _ *host) { r.b.request = asks }},
	} {
		t.Run(name, func(t *testing.T) {
			r, h := newRig(t, c.options), post()
			r.a.headers = asks
			if c.set != nil {
				c.set(r, h)
			}
			l := r.sendStream(t, h, c.body)
			require.Empty(t, h.log)
			l.chunk(event(usage), true)
			require.Equal(t, event(usage), string(l.got))
			l.s.Done()
		})
	}
}

// A body of which some is still to come may have stream_options there.
func TestNotAskedBeforeTheBodyIsThere(t *testing.T) {
	r := needsModel(t, "")
	r.a.request = asks
	h := post("content-length", fmt.Sprint(len(streaming)))
	s := r.chain.NewStream()
	s.Begin(h)
	require.Equal(t, chain.Hold, s.RequestHeaders(false))
	const begin, rest = `{"model":"m","stream":true,`, `"stream_options":{"include_usage":true}}`
	require.Equal(t, chain.Continue, s.RequestBody([]byte(begin), false))
	require.Equal(t, chain.Continue, s.RequestBody([]byte(rest), true))
	require.Empty(t, h.log)
	s.Done()

	_, act := r.send(h, streaming)
	require.Equal(t, chain.Continue, act)
	require.Contains(t, h.log, asked, "unless all of it was there at once")
}

func TestAskUsageInAnEncodedBody(t *testing.T) {
	r := newRig(t, "")
	r.a.request = asks
	h := post("content-encoding", "gzip")
	r.send(h, encode(t, "gzip", streaming))
	require.Len(t, h.log, 2)
	require.Contains(t, h.log[1], `]={"stream_options":{"include_usage":true},"model":"m",`)
}

// What is no stream of events, or cannot be read, goes on as it is.
func TestAnsweredOtherwise(t *testing.T) {
	for name, c := range map[string]struct {
		headers []string
		body    string
	}{
		"JSON":       {[]string{"content-type", "application/json", "content-length", "9"}, usage},
		"an error":   {[]string{":status", "400", "content-length", "9"}, event(usage)},
		"compressed": {[]string{"content-encoding", "gzip", "content-length", "9"}, event(usage)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "")
			r.a.request = asks
			l := r.sendStream(t, post(), streaming, c.headers...)
			require.Equal(t, []string{asked}, l.h.log)
			l.chunk(c.body, true)
			require.Equal(t, c.body, string(l.got))
			l.s.Done()
		})
	}
}

// The end brings what was held, however it comes.
func TestTheEndOfAStreamThatIsConcealed(t *testing.T) {
	for name, end := range map[string]func(l *listener){
		"with the last bytes": func(l *listener) { l.chunk(cutUsage, true) },
		"later":               func(l *listener) { l.chunk(cutUsage, false); l.chunk("", true) },
		"with trailers":       func(l *listener) { l.chunk(cutUsage, false); l.end() },
		"unreadable": func(l *listener) {
			l.chunk(cutUsage, false)
			n, with := l.s.ResponseLost(3)
			require.Zero(t, n)
			l.went(string(with))
			l.chunk("", true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "")
			r.a.request = asks
			l := r.sendStream(t, post(), streaming)
			l.chunk(event(usage)+content("a"), false)
			end(l)
			require.Equal(t, content("a")+cutUsage, string(l.got))
			l.s.Done()
		})
	}
}

// The response of another server, to which Envoy follows a redirect, is to the same request.
func TestConcealedAfterARedirect(t *testing.T) {
	r := newRig(t, "")
	r.b.request = asks
	h := post("x-request-id", "1", "content-length", "27")
	s, _ := r.send(h, streaming)
	h.request, h.details, h.stamp = asRedirected("1").request, chain.RedirectDetails, 7
	s.Done()
	h = asRedirected("1")
	h.response["content-type"] = events
	s, _ = r.send(h, "")
	require.Empty(t, h.log, "the body is as it was made")
	s.ResponseHeaders(false)
	n, with := s.ResponseBody([]byte(event(usage)+finished), true)
	require.Equal(t, len(event(usage)+finished), n)
	require.Equal(t, finished, string(with))
	s.Done()
}

// Where the response is screened the event is left out, too, whether screening goes well, fails open or ends.
func TestConcealedWhereTheResponseIsScreened(t *testing.T) {
	long := content(strings.Repeat("x", 400))
	rapid.Check(t, func(t *rapid.T) {
		r, _, b := screened(t, "limits: {response: 300B}")
		b.how, b.unit = &filter.Screening{Overlap: 8}, masking
		b.request = asks
		if rapid.Bool().Draw(t, "named") {
			b.request = func(x *filter.Exchange) filter.Verdict { x.AskUsage(); x.RestoreModel("public"); return filter.Next }
		}
		var stream, client strings.Builder
		for range rapid.IntRange(0, 5).Draw(t, "events") {
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				stream.WriteString(event(usage))
			case 1:
				stream.WriteString(content("my <secret>"))
				client.WriteString(content("my <secret>"))
			case 2:
				stream.WriteString(long) // fails open
				client.WriteString(long)
			default:
				stream.WriteString(": ping\n\n")
				client.WriteString(": ping\n\n")
			}
		}
		if rapid.Bool().Draw(t, "cut") {
			stream.WriteString(cutUsage)
			client.WriteString(cutUsage)
		} else {
			stream.WriteString(event(usage) + finished)
			client.WriteString(finished)
		}
		l := r.sendStream(t, post(), streaming)
		chunks := chunksOf(t, stream.String())
		for i, chunk := range chunks {
			l.chunk(chunk, i == len(chunks)-1)
		}
		// Where screening failed, texts are as they came.
		got := strings.ReplaceAll(string(l.got), `[S\"]`, "<secret>")
		require.Equal(t, client.String(), got)
		l.s.Done()
	})
}

// Events that come whole go on where they lie, also of a stream that was asked for its usage.
func TestEventsOfAStreamThatWasAskedAllocateNothing(t *testing.T) {
	r := newRig(t, "")
	r.a.request = asks
	l := r.sendStream(t, post(), streaming)
	event := []byte(content("word"))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if n, with := l.s.ResponseBody(event, false); n != 0 || len(with) > 0 {
			t.Fatal("held or changed")
		}
	}))
	last := []byte(`data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}` + "\n\n")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if n, with := l.s.ResponseBody(last, false); n != len(last) || len(with) > 0 {
			t.Fatal("not left out")
		}
	}))
	l.s.Done()
}

package module

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	inletversion "github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const chat = `{"model":"llama","messages":[{"role":"user","content":"hi"}]}`

// renames sends the request on under another model name.
func renames() *policy {
	return &policy{needs: filter.NeedRequest, request: func(x *filter.Exchange) filter.Verdict {
		x.Route = filter.Route{Model: x.Request.Model, Pool: "pool"}
		x.ReplaceInBody(x.Request.ModelSpan, []byte(`"llama-3-8b"`))
		x.SetRequestHeader("x-pool", "pool")
		x.RemoveRequestHeader("x-secret")
		x.Explain("model", x.Request.Model)
		return filter.Next
	}}
}

var renamed = strings.Replace(chat, "llama", "llama-3-8b", 1)

func TestRequestInOnePiece(t *testing.T) {
	c, e := load(t, policyOnly, renames())
	s := open(t, c, e, [2]string{"content-length", "61"}, [2]string{"x-secret", "s"})
	require.Equal(t, shared.HeadersStatusStop, s.filter.OnRequestHeaders(s.request, false))
	require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
	require.Equal(t, renamed, s.buffered.String())
	require.Equal(t, "pool", s.request.value("x-pool"))
	require.Empty(t, s.request.value("x-secret"))
	require.Equal(t, "66", s.request.value("content-length"))
	require.Equal(t, []string{"route"}, s.did)

	require.Equal(t, shared.HeadersStatusContinue, s.respond(false, [2]string{":status", "200"}))
	require.Equal(t, shared.BodyStatusContinue, s.filter.OnResponseBody(newBuffer("{}"), true))
	require.Empty(t, s.state, "filter state can be written only once: at the end")
	s.end()
	require.Equal(t, map[string]string{"inlet/why": "model=llama"}, s.metadata)
	require.Equal(t, map[string]string{"wasm.inlet.why": "model=llama"}, s.state)
	require.EqualValues(t, 1, s.metrics["inlet_request_total{llama,pool,ok}"])
}

func TestRequestInManyPieces(t *testing.T) {
	c, e := load(t, policyOnly, renames())
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, false)
	require.Equal(t, shared.BodyStatusStopAndBuffer, s.data(false, chat[:5], chat[5:12]))
	require.Equal(t, shared.BodyStatusStopAndBuffer, s.data(false, chat[12:30]))
	require.Equal(t, shared.BodyStatusContinue, s.data(true, chat[30:]))
	require.Equal(t, renamed, s.buffered.String())
}

func TestRequestWithTrailers(t *testing.T) {
	c, e := load(t, policyOnly, renames())
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, false)
	s.data(false, chat[:12])
	s.data(false, chat[12:])
	require.Equal(t, shared.TrailersStatusContinue, s.filter.OnRequestTrailers(nil))
	require.Equal(t, renamed, s.buffered.String())
}

// A filter that stands before and buffers hands over its buffer, each time with
// all bytes from the first on.
func TestRequestBehindABuffer(t *testing.T) {
	c, e := load(t, policyOnly, renames())
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, false)
	s.whole = true
	for n := range len(chat) {
		s.buffered = newBuffer(chat[:n/2], chat[n/2:n])
		require.Equal(t, shared.BodyStatusStopAndBuffer, s.filter.OnRequestBody(s.buffered, false))
	}
	s.buffered = newBuffer(chat)
	require.Equal(t, shared.BodyStatusContinue, s.filter.OnRequestBody(s.buffered, true))
	require.Equal(t, renamed, s.buffered.String())
}

// ... in whatever chunks: what was seen may end within one, or fill several.
func TestRequestBehindABufferOfManyChunks(t *testing.T) {
	c, e := load(t, policyOnly, renames())
	for seen := range len(chat) {
		for size := 1; size <= len(chat); size += 1 + size/2 {
			s := open(t, c, e)
			s.filter.OnRequestHeaders(s.request, false)
			s.whole = true
			s.buffered = newBuffer(chat[:seen])
			require.Equal(t, shared.BodyStatusStopAndBuffer, s.filter.OnRequestBody(s.buffered, false))
			s.buffered = newBuffer()
			for from := 0; from < len(chat); from += size {
				s.buffered.Append([]byte(chat[from:min(from+size, len(chat))]))
			}
			require.Equal(t, shared.BodyStatusContinue, s.filter.OnRequestBody(s.buffered, true), "%d, then in chunks of %d", seen, size)
			require.Equal(t, renamed, s.buffered.String())
			s.end()
		}
	}
}

// What was released is neither read nor held.
func TestBodyNobodyReads(t *testing.T) {
	c, e := load(t, policyOnly, &policy{})
	s := open(t, c, e)
	require.Equal(t, shared.HeadersStatusContinue, s.filter.OnRequestHeaders(s.request, false))
	require.Equal(t, shared.BodyStatusContinue, s.data(false, "not json"))
	require.Equal(t, shared.BodyStatusContinue, s.data(true))
	require.Equal(t, shared.TrailersStatusContinue, s.filter.OnRequestTrailers(nil))
}

// A value of the metadata is read if it is there and a string, and the client's address if a filter asks for it.
func TestMetadataAndClient(t *testing.T) {
	for key, want := range map[string]string{"sub": "ann", "exp": "", "none": ""} {
		p := &policy{needs: filter.NeedClient, key: key}
		p.request = func(x *filter.Exchange) filter.Verdict {
			require.Equal(t, want, x.Metadata)
			require.Equal(t, "2001:db8::1", x.Client)
			x.SetRequestHeader("x-seen", "1")
			return filter.Next
		}
		config, e := load(t, policyOnly, p)
		s := open(t, config, e)
		require.Equal(t, shared.HeadersStatusContinue, s.filter.OnRequestHeaders(s.request, true))
		require.Contains(t, s.did, "route")
	}
}

// The subset hint is read as it stands in the metadata; what is no hint by the
// protocol is one that nobody fits.
func TestSubset(t *testing.T) {
	for _, c := range []struct {
		hint any
		want filter.Subset
	}{
		{nil, filter.Subset{}},
		{"10.0.0.1:80, 10.0.0.2:80", filter.Subset{Given: true, Addresses: []string{"10.0.0.1:80", "10.0.0.2:80"}}},
		{[]any{"10.0.0.1:80", 7.0, "[::1]:80"}, filter.Subset{Given: true, Addresses: []string{"10.0.0.1:80", "[::1]:80"}}},
		{"", filter.Subset{Given: true}},
		{[]any{}, filter.Subset{Given: true}},
		{7.0, filter.Subset{Given: true}},
	} {
		p := &policy{needs: filter.NeedSubset}
		p.request = func(x *filter.Exchange) filter.Verdict {
			require.Equal(t, c.want.Given, x.Subset.Given)
			require.ElementsMatch(t, c.want.Addresses, x.Subset.Addresses)
			x.SetRequestHeader("x-seen", "1")
			return filter.Next
		}
		config, e := load(t, policyOnly, p)
		s := open(t, config, e)
		s.hint = c.hint
		require.Equal(t, shared.HeadersStatusContinue, s.filter.OnRequestHeaders(s.request, true))
		require.Contains(t, s.did, "route")
	}
}

func waits(then func(*filter.Exchange, *filter.Reply) filter.Verdict) *policy {
	p := renames()
	rename := p.request
	p.request = func(x *filter.Exchange) filter.Verdict {
		return filter.Wait(filter.Call{
			Cluster: "guard", Path: "/check", Headers: [][2]string{{"x-a", "b"}}, Body: []byte("ask"), Timeout: 1500 * time.Microsecond,
		})
	}
	p.reply = func(x *filter.Exchange, r *filter.Reply) filter.Verdict {
		rename(x)
		return then(x, r)
	}
	return p
}

var fine = [][2]string{{":status", "200"}, {"x-envoy-upstream-service-time", "1"}}

func TestCall(t *testing.T) {
	var got filter.Reply
	c, e := load(t, policyOnly, waits(func(_ *filter.Exchange, r *filter.Reply) filter.Verdict {
		got = filter.Reply{Err: r.Err, Status: r.Status, Body: append([]byte(nil), r.Body...)}
		return filter.Next
	}))
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, false)
	s.data(false, chat[:20])
	require.Equal(t, shared.BodyStatusStopAndBuffer, s.data(true, chat[20:]), "held for the call")
	require.Equal(t, [][2]string{{":method", "POST"}, {":path", "/check"}, {":authority", "guard"}, {"x-a", "b"}}, s.call.headers)
	require.Equal(t, "ask", s.call.body)
	require.EqualValues(t, 2, s.call.timeout, "milliseconds, rounded up")

	s.answer(shared.HttpCalloutSuccess, fine, "yes, ", "please")
	require.Equal(t, filter.Reply{Status: 200, Body: []byte("yes, please")}, got)
	require.Equal(t, []string{"call guard", "route", "continue"}, s.did)
	require.Equal(t, renamed, s.buffered.String(), "the body was edited where it was held")
}

func TestCallWithoutAnswer(t *testing.T) {
	made := func(status string) [][2]string { return [][2]string{{":status", status}} }
	for _, c := range []struct {
		name    string
		result  shared.HttpCalloutResult
		headers [][2]string
		err     string
		status  int
	}{
		{"reset", shared.HttpCalloutReset, nil, chain.ErrReset.Error(), 0},
		{"too long", shared.HttpCalloutExceedResponseBufferLimit, nil, filter.ErrTooLong.Error(), 0},
		{"Envoy's 503", shared.HttpCalloutSuccess, made("503"), "no reply: text", 0},
		{"Envoy's 504", shared.HttpCalloutSuccess, made("504"), "no reply: text", 0},
		{"the service's 503", shared.HttpCalloutSuccess, append(made("503"), fine[1]), "", 503},
		{"429", shared.HttpCalloutSuccess, made("429"), "", 429},
	} {
		t.Run(c.name, func(t *testing.T) {
			var memory []byte
			r := readReply(c.result, views(c.headers), []shared.UnsafeEnvoyBuffer{viewString("text")}, &memory)
			require.Equal(t, c.status, r.Status)
			if c.err == "" {
				require.NoError(t, r.Err)
			} else {
				require.EqualError(t, r.Err, c.err)
			}
		})
	}
}

func views(headers [][2]string) (list [][2]shared.UnsafeEnvoyBuffer) {
	for _, h := range headers {
		list = append(list, [2]shared.UnsafeEnvoyBuffer{viewString(h[0]), viewString(h[1])})
	}
	return list
}

func TestCallThatCannotStart(t *testing.T) {
	for init, want := range map[shared.HttpCalloutInitResult]string{
		shared.HttpCalloutInitClusterNotFound:     `no cluster "guard" in Envoy`,
		shared.HttpCalloutInitCannotCreateRequest: filter.ErrNotStarted.Error(),
	} {
		var got error
		c, e := load(t, policyOnly, waits(func(_ *filter.Exchange, r *filter.Reply) filter.Verdict {
			got = r.Err
			return filter.Next
		}))
		s := open(t, c, e)
		s.callInit = init
		s.filter.OnRequestHeaders(s.request, false)
		require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
		require.EqualError(t, got, want)
	}
}

// Every way to refuse, with a stream that ends at once (as with HTTP/1) or later.
func TestRefusals(t *testing.T) {
	deny := func(*filter.Exchange) filter.Verdict {
		return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no", Message: "No."}})
	}
	for _, inline := range []bool{true, false} {
		for _, c := range []struct {
			name string
			p    *policy
			run  func(t *testing.T, s *envoyStream)
		}{
			{"headers", &policy{headers: deny}, func(t *testing.T, s *envoyStream) {
				require.Equal(t, shared.HeadersStatusStop, s.filter.OnRequestHeaders(s.request, false))
			}},
			{"body", &policy{needs: filter.NeedRequest, request: deny}, func(t *testing.T, s *envoyStream) {
				s.filter.OnRequestHeaders(s.request, false)
				require.Equal(t, shared.BodyStatusStopNoBuffer, s.data(true, chat))
			}},
			{"trailers", &policy{needs: filter.NeedRequest, request: deny}, func(t *testing.T, s *envoyStream) {
				s.filter.OnRequestHeaders(s.request, false)
				s.data(false, chat)
				require.Equal(t, shared.TrailersStatusStop, s.filter.OnRequestTrailers(nil))
			}},
			{"reply", waits(func(x *filter.Exchange, _ *filter.Reply) filter.Verdict { return deny(x) }), func(t *testing.T, s *envoyStream) {
				s.filter.OnRequestHeaders(s.request, false)
				s.data(true, chat)
				s.answer(shared.HttpCalloutSuccess, fine)
				require.NotContains(t, s.did, "continue")
			}},
			{"response", &policy{response: deny}, func(t *testing.T, s *envoyStream) {
				s.filter.OnRequestHeaders(s.request, true)
				require.Equal(t, shared.HeadersStatusStop, s.respond(false, [2]string{":status", "200"}))
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				done := 0
				c.p.done = func(x *filter.Exchange, end filter.End) {
					done++
					require.True(t, end.Refused)
					require.Equal(t, "/v1/chat/completions", x.Path)
				}
				config, e := load(t, policyOnly, c.p)
				s := open(t, config, e)
				s.inline = inline
				c.run(t, s)
				s.end()
				require.Contains(t, s.did, "reply 403 inlet_no")
				require.Contains(t, s.reply, `"code":"no"`)
				require.Equal(t, 1, done)
				require.EqualValues(t, 1, s.metrics["inlet_refusal_total{no}"])
				require.Contains(t, s.state["wasm.inlet.why"], "refused=no")
				require.Zero(t, s.filter.(*stream).depth)
			})
		}
	}
}

// A panic outside of a filter is a defect of this package or the chain.
func TestPanicRefusesAndNothingElse(t *testing.T) {
	p := renames()
	p.request = func(x *filter.Exchange) filter.Verdict {
		x.ReplaceInBody(llm.Span{Start: 9, End: 3}, nil) // not a span: the splicer falls over it
		return filter.Next
	}
	for _, inline := range []bool{true, false} {
		c, e := load(t, policyOnly, p)
		s := open(t, c, e)
		s.inline = inline
		s.filter.OnRequestHeaders(s.request, false)
		require.Equal(t, shared.BodyStatusStopNoBuffer, s.data(true, chat))
		require.Equal(t, []string{"reply 500 inlet_internal_error"}, s.did)
		require.Contains(t, s.reply, `"code":"internal_error"`)
		require.Equal(t, shared.BodyStatusStopNoBuffer, s.data(true, chat), "nothing more of it goes on")
		s.end()
		require.EqualValues(t, 1, s.metrics["inlet_filter_failure_total{adapter,FailClosed}"])
		require.Contains(t, e.logs[len(e.logs)-1], "5 inlet: panic: runtime error: slice bounds out of range")
		require.Contains(t, e.logs[len(e.logs)-1], "module.(*splicer).", "it says where")

		next := open(t, c, e)
		require.NotSame(t, s.filter, next.filter, "its state is not used again")
	}
}

// Also a host that panics, even while the refusal is sent, takes nothing down.
func TestPanicOfTheHost(t *testing.T) {
	c, e := load(t, policyOnly, &policy{})
	s := open(t, c, e)
	s.request = nil // GetAll will panic
	require.NotPanics(t, func() {
		require.Equal(t, shared.HeadersStatusStop, s.filter.OnRequestHeaders(nil, false))
		s.end()
	})
	s = open(t, c, e)
	s.filter.(*stream).handle = nil // and now everything
	require.NotPanics(t, func() {
		s.filter.OnRequestHeaders(nil, false)
		s.filter.OnRequestBody(newBuffer(), true)
		s.filter.OnRequestTrailers(nil)
		s.filter.OnResponseHeaders(nil, false)
		s.filter.OnResponseBody(newBuffer(), false)
		s.filter.OnResponseTrailers(nil)
		(&callout{stream: s.filter.(*stream)}).OnHttpCalloutDone(1, 0, nil, nil)
		s.filter.OnStreamComplete()
		s.filter.OnDestroy()
	})
}

// A filter that cannot even be made is replaced by one that refuses: Envoy would
// let requests pass without it.
func TestFilterThatCannotBeMade(t *testing.T) {
	c, e := load(t, policyOnly, &policy{})
	c.streams.New = func() any { panic(errors.New("a secret")) }
	s := open(t, c, e)
	require.Equal(t, shared.HeadersStatusStop, s.filter.OnRequestHeaders(s.request, false))
	require.Equal(t, []string{"reply 500 inlet_internal_error"}, s.did)
	require.Contains(t, e.logs[len(e.logs)-1], "panic with a *errors.errorString")
	require.NotContains(t, e.logs[len(e.logs)-1], "secret")
}

// A filter before this one may answer before the request came here.
func TestAnswerBeforeTheRequest(t *testing.T) {
	c, e := load(t, policyOnly, &policy{done: func(*filter.Exchange, filter.End) { t.Error("nothing began") }})
	s := open(t, c, e)
	require.Equal(t, shared.HeadersStatusContinue, s.respond(false, [2]string{":status", "403"}))
	require.Equal(t, shared.BodyStatusContinue, s.filter.OnResponseBody(newBuffer("no"), true))
	s.end()
	require.Equal(t, recorded{"inlet_build_info{" + inletversion.String() + "}": 1, "inlet_configurations{listener}": 1}, s.metrics, "what is of the process, and nothing of a request")
}

// Envoy may answer itself while the request is still held.
func TestAnswerOfEnvoy(t *testing.T) {
	var end filter.End
	p := renames()
	p.done = func(_ *filter.Exchange, e filter.End) { end = e }
	c, e := load(t, policyOnly, p)
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, false)
	s.data(false, chat[:10])
	s.respond(true, [2]string{":status", "413"})
	s.end()
	require.Equal(t, filter.End{Complete: true, Status: 413, At: end.At}, end)
}

// Without OnStreamComplete, OnDestroy ends the exchange.
func TestDestroyedOnly(t *testing.T) {
	done := 0
	c, e := load(t, policyOnly, &policy{done: func(*filter.Exchange, filter.End) { done++ }})
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, true)
	s.filter.OnDestroy()
	require.Equal(t, 1, done)
}

// What the replica sends is read where it lies, goes on at once, and counts.
func TestAnswerIsRead(t *testing.T) {
	var end filter.End
	var usage llm.Usage
	var response filter.Response
	p := &policy{
		needs: filter.NeedUsage,
		response: func(x *filter.Exchange) filter.Verdict {
			response = x.Response
			x.SetResponseHeader("x-served", x.Response.Served)
			return filter.Next
		},
		done: func(x *filter.Exchange, e filter.End) { end, usage = e, x.Usage },
	}
	for _, how := range []string{"trailers", "last bytes", "cut"} {
		c, e := load(t, policyOnly, p)
		s := open(t, c, e)
		s.filter.OnRequestHeaders(s.request, true)
		s.respond(false, [2]string{":status", "200"}, [2]string{"content-type", "application/json"})
		require.Equal(t, "10.0.0.1:80", response.Served)
		require.Equal(t, "10.0.0.1:80", s.response.value("x-served"))
		s.filter.OnResponseBody(newBuffer(`{"usage":{"prompt_tok`, `ens":3,"completion_`), false)
		s.filter.OnResponseBody(newBuffer(`tokens":4,"total_tokens":7}}`), how == "last bytes")
		if how == "trailers" {
			s.filter.OnResponseTrailers(nil)
		}
		s.end()
		require.Equal(t, filter.End{Complete: how != "cut", Status: 200, At: end.At}, end, how)
		require.Equal(t, llm.Usage{Known: true, Prompt: 3, Completion: 4, Total: 7}, usage)
	}
}

// An answer that nobody reads is complete, or cut, all the same.
func TestAnswerNobodyReads(t *testing.T) {
	var end filter.End
	var first time.Duration
	c, e := load(t, policyOnly, &policy{done: func(x *filter.Exchange, its filter.End) { end, first = its, x.Response.FirstByte }})
	for _, how := range []string{"headers", "trailers", "last bytes", "cut"} {
		s := open(t, c, e)
		s.filter.OnRequestHeaders(s.request, true)
		s.respond(how == "headers", [2]string{":status", "200"}, [2]string{"content-type", "text/plain"})
		if how != "headers" {
			s.filter.OnResponseBody(newBuffer("hel"), false)
			s.filter.OnResponseBody(newBuffer("lo"), how == "last bytes")
		}
		if how == "trailers" {
			s.filter.OnResponseTrailers(nil)
		}
		s.end()
		require.Equal(t, filter.End{Complete: how != "cut", Status: 200, At: end.At}, end, how)
		require.Equal(t, how != "headers", first > 0, how)
		require.Empty(t, s.metadata, "nobody said why")
		require.Empty(t, s.state)
	}
}

// What changes of an answer is changed in the piece that Envoy hands over, in
// whatever parts that lies in memory.
func TestAnswerIsChanged(t *testing.T) {
	p := renames()
	rename := p.request
	p.request = func(x *filter.Exchange) filter.Verdict {
		x.RestoreModel("llama")
		return rename(x)
	}
	const first, second = `{"id":"model","model":"llama-3-8b","n":1,`, `"model":"x"}`
	want := `{"id":"model","model":"llama","n":1,"model":"llama"}`
	for n := range len(first) {
		c, e := load(t, policyOnly, p)
		s := open(t, c, e)
		s.filter.OnRequestHeaders(s.request, false)
		s.data(true, chat)
		s.respond(false, [2]string{":status", "200"}, [2]string{"content-type", "application/json"}, [2]string{"content-length", "53"})
		require.Empty(t, s.response.value("content-length"))
		var got string
		for _, pieces := range [][]string{{first[:n], first[n:]}, {second}} {
			body := newBuffer(pieces...)
			require.Equal(t, shared.BodyStatusContinue, s.filter.OnResponseBody(body, pieces[0] == second))
			got += body.String()
		}
		require.Equal(t, want, got)
		s.end()
		require.EqualValues(t, 1, s.metrics["inlet_request_total{llama,pool,ok}"])

		// The same memory serves the next, also when nothing of a piece is left.
		s = open(t, c, e)
		s.filter.OnRequestHeaders(s.request, false)
		s.data(true, chat)
		s.respond(false, [2]string{":status", "200"}, [2]string{"content-type", "text/event-stream"})
		got = ""
		for _, piece := range []string{"data: {\"model\":\"llama-", "3", "-8b\"}\n\n", "data: [DONE]\n\n"} {
			body := newBuffer(piece)
			s.filter.OnResponseBody(body, false)
			got += body.String()
		}
		s.filter.OnResponseTrailers(nil)
		s.end()
		require.Equal(t, "data: {\"model\":\"llama\"}\n\ndata: [DONE]\n\n", got)
	}
}

// Strings of an exchange are its own, also when its memory was another's before.
func TestStreamsAreUsedAgain(t *testing.T) {
	paths := map[string]int{}
	p := &policy{needs: filter.NeedRequest, done: func(x *filter.Exchange, _ filter.End) {
		paths[strings.Clone(x.Path)]++
		long, _ := x.RequestHeaders.Get("x-long")
		require.Equal(t, strings.Repeat(x.Path[len(x.Path)-1:], 5000), long)
	}}
	c, e := load(t, policyOnly, p)
	var filters []*envoyStream
	for _, id := range "abcabc" {
		s := open(t, c, e, [2]string{"x-long", strings.Repeat(string(id), 5000)})
		s.request.Set(":path", "/v1/chat/completions?"+string(id))
		s.filter.OnRequestHeaders(s.request, false)
		s.data(true, chat)
		filters = append(filters, s)
		if len(filters) == 3 { // three at once
			for _, s := range filters {
				s.end()
			}
			filters = nil
		}
	}
	require.Equal(t, map[string]int{"/v1/chat/completions?a": 2, "/v1/chat/completions?b": 2, "/v1/chat/completions?c": 2}, paths)
}

func TestHeaders(t *testing.T) {
	m := &headerMap{list: [][2]string{{"a", "1"}, {"empty", ""}, {"a", "2"}, {"long", strings.Repeat("x", 10000)}, {"z", "9"}}}
	h := headers{arena: &arena{}}
	h.reset(m)
	require.Zero(t, m.gets, "nothing is copied that nobody asks for")
	for name, want := range map[string]string{"a": "1", "empty": "", "long": strings.Repeat("x", 10000), "z": "9"} {
		got, ok := h.Get(name)
		require.True(t, ok, name)
		require.Equal(t, want, got)
	}
	_, ok := h.Get("missing")
	require.False(t, ok)
	require.Equal(t, 1, m.gets)
}

// The arena drops a large block; no field may keep it.
func TestHeadersKeepNoStrings(t *testing.T) {
	h := headers{fields: []field{{"a", "1"}, {"b", "2"}}}
	h.reset(nil)
	require.Empty(t, h.fields)
	require.Equal(t, []field{{}, {}}, h.fields[:2])
}

func TestArena(t *testing.T) {
	var a arena
	var copies []string
	for i := range 100 {
		copies = append(copies, a.copy(viewString(strings.Repeat(string(rune('a'+i%26)), 200))))
	}
	for i, s := range copies {
		require.Equal(t, strings.Repeat(string(rune('a'+i%26)), 200), s)
	}
	a.copy(viewString(strings.Repeat("x", arenaKept+1)))
	a.reset()
	require.Zero(t, cap(a.block), "one long exchange does not keep its memory")
	a.copy(viewString("b"))
	a.reset()
	require.Equal(t, arenaBlock, cap(a.block))
	require.Empty(t, a.block, "it begins again")
}

// All workers use one configuration at once.
func TestManyWorkers(t *testing.T) {
	p := renames()
	c, e := load(t, policyOnly, p)
	const workers, exchanges = 8, 200
	totals := make([]recorded, workers)
	var all sync.WaitGroup
	for w := range workers {
		totals[w] = recorded{}
		all.Go(func() {
			for range exchanges {
				s := open(t, c, e)
				s.metrics = totals[w]
				s.filter.OnRequestHeaders(s.request, false)
				s.data(false, chat[:12])
				s.data(true, chat[12:])
				assert.Equal(t, renamed, s.buffered.String())
				s.respond(true, [2]string{":status", "200"})
				s.end()
			}
		})
	}
	all.Wait()
	var n int64
	for _, m := range totals {
		n += m["inlet_request_total{llama,pool,ok}"]
	}
	require.EqualValues(t, workers*exchanges, n)
}

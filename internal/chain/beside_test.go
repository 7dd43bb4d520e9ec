package chain_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// A request with a call beside goes on at once, and nothing of its response before the reply.
func TestACallBesideTheRequest(t *testing.T) {
	for _, early := range []bool{true, false} { // the reply comes before the response
		k := newAsking(t, "FailClosed", filter.Beside(ask(2, 5)...))
		require.Equal(t, chain.Continue, k.act)
		require.Len(t, k.h.calls, 2)
		k.reply(2)
		if early {
			k.reply(1)
		}
		act := k.s.ResponseHeaders(false)
		require.Equal(t, map[bool]chain.Action{true: chain.Continue, false: chain.Hold}[early], act)
		require.Equal(t, !early, k.s.StopsResponse())
		k.s.ResponseBody([]byte(`{"a":1}`), false)
		require.False(t, k.s.HoldsResponse())
		if !early {
			require.Empty(t, k.h.log)
			k.reply(1)
			require.Equal(t, 1, k.h.resumedResponse)
			require.Empty(t, k.h.went)
		}
		require.False(t, k.s.StopsResponse())
		k.s.ResponseBody([]byte(`{"a":1}`), true)
		k.s.Done()
		require.Equal(t, []int{6, 5}, k.tags)
		require.EqualValues(t, 1, k.metrics["inlet_request_total/,,ok"])
		require.Empty(t, k.logs)
	}
}

// What OnReply of a call beside says of the response's headers counts, also after they have come.
func TestEffectsOfAReplyBeside(t *testing.T) {
	k := newAsking(t, "FailClosed", filter.Beside(ask(1, 0)...))
	k.a.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict {
		x.SetResponseHeader("x-judged", "yes")
		x.SetRequestHeader("x-too", "late")
		x.Explain("a", "judged")
		return filter.Next
	}
	k.s.ResponseHeaders(false)
	k.reply(1)
	require.Equal(t, []string{"response x-judged=yes"}, k.h.log)
	require.Equal(t, "a=judged", k.h.why)
	k.s.Done()
}

// A reply beside that decides does so whenever it comes, and ignores the other calls.
func TestAReplyBesideDecides(t *testing.T) {
	for _, when := range []string{"before the headers", "after the headers", "after the end"} {
		for _, c := range []struct {
			verdict string
			mode    string
			status  int // 0: the response goes on
		}{
			{"deny", "FailClosed", 403}, {"respond", "FailClosed", 203}, {"fail", "FailClosed", 503}, {"fail", "FailOpen", 0},
		} {
			t.Run(fmt.Sprint(when, c), func(t *testing.T) {
				k := newAsking(t, c.mode, filter.Beside(ask(3, 0)...), verdicts[c.verdict])
				var end filter.End
				var served string
				k.a.done = func(x *filter.Exchange, e filter.End) { end, served = e, x.Response.Served }
				responds := func() {
					k.s.ResponseHeaders(false)
					k.s.ResponseBody([]byte("{}"), when == "after the end")
				}
				if when != "before the headers" {
					responds()
				}
				k.reply(2)
				k.reply(1, 3)
				require.Equal(t, []int{1}, k.tags)
				if c.status == 0 {
					require.Nil(t, k.h.reply)
					if when == "before the headers" {
						responds()
					}
					require.False(t, k.s.StopsResponse())
					k.s.Done()
					require.False(t, end.Refused)
					return
				}
				require.Equal(t, c.status, k.h.reply.Status)
				require.Zero(t, k.h.resumedResponse)
				k.s.Done()
				require.Equal(t, c.verdict == "respond", end.Answered)
				require.Equal(t, c.verdict != "respond", end.Refused)
				require.False(t, end.Complete)
				require.Equal(t, "10.0.0.1:80", served, "a replica has had it")
				require.Equal(t, 1, k.a.doneCalls)
			})
		}
	}
}

// A call beside may be followed by another.
func TestACallBesideAgain(t *testing.T) {
	k := newAsking(t, "FailClosed", filter.Beside(ask(1, 0)...), filter.Wait(ask(1, 1)...), filter.Wait(ask(1, 2)...), verdicts["deny"])
	k.reply(1)
	require.Equal(t, chain.Hold, k.s.ResponseHeaders(false))
	k.reply(2)
	require.Zero(t, k.h.resumedResponse)
	k.reply(3)
	require.Equal(t, []int{0, 1, 2}, k.tags)
	require.Equal(t, 403, k.h.reply.Status)
	k.s.Done()
}

// Calls beside are made when the request goes on, and not if it does not. Until then those that are waited for go first.
func TestCallsBesideAreMadeWhenTheRequestGoesOn(t *testing.T) {
	k := newAsking(t, "FailClosed", filter.Wait(ask(2, 0)...), filter.Beside(ask(1, 5)...))
	k.reply(1)
	require.Len(t, k.h.calls, 2, "the other call is still open")
	k.reply(2)
	require.Len(t, k.h.calls, 3)
	require.Equal(t, 1, k.h.resumed)
	require.Equal(t, chain.Hold, k.s.ResponseHeaders(false))
	k.reply(3)
	require.Equal(t, []int{0, 1, 5}, k.tags)
	require.Equal(t, 1, k.h.resumedResponse)
	k.s.Done()

	r := newRig(t, "")
	r.a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
	r.b.request = func(*filter.Exchange) filter.Verdict { return verdicts["deny"] }
	h := post()
	s, act := r.send(h, body)
	require.Equal(t, chain.Replied, act)
	require.Empty(t, h.calls)
	s.Done()
}

// A call beside that cannot be started may refuse the request before it goes on.
func TestACallBesideThatCannotBeStarted(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(2, 0)...) }
	r.a.reply = func(_ *filter.Exchange, reply *filter.Reply) filter.Verdict {
		require.Error(t, reply.Err)
		return filter.Fail("no-reply")
	}
	h := post()
	h.callError = errors.New("no such cluster")
	s, act := r.send(h, body)
	require.Equal(t, chain.Replied, act)
	require.Equal(t, 503, h.reply.Status)
	require.Len(t, h.calls, 1)
	s.Done()
}

// What Envoy responds itself is not held.
func TestResponsesOfEnvoyAreNotHeld(t *testing.T) {
	k := newAsking(t, "FailClosed", filter.Beside(ask(1, 0)...))
	k.h.details, k.h.served = "no_healthy_upstream", ""
	k.h.response = headers{":status": "503"}
	require.Equal(t, chain.Continue, k.s.ResponseHeaders(false))
	require.False(t, k.s.StopsResponse())
	k.reply(1)
	require.Empty(t, k.tags)
	require.Zero(t, k.h.resumedResponse)
	k.s.Done()
}

// A redirect that Envoy follows while a call beside is open is a client's request: the response to it must not pass without the reply.
func TestARedirectDoesNotGoAroundACallBeside(t *testing.T) {
	for _, open := range []bool{true, false} {
		k := newAsking(t, "FailClosed", filter.Beside(ask(1, 0)...))
		k.h.stamp = 7
		k.h.request["x-request-id"] = "r"
		if !open {
			k.reply(1)
		}
		k.h.details = chain.RedirectDetails
		k.h.request[":path"], k.h.request["x-envoy-original-url"] = "/v1/chat/completions?again", "http://old"
		k.s.Done()
		k.trace = nil
		again := post("x-request-id", "r", ":path", "/v1/chat/completions?again", "x-envoy-original-url", "http://old")
		again.stamp = 7
		_, act := k.send(again, body)
		require.Equal(t, chain.Continue, act)
		require.Equal(t, open, slices.Contains(k.trace, "a.request"))
	}
}

// star replaces the first byte of each text.
func star(u *filter.Unit) {
	for i := range u.Pieces {
		u.Replace(i, 0, 1, "*")
	}
}

// Responses that are screened are held in the chain meanwhile: units are shown, and nothing goes on.
func TestScreenedResponsesAreHeldForACallBeside(t *testing.T) {
	stream := chatStream([]delta{{0, "one"}, {1, "two"}, {0, "three"}})
	for _, when := range []string{"in the midst", "at the end", "while a screener waits"} {
		t.Run(when, func(t *testing.T) {
			r, a, b := screened(t, "")
			b.how = &filter.Screening{Window: 1}
			b.unit = func(x *filter.Exchange, u *filter.Unit) filter.Verdict {
				require.False(t, u.Begun)
				require.Same(t, u, x.Unit())
				star(u)
				if when == "while a screener waits" {
					return filter.Wait(ask(1, 0)...)
				}
				return filter.Next
			}
			b.scripted.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict {
				require.NotNil(t, x.Unit())
				return filter.Next
			}
			a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
			a.scripted.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict {
				require.Nil(t, x.Unit())
				x.SetResponseHeader("x-judged", "yes")
				return filter.Next
			}
			l := r.listen(t, events)
			require.Equal(t, chain.Hold, l.act)
			l.chunk(stream[:400], false)
			require.Positive(t, strings.Count(strings.Join(r.trace, " "), "b.unit"))
			if when == "at the end" {
				l.chunk(stream[400:], true)
			}
			require.False(t, l.begun)
			l.h.last = 1
			b.unit = func(_ *filter.Exchange, u *filter.Unit) filter.Verdict { star(u); return filter.Next }
			l.reply(&filter.Reply{Status: 200})
			if when == "while a screener waits" {
				require.False(t, l.begun)
				l.h.last = 2
				l.reply(&filter.Reply{Status: 200})
			}
			require.True(t, l.begun)
			if when != "at the end" {
				l.chunk(stream[400:], true)
			}
			want := strings.NewReplacer(`"one"`, `"*ne"`, `"two"`, `"*wo"`, `"three"`, `"*hree"`).Replace(stream)
			require.Equal(t, want, string(l.got))
			require.Contains(t, l.h.log, "response x-judged=yes")
			l.s.Done()
			require.Empty(t, r.logs)
		})
	}
}

// A reply beside that refuses takes the place of what was screened already.
func TestAReplyBesideRefusesAScreenedResponse(t *testing.T) {
	for _, waits := range []bool{true, false} {
		for _, verdict := range []string{"deny", "respond", "fail"} {
			r, a, b := screened(t, "")
			b.how = &filter.Screening{Window: 1}
			units := 0
			b.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict {
				if units++; waits && units == 2 {
					return filter.Wait(ask(1, 0)...)
				}
				return filter.Next
			}
			a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
			a.scripted.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return verdicts[verdict] }
			l := r.listen(t, events)
			for _, chunk := range strings.SplitAfter(chatStream([]delta{{0, "one"}, {0, "two"}}), "\n\n") {
				l.chunk(chunk, false)
			}
			l.h.last = 1
			l.reply(&filter.Reply{Status: 200})
			require.Equal(t, map[string]int{"deny": 403, "respond": 203, "fail": 503}[verdict], l.h.reply.Status)
			require.False(t, l.begun)
			l.s.Reply(2, &filter.Reply{Status: 200})
			l.chunk("data: [DONE]\n\n", true)
			require.Empty(t, l.got)
			l.s.Done()
			require.Empty(t, r.logs)
		}
	}
}

// A response that cannot be screened any more while a call beside is open stays with the host, which bounds it.
func TestWhatCannotBeScreenedIsStoppedForACallBeside(t *testing.T) {
	r, a, b := screened(t, "limits: {response: 300B}")
	b.how = &filter.Screening{Window: 1 << 20} // b fails open
	a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
	a.scripted.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	l := r.listen(t, "application/json", "content-length", "1000")
	text := `{"choices":[{"message":{"content":"` + strings.Repeat("x", 600) + `"}}]}`
	n, with := l.s.ResponseBody([]byte(text[:100]), false)
	require.Equal(t, 100, n)
	require.Empty(t, with)
	require.True(t, l.s.HoldsResponse())
	var handed string
	for _, chunk := range []string{text[100:400], text[400:500], text[500:]} {
		n, with = l.s.ResponseBody([]byte(chunk), strings.HasSuffix(text, chunk))
		handed += string(with) + chunk[n:]
		require.False(t, l.s.HoldsResponse())
		require.True(t, l.s.StopsResponse())
	}
	require.Equal(t, text, handed)
	require.Empty(t, l.h.log)
	l.reply(&filter.Reply{Status: 200})
	require.Equal(t, 1, l.h.resumedResponse)
	require.Equal(t, []string{"response -content-length"}, l.h.log)
	require.False(t, l.s.StopsResponse())
	l.s.Done()
}

// The failure of a filter beside does not disturb the unit for which another waits.
func TestAFailureBesideLeavesTheUnitAlone(t *testing.T) {
	r, a, b := screenedBy(t, "filters: [a: {failureMode: FailOpen}, b: {failureMode: FailClosed}]")
	b.how = &filter.Screening{Window: 1}
	b.unit = func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		u.Replace(0, 0, 1, "*")
		return filter.Wait(ask(1, 0)...)
	}
	b.scripted.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
	a.scripted.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { panic("ordered") }
	l := r.listen(t, events)
	l.chunk(chatStream([]delta{{0, "one"}}), true)
	l.s.Reply(1, &filter.Reply{Status: 200})
	l.reply(&filter.Reply{Status: 200})
	require.Contains(t, string(l.got), `"*ne"`)
	require.EqualValues(t, 1, r.metrics["inlet_filter_failure_total/a,FailOpen,"])
	l.s.Done()
}

// A client that leaves while the response is held has not got it, also if all of it was there.
func TestAHeldResponseIsNotComplete(t *testing.T) {
	for _, screens := range []bool{true, false} {
		r, a, b := screened(t, "")
		if screens {
			b.how = &filter.Screening{Window: 1}
		}
		a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
		var end filter.End
		a.done = func(_ *filter.Exchange, e filter.End) { end = e }
		l := r.listen(t, events)
		l.s.ResponseBody([]byte(chatStream([]delta{{0, "one"}})), true)
		l.s.Done()
		require.False(t, end.Complete)
		require.False(t, end.Refused)
		require.EqualValues(t, 1, r.metrics["inlet_request_total/,,aborted"])
		l.s.Reply(1, &filter.Reply{Status: 200})
		require.Equal(t, 1, a.doneCalls)
	}
}

// Calls beside that are still to be made count too.
func TestCallsBesideAreBounded(t *testing.T) {
	k := newAsking(t, "FailClosed", filter.Wait(ask(2, 0)...), filter.Beside(ask(5, 10)...), filter.Beside(ask(4, 20)...))
	k.reply(1, 2)
	require.Equal(t, 500, k.h.reply.Status)
	require.Equal(t, []string{"filter a has more than 8 calls open (FailClosed)"}, k.logs)
	require.Len(t, k.h.calls, 2)
	k.s.Done()
}

// A filter that fails open does not let the response go for which another has calls open.
func TestAFailureBesideLeavesOthersCalls(t *testing.T) {
	r := newRig(t, "filters: [a: {failureMode: FailOpen}, b: {failureMode: FailClosed}]")
	for _, f := range []*scripted{r.a, r.b} {
		f.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(2, 0)...) }
	}
	r.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Fail("no-reply") }
	r.b.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	h := post()
	s, _ := r.send(h, body)
	require.Equal(t, chain.Hold, s.ResponseHeaders(false))
	for _, number := range []int{3, 1, 2} {
		s.Reply(number, &filter.Reply{Status: 200})
		require.Zero(t, h.resumedResponse)
	}
	s.Reply(4, &filter.Reply{Status: 200})
	require.Equal(t, 1, h.resumedResponse)
	require.Equal(t, 1, strings.Count(strings.Join(r.trace, " "), "a.reply"))
	s.Done()
}

// A filter that fails at a unit and at a call beside has failed twice.
func TestFailuresBesideAreCounted(t *testing.T) {
	r, a, _ := screenedBy(t, "filters: [a: {failureMode: FailOpen}, b: {}]")
	a.how = &filter.Screening{Window: 1}
	a.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict { return filter.Fail("no-data") }
	a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
	a.scripted.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Fail("no-reply") }
	l := r.listen(t, events)
	l.chunk(chatStream([]delta{{0, "one"}, {0, "two"}}), false)
	l.reply(&filter.Reply{Status: 200})
	require.True(t, l.begun)
	require.EqualValues(t, 2, r.metrics["inlet_filter_failure_total/a,FailOpen,"])
	l.s.Done()
}

// What was screened and waits for a call beside counts for limits.response.
func TestWhatWaitsForACallBesideIsBounded(t *testing.T) {
	r, a, b := screened(t, "limits: {response: 400B}")
	b.how = &filter.Screening{Window: 1}
	a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
	l := r.listen(t, events)
	stream := chatStream([]delta{{0, "one"}, {0, "two"}, {0, "three"}, {0, "four"}})
	held := 0
	for _, chunk := range strings.SplitAfter(stream, "\n\n") {
		if l.s.ResponseBody([]byte(chunk), false); l.s.HoldsResponse() {
			held += len(chunk)
		}
	}
	require.LessOrEqual(t, held, 400)
	require.True(t, l.s.StopsResponse())
	require.Contains(t, r.trace, "b.unit")
	require.EqualValues(t, 1, r.metrics["inlet_filter_failure_total/b,FailOpen,"])
	l.s.Done()
}

// Our own reply is not read as if it were the replica's.
func TestUsageOfARefusedResponse(t *testing.T) {
	r := newRig(t, "")
	r.a.needs |= filter.NeedUsage
	r = r.load(t, "", r.a)
	r.a.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(ask(1, 0)...) }
	r.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return verdicts["deny"] }
	var used llm.Usage
	r.a.done = func(x *filter.Exchange, _ filter.End) { used = x.Usage }
	h := post()
	h.served, h.details = "10.0.0.1:80", "via_upstream"
	s, _ := r.send(h, body)
	s.ResponseHeaders(false)
	s.ResponseBody([]byte(`{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`), true)
	s.Reply(1, &filter.Reply{Status: 200})
	s.ResponseHeaders(false)
	require.False(t, s.WantsResponseBody())
	s.ResponseBody([]byte(`{"usage":{"prompt_tokens":99,"completion_tokens":99,"total_tokens":198}}`), true)
	s.Done()
	require.Equal(t, 4, used.Completion)
}

package chain_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Whatever Envoy's callbacks come in what order, and whatever filters say to them: no exchange takes a step that the table of
// states has not, every filter of which a hook ran gets the end once, and no byte of a response goes on while it is held.
func TestNoSequenceOfCallbacksIsIllegal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, a, b := screened(t, rapid.SampledFrom([]string{"", "limits: {response: 90B}"}).Draw(t, "limits"))
		verdict := func(where string) filter.Verdict {
			switch rapid.IntRange(0, 18).Draw(t, where) { // small numbers are drawn more often
			case 9:
				return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no"}, Filtered: true})
			case 10, 11:
				return filter.Respond(&filter.Answer{Status: 203})
			case 12, 13, 14:
				return filter.Wait(ask(rapid.IntRange(1, 3).Draw(t, "calls"), 0)...)
			case 15, 16:
				return filter.Beside(ask(rapid.IntRange(1, 3).Draw(t, "calls"), 0)...)
			case 17:
				return filter.Fail("no-data")
			case 18:
				panic("ordered")
			}
			return filter.Next
		}
		for _, f := range []*screener{a, b} {
			if rapid.IntRange(0, 3).Draw(t, "asks") < 3 {
				f.how = &filter.Screening{Window: rapid.IntRange(0, 4).Draw(t, "window"), Overlap: rapid.IntRange(0, 4).Draw(t, "overlap")}
			}
			f.headers = func(*filter.Exchange) filter.Verdict { return verdict("headers") }
			f.request = func(*filter.Exchange) filter.Verdict { return verdict("request") }
			f.response = func(*filter.Exchange) filter.Verdict { return verdict("response") }
			f.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict { return verdict("unit") }
			f.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return verdict("reply") }
		}
		s := r.chain.NewStream()
		for range rapid.IntRange(1, 3).Draw(t, "exchanges") {
			a.doneCalls, b.doneCalls, r.trace = 0, 0, nil
			playAtRandom(t, s)
			for _, f := range []*screener{a, b} {
				ran := 0
				for _, hook := range r.trace {
					if strings.HasPrefix(hook, f.name+".") && hook != f.name+".done" {
						ran = 1
					}
				}
				require.Equal(t, ran, f.doneCalls, "%s: %q", f.name, r.trace)
			}
		}
		for _, line := range r.logs {
			require.NotContains(t, line, "defect")
		}
	})
}

// playAtRandom calls what Envoy may call, in the orders in which it may.
func playAtRandom(t *rapid.T, s *chain.Stream) {
	h := post()
	h.response["content-type"] = rapid.SampledFrom([]string{events, events, "application/json", "text/plain"}).Draw(t, "type")
	h.response[":status"] = rapid.SampledFrom([]string{"200", "200", "500"}).Draw(t, "status")
	if rapid.IntRange(0, 9).Draw(t, "no path") == 9 {
		h.request[":path"] = "/unknown"
	}
	stream := chatStream([]delta{{0, "one"}, {1, "two"}, {0, "three"}})
	if rapid.IntRange(0, 4).Draw(t, "calls fail") == 4 {
		h.callError = errors.New("no such cluster")
	}
	reply := func() {
		s.Reply(rapid.IntRange(max(0, h.last-4), h.last).Draw(t, "number"), &filter.Reply{Status: 200})
	}
	s.Begin(h)
	act := s.RequestHeaders(false)
	if act == chain.Hold && rapid.IntRange(0, 9).Draw(t, "no body") < 9 {
		what := rapid.SampledFrom([]string{body, body, body, "{", "]"}).Draw(t, "what")
		s.RequestBody([]byte(what), rapid.IntRange(0, 9).Draw(t, "no end") < 9)
	}
	for range rapid.IntRange(0, 4).Draw(t, "early replies") {
		reply()
	}
	responding, ended := rapid.IntRange(0, 9).Draw(t, "no response") < 9, false
	if responding {
		s.ResponseHeaders(false)
	}
	for range rapid.IntRange(0, 20).Draw(t, "steps") {
		switch rapid.SampledFrom([]int{2, 2, 2, 0, 0, 1, 3}).Draw(t, "step") {
		case 0:
			reply()
		case 1:
			if !responding && !ended {
				responding = true
				s.ResponseHeaders(false)
			}
		case 2:
			if responding && !ended {
				n := min(rapid.SampledFrom([]int{120, 60, 1, 400, 9999}).Draw(t, "n"), len(stream))
				ended = n == len(stream) && rapid.Bool().Draw(t, "last")
				at, with := s.ResponseBody([]byte(stream[:n]), ended)
				require.LessOrEqual(t, at, n)
				if s.HoldsResponse() {
					require.Equal(t, n, at)
					require.Empty(t, with)
				}
				if s.StopsResponse() {
					require.Zero(t, h.resumedResponse, "it was held from the beginning")
				}
				stream = stream[n:]
			}
		case 3:
			if h.reply != nil && !ended {
				responding, ended = true, true
				s.ResponseHeaders(true) // of the local reply
			}
		}
	}
	s.Done()
	s.Done()
}

// A stream that is used again allocates nothing for the events of a response, when nobody screens it.
func TestEventsThatNobodyScreensAllocateNothing(t *testing.T) {
	r, _, _ := screened(t, "")
	l := r.listen(t, events)
	event := []byte(`data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word"}}]}` + "\n\n")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if n, with := l.s.ResponseBody(event, false); n != 0 || with != nil || l.s.HoldsResponse() {
			t.Fatal("held")
		}
	}))
	l.s.Done()
}

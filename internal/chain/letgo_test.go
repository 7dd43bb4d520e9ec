package chain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

func blocked() filter.Verdict {
	return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 400, Code: "blocked", Message: "No."}})
}

// A filter that fails open has done what it has done: texts that have passed do not go on as they were.
func TestFailingOpenKeepsTheEdits(t *testing.T) {
	named := func(text string) string {
		return event(`{"model":"internal","choices":[{"index":0,"delta":{"content":"` + text + `"}}]}`)
	}
	public := func(text string) string { return strings.ReplaceAll(named(text), "internal", "public") }
	long := strings.Repeat("x", 400)
	for name, c := range map[string]struct{ then, want string }{
		"unreadable": {event("no json"), event("no json")},
		"too large":  {named(long), public(long)},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, b := screened(t, "limits: {response: 300B}")
			b.how, b.unit = &filter.Screening{Overlap: 8}, masking
			b.request = func(x *filter.Exchange) filter.Verdict { x.RestoreModel("public"); return filter.Next }
			l := r.listen(t, events)
			l.chunk(named("my <secret>"), false)
			require.Empty(t, l.got)
			for i := range c.then { // also where nobody screens any more, a name may be cut
				l.chunk(c.then[i:i+1], false)
			}
			l.chunk(named("later"), true)
			require.Equal(t, public(`my [S\"]`)+c.want+public("later"), string(l.got))
			l.s.Done()
			require.EqualValues(t, 1, r.metrics["inlet_filter_failure_total/b,FailOpen,"])
		})
	}
}

func TestAWholeResponseThatIsTooLargeKeepsTheModelsName(t *testing.T) {
	said := `{"model":"internal","choices":[{"message":{"content":"` + strings.Repeat("x", 400) + `"}}],"also":{"model":"internal"}}`
	for n := 1; n < len(said); n++ {
		r, _, b := screened(t, "limits: {response: 300B}")
		b.how = &filter.Screening{}
		b.request = func(x *filter.Exchange) filter.Verdict { x.RestoreModel("public"); return filter.Next }
		l := r.listen(t, "application/json", "content-length", fmt.Sprint(len(said)))
		l.chunk(said[:n], false)
		l.chunk(said[n:], true)
		require.Equal(t, strings.Replace(said, "internal", "public", 1), string(l.got))
		l.s.Done()
	}
}

// What the screeners before have made of a unit counts when the response gets too large while a later one waits; what that one has
// not finished does not.
func TestFailingOpenWhileAFilterWaits(t *testing.T) {
	r, a, b := screenedBy(t, "{filters: [a: {failureMode: FailOpen}, b: {}], limits: {response: 300B}}")
	a.how, b.how, b.unit = &filter.Screening{}, &filter.Screening{}, masking
	a.unit = func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		u.Replace(0, 0, 1, "half done")
		return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
	}
	l := r.listen(t, events)
	l.chunk(content("my <secret>"), false)
	require.Empty(t, l.got)
	long := content(strings.Repeat("x", 400))
	l.chunk(long, false)
	require.Equal(t, content(`my [S\"]`)+long, string(l.got))
	l.reply(&filter.Reply{Status: 200}) // for which nobody waits any more
	l.chunk(content("later"), true)
	require.Equal(t, content(`my [S\"]`)+long+content("later"), string(l.got))
	l.s.Done()
}

// The ending counts in the length of a response whose end had come.
func TestContentLengthWithAnEnding(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{Window: 1}
	units := 0
	a.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict {
		if units++; units == 1 {
			return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
		}
		return blocked()
	}
	a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	all := content("one") + content("two") + event("[DONE]")
	l := r.listen(t, events, "content-length", fmt.Sprint(len(all)))
	l.chunk(content("one"), false)
	l.chunk(content("two")+event("[DONE]"), true)
	l.reply(&filter.Reply{Status: 200})
	require.Contains(t, string(l.got), "blocked")
	require.Contains(t, l.h.log, "response content-length="+fmt.Sprint(len(l.got)))
	l.s.Done()
}

// The limit bounds what is withheld, not what comes at once.
func TestTheLimitIsTheSameInAnyChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]string{events, "application/json"}).Draw(t, "kind")
		body := `{"choices":[{"message":{"content":"` + strings.Repeat("x", rapid.IntRange(180, 220).Draw(t, "size")) + `"}}]}`
		if kind == events {
			body = ""
			for range rapid.IntRange(1, 6).Draw(t, "events") {
				body += content(strings.Repeat("x", rapid.SampledFrom([]int{1, 100, 180, 190, 200}).Draw(t, "size")))
			}
		}
		window, overlap := rapid.SampledFrom([]int{1, 150}).Draw(t, "window"), rapid.SampledFrom([]int{0, 150}).Draw(t, "overlap")
		play := func(chunks []string) (outcome string) {
			r, a, _ := screened(t, "limits: {response: 250B}")
			a.how = &filter.Screening{Window: window, Overlap: overlap}
			l := r.listen(t, kind)
			for i, c := range chunks {
				if l.chunk(c, i == len(chunks)-1); l.h.reply != nil {
					return fmt.Sprint(l.h.reply.Status)
				}
			}
			l.s.Done()
			return string(l.got)
		}
		require.Equal(t, play([]string{body}), play(chunksOf(t, body)))
	})
}

// Streams begin with events that have no text. One that is blocked at its first text is refused all the same.
func TestABlockAtTheFirstTextIsARefusal(t *testing.T) {
	for path, c := range map[string][2]string{
		"/v1/chat/completions": {event(`{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`), content("bad")},
		"/v1/messages": {
			event(`{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"usage":{"input_tokens":5}}}`) + ": ping\n\n",
			event(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"bad"}}`),
		},
		"/v1/responses": {event(`{"type":"response.created","response":{"id":"r","output":[]}}`), event(`{"type":"response.output_text.delta","delta":"bad"}`)},
	} {
		r, a, _ := screened(t, "")
		a.how, a.unit = &filter.Screening{}, func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
			require.False(t, u.Begun)
			return blocked()
		}
		l := r.listenAt(t, path, events)
		l.chunk(c[0], false)
		require.False(t, l.begun, path)
		l.chunk(c[1], false)
		require.Equal(t, 400, l.h.reply.Status, path)
		require.Empty(t, l.got, path)
		l.s.Done()
	}
}

func TestAStreamWithoutTextGoesOnAtItsEnd(t *testing.T) {
	r, a, b := screened(t, "limits: {response: 300B}")
	a.how = &filter.Screening{}
	role := event(`{"choices":[{"index":0,"delta":{"role":"assistant"}}]}`)
	l := r.listen(t, events)
	l.chunk(role, false)
	require.False(t, l.begun)
	l.chunk("", true)
	require.Equal(t, role, string(l.got))
	l.s.Done()

	a.how, b.how = nil, &filter.Screening{}
	l = r.listen(t, events)
	pings := strings.Repeat(": ping\n\n", 40)
	l.chunk(pings, false)
	require.Equal(t, pings, string(l.got), "the limit bounds what is withheld, and the filter fails open")
	l.s.Done()
}

// What Envoy says itself is no response of a replica.
func TestEnvoysOwnRepliesAreNotScreened(t *testing.T) {
	for details, served := range map[string]string{"no_healthy_upstream": "", "upstream_reset_before_response_started{connection_failure}": "10.0.0.1:80", "cluster_not_found": "10.0.0.1:80"} {
		r, a, _ := screened(t, "")
		a.how = &filter.Screening{Errors: true}
		h := post()
		h.response = headers{":status": "503", "content-type": "text/plain"}
		h.details, h.served = details, served
		s, _ := r.send(h, body)
		require.Equal(t, chain.Continue, s.ResponseHeaders(false), details)
		require.Nil(t, h.reply)
		s.Done()
		require.Zero(t, r.metrics["inlet_filter_failure_total/a,FailClosed,"])
	}
}

// A text that is edited is what it was with each edit made, however many events brought it and in whatever order the edits are said.
func TestEditsAreMadeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream, text string
		for range rapid.IntRange(1, 5).Draw(t, "events") {
			piece := rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "piece")
			stream, text = stream+content(piece), text+piece
		}
		var edits []filter.Edit
		want, at := "", 0
		for i := range rapid.IntRange(0, 4).Draw(t, "edits") {
			from := rapid.IntRange(at, len(text)).Draw(t, "from")
			to := rapid.IntRange(from, len(text)).Draw(t, "to")
			if n := len(edits); from == to && n > 0 && edits[n-1].From == from {
				continue // two at one place: the order in which they are said counts
			}
			with := strings.Repeat(string(rune('A'+i)), rapid.IntRange(0, 3).Draw(t, "length"))
			edits = append(edits, filter.Edit{From: from, To: to, With: with})
			want, at = want+text[at:from]+with, to
		}
		want += text[at:]
		said := rapid.Permutation(slices.Clone(edits)).Draw(t, "said")
		r, a, _ := screened(t, "")
		a.how = &filter.Screening{Window: 1000}
		a.unit = func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
			for _, e := range said {
				u.Replace(0, e.From, e.To, e.With)
			}
			return filter.Next
		}
		l := r.listen(t, events)
		l.chunk(stream, true)
		require.Nil(t, l.h.reply, "%v", r.logs)
		got := strings.NewReplacer(`data: {"choices":[{"index":0,"delta":{"content":"`, "", `"}}]}`+"\n\n", "").Replace(string(l.got))
		require.Equal(t, want, got, "%v", edits)
		l.s.Done()
	})
}

// What a hook leaves in the unit does no harm.
func TestAUnitThatAFilterSpoils(t *testing.T) {
	for name, spoil := range map[string]func(*filter.Unit){
		"no pieces":     func(u *filter.Unit) { u.Pieces = nil },
		"other pieces":  func(u *filter.Unit) { u.Pieces = make([]filter.Piece, 9) },
		"not begun":     func(u *filter.Unit) { u.Begun, u.Last, u.Stream = true, false, true },
		"negative keep": func(u *filter.Unit) { u.Pieces[0].Keep = -5 },
		"too much":      func(u *filter.Unit) { u.Pieces[0].Keep = 1 << 40 },
	} {
		t.Run(name, func(t *testing.T) {
			r, a, b := screened(t, "")
			a.how, a.unit = &filter.Screening{}, masking
			b.how, b.unit = &filter.Screening{}, func(_ *filter.Exchange, u *filter.Unit) filter.Verdict { spoil(u); return filter.Next }
			l := r.listen(t, events)
			l.chunk(content("<x>"), false)
			l.chunk(content("two"), true)
			require.Equal(t, content(`[S\"]`)+content("two"), string(l.got))
			require.Empty(t, r.logs)
			l.s.Done()
		})
	}
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{}
	a.unit = func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		u.Pieces = []filter.Piece{{}, {Text: []byte("not there")}}
		u.Replace(1, 0, 3, "x")
		return filter.Next
	}
	l := r.listen(t, "application/json")
	l.chunk(`{"choices":[{"message":{"content":"text"}}]}`, true)
	require.Equal(t, 500, l.h.reply.Status)
	l.s.Done()
}

// A filter that fails open at each unit has failed once.
func TestAFilterThatFailsAtEachUnitHasFailedOnce(t *testing.T) {
	for _, how := range []string{"says so", "panics"} {
		r, _, b := screened(t, "")
		b.how = &filter.Screening{}
		b.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict {
			if how == "panics" {
				panic("ordered")
			}
			return filter.Fail("no-data")
		}
		for exchange := 1; exchange <= 2; exchange++ {
			l := r.listen(t, events)
			for range 5 {
				l.chunk(content("word"), false)
			}
			l.chunk(event("[DONE]"), true)
			require.Equal(t, strings.Repeat(content("word"), 5)+event("[DONE]"), string(l.got))
			require.LessOrEqual(t, strings.Count(string(l.s.Exchange().Why()), "b="), 1)
			l.s.Done()
			require.EqualValues(t, exchange, r.metrics["inlet_filter_failure_total/b,FailOpen,"])
		}
		require.Len(t, r.logs, map[string]int{"says so": 0, "panics": 2}[how])
	}
}

// A defect of the chain ends the response: neither a panic reaches the adapter, nor what was withheld the client.
func TestADefectInScreeningEndsTheResponse(t *testing.T) {
	for _, later := range []bool{false, true} {
		r, a, _ := screened(t, "")
		a.how = &filter.Screening{}
		l := r.listen(t, events)
		if later {
			l.chunk(content("one"), false)
		}
		a.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict { l.s.Spoil(); return filter.Next }
		l.chunk(content("two"), false)
		require.NotContains(t, string(l.got), "two")
		if later {
			require.Contains(t, string(l.got), "internal_error")
			require.Equal(t, 1, l.h.ended)
		} else {
			require.Equal(t, 500, l.h.reply.Status)
		}
		require.Len(t, r.logs, 1)
		require.Contains(t, r.logs[0], "defect: what was screened cannot go on")
		l.s.Done()
	}
}

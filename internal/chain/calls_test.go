package chain_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// ask makes n calls, tagged from the given number on.
func ask(n, tag int) (calls []filter.Call) {
	for i := range n {
		calls = append(calls, filter.Call{Cluster: "c", Timeout: time.Second, Tag: tag + i})
	}
	return calls
}

// asking is a chain whose filter a gives a verdict in OnRequest, and those of a list in OnReply, one after the other.
type asking struct {
	*rig
	s    *chain.Stream
	h    *host
	act  chain.Action
	tags []int // of the replies, in order
	errs []string
}

func newAsking(t *testing.T, mode string, first filter.Verdict, replies ...filter.Verdict) *asking {
	k := &asking{rig: newRig(t, "filters: [a: {failureMode: "+mode+"}, b: {}]"), h: post()}
	k.a.request = func(*filter.Exchange) filter.Verdict { return first }
	k.a.reply = func(_ *filter.Exchange, r *filter.Reply) filter.Verdict {
		k.tags = append(k.tags, r.Tag)
		if r.Err != nil {
			k.errs = append(k.errs, r.Err.Error())
		}
		if len(replies) == 0 {
			return filter.Next
		}
		v := replies[0]
		replies = replies[1:]
		return v
	}
	k.h.served, k.h.details = "10.0.0.1:80", "via_upstream"
	k.s, k.act = k.send(k.h, body)
	return k
}

func (k *asking) reply(numbers ...int) {
	for _, n := range numbers {
		k.s.Reply(n, &filter.Reply{Status: 200})
	}
}

// A request waits for all calls that are made at once, and each reply says to which it is.
func TestSeveralCallsAtOnce(t *testing.T) {
	k := newAsking(t, "FailClosed", filter.Wait(ask(3, 10)...))
	require.Equal(t, chain.Hold, k.act)
	require.Len(t, k.h.calls, 3)
	k.reply(2, 1)
	require.Zero(t, k.h.resumed)
	k.reply(1, 2) // once more: nobody waits
	require.Equal(t, []int{11, 10}, k.tags)
	k.reply(3)
	require.Equal(t, 1, k.h.resumed)
	require.Equal(t, []int{11, 10, 12}, k.tags)
	require.Equal(t, chain.Continue, k.s.ResponseHeaders(false))
	k.s.Done()
	require.Empty(t, k.logs)
}

// What decides does so at once; the replies that are still to come find nobody.
func TestAVerdictDoesNotWaitForOtherCalls(t *testing.T) {
	for _, c := range []struct {
		mode    string
		verdict filter.Verdict
		status  int // 0: the request goes on
	}{
		{"FailClosed", verdicts["deny"], 403},
		{"FailClosed", verdicts["respond"], 203},
		{"FailClosed", verdicts["fail"], 503},
		{"FailOpen", verdicts["fail"], 0},
	} {
		t.Run(fmt.Sprint(c.mode, c.status), func(t *testing.T) {
			k := newAsking(t, c.mode, filter.Wait(ask(3, 0)...), c.verdict)
			k.reply(2)
			if c.status > 0 {
				require.Equal(t, c.status, k.h.reply.Status)
				require.Zero(t, k.h.resumed)
			} else {
				require.Nil(t, k.h.reply)
				require.Equal(t, 1, k.h.resumed)
			}
			k.reply(1, 3)
			require.Equal(t, []int{1}, k.tags)
			k.s.Done()
			require.Equal(t, 1, k.a.doneCalls)
			require.LessOrEqual(t, k.h.resumed, 1)
		})
	}
}

// A further call joins those that are open.
func TestACallAgainWhileOthersAreOpen(t *testing.T) {
	k := newAsking(t, "FailClosed", filter.Wait(ask(2, 0)...), filter.Wait(ask(2, 7)...))
	k.reply(1)
	require.Len(t, k.h.calls, 4)
	k.reply(3, 2)
	require.Zero(t, k.h.resumed)
	k.reply(4)
	require.Equal(t, 1, k.h.resumed)
	require.Equal(t, []int{0, 7, 1, 8}, k.tags)
	k.s.Done()

	k = newAsking(t, "FailClosed", filter.Wait(ask(filter.MaxCalls, 0)...), filter.Wait(ask(1, 0)...), filter.Wait(ask(2, 0)...))
	k.reply(1)
	require.Nil(t, k.h.reply, "as many as before")
	k.reply(2)
	require.Equal(t, 500, k.h.reply.Status)
	require.Equal(t, []string{"filter a has more than 8 calls open (FailClosed)"}, k.logs)
	k.s.Done()
}

// Of the calls that cannot be started OnReply hears at once, and the request waits for the others.
func TestSomeCallsCannotBeStarted(t *testing.T) {
	for _, beside := range []bool{false, true} {
		k := &asking{rig: newRig(t, ""), h: post()}
		k.h.served, k.h.details = "10.0.0.1:80", "via_upstream"
		k.h.refuseCalls = map[int]error{1: errors.New("no such cluster"), 3: errors.New("no such cluster")}
		k.a.request = func(*filter.Exchange) filter.Verdict {
			if beside {
				return filter.Beside(ask(3, 0)...)
			}
			return filter.Wait(ask(3, 0)...)
		}
		k.a.reply = func(_ *filter.Exchange, r *filter.Reply) filter.Verdict {
			k.tags = append(k.tags, r.Tag)
			require.Equal(t, r.Tag != 1, r.Err != nil)
			return filter.Next
		}
		k.s, k.act = k.send(k.h, body)
		require.Equal(t, []int{0, 2}, k.tags)
		if beside {
			require.Equal(t, chain.Continue, k.act)
			require.Equal(t, chain.Hold, k.s.ResponseHeaders(false))
		} else {
			require.Equal(t, chain.Hold, k.act)
		}
		k.reply(2)
		require.Equal(t, 1, k.h.resumed+k.h.resumedResponse)
		k.s.Done()
		require.Empty(t, k.logs)
	}
}

// While a unit of a response waits for several calls, edits of all replies go on.
func TestAUnitWaitsForSeveralCalls(t *testing.T) {
	for _, last := range []string{"next", "deny", "fail"} {
		r, a, _ := screened(t, "")
		a.how = &filter.Screening{Window: 1}
		a.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict { return filter.Wait(ask(2, 0)...) }
		a.scripted.reply = func(x *filter.Exchange, r *filter.Reply) filter.Verdict {
			if r.Tag == 0 && last != "next" {
				return verdicts[last]
			}
			x.Unit().Replace(0, r.Tag, r.Tag+1, "XY"[r.Tag:r.Tag+1])
			return filter.Next
		}
		l := r.listen(t, events)
		l.chunk(chatStream([]delta{{0, "abc"}}), true)
		l.s.Reply(2, &filter.Reply{Status: 200})
		require.False(t, l.begun)
		l.h.last = 1
		l.reply(&filter.Reply{Status: 200})
		switch last {
		case "next":
			require.Contains(t, string(l.got), `"XYc"`)
		case "deny":
			require.Equal(t, 403, l.h.reply.Status)
		case "fail":
			require.Equal(t, 503, l.h.reply.Status)
		}
		l.s.Done()
		require.Empty(t, r.logs)
	}
}

// A failure of one hook says nothing about the calls of another.
func TestCallsStayWhenAnotherFilterFailsOpen(t *testing.T) {
	k := &asking{rig: newRig(t, ""), h: post()}
	k.b.headers = func(*filter.Exchange) filter.Verdict { return filter.Fail("no-data") }
	k.b.request = k.b.headers
	waits := true
	k.a.request = func(*filter.Exchange) filter.Verdict { return filter.Wait(ask(2, 0)...) }
	k.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict {
		if waits = !waits; waits {
			return filter.Beside(ask(2, 0)...)
		}
		return filter.Next
	}
	k.s, _ = k.send(k.h, body)
	k.reply(1)
	require.Zero(t, k.h.resumed)
	k.reply(2)
	require.Len(t, k.h.calls, 4)
	require.Equal(t, 1, k.h.resumed)
	k.s.Done()
}

// When a filter fails open because a call cannot be started, it is not asked about the others, and those beside are not made.
func TestAFilterFailsOpenAtTheFirstCallThatCannotBeStarted(t *testing.T) {
	for calls, first := range map[int]filter.Verdict{3: filter.Wait(ask(3, 0)...), 1: filter.Beside(ask(3, 0)...)} {
		k := &asking{rig: newRig(t, "filters: [a: {failureMode: FailOpen}, b: {}]"), h: post()}
		k.h.callError = errors.New("no such cluster")
		k.a.request = func(*filter.Exchange) filter.Verdict { return first }
		k.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Fail("no-reply") }
		k.s, k.act = k.send(k.h, body)
		require.Equal(t, chain.Continue, k.act)
		require.Len(t, k.h.calls, calls)
		require.Equal(t, 1, strings.Count(strings.Join(k.trace, " "), "a.reply"))
		k.s.Done()
	}
}

// The reply that is still to come when another has ended the response finds nobody.
func TestARefusalInTheMidstDoesNotWaitForOtherCalls(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{Window: 1}
	units := 0
	a.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict {
		if units++; units == 2 {
			return filter.Wait(ask(2, 0)...)
		}
		return filter.Next
	}
	a.scripted.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return verdicts["deny"] }
	l := r.listen(t, events)
	for _, chunk := range strings.SplitAfter(chatStream([]delta{{0, "one"}, {0, "two"}}), "\n\n") {
		l.chunk(chunk, false)
	}
	l.reply(&filter.Reply{Status: 200})
	require.Contains(t, string(l.got), `"code":"no"`)
	l.s.Reply(1, &filter.Reply{Status: 200})
	require.Equal(t, 1, strings.Count(strings.Join(r.trace, " "), "a.reply"))
	l.s.Done()
	require.Empty(t, r.logs)
}

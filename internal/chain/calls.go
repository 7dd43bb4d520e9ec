package chain

import (
	"fmt"
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// maxFailedCalls bounds how many calls to one cluster that cannot be started a filter may make one after the other.
const maxFailedCalls = 4 * filter.MaxCalls

// calls are those that the filters of an exchange have made.
type calls struct {
	open    []openCall
	beside  int         // of open, those beside the request: the response waits for them
	later   []laterCall // beside the request, which has not gone on yet
	unmade  []unmadeCall
	last    int  // number of the last one; never used again, so that a late reply finds nobody
	failing bool // the hook that ran last has failed
	hearing bool // OnReply of a call beside runs, in the midst of whatever the exchange does
}

// openCall has not been replied to.
type openCall struct {
	number, slot, tag int
	beside            bool
}

type laterCall struct {
	slot int
	call filter.Call
}

// unmadeCall could not be started.
type unmadeCall struct {
	tag     int
	cluster string
	err     error
}

// held reports whether the request or the unit is held for calls.
func (c *calls) held() bool { return len(c.open) > c.beside }

// answered takes a call out.
func (c *calls) answered(number int) (openCall, bool) {
	i := slices.IndexFunc(c.open, func(o openCall) bool { return o.number == number })
	if i < 0 {
		return openCall{}, false
	}
	o := c.open[i]
	c.open = slices.Delete(c.open, i, i+1)
	if o.beside {
		c.beside--
	}
	return o, true
}

// of counts a filter's calls of a kind.
func (c *calls) of(slot int, beside bool) (n int) {
	for i := range c.open {
		if c.open[i].slot == slot && c.open[i].beside == beside {
			n++
		}
	}
	for i := range c.later {
		if c.later[i].slot == slot && beside {
			n++
		}
	}
	return n
}

// fault is what is wrong with the calls of a verdict, "" if nothing is.
func (c *calls) fault(slot int, v filter.Verdict, hearing bool) string {
	list := v.Calls()
	if len(list) == 0 {
		return "waits for no call"
	}
	for i := range list {
		if list[i].Timeout <= 0 {
			return "waits for a call without a Timeout"
		}
	}
	if c.of(slot, hearing || v.IsBeside())+len(list) > filter.MaxCalls {
		return fmt.Sprintf("has more than %d calls open", filter.MaxCalls)
	}
	return ""
}

// drop forgets a filter's calls of a kind. Their replies find nobody.
func (c *calls) drop(slot int, beside bool) {
	c.open = slices.DeleteFunc(c.open, func(o openCall) bool { return o.slot == slot && o.beside == beside })
	c.unmade = c.unmade[:0]
	if beside {
		c.later = slices.DeleteFunc(c.later, func(l laterCall) bool { return l.slot == slot })
		c.recount()
	}
}

func (c *calls) recount() {
	c.beside = 0
	for i := range c.open {
		if c.open[i].beside {
			c.beside++
		}
	}
}

// dropAll forgets all calls.
func (c *calls) dropAll() {
	clear(c.later) // they have bodies
	clear(c.unmade)
	c.open, c.later, c.unmade, c.beside = c.open[:0], c.later[:0], c.unmade[:0], 0
}

// carryOut makes the calls of a verdict of filter i, and lets h, which is its OnReply, know of those that cannot be started. It
// returns the verdict that then counts: one that decides, or Next.
func (s *Stream) carryOut(i int, h hook, v filter.Verdict) filter.Verdict {
	c := &s.calls
	beside := h == hookBesideReply
	var failed map[string]int // by cluster: one that is missing must not use up what others may try
	for {
		if c.failing {
			c.drop(i, beside)
		}
		if v.Refusal() != nil || v.Answer() != nil {
			return v
		}
		s.start(i, v, beside)
		if len(c.unmade) == 0 {
			return filter.Next
		}
		u := c.unmade[0]
		c.unmade = slices.Delete(c.unmade, 0, 1)
		if failed == nil {
			failed = map[string]int{}
		}
		if failed[u.cluster]++; failed[u.cluster] > maxFailedCalls {
			v = s.failed(i, "gives up: its calls cannot be started")
			continue
		}
		v = s.run(i, h, &filter.Reply{Tag: u.tag, Err: u.err})
	}
}

// start makes the calls of a verdict, those of a Beside when the request goes on.
func (s *Stream) start(i int, v filter.Verdict, beside bool) {
	c := &s.calls
	list := v.Calls()
	for k := range list {
		if v.IsBeside() {
			c.later = append(c.later, laterCall{i, list[k]})
			continue
		}
		c.last++
		if err := s.host.Call(c.last, &list[k]); err != nil {
			c.unmade = append(c.unmade, unmadeCall{list[k].Tag, list[k].Cluster, err})
			continue
		}
		c.open = append(c.open, openCall{c.last, i, list[k].Tag, beside})
		if beside {
			c.beside++
		}
	}
}

// startBeside makes the calls beside the request, which now goes on.
func (s *Stream) startBeside() Action {
	c := &s.calls
	for len(c.later) > 0 {
		first := c.later[0]
		c.later = slices.Delete(c.later, 0, 1)
		c.failing = false
		if !s.settleBeside(first.slot, filter.Wait(first.call)) {
			return Replied
		}
	}
	return Continue
}

// replyBeside is for a call beside. The hook must not disturb a screener that waits.
func (s *Stream) replyBeside(i int, r *filter.Reply) {
	unit := s.x.Unit()
	s.x.SetUnit(nil)
	s.calls.hearing = true // settleBeside ends it
	if !s.settleBeside(i, s.run(i, hookBesideReply, r)) {
		return
	}
	s.x.SetUnit(unit)
	if s.calls.beside == 0 {
		s.unpark()
	}
}

// settleBeside does what the verdict of a filter with calls beside says, and reports whether the exchange goes on.
func (s *Stream) settleBeside(i int, v filter.Verdict) bool {
	s.calls.hearing = true
	defer func() { s.calls.hearing = false }()
	v = s.carryOut(i, hookBesideReply, v)
	if v == filter.Next {
		return true
	}
	if s.state == released {
		s.readOrigin() // nobody has responded: who was asked?
	}
	if s.state.in(screened) {
		return !s.endsResponse(v)
	}
	return !s.ends(v)
}

// unpark lets the response go on, as far as it has come: all calls beside the request were answered.
func (s *Stream) unpark() {
	s.explainNews()
	switch s.state {
	case parked:
		s.to(released)
		s.applyResponse()
		s.host.ResumeResponse(nil)
	case keeping:
		if s.screen.ahead || !s.HoldsResponse() {
			s.host.ResumeResponse(s.handOver())
		}
	}
}

// StopsResponse reports, for a response that is not held, whether it is stopped: what was handed over stays in the host's buffer, and
// when that is full the replica has to wait. Host.ResumeResponse ends that.
func (s *Stream) StopsResponse() bool { return s.calls.beside > 0 || s.calls.hearing }

// AwaitsReply reports whether calls are open for which a request that is held, or a response that is held or stopped, waits: then more
// of its body changes nothing, and Reply follows.
func (s *Stream) AwaitsReply() bool { return len(s.calls.open) > 0 }

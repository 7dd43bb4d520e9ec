package chain

import (
	"fmt"
	"runtime"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

type hook uint8

const (
	hookRequestHeaders hook = iota
	hookRequest
	hookReply
	hookBesideReply
	hookResponseHeaders
	hookResponse
	hookResponseReply
)

// verdicts are kinds of verdicts, by bit.
type verdicts uint8

const (
	mayDeny verdicts = 1 << iota
	mayRespond
	mayWait
	mayBeside
)

// permitted says which verdicts a hook may give, besides Next and Fail. Any other
// is the failure of its filter: taken for Next, it would let pass what a filter
// that fails closed wanted to stop.
var permitted = [...]struct {
	name string
	may  verdicts
}{
	hookRequestHeaders:  {"OnRequestHeaders", mayDeny | mayRespond},
	hookRequest:         {"OnRequest", mayDeny | mayRespond | mayWait | mayBeside},
	hookReply:           {"OnReply", mayDeny | mayRespond | mayWait | mayBeside},
	hookBesideReply:     {"OnReply of a call beside", mayDeny | mayRespond | mayWait},
	hookResponseHeaders: {"OnResponseHeaders", mayDeny | mayRespond},
	hookResponse:        {"OnResponse", mayDeny | mayRespond | mayWait},
	hookResponseReply:   {"OnReply", mayDeny | mayRespond | mayWait},
}

// kindOf is what a verdict is besides Next and Fail, and how it is called.
func kindOf(v filter.Verdict) (verdicts, string) {
	switch {
	case v.Refusal() != nil:
		return mayDeny, "Deny"
	case v.Answer() != nil:
		return mayRespond, "Respond"
	case v.IsBeside():
		return mayBeside, "Beside"
	case v.Asks():
		return mayWait, "Wait"
	}
	return 0, "Next"
}

// run calls one hook of one filter. A panic, or a verdict that the hook may not
// give, is the failure of that filter: its effects of this hook are undone and its
// failure mode decides.
func (s *Stream) run(i int, h hook, r *filter.Reply) (v filter.Verdict) {
	s.x.Enter(i)
	s.started = max(s.started, i+1)
	s.calls.failing = false
	before := s.x.Mark()
	defer s.recovered(i, before, &v)
	f := s.c.slots[i].filter
	if h >= hookResponse {
		s.tellUnit()
	}
	switch h {
	case hookRequestHeaders:
		v = f.OnRequestHeaders(&s.x)
	case hookRequest:
		v = f.OnRequest(&s.x)
	case hookReply, hookBesideReply, hookResponseReply:
		v = f.OnReply(&s.x, r)
	case hookResponseHeaders:
		v = f.OnResponseHeaders(&s.x)
	case hookResponse:
		v = f.(filter.Screener).OnResponse(&s.x, &s.screen.unit)
	}
	if why := v.Failure(); why != "" {
		return s.unable(i, why)
	}
	if kind, name := kindOf(v); kind&^s.permits(h) != 0 {
		s.x.Undo(before)
		return s.failed(i, fmt.Sprintf("returns %s from %s, which cannot", name, permitted[h].name))
	}
	if v.Asks() {
		if what := s.calls.fault(i, v, h == hookBesideReply); what != "" {
			s.x.Undo(before)
			return s.failed(i, what)
		}
	}
	return v
}

// permits are the verdicts that a hook may give now.
func (s *Stream) permits(h hook) verdicts {
	may := permitted[h].may
	if h >= hookResponse && s.begun() {
		may &^= mayRespond // in whose place?
	}
	return may
}

// Tick lets the filters do what they do from time to time, see [filter.Ticker].
func (c *Chain) Tick() {
	for i := range c.slots {
		if t, ok := c.slots[i].filter.(filter.Ticker); ok {
			c.tick(c.slots[i].name, t)
		}
	}
}

func (c *Chain) tick(name string, t filter.Ticker) {
	defer func() {
		if p := recover(); p != nil {
			c.deps.Log(filter.Error, fmt.Sprintf("filter %s %s in its tick", name, describe(p)))
		}
	}()
	t.OnTick()
}

// firstByte calls OnFirstByte of the filters that have it and of which a hook ran.
func (s *Stream) firstByte() {
	for _, i := range s.c.firstByters {
		if i < s.started {
			s.callFirstByte(i)
		}
	}
}

func (s *Stream) callFirstByte(i int) {
	s.x.Enter(i)
	var ignored filter.Verdict
	defer s.recovered(i, s.x.Mark(), &ignored)
	s.c.slots[i].filter.(filter.FirstByter).OnFirstByte(&s.x)
}

// finish calls OnDone, after which there is nothing left to decide.
func (s *Stream) finish(i int, end filter.End) {
	s.x.Enter(i)
	var ignored filter.Verdict
	defer s.recovered(i, s.x.Mark(), &ignored)
	s.c.slots[i].filter.OnDone(&s.x, end)
}

// recovered is deferred directly, since only then recover works.
func (s *Stream) recovered(i int, before filter.Mark, v *filter.Verdict) {
	if p := recover(); p != nil {
		s.x.Undo(before)
		*v = s.failed(i, describe(p))
	}
}

// failed counts a defect of filter i and returns the verdict of its failure
// mode. It is logged, since somebody has to fix it.
func (s *Stream) failed(i int, what string) filter.Verdict {
	slot := &s.c.slots[i]
	if !s.failedBefore(i) {
		s.c.deps.Log(filter.Error, fmt.Sprintf("filter %s %s (%s)", slot.name, what, slot.mode()))
	}
	return s.failure(i, "failed", refuseInternal())
}

// unable is for a filter that says itself that it cannot do its work. It is
// counted and explained but not logged: it may hold for every request.
func (s *Stream) unable(i int, why string) filter.Verdict {
	return s.failure(i, why, refuseUnable(s.c.slots[i].name, why))
}

func (s *Stream) failure(i int, why string, r *filter.Refusal) filter.Verdict {
	slot := &s.c.slots[i]
	s.calls.failing = true
	first := !s.failedBefore(i)
	if first {
		s.c.metrics.failures.Record(1, filter.Values{slot.name, string(slot.mode())})
		s.x.Explain(slot.name, why)
	}
	if !s.calls.hearing {
		if s.state.in(screened) {
			s.x.NoteScreeningFailed(i)
		}
		s.screen.unit.ClearEdits()
	}
	if slot.failOpen && !s.goesAround(slot) {
		if first && s.state.in(screened) {
			s.tellUnscreened(i, filter.FailedOpen)
		}
		return filter.Next
	}
	return filter.Deny(*r)
}

// failedBefore reports whether filter i has failed at an earlier unit of the response: that counts once, however many follow.
func (s *Stream) failedBefore(i int) bool {
	return !s.calls.hearing && s.state.in(screened) && s.x.ScreeningFailed(i)
}

// goesAround reports whether a request that goes on without slot's filter would go
// around the subset hint, since nobody else has it keep to it.
func (s *Stream) goesAround(slot *slot) bool {
	return s.x.Subset.Given && !s.state.in(sent) && slot.filter.Needs().Has(filter.NeedSubset)
}

// describe describes a panic and where it came from. A value that is not a
// runtime error may carry a piece of a prompt, so only its type is told.
func describe(p any) string {
	what := fmt.Sprintf("panicked with a %T", p)
	if err, ok := p.(runtime.Error); ok {
		what = "panicked: " + err.Error()
	}
	// 0 Callers, 1 describe, 2 recovered, 3 the runtime's panic, then the culprit.
	var pcs [8]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if frame.Function != "" && !isRuntime(frame.Function) {
			return fmt.Sprintf("%s at %s:%d", what, frame.Function, frame.Line)
		}
		if !more {
			return what
		}
	}
}

func isRuntime(function string) bool {
	return len(function) > 8 && function[:8] == "runtime."
}

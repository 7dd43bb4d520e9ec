package chain

import (
	"slices"
	"strconv"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// endsResponse ends the response if the verdict says so.
func (s *Stream) endsResponse(v filter.Verdict) bool {
	if a := v.Answer(); a != nil {
		s.stopTexts()
		s.answer(a)
		return true
	}
	if r := v.Refusal(); r != nil {
		s.stop(r)
		return true
	}
	return false
}

// stop ends the response with a refusal: in its place while nothing of it has gone on, else as its last event.
func (s *Stream) stop(r *filter.Refusal) {
	c := &s.screen
	c.raw, c.gone = c.raw[:0], 0
	if !s.begun() {
		s.stopTexts()
		s.refuse(r)
		return
	}
	reason := reasonOf(r)
	s.x.Explain("ended", reason)
	s.host.Explain(s.x.Why())
	s.c.metrics.refusals.Record(1, filter.Values{reason})
	e := s.response.Ending(s.x.Route.Model, s.c.deps.Now().Unix())
	if r.Filtered {
		c.out = e.AppendFiltered(c.out, r.Refusal)
	} else {
		c.out = e.AppendError(c.out, r.Refusal)
	}
	if s.state == keeping {
		s.begin() // now that the length is known
	}
	s.calls.dropAll()
	s.to(ended)
	s.stopTexts()
	if !c.over {
		s.host.EndResponse()
	}
}

// unscreened is for a response that cannot be screened any further.
func (s *Stream) unscreened(why string) {
	if s.state.in(asking) {
		s.calls.drop(s.screen.at, false)
		s.ask(false)
	}
	s.x.SetUnit(nil)
	if r := s.allUnable(why); r != nil {
		s.stop(r)
		return
	}
	s.explainNews()
	s.goOpen()
}

// goOpen lets go all that has come, and all that comes: texts as the screeners have made them, the rest as the replica says
// it, but for the model's name.
func (s *Stream) goOpen() {
	c := &s.screen
	c.open = true
	if name := s.x.Effects().Model; name != "" || s.response.Conceals() {
		c.rest = &llm.ResponseScanner{}
		c.rest.Reset(s.x.API, s.x.Response.EventStream, name)
		s.conceal(c.rest)
	}
	rest := s.response.Splice(nil, c.raw[c.gone:], c.base, s.texts())
	c.raw, c.gone = nil, 0
	s.stopTexts()
	s.passOn(rest)
}

// endOpen lets go what is left at the end of what nobody screens.
func (s *Stream) endOpen() {
	if c := &s.screen; c.rest != nil {
		c.rest.End()
		c.out = append(c.out, c.rest.Rest()...)
	}
}

// passOn lets go bytes that nobody screens.
func (s *Stream) passOn(b []byte) {
	c := &s.screen
	if c.rest == nil {
		c.out = append(c.out, b...)
		return
	}
	n, with := c.rest.Feed(b)
	c.out = append(append(c.out, with...), b[n:]...)
}

// letUnit lets go what may go now that the unit has passed. If the chain itself cannot, the response ends: nobody knows any more
// what of it was seen.
func (s *Stream) letUnit() {
	defer func() {
		if p := recover(); p != nil {
			s.c.deps.Log(filter.Error, "defect: what was screened cannot go on: "+describe(p))
			s.stop(refuseInternal())
		}
	}()
	s.explainNews()
	s.let(s.afterUnit())
}

// afterUnit returns the offset up to which the response may go on when the unit has passed.
func (s *Stream) afterUnit() int64 {
	texts := s.texts()[:s.screen.in]
	for i := len(texts) - 1; i >= 0 && !texts[i].Seen; i-- {
		texts[i].Seen = true
	}
	return min(s.screen.keep, s.beforeTexts(len(texts)))
}

// beforeTexts returns the offset up to which events are over and have no text but that of the first n entries.
func (s *Stream) beforeTexts(n int) int64 {
	until := s.response.Boundary()
	texts := s.texts()
	for i := n; i < len(texts); i++ {
		if texts[i].IsText() {
			return min(until, texts[i].Event)
		}
	}
	if s.screen.over {
		until = s.screen.base + int64(len(s.screen.raw)-s.screen.gone)
	}
	return until
}

// let lets the response go on up to an offset.
func (s *Stream) let(until int64) {
	c := &s.screen
	n := int(until - c.base)
	if n <= 0 {
		return
	}
	texts := s.texts()
	k := 0
	for k < len(texts) && texts[k].Event < until {
		k++
	}
	if !s.begun() && !s.lastUnit() && !slices.ContainsFunc(texts[:k], func(t llm.Text) bool { return t.IsText() }) {
		return // all text is kept back: the response could not be refused any more if the events before it went
	}
	c.out = s.response.Splice(c.out, c.raw[c.gone:c.gone+n], c.base, texts[:k])
	c.base = until
	c.counted = max(c.counted-k, 0) // ends that came while a screener waited were not counted
	// What is gone is moved over in large steps: each costs as much as what stays.
	if c.gone += n; c.gone >= len(c.raw)-c.gone {
		c.raw, c.gone = append(c.raw[:0], c.raw[c.gone:]...), 0
	}
	if c.dropped += k; c.dropped >= len(texts)-k {
		s.response.Drop(c.dropped)
		c.dropped = 0
	}
}

// handOver returns what goes on now, which is valid until the next call. The first time, the headers go before it, unless the
// host stops both.
func (s *Stream) handOver() []byte {
	c := &s.screen
	switch {
	case s.state == keeping && s.StopsResponse():
		c.ahead = true
	case s.state == keeping:
		s.begin()
	}
	c.out, c.handed = c.handed[:0], c.out
	return c.handed
}

// begin lets the headers of a response go on.
func (s *Stream) begin() {
	c := &s.screen
	if _, sized := s.x.Response.Headers.Get("content-length"); sized {
		if c.over && !c.ahead {
			s.x.SetResponseHeader("content-length", strconv.Itoa(len(c.out)))
		} else {
			s.x.RemoveResponseHeader("content-length")
		}
	}
	s.applyResponse()
	s.to(passing)
}

// begun reports whether something of the response goes on in any case.
func (s *Stream) begun() bool {
	return s.state.in(setOf(passing, passAsks)) || len(s.screen.out) > 0 && !s.StopsResponse()
}

// HoldsResponse reports, after ResponseBody and ResponseEnd, whether the response is held: nothing of it goes on, the
// headers neither if they have not, and the adapter's buffer stays empty. Host.ResumeResponse ends that, or a later call.
func (s *Stream) HoldsResponse() bool {
	if s.reads != responseScreened {
		return false
	}
	switch s.state {
	case keeping:
		if s.StopsResponse() {
			return !s.screen.open
		}
		return len(s.screen.out) == 0 && !s.screen.over
	case keepAsks, passAsks, refused, answered:
		return true
	}
	return false
}

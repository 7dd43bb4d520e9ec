package guardrail

import (
	"cmp"
	"slices"

	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const responseBlocked = "The response was rejected by the content policy of this gateway."

// channel is what is known of a text of the response that comes in pieces.
type channel struct {
	llm.Channel
	before []byte // what has been judged, its last bytes
	held   int    // bytes behind that which have been seen
	over   bool   // the text has ended; what was shown of it may be shown again

	shown []byte // to services: its last bytes, as they have gone on or will
	kept  int    // bytes at the end of that which services have yet to see together with what comes

	unasked int // bytes at its end that services have not seen
}

// mostOver is how many channels there may be before those that are over are forgotten.
const mostOver = 256

// OnResponse screens a unit of the response.
func (f *Filter) OnResponse(x *filter.Exchange, u *filter.Unit) filter.Verdict {
	s := x.State().(*state)
	return s.decided(x, 1, f.screenUnit(x, s, u))
}

func (f *Filter) screenUnit(x *filter.Exchange, s *state, u *filter.Unit) filter.Verdict {
	on := s.plan.response
	s.who, s.turn = ^roles(0), 0
	endReasoning(u)
	if on.calls {
		s.sessions[1].ofUnit(u)
	}
	if on.detector != nil {
		for i := range u.Pieces {
			if v := f.screenPiece(x, s, u, i); v != filter.Next {
				return v
			}
		}
	}
	if len(on.validations) > 0 {
		if v := f.validate(x, s, u); v != filter.Next {
			return v
		}
	}
	if on.calls {
		return f.askOfUnit(x, s, u)
	}
	s.passed(x)
	return filter.Next
}

// endReasoning has reasoning end where the model begins to say something else: servers of chat do not say that it does, and the whole
// answer would wait for what might follow its last word.
func endReasoning(u *filter.Unit) {
	for i := range u.Pieces {
		p := &u.Pieces[i]
		if p.Kind != llm.ReasoningText || p.Last {
			continue
		}
		for k := range u.Pieces[i+1:] {
			if next := &u.Pieces[i+1+k]; next.Choice == p.Choice && next.Kind != llm.ReasoningText && next.Kind != llm.OtherText && len(next.Text) > 0 {
				p.Last = true
			}
		}
	}
}

// OnUnscreened notes that text goes on that was not judged.
func (f *Filter) OnUnscreened(x *filter.Exchange, what filter.Unscreened) {
	if s, _ := x.State().(*state); s != nil && s.audits[1] != unasked {
		state := failOpen
		if what == filter.Unshown {
			state = partial
		}
		s.audits[1].less(state)
		s.tell(x)
	}
}

// passed notes that a unit of the response was judged.
func (s *state) passed(x *filter.Exchange) {
	if s.audits[1] == skipped {
		s.audits[1].screened()
		s.tell(x)
	}
}

// screenPiece looks for what is found here.
func (f *Filter) screenPiece(x *filter.Exchange, s *state, u *filter.Unit, i int) filter.Verdict {
	on, p := s.plan.response, &u.Pieces[i]
	s.hits, s.large = s.hits[:0], s.large || len(p.Text) > kept
	if p.JSON {
		// What is put into JSON must stand within a string of it, so it is judged when all of it is there.
		if !p.Last {
			p.Keep = len(p.Text)
			return filter.Next
		}
		s.find(on, p.Text, nil, 0)
	} else if !s.follow(on, u, i) {
		return filter.Fail("finding-too-long")
	}
	if h := f.note(x, s, on, s.hits); h != nil {
		return h.rule.policy.refuse(responseBlocked)
	}
	if h := s.signed(x, p); h != nil {
		return h.rule.policy.refuse(responseBlocked)
	}
	s.redact(u, i)
	return filter.Next
}

// signed returns a hit that cannot be redacted: Anthropic's reasoning is signed, and what is changed in it makes the client's
// next request fail.
func (s *state) signed(x *filter.Exchange, p *filter.Piece) *hit {
	if x.API != llm.Messages || p.Kind != llm.ReasoningText {
		return nil
	}
	for i := range s.hits {
		if s.hits[i].rule.action == redact {
			return &s.hits[i]
		}
	}
	return nil
}

// redact puts labels in the place of hits.
func (s *state) redact(u *filter.Unit, piece int) {
	slices.SortStableFunc(s.hits, func(a, b hit) int { return cmp.Or(a.From-b.From, b.To-a.To) })
	at := 0
	for i := range s.hits {
		h := &s.hits[i]
		if h.rule.action != redact || h.To <= at {
			continue
		}
		with := h.Kind.Label()
		if h.From < at {
			h.From, with = at, ""
		}
		s.replaceInUnit(u, piece, edit{h.From, h.To, with})
		at = h.To
	}
}

// replaceInUnit makes an edit of a piece; later, if services are to judge what it makes of the text.
func (s *state) replaceInUnit(u *filter.Unit, piece int, e edit) {
	if !s.plan.response.calls {
		u.Replace(piece, e.from, e.to, e.with)
		return
	}
	t := &s.sessions[1].texts[piece]
	t.edits = append(t.edits, e)
	t.now = applied(nil, t.body, t.edits)
}

// follow judges a text as far as it has come, and has kept back what cannot be judged yet. It reports false if that is more than
// a finding can have.
func (s *state) follow(on *side, u *filter.Unit, piece int) bool {
	p := &u.Pieces[piece]
	if !u.Stream || p.Whole {
		on.detector.Scan(&s.scanner, nil, p.Text, true)
		s.take(on)
		return true
	}
	c := s.channelOf(p)
	judged := 0 // what was judged has been released, or is about to be
	switch {
	case c == nil:
		c = s.newChannel(p)
	case c.over && p.Seen == 0:
		c.before, c.held = c.before[:0], 0
	default:
		judged = max(0, p.Seen-c.held)
	}
	text := p.Text[judged:]
	hold := on.detector.Scan(&s.scanner, c.before, text, p.Last)
	s.take(on)
	for i := range s.hits {
		s.hits[i].From += judged
		s.hits[i].To += judged
	}
	fits := hold <= detect.MaxBytes
	if !fits {
		hold = 0
	}
	p.Keep = hold
	c.remember(text[:len(text)-hold])
	c.held, c.over = hold, p.Last
	return fits
}

// remember keeps the last bytes of what has been judged.
func (c *channel) remember(text []byte) {
	if len(text) >= detect.Context {
		c.before = append(c.before[:0], text[len(text)-detect.Context:]...)
		return
	}
	c.before = append(c.before, text...)
	if n := len(c.before) - detect.Context; n > 0 {
		c.before = slices.Delete(c.before, 0, n)
	}
}

// channelOf returns what is known of a piece's channel, nil if it is new.
func (s *state) channelOf(p *filter.Piece) *channel {
	for i := range s.channels {
		if s.channels[i].Channel == p.Channel {
			return &s.channels[i]
		}
	}
	return nil
}

// newChannel makes a channel, in memory that was used before.
func (s *state) newChannel(p *filter.Piece) *channel {
	if len(s.channels) >= mostOver {
		s.channels = slices.DeleteFunc(s.channels, func(c channel) bool { return c.over })
	}
	n := len(s.channels)
	if n < cap(s.channels) {
		s.channels = s.channels[:n+1]
	} else {
		s.channels = append(s.channels, channel{})
	}
	c := &s.channels[n]
	*c = channel{Channel: p.Channel, before: c.before[:0], shown: c.shown[:0]}
	return c
}

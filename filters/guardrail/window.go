package guardrail

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Of a stream, services judge what has arrived since they were asked last, as soon as they are not being asked: the slower they
// are, the more text there is in a question. What they have judged goes on, but for the last word: what comes next may belong to it.

const (
	// contextMost is how much of a text that has gone on is shown again with what follows it.
	contextMost = 512
	// wordMost is the longest that is taken for one word.
	wordMost = 1 << 10
)

// ofUnit makes the texts of a session the pieces of a unit.
func (se *session) ofUnit(u *filter.Unit) {
	clear(se.texts)
	clear(se.checks)
	se.response = true
	se.texts, se.checks, se.down, se.version = se.texts[:0], se.checks[:0], se.down[:0], 0
	for i := range u.Pieces {
		p := &u.Pieces[i]
		se.texts = append(se.texts, text{body: p.Text, now: p.Text, json: p.JSON, call: p.JSON})
	}
}

// refresh takes over the texts of a unit, which are in the same place no longer.
func (se *session) refresh(u *filter.Unit) {
	for i := range se.texts {
		t := &se.texts[i]
		if t.body = u.Pieces[i].Text; len(t.edits) == 0 {
			t.now = t.body
		}
	}
}

// askOfUnit has services judge a unit, as it is after what was found here.
func (f *Filter) askOfUnit(x *filter.Exchange, s *state, u *filter.Unit) filter.Verdict {
	se := &s.sessions[1]
	asks := false
	for i := range u.Pieces {
		asks = s.show(x, u, i) || asks
	}
	if asks {
		s.enlist(se, s.plan.response)
		if v := f.proceed(x, s, se, false); v != filter.Next {
			return v
		}
	}
	return f.finishUnit(x, s, u)
}

// show decides how much of a piece is kept back, and reports whether services are to see it: not if nothing more of it would go on.
func (s *state) show(x *filter.Exchange, u *filter.Unit, i int) bool {
	p, t := &u.Pieces[i], &s.sessions[1].texts[i]
	t.signed = x.API == llm.Messages && p.Kind == llm.ReasoningText
	if p.Whole {
		t.hidden = p.Seen == len(p.Text)
	} else {
		s.showMore(u, i)
	}
	if t.hidden {
		return false
	}
	for k := range i {
		if other := &s.sessions[1].texts[k]; p.Last && !other.hidden && other.copyOf == 0 && bytes.Equal(other.before, t.before) &&
			bytes.Equal(other.body, t.body) && bytes.Equal(other.now, t.now) && other.json == t.json && other.signed == t.signed {
			t.copyOf = k + 1
		}
	}
	return true
}

// showMore is show for a text that comes in pieces.
func (s *state) showMore(u *filter.Unit, i int) {
	p, t := &u.Pieces[i], &s.sessions[1].texts[i]
	c := s.channelOf(p)
	if c == nil {
		c = s.newChannel(p)
	}
	if u.Stream && !p.Last {
		t.tail = p.Keep
		p.Keep = len(p.Text)
		if !p.JSON {
			p.Keep = t.tail + s.keepOf(p.Text[:len(p.Text)-t.tail])
		}
	}
	before := c.shown[:max(0, len(c.shown)-p.Seen)]
	t.before = bytes.Clone(before[atRune(before, len(before)-contextMost):])
	judged := max(0, p.Seen-c.kept)
	if p.Last {
		judged = max(0, p.Seen-c.unasked) // nothing comes that what was kept could belong to
	}
	t.hidden = len(p.Text)-p.Keep <= judged
}

// keepOf returns how many bytes at the end of a text may belong to what comes next.
func (s *state) keepOf(text []byte) int {
	keep := wordAtEnd(text)
	for _, p := range s.plan.response.policies {
		if s.active&p.bit != 0 {
			keep = max(keep, p.overlap)
		}
	}
	return len(text) - atRune(text, len(text)-min(keep, len(text)))
}

// wordAtEnd returns how many bytes the word has with which a text ends. In scripts that have no spaces each character ends one.
func wordAtEnd(text []byte) int {
	n := 0
	for n < min(len(text), wordMost) {
		r, size := utf8.DecodeLastRune(text[:len(text)-n])
		if unicode.IsSpace(r) || r >= firstWithoutSpaces && !hasSpaces(r) {
			break
		}
		n += size
	}
	return n
}

// firstWithoutSpaces is where the scripts begin that have no spaces, and their punctuation.
const firstWithoutSpaces = 0x2e80

// hasSpaces reports whether a character from there on is one of a word: Hangul, and letters and digits of full width.
func hasSpaces(r rune) bool {
	return unicode.Is(unicode.Hangul, r) || r >= 0xff10 && r <= 0xff5a && (unicode.IsDigit(r) || unicode.Is(unicode.Latin, r))
}

// finishUnit makes the edits, and notes what was shown.
func (f *Filter) finishUnit(x *filter.Exchange, s *state, u *filter.Unit) filter.Verdict {
	se := &s.sessions[1]
	for i := range se.texts {
		t := &se.texts[i]
		if t.copyOf > 0 {
			same := &se.texts[t.copyOf-1]
			t.edits, t.now = same.edits, same.now
		}
		for _, e := range t.edits {
			u.Replace(i, e.from, e.to, e.with)
		}
		s.remember(u, i)
	}
	s.passed(x)
	return filter.Next
}

// hold decides how much of a piece stays back, now that its edits are known: what has been put in, and what an edit has moved, counts
// where it stands now. It returns how much that is.
func (s *state) hold(p *filter.Piece, t *text) (kept int) {
	until := len(t.body) - p.Keep
	if !p.JSON {
		shown := len(t.now) - t.tail
		until = min(until, before(t.edits, shown-s.keepOf(t.now[:shown])))
	}
	shift := 0
	for _, e := range t.edits {
		if e.to > until {
			until = min(until, e.from)
			break
		}
		shift += len(e.with) - (e.to - e.from)
	}
	p.Keep = len(t.body) - until
	return len(t.now) - (until + shift)
}

// before returns a place in a text before, or at, the one that comes to stand at a place when edits are made.
func before(edits []edit, at int) int {
	shift := 0
	for _, e := range edits {
		switch from := e.from + shift; {
		case at <= from:
			return at - shift
		case at < from+len(e.with):
			return e.from
		}
		shift += len(e.with) - (e.to - e.from)
	}
	return at - shift
}

// remember notes what of a channel was shown.
func (s *state) remember(u *filter.Unit, i int) {
	p, t := &u.Pieces[i], &s.sessions[1].texts[i]
	if p.Whole {
		return
	}
	c := s.channelOf(p)
	if p.Last {
		c.shown, c.kept, c.unasked, c.over = c.shown[:0], 0, 0, true
		return
	}
	if c.unasked = max(0, len(t.now)-max(0, p.Seen-c.unasked)); !t.hidden {
		c.unasked = t.tail
	}
	c.kept = 0
	if u.Stream {
		c.kept = s.hold(p, t)
	}
	c.shown = append(append(c.shown[:0], t.before...), t.now...)
}

package chain

import (
	"cmp"
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// fillUnit makes the unit of the texts as they are now.
func (s *Stream) fillUnit() {
	c := &s.screen
	u := &c.unit
	u.ClearEdits()
	c.pieces = c.pieces[:0]
	clear(c.running)
	texts := s.texts()[:c.in]
	for i := range texts {
		if t := &texts[i]; t.IsText() {
			t.Piece = c.pieceOf(t)
			p := &c.pieces[t.Piece]
			if p.Text = append(p.Text, t.Value...); t.Seen {
				p.Seen += len(t.Value)
			}
			continue
		}
		c.end(&texts[i])
	}
	if c.last {
		for i := range c.pieces {
			c.pieces[i].Last = true
		}
	}
	s.tellUnit()
}

// tellUnit has the unit say what it is, whatever the hook before has left there.
func (s *Stream) tellUnit() {
	u := &s.screen.unit
	u.Pieces = s.screen.pieces
	u.Stream, u.Begun, u.Last = s.x.Response.EventStream, s.begun(), s.screen.last
}

// end notes which pieces end with t, if it is an end.
func (c *screening) end(t *llm.Text) {
	for channel, i := range c.running {
		if t.Ends(channel) {
			c.pieces[i].Last = true
			delete(c.running, channel)
		}
	}
}

// pieceOf finds the piece that t continues, or makes one. What comes after the end of a channel is another text.
func (c *screening) pieceOf(t *llm.Text) int {
	if !t.Whole {
		if i := c.recent; i < len(c.pieces) && !c.pieces[i].Last && c.pieces[i].Channel == t.Channel {
			return i
		}
		if i, ok := c.running[t.Channel]; ok {
			c.recent = i
			return i
		}
	}
	n := len(c.pieces)
	if n == cap(c.pieces) {
		c.pieces = append(c.pieces, filter.Piece{})
	}
	c.pieces = c.pieces[:n+1]
	c.pieces[n] = filter.Piece{Channel: t.Channel, Text: c.pieces[n].Text[:0], Last: t.Whole, Whole: t.Whole}
	if !t.Whole {
		if c.running == nil {
			c.running = map[llm.Channel]int{}
		}
		c.running[t.Channel], c.recent = n, n
	}
	return n
}

// applyEdits puts the edits of the unit into the texts, for the next screener to see. Edits that cannot be are the failure of the
// filter at c.at, whose verdict it returns.
func (s *Stream) applyEdits() filter.Verdict {
	c := &s.screen
	edits := c.unit.Edits()
	if len(edits) == 0 {
		return filter.Next
	}
	slices.SortStableFunc(edits, func(a, b filter.Edit) int {
		return cmp.Or(a.Piece-b.Piece, a.From-b.From, a.To-b.To) // what is put in stands before what is replaced there
	})
	for i := range edits {
		e := &edits[i]
		if e.Piece >= len(c.pieces) || e.To > len(c.pieces[e.Piece].Text) {
			return s.failed(c.at, "makes edits of what is not there")
		}
		if i > 0 && edits[i-1].Piece == e.Piece && edits[i-1].To > e.From {
			return s.failed(c.at, "makes edits that overlap")
		}
	}
	c.cursors = append(c.cursors[:0], make([]cursor, len(c.pieces))...)
	for i := len(edits) - 1; i >= 0; i-- {
		c.cursors[edits[i].Piece] = cursor{edits: edits[i:], more: c.cursors[edits[i].Piece].more + 1}
	}
	texts := s.texts()[:c.in]
	for i := range texts {
		if t := &texts[i]; t.IsText() && c.cursors[t.Piece].more > 0 {
			c.edit(t)
		}
	}
	s.fillUnit()
	return filter.Next
}

// cursor is how far the edits of a piece are applied.
type cursor struct {
	edits []filter.Edit // the first more of them are left
	more  int
	at    int // in the piece's text: where the next of its texts begins
}

// edit puts the edits that reach a text into it, in one pass. The first text that an edit reaches gets what is new; the others
// lose what it replaces.
func (c *screening) edit(t *llm.Text) {
	to := &c.cursors[t.Piece]
	from, end := to.at, to.at+len(t.Value)
	to.at = end
	at, reached := from, false
	c.scratch = c.scratch[:0]
	for to.more > 0 {
		e := &to.edits[0]
		if e.From > end || e.From == end && e.To > end {
			break
		}
		start := max(e.From, at)
		c.scratch = append(append(c.scratch, t.Value[at-from:start-from]...), e.With...)
		e.With, reached = "", true
		if at = min(e.To, end); e.To > end {
			break // the next text loses the rest
		}
		to.edits, to.more = to.edits[1:], to.more-1
	}
	if reached {
		c.scratch = append(c.scratch, t.Value[at-from:]...)
		t.Value, c.scratch = c.scratch, t.Value
		t.Edited = true
	}
}

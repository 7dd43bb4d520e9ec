package chain

import (
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// fillUnit makes the unit of the texts as they are now.
func (s *Stream) fillUnit() {
	c := &s.screen
	u := &c.unit
	u.Pieces = u.Pieces[:0]
	u.ClearEdits()
	u.Stream, u.Begun, u.Last = s.x.Response.EventStream, s.state.in(setOf(passing, passAsks)) || len(c.out) > 0, c.last
	texts := s.response.Texts()[:c.in]
	for i := range texts {
		if t := &texts[i]; t.IsText() {
			t.Piece = c.pieceOf(t)
			p := &u.Pieces[t.Piece]
			if p.Text = append(p.Text, t.Value...); t.Seen {
				p.Seen += len(t.Value)
			}
			continue
		}
		c.end(&texts[i])
	}
	for i := range u.Pieces {
		p := &u.Pieces[i]
		p.Last = p.Last || u.Last
	}
}

// end notes which pieces end with t, if it is an end.
func (c *screening) end(t *llm.Text) {
	for i := range c.unit.Pieces {
		if p := &c.unit.Pieces[i]; t.Ends(p.Channel) {
			p.Last = true
		}
	}
}

// pieceOf finds the piece that t continues, or makes one. What comes after the end of a channel is another text.
func (c *screening) pieceOf(t *llm.Text) int {
	u := &c.unit
	if !t.Whole {
		for i := range u.Pieces {
			if p := &u.Pieces[i]; p.Channel == t.Channel && !p.Last {
				return i
			}
		}
	}
	n := len(u.Pieces)
	if n == cap(u.Pieces) {
		u.Pieces = append(u.Pieces, filter.Piece{})
	}
	u.Pieces = u.Pieces[:n+1]
	u.Pieces[n] = filter.Piece{Channel: t.Channel, Text: u.Pieces[n].Text[:0], Last: t.Whole}
	return n
}

// applyEdits puts the edits of the unit into the texts, for the next screener to see. It reports whether that one is to see
// them: not if edits that cannot be have ended the response.
func (s *Stream) applyEdits() bool {
	c := &s.screen
	edits := c.unit.Edits()
	if len(edits) == 0 {
		return true
	}
	slices.SortStableFunc(edits, func(a, b filter.Edit) int {
		if a.Piece != b.Piece {
			return a.Piece - b.Piece
		}
		return a.From - b.From
	})
	for i := range edits[1:] {
		if a, b := &edits[i], &edits[i+1]; a.Piece == b.Piece && a.To > b.From {
			c.unit.ClearEdits()
			return !s.endsResponse(s.failed(c.at, "makes edits that overlap"))
		}
	}
	texts := s.response.Texts()[:c.in]
	for _, e := range slices.Backward(edits) { // from the end, so that what stands before keeps its place
		edit(texts, &e)
	}
	s.fillUnit()
	return true
}

// edit puts one edit into the texts. The first text that it reaches gets the new one; the others lose what it replaces.
func edit(texts []llm.Text, e *filter.Edit) {
	with, from := e.With, 0
	for i := range texts {
		t := &texts[i]
		if !t.IsText() || t.Piece != e.Piece {
			continue
		}
		to := from + len(t.Value)
		if e.From < to && from < e.To || e.From == e.To && e.From <= to {
			t.Value = slices.Replace(t.Value, max(e.From, from)-from, min(e.To, to)-from, []byte(with)...)
			t.Edited, with = true, ""
		}
		if from = to; e.To <= to {
			return
		}
	}
}

package chain

import (
	"math"
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// screening is what a Stream withholds of a response until filters have seen its text
// (see filter.Screener). The bytes are kept here, not in Envoy, whose own limit would
// turn a long response into an error.
//
//	arrives → raw: events with text that nobody has passed yet
//	        → unit: the text of raw, shown to each screener in turn
//	        → out: what may go on, edited; handed over with the next callback that lets it go
type screening struct {
	raw  []byte
	gone int   // bytes of raw that are in out
	base int64 // offset in the response of the first byte of raw that is not gone
	out  []byte
	// handed is what was handed over last.
	handed []byte

	window  int
	dropped int   // of the response's texts: those that are gone
	keep    int64 // offset of what a screener of the unit wants kept back
	left    []int // by piece of the unit, while keep is looked for
	counted int   // texts of raw that fresh has
	fresh   int   // bytes of text that no unit has shown

	unit    filter.Unit
	pieces  []filter.Piece      // of the unit: filters may leave anything in unit.Pieces
	running map[llm.Channel]int // pieces of the unit that have not ended
	recent  int                 // piece of the text before
	cursors []cursor            // by piece of the unit, while edits are applied
	scratch []byte

	shown bool // there was one
	in    int  // texts of raw that it has
	at    int  // slot whose turn it is
	last  bool // it is the last one
	over  bool // the response's end was seen
	told  bool // that something is not in units
	ahead bool // bytes were handed over, with which the host waits
	open  bool // nobody screens any more
	// rest reads what nobody screens: to restore the model's name, and to leave out the usage.
	rest *llm.ResponseScanner
}

// What a Stream keeps of one screened response for the next.
const (
	screenKept = 64 << 10
	piecesKept = 256
)

func (c *screening) reset() {
	if max(cap(c.raw), cap(c.out), cap(c.handed)) > screenKept || cap(c.pieces) > piecesKept {
		*c = screening{}
	}
	unit := c.unit
	unit.Pieces = nil
	unit.ClearEdits()
	clear(c.running)
	*c = screening{
		raw: c.raw[:0], out: c.out[:0], handed: c.handed[:0], left: c.left[:0], unit: unit,
		pieces: c.pieces[:0], running: c.running, cursors: c.cursors[:0], scratch: c.scratch[:0],
	}
}

// wantsScreening reports whether a filter wants this response screened, and notes how.
func (s *Stream) wantsScreening() bool {
	c := &s.screen
	c.window = math.MaxInt
	wanted, own := false, s.isEnvoys()
	for _, i := range s.c.screeners {
		how, asked := s.x.Screening(i)
		if !asked || i >= s.started || own || s.status >= 300 && !how.Errors {
			s.x.StopScreening(i)
			continue
		}
		wanted = true
		c.window = min(c.window, how.Window)
	}
	return wanted
}

// startScreening withholds the response from its headers on. It reports false if it is not to be screened after all.
func (s *Stream) startScreening(contentType string) bool {
	if len(s.c.screeners) == 0 || !s.wantsScreening() {
		return false
	}
	if why := s.unreadable(contentType); why != "" {
		if r := s.allUnable("response-" + why); r != nil {
			s.refuse(r)
			return true
		}
		return false
	}
	s.to(keeping)
	s.reads = responseScreened
	s.response.Reset(s.x.API, s.x.Response.EventStream, s.x.Effects().Model)
	s.response.Screen()
	s.conceal(&s.response)
	return true
}

// allUnable is for a response that cannot be screened: that is the failure of each filter that wants to. It returns the
// refusal of the first one that fails closed, nil if there is none. Then nobody screens any more.
func (s *Stream) allUnable(why string) *filter.Refusal {
	for i := s.started - 1; i >= 0; i-- {
		if _, asked := s.x.Screening(i); !asked {
			continue
		}
		s.x.StopScreening(i)
		if r := s.unable(i, why).Refusal(); r != nil {
			return r
		}
		s.tellUnscreened(i, filter.FailedOpen)
	}
	return nil
}

// tellUnshown tells screeners that something goes on which units do not show.
func (s *Stream) tellUnshown() {
	c := &s.screen
	if c.told || c.open || !s.state.in(screened) || !s.response.Unshown() {
		return
	}
	c.told = true
	for i := s.started - 1; i >= 0; i-- {
		if _, asked := s.x.Screening(i); asked {
			s.tellUnscreened(i, filter.Unshown)
		}
	}
	s.explainNews()
}

// tellUnscreened tells a screener that what it has not seen goes on.
func (s *Stream) tellUnscreened(i int, what filter.Unscreened) {
	f, ok := s.c.slots[i].filter.(filter.Unscreener)
	if !ok {
		return
	}
	s.x.Enter(i)
	var ignored filter.Verdict
	defer s.recovered(i, s.x.Mark(), &ignored)
	f.OnUnscreened(&s.x, what)
}

// take takes the next bytes of a response that is screened; end: these are the last. What may go on is in out.
func (s *Stream) take(chunk []byte, end bool) {
	c := &s.screen
	s.takePiece(chunk)
	if end {
		c.over = true
		s.response.End()
	}
	s.tellUnshown()
	switch {
	case c.open, !s.state.in(screened):
	case s.response.Broken() != nil:
		s.unscreened("response-unreadable")
	case !s.state.in(asking):
		s.advance()
	}
	if end && c.open {
		s.endOpen()
	}
}

// takePiece takes bytes of a response that is screened, of which take brings more. It takes no more than may be withheld at a
// time, so that the limit means the same however the response is cut.
func (s *Stream) takePiece(chunk []byte) {
	c := &s.screen
	for len(chunk) > 0 {
		if c.open || !s.state.in(screened) {
			s.takeUnscreened(chunk)
			return
		}
		if s.room() <= 0 && !s.state.in(asking) {
			s.advance()
			if c.open || !s.state.in(screened) {
				continue
			}
		}
		n := min(s.room(), len(chunk))
		if n <= 0 {
			s.unscreened("response-too-large")
			continue
		}
		s.response.Feed(chunk[:n])
		c.raw = append(c.raw, chunk[:n]...)
		if chunk = chunk[n:]; s.response.Broken() != nil {
			s.unscreened("response-unreadable")
		}
	}
}

// room is how much more may be withheld.
func (s *Stream) room() int {
	c := &s.screen
	used := len(c.raw) - c.gone
	if s.state.in(asking) || s.StopsResponse() {
		used += len(c.out) // which waits too
	}
	return int(s.c.responseLimit) - used
}

// takeUnscreened takes bytes that nobody screens: those of a response that has failed open go on, of one that was ended only the
// usage is of interest.
func (s *Stream) takeUnscreened(chunk []byte) {
	s.response.Feed(chunk)
	if s.screen.open {
		s.passOn(chunk)
	}
}

// texts are those of what is withheld.
func (s *Stream) texts() []llm.Text { return s.response.Texts()[s.screen.dropped:] }

// stopTexts has only the usage read from here on.
func (s *Stream) stopTexts() {
	s.response.StopTexts()
	s.screen.dropped, s.screen.counted = 0, 0
}

// advance shows the next unit if there is one, and lets go what may go. Before the first text goes on that is nothing: events
// without text, such as a role, would make the response begin, and it could not be refused any more.
func (s *Stream) advance() {
	c := &s.screen
	c.count(s.texts())
	switch {
	case c.fresh > 0 && c.fresh >= c.window, s.lastIsDue():
		s.show()
	case c.shown:
		s.let(s.beforeTexts(0))
	}
}

// lastUnit reports whether no text comes after what has come.
func (s *Stream) lastUnit() bool { return s.screen.over || s.response.Ended() }

// lastIsDue reports whether the last unit is complete and is to be shown: there is text that was not, or was kept back, or none was
// there at all.
func (s *Stream) lastIsDue() bool {
	c := &s.screen
	switch {
	case !s.lastUnit():
		return false
	case c.fresh > 0 || !c.shown:
		return true
	}
	return !c.last && slices.ContainsFunc(s.texts(), func(t llm.Text) bool { return t.IsText() })
}

// count counts the text that has come.
func (c *screening) count(texts []llm.Text) {
	for ; c.counted < len(texts); c.counted++ {
		if t := &texts[c.counted]; t.IsText() {
			c.fresh += len(t.Value)
		}
	}
}

// show makes a unit of what is withheld and shows it to the screeners.
func (s *Stream) show() {
	c := &s.screen
	c.fresh, c.in, c.at, c.last, c.shown = 0, len(s.texts()), s.started-1, s.lastUnit(), true
	c.keep = math.MaxInt64
	s.fillUnit()
	s.showOthers()
}

// showOthers shows the unit to the screeners that have not seen it, and lets it go when all have.
func (s *Stream) showOthers() {
	c := &s.screen
	for ; c.at >= 0; c.at-- {
		how, asked := s.x.Screening(c.at)
		if !asked {
			continue
		}
		for i := range c.pieces {
			c.pieces[i].Keep = how.Overlap
		}
		s.x.SetUnit(&c.unit)
		if !s.settleUnit(s.run(c.at, hookResponse, nil)) {
			return
		}
	}
	s.letUnit()
}

// settleUnit does what the verdict of the screener at c.at says, and reports whether the next one is to see the unit.
func (s *Stream) settleUnit(v filter.Verdict) bool {
	v = s.carryOut(s.screen.at, hookResponseReply, v)
	if s.calls.held() && v == filter.Next {
		s.ask(true)
		return false
	}
	s.x.SetUnit(nil)
	return !s.endsResponse(v) && !s.endsResponse(s.takeUnit())
}

// ask begins or ends that a screener waits for its call.
func (s *Stream) ask(begins bool) {
	next := passing
	if s.state == keeping || s.state == keepAsks {
		next = keeping
	}
	if begins {
		next++
	}
	s.to(next)
}

// replyToScreener is for a call that a screener waits for.
func (s *Stream) replyToScreener(r *filter.Reply) {
	c := &s.screen
	s.ask(false)
	if s.settleUnit(s.run(c.at, hookResponseReply, r)) {
		c.at--
		s.showOthers()
		// What has come meanwhile is shown now if nothing comes that would have it shown, or if nothing goes on: what goes on would have to
		// wait with it, since a response that is held goes on once.
		if c.count(s.texts()); s.screens() && (s.lastIsDue() || len(c.out) == 0) {
			s.advance()
		}
	}
	if s.state == ended || s.state.in(screened) && !s.HoldsResponse() {
		s.host.ResumeResponse(s.handOver())
	}
}

// screens reports whether a next unit may be shown.
func (s *Stream) screens() bool { return s.state.in(screened) && !s.state.in(asking) && !s.screen.open }

// takeUnit takes what the hook of the screener at c.at has left in the unit. What the chain cannot digest of it is the
// failure of that filter, whose verdict it returns.
func (s *Stream) takeUnit() (v filter.Verdict) {
	c := &s.screen
	defer func() {
		if p := recover(); p != nil {
			v = s.failed(c.at, describe(p))
		}
	}()
	s.keepBack()
	return s.applyEdits()
}

// keepBack notes what the screener wants kept back: the events that have brought the last bytes of pieces whose text has not ended.
// It counts in the text as this screener has seen it, which the edits of others make longer and shorter. That another text
// has come meanwhile does not say that one is over.
func (s *Stream) keepBack() {
	c := &s.screen
	kept := 0 // pieces of which some is
	c.left = c.left[:0]
	for i := range c.pieces {
		p := &c.pieces[i]
		if p.Last || p.Keep <= 0 {
			c.left = append(c.left, 0)
			continue
		}
		kept++
		c.left = append(c.left, p.Keep)
	}
	texts := s.texts()
	for i := c.in - 1; i >= 0 && kept > 0; i-- {
		t := &texts[i]
		if !t.IsText() || c.left[t.Piece] <= 0 {
			continue
		}
		c.keep = min(c.keep, t.Event)
		if c.left[t.Piece] -= len(t.Value); c.left[t.Piece] <= 0 {
			kept--
		}
	}
}

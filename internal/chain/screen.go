package chain

import (
	"math"
	"slices"
	"strconv"

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
	base int64 // offset in the response of raw's first byte
	out  []byte
	// handed is what was handed over last.
	handed []byte

	window  int
	keeps   []int // by piece of the unit: the most that a screener wants kept back
	counted int   // texts of raw that fresh has
	fresh   int   // bytes of text that no unit has shown

	unit  filter.Unit
	shown bool // there was one
	in    int  // texts of raw that it has
	at    int  // slot whose turn it is
	last  bool // it is the last one
	over  bool // the response's end was seen
	open  bool // nobody screens any more
}

// screenKept bounds the memory that a Stream keeps of one screened response for the next.
const screenKept = 64 << 10

func (c *screening) reset() {
	unit := c.unit
	if cap(c.raw) > screenKept || cap(c.out) > screenKept || cap(c.handed) > screenKept {
		*c, unit = screening{}, filter.Unit{}
	}
	unit.Pieces = unit.Pieces[:0]
	unit.ClearEdits()
	*c = screening{raw: c.raw[:0], out: c.out[:0], handed: c.handed[:0], keeps: c.keeps[:0], unit: unit}
}

// wantsScreening reports whether a filter wants this response screened, and notes how.
func (s *Stream) wantsScreening() bool {
	c := &s.screen
	c.window = math.MaxInt
	wanted := false
	for _, i := range s.c.screeners {
		how, asked := s.x.Screening(i)
		if !asked || i >= s.started || s.status >= 300 && !how.Errors {
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
	}
	return nil
}

// take takes the next bytes of a response that is screened; end: these are the last. What may go on is in out.
func (s *Stream) take(chunk []byte, end bool) {
	c := &s.screen
	s.response.Feed(chunk)
	if end {
		c.over = true
		s.response.End()
	}
	if !s.state.in(screened) {
		s.response.Drop(len(s.response.Texts()))
		return // only its usage is of interest
	}
	c.raw = append(c.raw, chunk...)
	switch {
	case c.open:
		s.letAll()
	case s.response.Broken() != nil:
		s.unscreened("response-unreadable")
	case int64(len(c.raw)+len(c.out)) > s.c.responseLimit:
		s.unscreened("response-too-large")
	case s.state.in(asking):
	default:
		s.advance()
	}
}

// advance shows the next unit if there is one, and lets go what may go.
func (s *Stream) advance() {
	c := &s.screen
	c.count(s.response.Texts())
	if c.fresh > 0 && c.fresh >= c.window || s.lastIsDue() {
		s.show()
		return
	}
	s.let(s.beforeTexts(0))
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
	return !c.last && slices.ContainsFunc(s.response.Texts(), func(t llm.Text) bool { return t.IsText() })
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
	texts := s.response.Texts()
	c.fresh, c.in, c.at, c.last, c.shown = 0, len(texts), s.started-1, s.lastUnit(), true
	s.fillUnit()
	c.keeps = append(c.keeps[:0], make([]int, len(c.unit.Pieces))...)
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
		for i := range c.unit.Pieces {
			c.unit.Pieces[i].Keep = how.Overlap
		}
		s.x.SetUnit(&c.unit)
		if !s.settleUnit(s.run(c.at, hookResponse, nil)) {
			return
		}
	}
	s.let(s.afterUnit())
}

// settleUnit does what the verdict of the screener at c.at says, and reports whether the next one is to see the unit.
func (s *Stream) settleUnit(v filter.Verdict) bool {
	for range maxFailedCalls {
		call := v.Call()
		if call == nil {
			s.x.SetUnit(nil)
			for i := range s.screen.keeps {
				s.screen.keeps[i] = max(s.screen.keeps[i], s.screen.unit.Pieces[i].Keep)
			}
			return !s.endsResponse(v) && s.applyEdits()
		}
		s.ask(true)
		err := s.host.Call(call)
		if err == nil {
			return false
		}
		s.ask(false)
		v = s.run(s.screen.at, hookResponseReply, &filter.Reply{Err: err})
	}
	return s.settleUnit(s.failed(s.screen.at, "gives up: its calls cannot be started"))
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

// reply hands over the reply to the call that a screener waits for.
func (s *Stream) replyToScreener(r *filter.Reply) {
	c := &s.screen
	s.ask(false)
	if s.settleUnit(s.run(c.at, hookResponseReply, r)) {
		c.at--
		s.showOthers()
		if c.count(s.response.Texts()); s.state.in(screened) && !s.state.in(asking) && s.lastIsDue() {
			s.show() // nothing comes that would have it shown
		}
	}
	if s.state == ended || s.state.in(screened) && !s.HoldsResponse() {
		s.host.ResumeResponse(s.handOver())
	}
}

// endsResponse ends the response if the verdict says so.
func (s *Stream) endsResponse(v filter.Verdict) bool {
	if a := v.Answer(); a != nil {
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
	c.raw = c.raw[:0]
	if s.state == keeping && len(c.out) == 0 {
		s.refuse(r)
		return
	}
	if s.state == keeping {
		s.begin()
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
	s.to(ended)
	s.response.Drop(len(s.response.Texts()))
	if !c.over {
		s.host.EndResponse()
	}
}

// unscreened is for a response that cannot be screened any further.
func (s *Stream) unscreened(why string) {
	if s.state.in(asking) {
		s.ask(false) // the reply, when it comes, finds nobody who waits for it
	}
	s.x.SetUnit(nil)
	if r := s.allUnable(why); r != nil {
		s.stop(r)
		return
	}
	s.screen.open = true
	s.letAll()
}

// afterUnit returns the offset up to which the response may go on when the unit has passed.
func (s *Stream) afterUnit() int64 {
	c := &s.screen
	until := s.beforeTexts(c.in)
	texts := s.response.Texts()[:c.in]
	for p := range c.unit.Pieces {
		if keep := s.keep(p); keep > 0 {
			until = min(until, keptFrom(texts, p, keep))
		}
	}
	for i := range texts {
		texts[i].Seen = true
	}
	return until
}

// keep is how many bytes at the end of a piece stay withheld. Only the end of its text lets them go: that another text has
// come meanwhile does not say that this one is over.
func (s *Stream) keep(piece int) int {
	if s.screen.unit.Pieces[piece].Last {
		return 0
	}
	return s.screen.keeps[piece]
}

// keptFrom returns where the event begins that has brought the first of the last keep bytes of a piece.
func keptFrom(texts []llm.Text, piece, keep int) (at int64) {
	for i := len(texts) - 1; i >= 0 && keep > 0; i-- {
		if t := &texts[i]; t.IsText() && t.Piece == piece {
			at = t.Event
			keep -= len(t.Value)
		}
	}
	return at
}

// beforeTexts returns the offset up to which events are over and have no text but that of the first n entries.
func (s *Stream) beforeTexts(n int) int64 {
	until := s.response.Boundary()
	texts := s.response.Texts()
	for i := n; i < len(texts); i++ {
		if texts[i].IsText() {
			return min(until, texts[i].Event)
		}
	}
	if s.screen.over {
		until = s.screen.base + int64(len(s.screen.raw))
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
	texts := s.response.Texts()
	k := 0
	for k < len(texts) && texts[k].Event < until {
		k++
	}
	c.out = s.response.Splice(c.out, c.raw[:n], c.base, texts[:k])
	s.response.Drop(k)
	c.raw = append(c.raw[:0], c.raw[n:]...)
	c.base = until
	c.counted -= k
}

// letAll lets go all that has come, as it came.
func (s *Stream) letAll() {
	c := &s.screen
	c.out = append(c.out, c.raw...)
	c.base += int64(len(c.raw))
	c.raw = c.raw[:0]
	s.response.Drop(len(s.response.Texts()))
}

// handOver returns what goes on now, which is valid until the next call. The first time, the headers go before it.
func (s *Stream) handOver() []byte {
	c := &s.screen
	if s.state == keeping {
		s.begin()
	}
	c.out, c.handed = c.handed[:0], c.out
	return c.handed
}

// begin lets the headers of a response go on.
func (s *Stream) begin() {
	c := &s.screen
	if _, sized := s.x.Response.Headers.Get("content-length"); sized {
		if c.over {
			s.x.SetResponseHeader("content-length", strconv.Itoa(len(c.out)))
		} else {
			s.x.RemoveResponseHeader("content-length")
		}
	}
	s.applyResponse()
	s.to(passing)
}

// HoldsResponse reports, after ResponseBody and ResponseEnd, whether the response is held: nothing of it goes on, the
// headers neither if they have not, and the adapter's buffer stays empty. Host.ResumeResponse ends that, or a later call.
func (s *Stream) HoldsResponse() bool {
	if s.reads != responseScreened {
		return false
	}
	switch s.state {
	case keeping:
		return len(s.screen.out) == 0 && !s.screen.over
	case keepAsks, passAsks, refused, answered:
		return true
	}
	return false
}

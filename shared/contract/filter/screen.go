package filter

import (
	"fmt"

	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Screener is a Filter that sees the text of responses before the client does, and
// may change or stop it. It asks for that with [Exchange.Screen], for each
// exchange; without it nothing is withheld and OnResponse does not run.
type Screener interface {
	// OnResponse runs for each unit of the response, in reverse order of the chain's
	// filters. Each filter sees what those before it have made of the text.
	//
	//	Next    the unit goes on, with the edits that were made
	//	Wait    the unit and all behind it are held until the calls are answered;
	//	        OnReply of the same filter runs with each reply, where x.Unit is the same
	//	        unit, and with Next there the edits of all go on
	//	Deny    the response ends with the refusal: see Refusal.Filtered
	//	Respond the answer takes the response's place; only while nothing of the response
	//	        has gone on, which Unit.Begun tells
	//	Fail    the filter's failure mode decides: FailOpen lets the unit go on as it is,
	//	        FailClosed ends the response
	OnResponse(x *Exchange, u *Unit) Verdict
}

// Unscreener is a Screener that is told when something of a response goes on that it has not judged. It may be told more than once,
// and effects recorded here are ignored.
type Unscreener interface {
	OnUnscreened(x *Exchange, what Unscreened)
}

// Unscreened is what goes on unscreened.
type Unscreened uint8

const (
	// FailedOpen is text that the screener's failure mode lets go on: a response that cannot be read, or a unit at which it failed.
	FailedOpen Unscreened = iota
	// Unshown is what no unit shows and may be text all the same: token details (logprobs), and what a line of an event stream says that
	// is no data, unless it is the usual name of an event, number, or sign of life. It is left out of nothing but the units.
	Unshown
)

// Screening is how a filter wants to see the text of a response.
//
// A JSON response is one unit. Of a stream a unit has the text of one or more
// events: as soon as they have brought Window bytes, or the stream ends. After a
// unit has passed, the last Overlap bytes of each text are still withheld, with the
// events that brought them, and stand at the beginning of the next unit: a pattern
// that is not longer than that is seen whole, however it is cut into events. Where
// several filters ask, the smallest Window is used, and as much is kept back as the one
// that wants most.
//
// What is kept of a text goes on when more of it has come, or when it ends: the server says so
// (finish_reason, content_block_stop, a .done event), or the stream is over. Events go on in
// order, so what comes behind it waits too. If a model answers after its reasoning, and the server
// does not end the reasoning, the end of the reasoning and with it the whole answer wait for the
// stream's end. A filter that cannot have that sets Piece.Keep to what can be the beginning of
// something, mostly 0, in place of a fixed Overlap.
type Screening struct {
	Window  int
	Overlap int
	// Errors has responses with an error status screened too. Refusals of this gateway
	// and what Envoy responds itself never are.
	Errors bool
}

// Screen asks for OnResponse. It must be said in OnResponseHeaders or earlier. Said
// before the request goes on (OnRequest), the replica is asked for a response that
// can be read. One that cannot be read (compressed, no JSON, malformed, larger than
// limits.response) is the failure of each filter that asked. If all of them fail open, the rest
// of the response goes on unscreened, with the edits that were made until then.
func (x *Exchange) Screen(s Screening) { x.screens[x.slot] = screen{Screening: s, asked: true} }

// screen is what one filter has asked for.
type screen struct {
	Screening
	asked  bool
	failed bool
}

// Screening returns what the filter of a slot has asked for, and whether it has. For
// the chain only.
func (x *Exchange) Screening(slot int) (Screening, bool) {
	s := &x.screens[slot]
	return s.Screening, s.asked
}

// StopScreening takes back what the filter of a slot has asked for. For the chain only.
func (x *Exchange) StopScreening(slot int) { x.screens[slot].asked = false }

// ScreeningFailed reports whether the filter of a slot has failed at a unit of the response. For the chain only.
func (x *Exchange) ScreeningFailed(slot int) bool { return x.screens[slot].failed }

// NoteScreeningFailed notes that it has. For the chain only.
func (x *Exchange) NoteScreeningFailed(slot int) { x.screens[slot].failed = true }

// Unit returns the unit that OnResponse was called with, in OnReply of a filter that
// waits there; nil when it is the request that waits, and for calls beside it.
func (x *Exchange) Unit() *Unit { return x.unit }

// SetUnit sets what Unit returns. For the chain only.
func (x *Exchange) SetUnit(u *Unit) { x.unit = u }

// Unit is a part of a response that is withheld until it has been screened.
//
// It shows the strings in the values of the response's JSON, but not all of them: no
// names of members and no numbers; not what the server says of the response (id,
// object, type, role, status, model, finish_reason, stop_reason, service_tier and the
// like, signatures and encrypted content), except in the arguments of a tool; no token
// details (logprobs, token ids), which go when the text was edited. Comments and other
// fields of an event stream are not shown either; see [Unshown]. Of what comes after the end of a
// stream ("[DONE]"), which clients do not read, nothing is kept back: a text that goes
// on from event to event there is seen in pieces.
type Unit struct {
	// Pieces are the texts in it, one for each channel. Texts that stand alone are
	// pieces of their own.
	Pieces []Piece
	// Stream: it is of an event stream, not a whole JSON response.
	Stream bool
	// Begun: the client has got a part of the response, so that its status stands. It is false
	// until text goes on: events without text before it wait for it.
	Begun bool
	// Last: nothing comes after this unit. Not every response has such a unit: one
	// that brings no text is shown only if text was kept back, or none was shown yet.
	Last bool

	edits []Edit
}

// Piece is the withheld text of one channel of a response.
type Piece struct {
	llm.Channel
	// Text is decoded. It is valid during the hook only and must not be changed.
	Text []byte
	// Seen is how much of Text, from its beginning, earlier units have shown already.
	Seen int
	// Whole: it stands alone and does not continue the text of its channel, which may go on behind it. Some events of
	// streams say so what others have said or will say.
	Whole bool
	// Last: the channel's text ends here.
	Last bool
	// Keep is how many bytes at the end of Text stay withheld for the next unit. It
	// begins as the filter's Overlap, and the filter may set it: to more while it sees
	// the beginning of something, to less if it knows that nothing begins there.
	Keep int
}

// Edit replaces the bytes [From, To) of a piece's text.
type Edit struct {
	Piece, From, To int
	With            string
}

// Replace replaces the bytes [from, to) of the text of a piece. The bounds are those
// of the text as the hook got it, and must not cut characters; edits of one unit must
// not overlap, and may be said in any order: what is put in at a place stands before what
// replaces the text there. The new text stands where the old one began, also if that came in
// several events; every event stays what it is. Where Piece.JSON says so the
// text is the source of JSON, and the caller escapes what it puts into a string of it;
// otherwise with is the value itself.
func (u *Unit) Replace(piece, from, to int, with string) {
	if text := u.Pieces[piece].Text; from < 0 || from > to || to > len(text) {
		panic(fmt.Errorf("an edit of [%d, %d) in a text of %d bytes", from, to, len(text)))
	}
	u.edits = append(u.edits, Edit{piece, from, to, with})
}

// Edits returns the edits that were made, and ClearEdits forgets them. For the chain only.
func (u *Unit) Edits() []Edit { return u.edits }

// ClearEdits forgets the edits.
func (u *Unit) ClearEdits() {
	clear(u.edits)
	u.edits = u.edits[:0]
}

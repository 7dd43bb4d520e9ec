// Package sse splits a stream of server-sent events, as model servers use for their answers, into events.
//
// A [Splitter] takes the stream in whatever chunks it arrives and reports the same events for every chunking: an event
// that lies within one chunk in place, without a copy, and one that is split between chunks as soon as its last byte
// is there. Nothing is lost or changed: the Raw bytes of all events, one after the other, are the stream.
package sse

import (
	"bytes"
	"errors"
)

// DefaultMaxEvent is the longest event, in bytes, that a Splitter accepts if its MaxEvent is 0. Events of a few hundred
// bytes are the rule; the longest carry a whole answer once more at the end of a stream.
const DefaultMaxEvent = 1 << 20

// ErrTooLong says that an event is longer than Splitter.MaxEvent.
var ErrTooLong = errors.New("server-sent event too long")

// Event is one server-sent event (WHATWG HTML, section 9.2.6). Slices alias the chunk or the splitter's buffer: valid
// during the call only.
type Event struct {
	Name []byte // value of the event field; empty stands for "message"
	Data []byte // values of the data fields, joined by '\n'
	ID   []byte // value of the event's own id field; nil if it has none. (The specification lets later events inherit it.)
	Raw  []byte // the exact bytes on the wire, terminator included

	// DataAt is the offset in Raw at which Data stands, or -1 if it does not stand there in one piece.
	DataAt int

	// HasData is false for a block of comments, empty lines or other fields alone. A client takes no notice of it, and
	// it is reported so that its Raw bytes are not lost: servers send such blocks to keep connections alive.
	HasData bool
	// Incomplete is true for what stands at the end of the stream without an empty line after it. The specification
	// drops it; some clients do not.
	Incomplete bool
}

// span is a piece of an event: offsets from the event's first byte.
type span struct{ start, end int }

// Splitter splits one stream. The zero value is ready for use.
type Splitter struct {
	// MaxEvent bounds the Raw bytes of an event, and so what the splitter buffers. 0 means DefaultMaxEvent.
	MaxEvent int

	err  error
	held []byte // of the event under way, the bytes of earlier chunks

	line     int // offset in the event of the first byte of the line under way
	notFirst bool
	afterCR  bool // the last byte was a CR: a LF right after it belongs to it
	blank    bool // ... and the line that it ends is empty
	bareCR   bool // the last line ended with a CR that no LF followed

	name, id span
	data     span   // value of the first data field
	joined   []byte // values of all data fields, if there are several
	dataN    int    // data fields
	hasName  bool
	hasID    bool

	event Event
}

// Reset makes the splitter ready for a new stream. MaxEvent stays.
func (s *Splitter) Reset() {
	held, joined := s.held, s.joined
	// What one long event needed is not kept for all the short ones that follow.
	const keep = 64 << 10
	if cap(held) > keep {
		held = nil
	}
	if cap(joined) > keep {
		joined = nil
	}
	*s = Splitter{MaxEvent: s.MaxEvent, held: held[:0], joined: joined[:0]}
}

// Held returns what has been fed and not been reported: the start of an event whose end has not come. After ErrTooLong
// it includes everything from the first byte of the event that is too long. Valid until the next call.
func (s *Splitter) Held() []byte { return s.held }

// Feed takes the next bytes of the stream and calls emit for each event that ends in them. It returns nil, or ErrTooLong
// from the first event on that is too long.
//
// An empty line that ends with CR is the end of an event only when it is known whether a LF belongs to it, unless
// the line before it ended with CR alone: events of a stream that uses CR alone are not delayed, and CRLF is never torn.
func (s *Splitter) Feed(chunk []byte, emit func(*Event)) error {
	if s.err != nil {
		return s.err
	}
	begin := 0       // what lies before it in the chunk belongs to reported events or is in held
	lf, cr := -1, -1 // the next of each in the chunk, at or after i; len(chunk) if there is none
	for i := 0; i < len(chunk); {
		ended := false // the event ends at i
		if s.afterCR {
			s.afterCR = false
			s.bareCR = chunk[i] != '\n'
			if !s.bareCR {
				i++
			}
			ended = s.blank
			s.line = len(s.held) + i - begin
		} else {
			if lf < i {
				lf = index(chunk, i, '\n')
			}
			if cr < i {
				cr = index(chunk, i, '\r')
			}
			end := min(lf, cr)
			if end == len(chunk) {
				break
			}
			i = end + 1
			raw := chunk[begin:i]
			if len(s.held) > 0 {
				s.held = append(s.held, raw...)
				raw, begin = s.held, i
			}
			s.blank = s.field(raw, raw[s.line:len(raw)-1])
			s.line = len(raw)
			if end == cr {
				s.afterCR = true
				ended = s.blank && s.bareCR
			} else {
				s.bareCR = false
				ended = s.blank
			}
		}
		if !ended {
			continue
		}
		raw := chunk[begin:i]
		if len(s.held) > 0 {
			s.held = append(s.held, raw...)
			raw, begin = s.held, i
		}
		if len(raw) > s.maxEvent() {
			break
		}
		s.report(raw, false, emit)
		begin = i
	}
	s.held = append(s.held, chunk[begin:]...)
	if len(s.held) > s.maxEvent() {
		s.err = ErrTooLong
	}
	return s.err
}

// End reports what is left at the end of the stream. It returns nil, or ErrTooLong if Feed did.
func (s *Splitter) End(emit func(*Event)) error {
	if s.err != nil || len(s.held) == 0 {
		return s.err
	}
	complete := s.afterCR && s.blank
	if !complete && s.line < len(s.held) {
		s.field(s.held, s.held[s.line:])
	}
	s.report(s.held, !complete, emit)
	return nil
}

// index returns the place of c in b at or after i, or len(b).
func index(b []byte, i int, c byte) int {
	if n := bytes.IndexByte(b[i:], c); n >= 0 {
		return i + n
	}
	return len(b)
}

func (s *Splitter) maxEvent() int {
	if s.MaxEvent <= 0 {
		return DefaultMaxEvent
	}
	return s.MaxEvent
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// field reads the line raw[s.line:][:len(line)] and reports whether it is empty. raw starts with the event's first byte.
func (s *Splitter) field(raw, line []byte) (blank bool) {
	at := s.line
	if !s.notFirst {
		s.notFirst = true
		if bytes.HasPrefix(line, byteOrderMark) {
			line = line[len(byteOrderMark):]
			at += len(byteOrderMark)
		}
	}
	if len(line) == 0 {
		return true
	}
	colon := bytes.IndexByte(line, ':')
	value := len(line)
	if colon < 0 {
		colon = len(line)
	} else {
		value = colon + 1
		if value < len(line) && line[value] == ' ' {
			value++
		}
	}
	v := span{at + value, at + len(line)}
	switch string(line[:colon]) {
	case "data":
		s.dataField(raw, v)
	case "event":
		s.name, s.hasName = v, true
	case "id":
		if bytes.IndexByte(raw[v.start:v.end], 0) < 0 {
			s.id, s.hasID = v, true
		}
	}
	return false
}

// dataField adds the value of a data field.
func (s *Splitter) dataField(raw []byte, v span) {
	s.dataN++
	switch s.dataN {
	case 1:
		s.data = v
		return
	case 2:
		s.joined = append(s.joined[:0], raw[s.data.start:s.data.end]...)
	}
	s.joined = append(s.joined, '\n')
	s.joined = append(s.joined, raw[v.start:v.end]...)
}

// report emits the event whose bytes are raw, and makes ready for the next.
func (s *Splitter) report(raw []byte, incomplete bool, emit func(*Event)) {
	e := &s.event
	*e = Event{Raw: raw, DataAt: -1, HasData: s.dataN > 0, Incomplete: incomplete}
	if s.hasName {
		e.Name = raw[s.name.start:s.name.end]
	}
	if s.hasID {
		e.ID = raw[s.id.start:s.id.end]
	}
	switch {
	case s.dataN == 1:
		e.Data, e.DataAt = raw[s.data.start:s.data.end], s.data.start
	case s.dataN > 1:
		e.Data = s.joined
	}
	emit(e)
	s.held = s.held[:0]
	s.line = 0
	s.dataN = 0
	s.hasName, s.hasID = false, false
	s.blank = false
}

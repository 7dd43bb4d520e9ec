// Package sse reads streams of server-sent events, as model servers use for their answers.
//
// A [Scanner] takes the stream in whatever chunks it arrives and reports the data of its events
// piece by piece, in place and as it arrives: nothing is copied and nothing is held, however long
// an event is. The data and the ends of events depend on the stream alone, never on how it was cut
// into chunks.
package sse

import (
	"bytes"
	"strings"
)

// Handler receives the events of one stream in order. A client takes no notice of comments, empty lines and events
// without data, which servers send to keep connections alive: they are not reported.
type Handler interface {
	// Data reports the next piece of an event's data. It aliases the chunk, is valid during the call only and must not be
	// changed. The values of several data fields come as the specification joins them, with a piece "\n" between.
	Data(piece []byte)
	// End reports that the event is over; its data may be empty. whole is false at the end of a stream that lacks the empty
	// line after its last event. The specification drops such an event; some clients do not.
	End(whole bool)
}

// Scanner reads one stream (WHATWG HTML, section 9.2.6). The zero value is ready after [Scanner.Reset].
type Scanner struct {
	handler Handler
	base    int64 // offset of the current chunk's first byte
	offset  int64 // offset of the piece being reported
	bound   int64 // offset after the last empty line

	state   state
	matched int  // bytes of the byte order mark, or of a field's name, that have been read
	afterCR bool // the last byte was a CR: a LF right after it belongs to it
	hasData bool // the event in progress has a data field

	line  [mostUsual]byte // one that says nothing of the data, so far
	n     int             // bytes of it; mostUsual: it may be longer
	other bool            // there was one that says something that is not usual
}

// mostUsual is longer than any usual line without data.
const mostUsual = 64

type state uint8

const (
	inMark  state = iota // at the stream's start, where a byte order mark may stand
	inName               // in a field's name, which may be that of a data field, or at the start of a line
	atSpace              // after the colon of a data field, where a space may stand
	inValue              // in the value of a data field
	inOther              // in a line that says nothing of the data
)

// Reset makes the scanner ready for a new stream, whose events go to h.
func (s *Scanner) Reset(h Handler) { *s = Scanner{handler: h} }

// Offset returns the offset in the stream at which the piece stands that Data is called with. (A "\n" that joins two
// values stands nowhere.)
func (s *Scanner) Offset() int64 { return s.offset }

// Boundary returns the offset in the stream after the last empty line: what stands before it belongs to events that are
// over, and to comments.
func (s *Scanner) Boundary() int64 { return s.bound }

// Unusual reports whether a line without data has said anything that servers do not say there: they name events, number them, and
// send comments to keep connections alive. Clients take no notice of other lines, and those who read only the data have not seen them.
func (s *Scanner) Unusual() bool { return s.other }

const (
	byteOrderMark = "\xef\xbb\xbf"
	dataField     = "data"
)

// Feed reads the next bytes of the stream. An event ends with the last byte of the empty line after it; where that is
// CR LF, with the CR.
func (s *Scanner) Feed(chunk []byte) {
	lf := -1 // the next one at or after i; len(chunk) if there is none
	for i := 0; i < len(chunk); {
		if s.afterCR {
			s.afterCR = false
			if chunk[i] == '\n' {
				if s.bound == s.base+int64(i) {
					s.bound++ // of the empty line
				}
				i++
				continue
			}
		}
		if s.state < atSpace {
			i = s.name(chunk, i)
			continue
		}
		if s.state == atSpace {
			s.state = inValue
			if chunk[i] == ' ' {
				i++
			}
		}
		if lf < i {
			lf = index(chunk, i, len(chunk), '\n')
		}
		end := index(chunk, i, lf, '\r') // of the line
		if s.state == inOther {
			s.collect(chunk[i:end])
		}
		if s.state == inValue && end > i {
			s.offset = s.base + int64(i)
			s.handler.Data(chunk[i:end:end])
		}
		i = end
		if end < len(chunk) {
			i++
			s.endLine(chunk[end], i)
		}
	}
	s.base += int64(len(chunk))
}

// End reports the event that the stream's end has cut, if there is one. Nothing but Reset follows.
func (s *Scanner) End() {
	if s.state == inName && s.matched == len(dataField) {
		s.beginData()
	}
	s.endOther()
	if s.hasData {
		s.handler.End(false)
	}
}

// index returns the place of c in b[i:end], or end.
func index(b []byte, i, end int, c byte) int {
	if n := bytes.IndexByte(b[i:end], c); n >= 0 {
		return i + n
	}
	return end
}

// name reads from b[i:] what stands before a field's value: a byte, or all of it. It returns the index of the first byte
// that it has not consumed.
func (s *Scanner) name(b []byte, i int) int {
	c := b[i]
	if s.state == inMark {
		if c == byteOrderMark[s.matched] {
			if s.matched++; s.matched == len(byteOrderMark) {
				s.state, s.matched = inName, 0
			}
			return i + 1
		}
		s.state = inName
		if s.matched > 0 {
			s.state, s.other = inOther, true // these bytes are a name
			return i
		}
	}
	if rest := b[i:]; s.matched == 0 && len(rest) > len(dataField) && string(rest[:len(dataField)]) == dataField {
		s.matched = len(dataField)
		i += len(dataField)
		c = b[i]
	}
	switch {
	case c == '\n' || c == '\r':
		if s.matched == len(dataField) {
			s.beginData()
		}
		s.endLine(c, i+1)
	case c == ':' && s.matched == len(dataField):
		s.beginData()
		s.state = atSpace
	case s.matched < len(dataField) && c == dataField[s.matched]:
		s.matched++
	default:
		s.state = inOther
		s.n = copy(s.line[:], dataField[:s.matched])
		s.collect(b[i : i+1])
	}
	return i + 1
}

// collect keeps what a line says that says nothing of the data.
func (s *Scanner) collect(piece []byte) { s.n += copy(s.line[s.n:], piece) }

// endOther ends such a line.
func (s *Scanner) endOther() {
	if s.state == inOther && !usual(s.line[:s.n]) {
		s.other = true
	}
	s.n = 0
}

// usual reports whether a line says what servers say in lines without data.
func usual(line []byte) bool {
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "event":
		return len(line) < mostUsual && only(value, isNameByte)
	case "id", "retry":
		return len(value) <= 9 && only(value, isDigit)
	case "":
		return isBeat(value)
	}
	return false
}

// isBeat reports whether a comment is one that keeps a connection alive. Some have the time.
func isBeat(comment []byte) bool {
	comment = bytes.TrimRight(comment, " ")
	switch string(comment) {
	case "", "ping", "keep-alive", "keepalive", "heartbeat", "OPENROUTER PROCESSING":
		return true
	}
	time, is := bytes.CutPrefix(comment, []byte("ping - "))
	return is && len(time) <= len("2006-01-02 15:04:05.000000+00:00") && only(time, isTimeByte)
}

func isNameByte(c byte) bool { return 'a' <= c && c <= 'z' || c == '_' || c == '-' || c == '.' }
func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isTimeByte(c byte) bool { return isDigit(c) || strings.IndexByte("-:.+ TZ", c) >= 0 }

// only reports whether all bytes are of a kind.
func only(text []byte, is func(byte) bool) bool {
	for _, c := range text {
		if !is(c) {
			return false
		}
	}
	return true
}

// beginData begins a data field.
func (s *Scanner) beginData() {
	if s.hasData {
		s.handler.Data(newline)
	}
	s.hasData = true
}

var newline = []byte("\n")

// endLine ends a line with its terminator c, and with an empty line the event. next is the index after it.
func (s *Scanner) endLine(c byte, next int) {
	empty := s.state == inName && s.matched == 0
	s.endOther()
	s.state, s.matched = inName, 0
	s.afterCR = c == '\r'
	if empty {
		s.bound = s.base + int64(next)
	}
	if empty && s.hasData {
		s.hasData = false
		s.handler.End(true)
	}
}

// Package formscan is a strict, resumable scanner of multipart/form-data (RFC 7578 on RFC 2046, section 5.1) that allocates
// nothing and holds nothing: a file of many megabytes passes through in pieces that alias the chunks.
//
// Servers differ in what they make of forms that are written loosely (a preamble, bare line feeds, folded headers, escapes in
// names), and two parsers that read one form differently are how a request passes a check as one thing and is served as
// another. So what all read in the same way is accepted, and everything else is refused. Line breaks before the first
// boundary and escaped quotes in a file's name are of the first kind.
//
// The parts, the error and its offset depend on the body alone, never on how it was cut into chunks.
package formscan

import (
	"bytes"
	"fmt"
)

// Handler receives the parts of one form in order. Slices are valid during the call only and must not be changed.
type Handler interface {
	// Part reports the headers of a part: its name, and whether it is a file.
	Part(name []byte, file bool)
	// Data reports the next bytes of its content: none for an empty part, else one or more pieces, none of them empty.
	Data(piece []byte)
	// PartEnd reports that the part is complete.
	PartEnd()
}

// Bounds of a form.
const (
	// MaxBoundary is the length of a boundary, by RFC 2046.
	MaxBoundary = 70
	// MaxHeaderBytes is the size of one part's headers.
	MaxHeaderBytes = 4 << 10
	// DefaultParts is the most parts of a form.
	DefaultParts = 1000
)

// Code says what is wrong with a form.
type Code uint8

// The reasons for which a form is refused.
const (
	Start           Code = iota + 1 // something other than line breaks stands before the first boundary
	Delimiter                       // neither a line break nor the closing "--" follows a boundary, or no line break stands before it
	Header                          // a part's headers are malformed, folded, or name a transfer encoding
	HeadersTooLong                  // a part's headers exceed MaxHeaderBytes
	Disposition                     // a part has not exactly one Content-Disposition with exactly one name, or parsers do not agree on what it says
	TooManyParts                    // more parts than allowed
	ContentTooLong                  // a field that is read is longer than its reader takes
	ContentEncoding                 // a field that is read is not UTF-8
	Incomplete                      // the input ended before the closing boundary
	Trailing                        // something follows the closing boundary
)

var reasons = [...]string{
	Start:           "something other than line breaks stands before the first boundary",
	Delimiter:       "malformed boundary",
	Header:          "malformed header of a part",
	HeadersTooLong:  "headers of a part too long",
	Disposition:     "part without one name, or with a name or file name that servers read differently",
	TooManyParts:    "too many parts",
	ContentTooLong:  "field too long",
	ContentEncoding: "field is not UTF-8",
	Incomplete:      "unexpected end",
	Trailing:        "unexpected character after the form",
}

// String returns the reason in words.
func (c Code) String() string {
	if int(c) < len(reasons) && reasons[c] != "" {
		return reasons[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error says why a form was refused, and where.
type Error struct {
	Code   Code
	Offset int64 // bytes from the start of the body to where the fault shows
}

// Error is one readable sentence. It never quotes the form.
func (e *Error) Error() string {
	return fmt.Sprintf("invalid multipart/form-data: %s at byte %d", e.Code, e.Offset)
}

type state uint8

const (
	atStart  state = iota // the first boundary
	atEnd                 // after a boundary: a line break, or "--"
	inHeader              // the headers of a part
	inData                // the content of a part
	closed                // after the closing boundary
)

// Scanner checks one form, fed in chunks, and reports its parts. The zero value is ready after [Scanner.Reset]. It can be
// reset and used again.
type Scanner struct {
	handler Handler
	parts   int // how many more parts may come
	err     *Error

	state   state
	base    int64 // offset of the current chunk's first byte
	start   int64 // offset of the part's first content byte
	end     int64 // offset after the part's last content byte
	matched int   // bytes of the delimiter (or of what follows a boundary) that have matched
	held    int   // ... of these, how many came in earlier chunks
	lead    int   // bytes of "--" boundary with which the content begins so far; -1 if it does not

	delimiter  [4 + MaxBoundary]byte // CR LF "--" boundary
	delimiterN int
	header     [MaxHeaderBytes]byte
	headerN    int
	last       byte // first byte after a boundary
}

// Reset makes the scanner ready for a new form with this boundary, see [Boundary]. parts is the most parts it may have;
// 0 or less for DefaultParts.
func (s *Scanner) Reset(h Handler, boundary string, parts int) {
	if parts <= 0 {
		parts = DefaultParts
	}
	s.handler, s.parts, s.err = h, parts, nil
	s.state, s.base, s.start, s.end, s.held, s.headerN = atStart, 0, 0, 0, 0, 0
	s.delimiterN = copy(s.delimiter[:], "\r\n--")
	s.delimiterN += copy(s.delimiter[s.delimiterN:], boundary)
	s.matched = 2 // no line break needs to stand before the first boundary
}

// Start returns the offset of the first content byte of the current part, within Data and PartEnd.
func (s *Scanner) Start() int64 { return s.start }

// Offset returns, within PartEnd, the offset after the last content byte of the part.
func (s *Scanner) Offset() int64 { return s.end }

// Feed scans the next bytes of the form. It returns nil or an *Error, and the same error ever after.
func (s *Scanner) Feed(chunk []byte) error {
	for i := 0; i < len(chunk) && s.err == nil; {
		switch s.state {
		case atStart:
			i = s.first(chunk, i)
		case atEnd:
			i = s.afterBoundary(chunk, i)
		case inHeader:
			i = s.headers(chunk, i)
		case inData:
			i = s.data(chunk, i)
		case closed:
			i = s.epilogue(chunk, i)
		}
	}
	if s.err != nil {
		return s.err
	}
	s.base += int64(len(chunk))
	return nil
}

// End checks that the form is complete. It returns nil or an *Error.
func (s *Scanner) End() error {
	if s.err == nil && s.state != closed {
		s.fail(Incomplete, s.base)
	}
	if s.err != nil {
		return s.err
	}
	return nil
}

// Fail refuses the form for what the handler found in it. The first failure stays.
func (s *Scanner) Fail(code Code) { s.fail(code, s.start) }

func (s *Scanner) fail(code Code, offset int64) {
	if s.err == nil {
		s.err = &Error{Code: code, Offset: offset}
	}
}

// first reads the boundary with which the form begins, and empty lines before it: a preamble (RFC 2046, section 5.1.1) in which
// no parser can find anything. A bare line feed is none: for some parsers the boundary after it begins no line.
func (s *Scanner) first(b []byte, i int) int {
	for ; i < len(b) && s.matched < s.delimiterN; i++ {
		if s.matched == 2 && b[i] == '\r' {
			s.matched = 1 // an empty line
			continue
		}
		if b[i] != s.delimiter[s.matched] {
			s.fail(Start, s.base+int64(i))
			return i
		}
		s.matched++
	}
	if s.matched == s.delimiterN {
		s.state, s.matched = atEnd, 0
	}
	return i
}

// afterBoundary reads the two characters after a boundary.
func (s *Scanner) afterBoundary(b []byte, i int) int {
	c := b[i]
	switch {
	case s.matched == 0 && (c == '\r' || c == '-'):
		s.last, s.matched = c, 1
		return i + 1
	case s.matched == 1 && s.last == '\r' && c == '\n':
		s.state, s.headerN = inHeader, 0
		if s.parts--; s.parts < 0 {
			s.fail(TooManyParts, s.base+int64(i)+1)
		}
		return i + 1
	case s.matched == 1 && s.last == '-' && c == '-':
		s.state = closed
		return i + 1
	}
	s.fail(Delimiter, s.base+int64(i))
	return i
}

// headers collects the headers of a part, up to and with the empty line.
func (s *Scanner) headers(b []byte, i int) int {
	for i < len(b) {
		if s.headerN == len(s.header) {
			s.fail(HeadersTooLong, s.base+int64(i))
			return i
		}
		s.header[s.headerN] = b[i]
		s.headerN++
		i++
		if b[i-1] == '\n' && endsHeaders(s.header[:s.headerN]) {
			s.begin(i)
			return i
		}
	}
	return i
}

// endsHeaders reports whether a header block is complete. One that is empty is only its empty line.
func endsHeaders(b []byte) bool { return bytes.HasSuffix(b, []byte("\r\n\r\n")) || string(b) == "\r\n" }

// begin starts the part whose first content byte is at index i of the current chunk.
func (s *Scanner) begin(i int) {
	s.start = s.base + int64(i)
	name, file, code := disposition(s.header[:s.headerN-2])
	if code != 0 {
		s.fail(code, s.start-int64(s.headerN))
		return
	}
	s.state, s.matched, s.held, s.lead = inData, 0, 0, 0
	s.handler.Part(name, file)
}

// data reports the content of a part up to the delimiter, which begins with the only CR in it: after a mismatch only the
// byte at hand can begin another.
func (s *Scanner) data(b []byte, i int) int {
	if s.beginsWithBoundary(b, i) {
		return i
	}
	from := i // first byte of this chunk that is not reported
	for i < len(b) {
		if s.matched == 0 {
			n := bytes.IndexByte(b[i:], '\r')
			if n < 0 {
				i = len(b)
				break
			}
			i += n
		}
		for i < len(b) && s.matched < s.delimiterN && b[i] == s.delimiter[s.matched] {
			i++
			s.matched++
		}
		if s.matched == s.delimiterN {
			s.report(b[from:max(from, i-s.matched)])
			s.end = s.base + int64(i-s.matched)
			s.state, s.matched, s.held = atEnd, 0, 0
			if s.err == nil {
				s.handler.PartEnd()
			}
			return i
		}
		if i < len(b) {
			s.report(s.delimiter[:s.held])
			s.matched, s.held = 0, 0
		}
	}
	s.report(b[from:max(from, len(b)-s.matched)])
	s.held = s.matched
	return i
}

// beginsWithBoundary refuses a part whose content begins with the boundary: by RFC 2046 that is content, since no line break
// of its own stands before it, but some parsers see the next part.
func (s *Scanner) beginsWithBoundary(b []byte, i int) bool {
	for ; s.lead >= 0 && i < len(b); i++ {
		if b[i] != s.delimiter[2+s.lead] {
			s.lead = -1
			return false
		}
		if s.lead++; 2+s.lead == s.delimiterN {
			s.fail(Delimiter, s.base+int64(i))
			return true
		}
	}
	return false
}

func (s *Scanner) report(piece []byte) {
	if len(piece) > 0 && s.err == nil {
		s.handler.Data(piece)
	}
}

// epilogue allows line breaks after the form.
func (s *Scanner) epilogue(b []byte, i int) int {
	for ; i < len(b); i++ {
		if b[i] != '\r' && b[i] != '\n' {
			s.fail(Trailing, s.base+int64(i))
			return i
		}
	}
	return i
}

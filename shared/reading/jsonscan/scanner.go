package jsonscan

// state is what the grammar allows next, or the token that a chunk's end has cut.
type state uint8

const (
	wantValue     state = iota // the document, or a member's value after its colon
	wantFirstItem              // after '[': a value or ']'
	wantItem                   // after ',' in an array
	wantFirstKey               // after '{': a name or '}'
	wantKey                    // after ',' in an object
	wantColon                  // after a name
	wantComma                  // after a value in a container: ',' or its end
	wantNothing                // after the document
	inKey                      // within a member name
	inText                     // within a string value
	inNumber                   // within a number
	inLiteral                  // within true, false or null
	passValue                  // a lenient scanner, at a value that it passes over
	passNested                 // ... within containers, between strings
	passText                   // ... within a string
	passEscape                 // ... after a backslash in it
	passScalar                 // ... within anything else
)

// Scanner checks one JSON document, fed in chunks, and reports its tokens. The zero value is ready after [Scanner.Reset] or
// [Scanner.ResetLenient]. It can be reset and used again; it must not be copied while in use.
type Scanner struct {
	handler Handler
	limits  Limits
	lenient bool
	err     *Error

	base   int64 // offset of the current chunk's first byte
	start  int64 // offset of the current token's first byte
	offset int64 // offset after what has been consumed of the current token

	state  state
	array  bool // the innermost open container is an array
	depth  int  // open containers
	skipTo int  // depth at which a skipped value ends; noSkip if nothing is skipped
	nested int  // containers that a lenient scanner has open within what it passes over
	unread bool // a lenient scanner has passed over containers that are too deep to tell apart
	count  int  // commas so far in the innermost open container

	number  numberState
	literal string // the literal being read
	size    int    // bytes so far of the key (unescaped), string (unescaped), number or literal being read

	pending pending // what of a string the chunk's end has cut
	unit    uint16  // hex digits so far of a \u escape
	high    uint16  // first half of a surrogate pair whose second half must follow, or 0
	escape  int64   // offset of the \u escape, or of the pair's first half
	partN   int     // bytes in part
	part    [4]byte // a UTF-8 sequence that is not complete

	arrays  [MaxDepth / 64]uint64 // bit d: what encloses the container at depth d+1 is an array
	counts  [MaxDepth]int32       // count of what encloses the container at depth d+1
	raw     []byte                // what a piece of text with escapes that is being reported was decoded from
	decoded [maxDecoded]byte      // text with escapes, decoded, on its way to the handler
	scratch [MaxKeyBytes]byte     // a key or number that could not be reported in place
}

const noSkip = -1

// maxDecoded is the most text with escapes that is reported in one piece.
const maxDecoded = 2048

// Reset makes the scanner ready for a new document, whose tokens go to h.
func (s *Scanner) Reset(h Handler, lim Limits) {
	s.lenient = false
	s.limits = lim.capped()
	s.begins(h)
}

// ResetLenient makes the scanner ready for a document that is not its to refuse, see the package comment. Its tokens go to h.
func (s *Scanner) ResetLenient(h Handler) {
	s.lenient = true
	s.limits = unlimited
	s.begins(h)
}

func (s *Scanner) begins(h Handler) {
	s.handler = h
	s.err = nil
	s.base, s.start, s.offset = 0, 0, 0
	s.state = wantValue
	s.array = false
	s.depth = 0
	s.skipTo = noSkip
	s.unread = false
	s.count = 0
	s.size = 0
	s.pending = whole
	s.high = 0
	s.partN = 0
}

// Feed scans the next bytes of the document. It returns nil or an *Error, and the same error ever after.
func (s *Scanner) Feed(chunk []byte) error {
	if s.err != nil {
		return s.err
	}
	for i := 0; i < len(chunk); {
		switch s.state {
		case inText:
			i = s.text(chunk, i, i)
		case inKey:
			i = s.key(chunk, i)
		case inNumber:
			i = s.digits(chunk, i)
		case inLiteral:
			i = s.letters(chunk, i)
		case passValue, passNested, passText, passEscape, passScalar:
			i = s.pass(chunk, i)
		default:
			i = s.structure(chunk, i)
		}
		if s.err != nil {
			return s.err
		}
	}
	s.base += int64(len(chunk))
	return nil
}

// End checks that the document is complete. It returns nil or an *Error.
func (s *Scanner) End() error {
	if s.err != nil {
		return s.err
	}
	if s.state == inNumber && s.number.complete() && s.depth == 0 {
		// Nothing but the end of the input can end a number that stands alone. (Elsewhere it may have been cut.)
		s.scalar(s.scratch[:s.size])
	}
	if s.state != wantNothing {
		s.fail(Incomplete, s.base)
		return s.err
	}
	return nil
}

// Skip leaves out a value: it is not reported, and validated unless the scanner is lenient. Called within Key, it is the
// member's value; called within Open, or after it before the next token, it is the rest of the container, its Close
// included. Elsewhere it does nothing.
func (s *Scanner) Skip() {
	switch s.state {
	case wantColon:
		s.skipTo = s.depth
	case wantFirstItem, wantFirstKey:
		s.skipTo = s.depth - 1
		if s.lenient {
			s.state, s.nested = passNested, 1
		}
	}
}

// Depth returns the number of open containers. Within Open and Close it includes, respectively excludes, the container.
func (s *Scanner) Depth() int { return s.depth }

// Unread reports whether a lenient scanner has passed over containers that are too deep to tell apart. There may be text in them.
func (s *Scanner) Unread() bool { return s.unread }

// InText reports whether the input so far ends within a string value. Start is then the offset of its opening quote.
func (s *Scanner) InText() bool { return s.state == inText && s.err == nil }

// Start returns the offset in the document of the current token's first byte: a bracket, a string's opening quote, a
// number's or literal's first character.
func (s *Scanner) Start() int64 { return s.start }

// Offset returns the offset in the document just after what has been consumed of the current token: within TextEnd and
// Key it is after the closing quote.
func (s *Scanner) Offset() int64 { return s.offset }

// Raw returns, within Text, what the piece stands for in the document, if it was decoded and that lies whole in the chunk; else nil.
func (s *Scanner) Raw() []byte { return s.raw }

// InValue reports whether the scanner is within a string, a number, true, false or null; names do not count.
func (s *Scanner) InValue() bool {
	return s.state == inText || s.state == inNumber || s.state == inLiteral
}

// fail refuses the document. The first failure stays.
func (s *Scanner) fail(code Code, offset int64) {
	if s.err == nil {
		s.err = &Error{Code: code, Offset: offset}
	}
}

// unexpected refuses the byte at index i of the current chunk. A lenient scanner takes it for the beginning or the middle
// of a value that is none, and passes over it: NaN, Infinity, .5.
func (s *Scanner) unexpected(i int) {
	if s.lenient && s.depth > 0 && (s.state <= wantItem || s.state == inNumber || s.state == inLiteral) {
		s.passOver(passScalar)
		return
	}
	code := Syntax
	if s.state == wantNothing {
		code = Trailing
	}
	s.fail(code, s.base+int64(i))
}

// structure reads tokens from b[i:] until the document fails or the chunk's end cuts a token. It returns the index of the
// first byte that it has not consumed.
func (s *Scanner) structure(b []byte, i int) int {
	for i < len(b) && s.err == nil && s.state < inKey {
		c := b[i]
		switch c {
		case ' ', '\n', '\r', '\t':
			i++
			continue
		case '"':
			if s.state == wantFirstKey || s.state == wantKey {
				s.begin(i, inKey)
				i = s.key(b, i+1)
				continue
			}
			if s.state <= wantItem {
				s.begin(i, inText)
				i = s.value(b, i+1)
				continue
			}
		case ':':
			if s.state == wantColon {
				s.state = wantValue
				if s.lenient && s.skipTo == s.depth {
					s.state = passValue
				}
				i++
				continue
			}
		case ',':
			if s.state == wantComma {
				s.comma(i)
				i++
				continue
			}
		case '{', '[':
			if s.state <= wantItem {
				s.open(i, c == '[')
				i++
				continue
			}
		case '}', ']':
			if mayClose := s.state == wantComma || s.state == wantFirstItem || s.state == wantFirstKey; mayClose && s.array == (c == ']') {
				s.close(i)
				i++
				continue
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			if s.state <= wantItem {
				s.begin(i, inNumber)
				s.number = numberStart
				i = s.digits(b, i)
				continue
			}
		case 't', 'f', 'n':
			if s.state <= wantItem {
				s.begin(i, inLiteral)
				s.literal = literals[c-'f']
				i = s.letters(b, i)
				continue
			}
		}
		if s.isMark(c, i) {
			i++
			continue
		}
		s.unexpected(i)
	}
	return i
}

// begin starts a token whose first byte is at index i of the current chunk.
func (s *Scanner) begin(i int, within state) {
	s.start = s.base + int64(i)
	s.size = 0
	s.state = within
}

// comma takes the comma at index i, and counts what it separates.
func (s *Scanner) comma(i int) {
	s.count++
	if s.array {
		s.state = wantItem
		if s.count >= s.limits.Items {
			s.fail(TooManyItems, s.base+int64(i))
		}
		return
	}
	s.state = wantKey
	if s.count >= s.limits.Members {
		s.fail(TooManyMembers, s.base+int64(i))
	}
}

// endValue moves on after a value that is complete.
func (s *Scanner) endValue() {
	s.state = wantComma
	if s.depth == 0 {
		s.state = wantNothing
	}
	if s.skipTo == s.depth {
		s.skipTo = noSkip
	}
}

// open enters the container whose bracket is at index i.
func (s *Scanner) open(i int, array bool) {
	s.start = s.base + int64(i)
	if s.depth >= s.limits.Depth {
		if s.lenient {
			s.passOver(passNested)
			return
		}
		s.fail(Depth, s.start)
		return
	}
	word, bit := s.depth/64, uint64(1)<<(s.depth%64)
	s.arrays[word] &^= bit
	if s.array {
		s.arrays[word] |= bit
	}
	s.counts[s.depth] = int32(s.count)
	s.depth++
	s.array = array
	s.count = 0
	s.state = wantFirstKey
	if array {
		s.state = wantFirstItem
	}
	if s.skipTo == noSkip {
		s.offset = s.start + 1
		s.handler.Open(array)
	}
}

// close leaves the innermost container, whose closing bracket is at index i.
func (s *Scanner) close(i int) {
	array := s.array
	s.start = s.base + int64(i)
	s.leave()
	report := s.skipTo == noSkip
	s.endValue()
	if report {
		s.offset = s.start + 1
		s.handler.Close(array)
	}
}

// isMark reports whether c, at index i of the current chunk, is of a byte order mark that stands before the document of a
// lenient scanner. Many clients take no notice of one.
func (s *Scanner) isMark(c byte, i int) bool {
	const mark = "\xef\xbb\xbf"
	at := s.base + int64(i)
	return s.lenient && s.depth == 0 && s.state == wantValue && at < int64(len(mark)) && c == mark[at]
}

// leave goes back to what encloses the innermost container.
func (s *Scanner) leave() {
	s.depth--
	s.array = s.arrays[s.depth/64]>>(s.depth%64)&1 == 1
	s.count = int(s.counts[s.depth])
}

// scalar reports a number or literal, and ends it.
func (s *Scanner) scalar(raw []byte) {
	if s.skipTo == noSkip {
		s.offset = s.start + int64(len(raw))
		s.handler.Scalar(raw)
	}
	s.endValue()
}

// literals by first letter, from 'f'.
var literals = [...]string{'f' - 'f': "false", 'n' - 'f': "null", 't' - 'f': "true"}

// letters reads true, false or null from b[i:].
func (s *Scanner) letters(b []byte, i int) int {
	for i < len(b) && s.size < len(s.literal) {
		if b[i] != s.literal[s.size] {
			s.unexpected(i)
			return i
		}
		s.size++
		i++
	}
	if s.size == len(s.literal) {
		s.scalar(s.scratch[:copy(s.scratch[:], s.literal)])
	}
	return i
}

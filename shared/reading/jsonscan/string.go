package jsonscan

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// pending is what of a string was cut by the end of a chunk.
type pending uint8

const (
	whole       pending = iota // nothing
	inSequence                 // a UTF-8 sequence; its bytes are in part
	inEscape                   // an escape, after its backslash
	inHex0                     // a \u escape, before its first hex digit
	inHex1                     // ... before its second
	inHex2                     // ... before its third
	inHex3                     // ... before its last
	wantLow                    // a first half of a surrogate pair: a backslash must follow
	wantLowHalf                // ... and its backslash: a 'u' must follow
)

// key reads a member name from b[i:].
func (s *Scanner) key(b []byte, i int) int {
	if s.size == 0 && s.pending == whole {
		// Nearly every name lies whole in the chunk, without escapes: report it in place.
		end := wellFormed(b, i)
		if end < len(b) && b[end] == '"' {
			name := b[i:end]
			if len(name) > s.limits.KeyBytes {
				if !s.lenient {
					s.fail(KeyTooLong, s.start)
					return i
				}
				name = name[:s.limits.KeyBytes]
			}
			s.endKey(name, end+1)
			return end + 1
		}
	}
	return s.text(b, i, i)
}

// endKey reports a member name; next is the index after its closing quote.
func (s *Scanner) endKey(name []byte, next int) {
	s.state = wantColon
	if s.skipTo == noSkip {
		s.offset = s.base + int64(next)
		s.handler.Key(name)
	}
}

// value reads a string value from b[i:], after its opening quote.
func (s *Scanner) value(b []byte, i int) int {
	end := ascii(b, i)
	if end == len(b) || b[end] != '"' || end-i > s.limits.StringBytes {
		return s.text(b, i, end)
	}
	// The string lies whole in the chunk, and is reported as it stands.
	if s.skipTo == noSkip {
		if end > i {
			s.offset = s.base + int64(end)
			s.handler.Text(b[i:end])
		}
		s.offset = s.base + int64(end+1)
		s.handler.TextEnd()
	}
	s.endValue()
	return end + 1
}

// text reads a string from b[from:], in pieces: what stands between escapes in place, escapes decoded. b[from:i] has been
// found to be content that stands for itself.
func (s *Scanner) text(b []byte, from, i int) int {
	if s.pending != whole {
		from = s.resume(b, from)
		i = from
	}
	for from < len(b) && s.err == nil {
		i = wellFormed(b, i)
		if i > from && !s.piece(b[from:i], i) {
			return i
		}
		if i == len(b) {
			return i
		}
		switch c := b[i]; {
		case c == '"':
			s.endString(i + 1)
			return i + 1
		case c == '\\':
			i = s.escapes(b, i)
		case c < ' ':
			if !s.lenient || c == '\n' || c == '\r' {
				s.fail(Syntax, s.base+int64(i))
				break
			}
			i++
			s.piece(b[i-1:i], i)
		default:
			// An ill-formed sequence, or one that the chunk's end cuts.
			s.pending = inSequence
			i = s.resume(b, i)
		}
		from = i
	}
	return from
}

// piece passes on a piece of the string, if the string is not yet too long. next is the index after what it was read from.
func (s *Scanner) piece(p []byte, next int) bool {
	s.size += len(p)
	if s.state == inKey {
		if s.size > s.limits.KeyBytes {
			if !s.lenient {
				s.fail(KeyTooLong, s.start)
				return false
			}
			p = p[:len(p)-(s.size-s.limits.KeyBytes)]
			s.size = s.limits.KeyBytes
		}
		copy(s.scratch[s.size-len(p):], p)
		return true
	}
	if s.size > s.limits.StringBytes && !s.lenient {
		s.fail(StringTooLong, s.start)
		return false
	}
	if s.skipTo == noSkip {
		s.offset = s.base + int64(next)
		s.handler.Text(p)
	}
	return true
}

// endString ends a string; next is the index after its closing quote.
func (s *Scanner) endString(next int) {
	if s.state == inKey {
		s.endKey(s.scratch[:s.size], next)
		return
	}
	if s.skipTo == noSkip {
		s.offset = s.base + int64(next)
		s.handler.TextEnd()
	}
	s.endValue()
}

// escapes decodes the escape at b[i] and what follows it, and passes both on in one piece.
func (s *Scanner) escapes(b []byte, i int) int {
	n, next := unescape(&s.decoded, b, i)
	if n > 0 {
		s.raw = b[i:next]
		s.piece(s.decoded[:n], next)
		s.raw = nil
		return next
	}
	// A surrogate, an escape that the chunk's end cuts, or a wrong one.
	s.pending = inEscape
	s.escape = s.base + int64(i)
	return s.resume(b, i+1)
}

// unescape decodes b[i:], which starts with an escape, into dst: escapes and the ASCII text between them, because text
// in which one escape stands mostly has the next within a line, and a piece for each would cost more than the copy. It
// stops before anything else, before dst is full and near the end of b. It returns how much of dst it has filled and
// the index of the first byte that it has not consumed.
func unescape(dst *[maxDecoded]byte, b []byte, i int) (n, next int) {
	// An escape may stand after up to 31 bytes of text, and be as long as six.
	const most = 32 + 6
	for n <= len(dst)-most && len(b)-i >= most {
		src, to := b[i:i+most:i+most], dst[n:n+most:n+most]
		w0 := binary.LittleEndian.Uint64(src)
		w1 := binary.LittleEndian.Uint64(src[8:])
		w2 := binary.LittleEndian.Uint64(src[16:])
		w3 := binary.LittleEndian.Uint64(src[24:])
		binary.LittleEndian.PutUint64(to, w0)
		binary.LittleEndian.PutUint64(to[8:], w1)
		binary.LittleEndian.PutUint64(to[16:], w2)
		binary.LittleEndian.PutUint64(to[24:], w3)
		m, k := firstStop(stops(w0), stops(w1), stops(w2), stops(w3))
		n += k
		i += k
		if m == 0 {
			continue
		}
		e := b[i : i+6 : i+6]
		if e[0] != '\\' {
			break
		}
		if c := simple[e[1]]; c != 0 {
			dst[n] = c
			n++
			i += 2
			continue
		}
		if e[1] != 'u' {
			break
		}
		h0, h1, h2, h3 := hex[e[2]], hex[e[3]], hex[e[4]], hex[e[5]]
		unit := uint16(h0)<<12 | uint16(h1)<<8 | uint16(h2)<<4 | uint16(h3)
		if h0|h1|h2|h3 == 0xff || unit&surrogateMask == surrogateHigh || unit&surrogateMask == surrogateLow {
			break
		}
		n += utf8.EncodeRune(dst[n:], rune(unit))
		i += 6
	}
	return n, i
}

// firstStop returns the first of four words of stops that is not 0, and the index among their 32 bytes of the first stop, 32 if there
// is none. Which word it is cannot be predicted, so that is left to conditional moves, not branches.
func firstStop(m0, m1, m2, m3 uint64) (m uint64, at int) {
	m, at = m3, 24
	if m2 != 0 {
		m, at = m2, 16
	}
	if m1 != 0 {
		m, at = m1, 8
	}
	if m0 != 0 {
		m, at = m0, 0
	}
	return m, at + bits.TrailingZeros64(m)/8
}

// simple holds what the escapes of one letter stand for; 0 for no such escape.
var simple = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// hex holds the value of a hex digit; 0xff for no such digit.
var hex = func() (t [256]byte) {
	for c := range t {
		t[c] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = byte(10 + i)
	}
	return t
}()

// UTF-16 surrogates: the upper six bits tell the halves of a pair from everything else.
const (
	surrogateMask = 0xfc00
	surrogateHigh = 0xd800
	surrogateLow  = 0xdc00
)

// resume reads the pending escape or UTF-8 sequence from b[i:], byte by byte, until it is complete or the chunk ends.
func (s *Scanner) resume(b []byte, i int) int {
	for i < len(b) && s.pending != whole && s.err == nil {
		var taken bool
		switch c := b[i]; s.pending {
		case inSequence:
			taken = s.sequence(c, i)
		case inEscape:
			taken = s.letter(c, i)
		case wantLow:
			if taken = c == '\\'; taken {
				s.pending = wantLowHalf
			} else {
				s.lone(i)
			}
		case wantLowHalf:
			if taken = c == 'u'; taken {
				s.pending = inHex0
			} else if s.lone(i) {
				s.pending = inEscape
			}
		default:
			taken = s.hexDigit(c, i)
		}
		if taken {
			i++
		}
	}
	return i
}

// sequence takes the next byte, b[i], of a UTF-8 sequence. It reports whether the byte belongs to it.
func (s *Scanner) sequence(c byte, i int) bool {
	s.part[s.partN] = c
	s.partN++
	p := s.part[:s.partN]
	if !utf8.FullRune(p) {
		return true
	}
	s.partN = 0
	s.pending = whole
	if r, n := utf8.DecodeRune(p); r == utf8.RuneError && n == 1 {
		s.replace(UTF8, s.base+int64(i+1-len(p)), i)
		return len(p) == 1 // else it cuts the sequence, and may be anything
	}
	s.piece(p, i+1)
	return true
}

// letter takes the byte b[i] after a backslash. It reports whether the byte belongs to an escape.
func (s *Scanner) letter(c byte, i int) bool {
	switch {
	case c == 'u':
		s.unit = 0
		s.pending = inHex0
		return true
	case simple[c] != 0:
		s.decoded[0] = simple[c]
		s.pending = whole
		s.piece(s.decoded[:1], i+1)
		return true
	}
	s.pending = whole
	return !s.replace(Syntax, s.base+int64(i), i)
}

// hexDigit takes the next byte, b[i], of a \u escape. It reports whether the byte belongs to it.
func (s *Scanner) hexDigit(c byte, i int) bool {
	if hex[c] == 0xff {
		s.high, s.pending = 0, whole
		return !s.replace(Syntax, s.base+int64(i), i)
	}
	s.unit = s.unit<<4 | uint16(hex[c])
	if s.pending < inHex3 {
		s.pending++
		return true
	}
	unit := s.unit
	r := rune(unit)
	half := unit & surrogateMask
	switch {
	case s.high != 0 && half == surrogateLow:
		r = 0x10000 + rune(s.high&^surrogateMask)<<10 + rune(unit&^surrogateMask)
	case s.high != 0:
		if !s.lone(i) {
			return true
		}
	case half == surrogateLow:
		s.pending = whole
		s.replace(Surrogate, s.escape, i+1)
		return true
	}
	if s.high == 0 && half == surrogateHigh {
		s.high = unit
		s.pending = wantLow
		return true
	}
	s.high = 0
	s.pending = whole
	s.piece(s.decoded[:utf8.EncodeRune(s.decoded[:], r)], i+1)
	return true
}

// lone refuses the first half of a surrogate pair that no second half follows, or replaces it. It reports whether it did so.
func (s *Scanner) lone(i int) bool {
	s.high, s.pending = 0, whole
	return s.replace(Surrogate, s.escape, i)
}

// replace refuses what is no character, or puts U+FFFD for it; next is the index after it. It reports whether it did so.
func (s *Scanner) replace(code Code, offset int64, next int) bool {
	if !s.lenient {
		s.fail(code, offset)
		return false
	}
	return s.piece(s.decoded[:utf8.EncodeRune(s.decoded[:], utf8.RuneError)], next)
}

// wellFormed returns the index of the first byte at or after i that is not string content to be taken as it stands: a
// quote, a backslash, a control character, or the first byte of a UTF-8 sequence that is ill-formed or cut by b's end.
func wellFormed(b []byte, i int) int {
	for {
		i = ascii(b, i)
		if i == len(b) || b[i] < utf8.RuneSelf {
			return i
		}
		end := sequences(b, i)
		if end == i {
			return i
		}
		i = end
	}
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// stops has the high bit set in the first byte of w, from the least significant, that is a quote, a backslash, a control
// character or not ASCII. (Higher bytes are only exact up to there: subtractions carry from a byte that stops.)
func stops(w uint64) uint64 {
	// Exchanging 0x20..0x21 with 0x22..0x23 makes '"' the neighbour of the control characters: one comparison, not two.
	controlOrQuote := (w ^ 0x02*ones) - 0x21*ones
	backslash := (w ^ '\\'*ones) - ones
	return (controlOrQuote | backslash | w) & highs
}

// ascii returns the index of the first byte at or after i that is a quote, a backslash, a control character or not ASCII.
func ascii(b []byte, i int) int {
	if len(b)-i >= 8 {
		// Names and short values end here.
		if m := stops(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
		i += 8
	}
	for ; len(b)-i >= 32; i += 32 {
		p := b[i : i+32 : i+32]
		m0 := stops(binary.LittleEndian.Uint64(p))
		m1 := stops(binary.LittleEndian.Uint64(p[8:]))
		m2 := stops(binary.LittleEndian.Uint64(p[16:]))
		m3 := stops(binary.LittleEndian.Uint64(p[24:]))
		if m0|m1|m2|m3 == 0 {
			continue
		}
		_, at := firstStop(m0, m1, m2, m3)
		return i + at
	}
	for ; len(b)-i >= 8; i += 8 {
		if m := stops(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(b) && b[i] < utf8.RuneSelf && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// sequences returns the index after the well-formed multi-byte UTF-8 sequences that follow each other from b[i] on
// (Unicode, table 3-7).
func sequences(b []byte, i int) int {
	for i < len(b) {
		p := b[i:]
		switch c := p[0]; {
		case c-0xc2 < 0xe0-0xc2:
			if len(p) < 2 || !continues(p[1]) {
				return i
			}
			i += 2
		case c-0xe0 < 0xf0-0xe0:
			if len(p) < 3 || !continues(p[1]) || !continues(p[2]) {
				return i
			}
			// Overlong forms of two bytes, and surrogates.
			if c == 0xe0 && p[1] < 0xa0 || c == 0xed && p[1] >= 0xa0 {
				return i
			}
			i += 3
		case c-0xf0 < 0xf5-0xf0:
			if len(p) < 4 || !continues(p[1]) || !continues(p[2]) || !continues(p[3]) {
				return i
			}
			// Overlong forms of three bytes, and what lies beyond U+10FFFF.
			if c == 0xf0 && p[1] < 0x90 || c == 0xf4 && p[1] >= 0x90 {
				return i
			}
			i += 4
		default:
			return i
		}
	}
	return i
}

// continues reports whether c is a continuation byte.
func continues(c byte) bool { return c&0xc0 == 0x80 }

package jsonscan

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// passOver makes a lenient scanner pass over a value, of which it has read the beginning.
func (s *Scanner) passOver(from state) {
	s.state, s.skipTo, s.nested = from, s.depth, 1
	s.unread = s.unread || from == passNested
}

// pass passes over a value, or what b[i:] has of it. It returns the index of the first byte that it has not consumed.
func (s *Scanner) pass(b []byte, i int) int {
	for i < len(b) && s.state >= passValue {
		switch s.state {
		case passValue:
			i = s.passFirst(b, i)
		case passNested:
			i = s.passToString(b, i)
		case passText:
			i = s.passString(b, i)
		case passEscape:
			s.state = passText
			i++
		default:
			i = s.passToEnd(b, i)
		}
	}
	return i
}

// passed ends a value that was passed over.
func (s *Scanner) passed() {
	if s.skipTo < s.depth {
		s.leave() // of the container that was to be skipped from its beginning
	}
	s.endValue()
}

// passFirst decides by the first byte of a value what it is.
func (s *Scanner) passFirst(b []byte, i int) int {
	switch b[i] {
	case ' ', '\n', '\r', '\t':
	case '"':
		s.state, s.nested = passText, 0
	case '{', '[':
		s.state, s.nested = passNested, 1
	default:
		s.state = passScalar
		return i
	}
	return i + 1
}

// passToEnd passes over what is neither string nor container. Only its end can be told.
func (s *Scanner) passToEnd(b []byte, i int) int {
	for ; i < len(b); i++ {
		if c := b[i]; c == ',' || c == '}' || c == ']' {
			s.passed()
			break
		}
	}
	return i
}

// passToString passes over what stands between strings in containers.
func (s *Scanner) passToString(b []byte, i int) int {
	for {
		if len(b)-i >= 8 {
			// Numbers come in long rows.
			m := mayMatter(binary.LittleEndian.Uint64(b[i:]))
			if m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) / 8
		}
		if i == len(b) {
			return i
		}
		c := b[i]
		i++
		switch c {
		case '"':
			s.state = passText
			return i
		case '{', '[':
			s.nested++
		case '}', ']':
			if s.nested--; s.nested == 0 {
				s.passed()
				return i
			}
		}
	}
}

// mayMatter has the high bit set in the first byte of w, from the least significant, that is a quote or a bracket; it may be
// one of four other characters instead, which are rare. (Higher bytes are only exact up to there.)
func mayMatter(w uint64) uint64 {
	// With these bits set, "[]{}" are the same.
	bracket := (w | 0x26*ones) ^ 0x7f*ones
	quote := w ^ '"'*ones
	return ((bracket-ones)&^bracket | (quote-ones)&^quote) & highs
}

// passString passes over the rest of a string.
func (s *Scanner) passString(b []byte, i int) int {
	for from := i; ; {
		end := len(b)
		if n := bytes.IndexByte(b[i:], '"'); n >= 0 {
			end = i + n
		}
		escaped := false
		for k := end; k > from && b[k-1] == '\\'; k-- {
			escaped = !escaped
		}
		if end == len(b) {
			if escaped {
				s.state = passEscape
			}
			return end
		}
		i = end + 1
		if escaped {
			continue
		}
		if s.nested > 0 {
			s.state = passNested
		} else {
			s.passed()
		}
		return i
	}
}

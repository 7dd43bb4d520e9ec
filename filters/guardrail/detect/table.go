package detect

import "encoding/binary"

// table says for each two bytes that follow each other whether something may begin or stand at the second one: bits of what. Most pairs
// are of nothing, and seven are looked up at a time.
type table [1 << 16]uint8

// What there may be.
const (
	isLiteral uint8 = 1 << iota // the anchor of one
	isNumber                    // the first digit
	isAt
	isColon
)

// mark marks all pairs of a byte and one before it.
func (t *table) mark(before func(byte) bool, b, bit uint8) {
	for a := range 256 {
		if before(byte(a)) {
			t[uint16(a)|uint16(b)<<8] |= bit
		}
	}
}

func anyByte(byte) bool { return true }

// next returns the first index at or after i at which something may be, and what; the text's length if there is none.
func (t *table) next(text []byte, i int) (at int, what uint8) {
	if i == 0 && len(text) > 0 {
		if what := t[uint16(text[0])<<8]; what != 0 {
			return 0, what
		}
		i = 1
	}
	for ; len(text)-i >= 7; i += 7 {
		w := binary.LittleEndian.Uint64(text[i-1:])
		if t[uint16(w)]|t[uint16(w>>8)]|t[uint16(w>>16)]|t[uint16(w>>24)]|t[uint16(w>>32)]|t[uint16(w>>40)]|t[uint16(w>>48)] == 0 {
			continue
		}
		for what = t[uint16(w)]; what == 0; what = t[uint16(w)] {
			w >>= 8
			i++
		}
		return i, what
	}
	for ; i < len(text); i++ {
		if what := t[uint16(text[i-1])|uint16(text[i])<<8]; what != 0 {
			return i, what
		}
	}
	return i, 0
}

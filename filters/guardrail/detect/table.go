package detect

import (
	"encoding/binary"
	"math/bits"
)

// table says for each byte of a text, by the byte before and the byte behind it, whether something may begin or stand there. Few
// bytes in a hundred are left, and what looks at those can take its time. An entry is for a pair of bytes: what may be at the second
// one in its low half, what may be at the first one in its high half.
type table [1 << 16]uint16

// What there may be.
const (
	isLiteral uint8 = 1 << iota // the anchor of one
	isOther                     // likewise: of every other one, so that fewer pairs of different ones go together
	isDigits                    // the first of several digits
	isSingle                    // a digit that is a group of its own
	isPlus                      // a digit behind a plus sign or a parenthesis, and alone
	isCheck                     // the first check digit behind a country's code
	isAt
	isColon

	anyLiteral = isLiteral | isOther
	anyNumber  = isDigits | isSingle | isPlus
)

// mark marks a byte between those before it and those behind it.
func (t *table) mark(before func(byte) bool, b byte, behind func(byte) bool, bit uint8) {
	for i := range 256 {
		c := byte(i)
		if before(c) {
			t[pair(c, b)] |= uint16(bit)
		}
		if behind(c) {
			t[pair(b, c)] |= uint16(bit) << 8
		}
	}
}

func anyByte(byte) bool { return true }

func pair(a, b byte) uint16 { return uint16(a) | uint16(b)<<8 }

// places is what may be in a few bytes of a text.
type places struct {
	from int    // the first of them
	what uint64 // of each in a byte of its own
}

// next takes the first of the places, and what may be there.
func (p *places) next() (at int, what uint8) {
	k := bits.TrailingZeros64(p.what) &^ 7
	what = uint8(p.what >> k)
	p.what &^= 0xff << k
	return p.from + k/8, what
}

// atOnce is how many places are collected at a time.
const atOnce = 64

// look collects the places from an index on. It returns how many there are, and where it has stopped.
//
// Nothing in its loop depends on what the text is: a processor cannot guess where something is, and to be wrong costs as much as
// to look up seven bytes.
func (t *table) look(text []byte, i int, found *[atOnce]places) (n, end int) {
	if i >= len(text) {
		return 0, len(text)
	}
	before := uint64(t[pair(byteBefore(text, i), text[i])])
	rest, count := text[i:], uint(0)
	for len(rest) >= 8 && count < atOnce {
		w := binary.LittleEndian.Uint64(rest)
		one, other := before, uint64(t[uint16(w)])
		w >>= 8
		one |= uint64(t[uint16(w)]) << 16
		w >>= 8
		other |= uint64(t[uint16(w)]) << 16
		w >>= 8
		one |= uint64(t[uint16(w)]) << 32
		w >>= 8
		other |= uint64(t[uint16(w)]) << 32
		w >>= 8
		one |= uint64(t[uint16(w)]) << 48
		before = uint64(t[w>>8])
		other |= before << 48
		// The second byte of each pair is the first byte of the next one.
		what := one&(other>>8)&0x00ff00ff00ff00ff | (other&(one>>24)&0x000000ff00ff00ff)<<8
		found[count] = places{len(rest), what}
		count += uint((what | -what) >> 63)
		rest = rest[7:]
	}
	i, n = len(text)-len(rest), int(count)
	for k := range found[:n] {
		found[k].from = len(text) - found[k].from
	}
	if len(rest) >= 8 {
		return n, i
	}
	for ; i < len(text) && n < atOnce; i++ {
		if what := t.at(text, i); what != 0 {
			found[n] = places{i, uint64(what)}
			n++
		}
	}
	return n, i
}

// byteBefore returns the byte before an index, 0 if there is none.
func byteBefore(text []byte, i int) byte {
	if i == 0 {
		return 0
	}
	return text[i-1]
}

// at returns what may be at an index near the end. Behind the text may be anything.
func (t *table) at(text []byte, i int) uint8 {
	what := uint8(t[pair(byteBefore(text, i), text[i])])
	if i+1 < len(text) {
		what &= uint8(t[pair(text[i], text[i+1])] >> 8)
	}
	return what
}

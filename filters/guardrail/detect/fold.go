package detect

import (
	"encoding/binary"
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// fold makes one of the ways in which people and programs write the same: digits of other scripts, full-width letters, kinds of
// spaces and hyphens become ASCII, and what is not seen (soft hyphens, zero-width characters) goes. A text without any of that
// is not copied.
type fold struct {
	text  []byte
	jumps []jump
}

// jump says which index of the original text an index of the folded text stands for, from there on.
type jump struct{ folded, came int }

// of folds a text. The result is valid until the next call, or as long as the text if there is nothing to fold.
func (f *fold) of(text []byte) []byte {
	f.text, f.jumps = f.text[:0], f.jumps[:0]
	done := 0 // of text
	for i := nextHigh(text, 0); i < len(text); i = nextHigh(text, i) {
		if !mayFold[text[i]] {
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		b, ok := foldRune(r)
		if !ok {
			i += n
			continue
		}
		f.text = append(f.text, text[done:i]...)
		f.jump(i)
		if b != 0 {
			f.text = append(f.text, b)
		}
		i += n
		done = i
		f.jump(i)
	}
	if done == 0 {
		return text
	}
	f.text = append(f.text, text[done:]...)
	return f.text
}

// jump notes the index of the original text that what follows in the folded text stands for.
func (f *fold) jump(came int) { f.jumps = append(f.jumps, jump{len(f.text), came}) }

// from returns where in the original text a character of the folded text begins.
func (f *fold) from(i int) int {
	j := f.last(i)
	if j < 0 {
		return i
	}
	return f.jumps[j].came + i - f.jumps[j].folded
}

// to returns where in the original text a character ends that ends at an index of the folded text. What is not seen behind it
// does not belong to it.
func (f *fold) to(i int) int {
	j := f.last(i)
	for j >= 0 && f.jumps[j].folded == i && j > 0 && f.jumps[j-1].folded == i {
		j--
	}
	if j < 0 {
		return i
	}
	return f.jumps[j].came + i - f.jumps[j].folded
}

// last returns the index of the last jump at or before an index of the folded text, -1 if there is none.
func (f *fold) last(i int) int {
	lo, hi := 0, len(f.jumps)
	for lo < hi {
		mid := (lo + hi) / 2
		if f.jumps[mid].folded <= i {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// nextHigh returns the index of the first byte at or after i that is not ASCII.
func nextHigh(text []byte, i int) int {
	const high = 0x8080808080808080
	for rest := text[min(i, len(text)):]; len(rest) >= 32; rest = rest[32:] {
		a, b := binary.LittleEndian.Uint64(rest), binary.LittleEndian.Uint64(rest[8:])
		c, d := binary.LittleEndian.Uint64(rest[16:]), binary.LittleEndian.Uint64(rest[24:])
		if (a|b|c|d)&high != 0 {
			break
		}
		i += 32
	}
	for ; len(text)-i >= 8; i += 8 {
		if m := binary.LittleEndian.Uint64(text[i:]) & high; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(text) && text[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// mayFold has the bytes with which a character that is folded may begin.
var mayFold = func() (t [256]bool) {
	mark := func(r rune) { t[string(r)[0]] = true }
	for _, group := range unicode.Nd.R16 {
		mark(rune(group.Lo))
	}
	for _, group := range unicode.Nd.R32 {
		mark(rune(group.Lo))
	}
	for _, r := range "\u00a0\u00ad\u2000\u2060\u2212\u3000\ufe63\ufeff\uff01" {
		mark(r)
	}
	for b := range utf8.RuneSelf {
		t[b] = false
	}
	return t
}()

// foldRune returns what a character is folded to, 0 for nothing, and whether it is folded at all.
func foldRune(r rune) (b byte, ok bool) {
	switch {
	case r == 0xad, 0x200b <= r && r <= 0x200d, r == 0x2060, r == 0xfeff:
		return 0, true
	case r == 0xa0, 0x2000 <= r && r <= 0x200a, r == 0x202f, r == 0x205f, r == 0x3000:
		return ' ', true
	case 0x2010 <= r && r <= 0x2015, r == 0x2212, r == 0xfe63:
		return '-', true
	case 0xff01 <= r && r <= 0xff5e:
		return byte(r - 0xff01 + '!'), true
	case r >= 0x660 && unicode.Is(unicode.Nd, r):
		return '0' + digitOf(r), true
	}
	return 0, false
}

// digitOf returns the value of a digit: those of a script follow each other, from 0 to 9.
func digitOf(r rune) byte {
	for _, group := range unicode.Nd.R16 {
		if rune(group.Lo) <= r && r <= rune(group.Hi) {
			return byte((r - rune(group.Lo)) % 10)
		}
	}
	for _, group := range unicode.Nd.R32 {
		if rune(group.Lo) <= r && r <= rune(group.Hi) {
			return byte((r - rune(group.Lo)) % 10)
		}
	}
	return 0
}

package valid

import (
	"bytes"
	"cmp"
	"strconv"
)

// decimal is a number: 0.digits · 10^exp. Neither the first nor the last digit is zero; zero has none.
type decimal struct {
	negative bool
	digits   []byte
	exp      int
}

// maxExp bounds exponents, beyond which numbers are not told apart.
const maxExp = 1 << 30

// decimalOf reads a JSON number into dst.
func decimalOf(dst, raw []byte) (d decimal) {
	if raw[0] == '-' {
		d.negative, raw = true, raw[1:]
	}
	if i := bytes.IndexAny(raw, "eE"); i >= 0 {
		n, err := strconv.Atoi(string(raw[i+1:]))
		if err != nil { // of more digits than an int has
			n = maxExp
			if raw[i+1] == '-' {
				n = -maxExp
			}
		}
		d.exp, raw = min(max(n, -maxExp), maxExp), raw[:i]
	}
	whole, fraction, _ := bytes.Cut(raw, []byte("."))
	d.exp += len(whole)
	d.digits = append(append(dst[:0], whole...), fraction...)
	trimmed := bytes.TrimLeft(d.digits, "0")
	d.exp -= len(d.digits) - len(trimmed)
	d.digits = bytes.TrimRight(trimmed, "0")
	if len(d.digits) == 0 {
		return decimal{}
	}
	return d
}

// isInteger reports whether a JSON number has no fraction: 1.0 has none.
func isInteger(raw []byte) bool {
	var buffer [64]byte
	d := decimalOf(buffer[:], raw)
	return len(d.digits) <= d.exp || len(d.digits) == 0
}

// compare compares two JSON numbers, exactly.
func compare(a, b []byte) int {
	var first, second [64]byte
	x, y := decimalOf(first[:], a), decimalOf(second[:], b)
	if x.sign() != y.sign() {
		return cmp.Compare(x.sign(), y.sign())
	}
	order := cmp.Compare(x.exp, y.exp)
	if order == 0 {
		order = bytes.Compare(x.digits, y.digits)
	}
	return x.sign() * order
}

func (d decimal) sign() int {
	switch {
	case len(d.digits) == 0:
		return 0
	case d.negative:
		return -1
	}
	return 1
}

package brotli

import (
	"encoding/binary"
	"math/bits"
)

// bitReader reads bits, the lowest of each byte first. After the end it reads zeros; overrun tells.
type bitReader struct {
	in  []byte
	pos int    // bytes that were loaded, those after the end included
	acc uint64 // the next bits
	n   uint   // how many of them count
}

// fill makes sure that the next 56 bits are loaded.
func (r *bitReader) fill() {
	if r.pos+8 <= len(r.in) {
		r.acc |= binary.LittleEndian.Uint64(r.in[r.pos:]) << r.n
		r.pos += int(63-r.n) >> 3
		r.n |= 56
		return
	}
	for r.n <= 56 {
		if r.pos < len(r.in) {
			r.acc |= uint64(r.in[r.pos]) << r.n
		}
		r.pos++
		r.n += 8
	}
}

// take returns the next bits, at most 24. Callers have filled the reader.
func (r *bitReader) take(count uint) int {
	v := r.acc & (1<<count - 1)
	r.acc >>= count
	r.n -= count
	return int(v)
}

// read is take for callers that have not filled the reader.
func (r *bitReader) read(count uint) int {
	r.fill()
	return r.take(count)
}

// overrun reports whether more bits were taken than there are.
func (r *bitReader) overrun() bool { return r.pos*8-int(r.n) > len(r.in)*8 }

// align drops the rest of a byte, and reports whether that was zero as it must be.
func (r *bitReader) align() bool { return r.take(r.n&7) == 0 }

// bytes returns the next bytes. Callers have aligned the reader. ok is false if there are not so many.
func (r *bitReader) bytes(count int) (b []byte, ok bool) {
	at := r.pos - int(r.n)/8
	r.acc, r.n = 0, 0
	if at > len(r.in) || count > len(r.in)-at {
		return nil, false
	}
	r.pos = at + count
	return r.in[at:r.pos], true
}

// prefixCode is a table that decodes a prefix code: rootBits bits of the input index an entry, which has a symbol and the length of its
// code, or leads to another table for the codes that are longer.
type prefixCode []uint32

const (
	rootBits  = 8
	maxLength = 15 // of a code, in bits
	lengthOf  = 15 // mask of an entry's length; 0 with a symbol that takes no bits
	isTable   = 16 // flag of an entry: its value is the offset of a table, its length that table's bits
	valueAt   = 5  // where the value of an entry begins
)

// symbol returns the next symbol. Callers have filled the reader; it takes at most 15 bits.
func (r *bitReader) symbol(code prefixCode) int {
	e := code[r.acc&(1<<rootBits-1)]
	if e&isTable != 0 {
		e = code[uint64(e>>valueAt)+r.acc>>rootBits&(1<<(e&lengthOf)-1)]
	}
	r.acc >>= e & lengthOf
	r.n -= uint(e & lengthOf)
	return int(e >> valueAt)
}

// codes makes prefix codes, and keeps the memory that takes.
type codes struct {
	lengths  [maxSymbols]uint8  // for the caller of build
	reversed [maxSymbols]uint16 // scratch of build
	memory   []uint32
}

const (
	maxSymbols = 704
	memorySize = 4 << 10 // entries that are allocated at once
)

// table returns a table that is valid until the next reset.
func (c *codes) table(size int) prefixCode {
	if cap(c.memory)-len(c.memory) < size {
		c.memory = make([]uint32, 0, max(size, memorySize))
	}
	at := len(c.memory)
	c.memory = c.memory[:at+size]
	return c.memory[at : at+size : at+size]
}

func (c *codes) reset() { c.memory = c.memory[:0] }

// single returns the code of one symbol, which takes no bits.
func (c *codes) single(symbol int) prefixCode {
	code := c.table(1 << rootBits)
	for i := range code {
		code[i] = uint32(symbol) << valueAt
	}
	return code
}

// build returns the canonical code of symbols with these lengths, 0 for a symbol that does not occur. The code must be complete.
func (c *codes) build(lengths []uint8) prefixCode {
	var next [maxLength + 2]int // the next code of each length
	for _, n := range lengths {
		if n > 0 {
			next[n+1]++
		}
	}
	for n, first := 1, 0; n <= maxLength; n++ {
		first = (first + next[n]) << 1
		next[n] = first
	}
	// The input has the highest bit of a code first.
	var deepest [1 << rootBits]uint8 // the longest code that begins with these bits
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		c.reversed[symbol] = bits.Reverse16(uint16(next[n])) >> (16 - n)
		next[n]++
		if n > rootBits {
			at := c.reversed[symbol] & (1<<rootBits - 1)
			deepest[at] = max(deepest[at], n)
		}
	}
	size := 1 << rootBits
	for _, n := range deepest {
		if n > 0 {
			size += 1 << (n - rootBits)
		}
	}
	code := c.table(size)
	free := 1 << rootBits
	for at, n := range deepest {
		if n > 0 {
			code[at] = uint32(free)<<valueAt | isTable | uint32(n-rootBits)
			free += 1 << (n - rootBits)
		}
	}
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		table, at, length := code[:1<<rootBits], int(c.reversed[symbol]), n
		if n > rootBits {
			root := code[at&(1<<rootBits-1)]
			table = code[root>>valueAt:][:1<<(root&lengthOf)]
			at, length = at>>rootBits, n-rootBits
		}
		for ; at < len(table); at += 1 << length {
			table[at] = uint32(symbol)<<valueAt | uint32(n)
		}
	}
	return code
}

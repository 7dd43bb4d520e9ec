// Package brotli decodes the brotli format (RFC 7932).
//
// It decodes a whole stream in the caller's goroutine, straight into the caller's buffer: the output is the window to which the stream may
// refer, so there is no other. Memory is the output, and at most about 5 MiB of prefix codes while a meta-block is decoded; what a stream
// claims takes none. Large windows (RFC 9841) are refused.
//
// It exists because the alternatives in Go did not fit into a filter: see "Content codings" in docs/rationale.md. Tests and fuzzing compare
// it with github.com/andybalholm/brotli, which nothing but tests imports.
package brotli

import (
	"errors"
	"io"
	"math/bits"
	"slices"
)

var (
	// ErrLimit says that the decoded bytes exceed the limit.
	ErrLimit = errors.New("brotli: the limit is exceeded")

	errCorrupt  = errors.New("brotli: the stream is corrupt")
	errTrailing = errors.New("brotli: bytes follow the end of the stream")
)

// decoder decodes one stream.
type decoder struct {
	r      bitReader
	codes  codes // of the meta-block
	out    []byte
	start  int   // where the stream's bytes begin in out
	limit  int64 // of them
	window int   // the farthest distance
	recent [4]int
	latest int // index of the last distance in recent
}

// Append decodes a whole stream and appends it to dst. It stops with ErrLimit after limit bytes. An error is io.ErrUnexpectedEOF if the
// stream is cut; any other means that it is malformed. What is returned with an error is of use as memory only.
func Append(dst, src []byte, limit int64) ([]byte, error) {
	d := decoder{r: bitReader{in: src}, out: dst, start: len(dst), limit: limit, recent: [4]int{16, 15, 11, 4}, latest: 3}
	err := d.stream()
	if d.r.overrun() { // then it is not known what else is wrong
		err = io.ErrUnexpectedEOF
	}
	return d.out, err
}

// bitsOf returns how many bits a number takes.
func bitsOf(n int) uint { return uint(bits.Len(uint(n))) }

func (d *decoder) stream() error {
	if err := d.readWindow(); err != nil {
		return err
	}
	for {
		last, err := d.metaBlock()
		switch {
		case err != nil:
			return err
		case d.r.overrun():
			return io.ErrUnexpectedEOF
		case !last:
			continue
		case !d.r.align():
			return errCorrupt
		}
		if rest := d.r.pos - int(d.r.n)/8; rest < len(d.r.in) {
			return errTrailing
		}
		return nil
	}
}

// readWindow reads the size of the window (section 9.1).
func (d *decoder) readWindow() error {
	d.r.fill()
	size := 16
	if d.r.take(1) == 1 {
		if n := d.r.take(3); n > 0 {
			size = 17 + n
		} else if n := d.r.take(3); n == 0 {
			size = 17
		} else if n > 1 {
			size = 8 + n
		} else {
			return errCorrupt // a large window
		}
	}
	d.window = 1<<size - 16
	return nil
}

// metaBlock decodes a meta-block (section 9.2).
func (d *decoder) metaBlock() (last bool, err error) {
	d.r.fill()
	if last = d.r.take(1) == 1; last && d.r.take(1) == 1 {
		return true, nil // it is empty
	}
	nibbles := uint(d.r.take(2) + 4)
	if nibbles == 7 {
		return last, d.metadata()
	}
	length := d.r.take(4 * nibbles)
	if nibbles > 4 && length>>(4*nibbles-4) == 0 {
		return last, errCorrupt // it would fit in fewer
	}
	length++
	if !last && d.r.take(1) == 1 {
		return last, d.uncompressed(length)
	}
	if int64(len(d.out)-d.start)+int64(length) > d.limit {
		return last, ErrLimit
	}
	return last, d.compressed(length)
}

// metadata passes over bytes that are no part of the output.
func (d *decoder) metadata() error {
	if d.r.take(1) != 0 {
		return errCorrupt
	}
	size := uint(d.r.take(2))
	length := d.r.take(8 * size)
	if size > 1 && length>>(8*size-8) == 0 {
		return errCorrupt
	}
	if size > 0 {
		length++
	}
	if !d.r.align() {
		return errCorrupt
	}
	if _, ok := d.r.bytes(length); !ok {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (d *decoder) uncompressed(length int) error {
	if !d.r.align() {
		return errCorrupt
	}
	b, ok := d.r.bytes(length)
	if !ok {
		return io.ErrUnexpectedEOF
	}
	if int64(len(d.out)-d.start)+int64(length) > d.limit {
		return ErrLimit
	}
	d.out = append(d.out, b...)
	return nil
}

// block is what a meta-block that is compressed says before its commands.
type block struct {
	literals, commands, distances         blocks
	literalCodes, commandCodes, distCodes []prefixCode
	literalMap, distMap                   []uint8 // which code each context uses
	modes                                 []uint8 // of each type of literals
	direct                                int     // distances that have a symbol of their own
	postfix                               uint    // low bits of a distance that are part of its symbol
}

func (d *decoder) readBlock() (b block, err error) {
	for _, of := range []*blocks{&b.literals, &b.commands, &b.distances} {
		if *of, err = d.readBlocks(); err != nil {
			return b, err
		}
	}
	d.r.fill()
	b.postfix = uint(d.r.take(2))
	b.direct = d.r.take(4) << b.postfix
	b.modes = make([]uint8, b.literals.types)
	for i := range b.modes {
		b.modes[i] = uint8(d.r.read(2))
	}
	literalCodes, literalMap, err := d.readContextMap(b.literals.types << 6)
	if err != nil {
		return b, err
	}
	distCodes, distMap, err := d.readContextMap(b.distances.types << 2)
	if err != nil {
		return b, err
	}
	b.literalMap, b.distMap = literalMap, distMap
	if b.literalCodes, err = d.readCodes(literalCodes, 256); err != nil {
		return b, err
	}
	if b.commandCodes, err = d.readCodes(b.commands.types, maxSymbols); err != nil {
		return b, err
	}
	b.distCodes, err = d.readCodes(distCodes, len(recent)+b.direct+48<<b.postfix)
	return b, err
}

func (d *decoder) readCodes(count, symbols int) ([]prefixCode, error) {
	codes := make([]prefixCode, 0, min(count, 16)) // they must come before they take memory
	for range count {
		code, err := d.readCode(symbols)
		if err != nil {
			return nil, err
		}
		if d.r.overrun() {
			return nil, io.ErrUnexpectedEOF
		}
		codes = append(codes, code)
	}
	return codes, nil
}

// compressed decodes commands until a meta-block has its length.
func (d *decoder) compressed(length int) error {
	d.codes.reset()
	b, err := d.readBlock()
	if err != nil {
		return err
	}
	for end := len(d.out) + length; ; {
		if b.commands.left == 0 {
			if err := d.next(&b.commands); err != nil {
				return err
			}
		}
		b.commands.left--
		d.r.fill()
		symbol := d.r.symbol(b.commandCodes[b.commands.kind])
		insert := d.coded(insertLengths[:], cells[symbol>>6].insert+symbol>>3&7)
		d.r.fill()
		length := d.coded(copyLengths[:], cells[symbol>>6].copy+symbol&7)
		if insert > end-len(d.out) {
			return errCorrupt
		}
		if err := d.insert(&b, insert); err != nil {
			return err
		}
		if d.r.overrun() {
			return io.ErrUnexpectedEOF
		}
		if len(d.out) == end {
			return nil
		}
		distance, again := d.recent[d.latest], true
		if symbol >= sameDistance {
			if distance, again, err = d.distance(&b, length); err != nil {
				return err
			}
		}
		produced := len(d.out) - d.start
		switch reach := min(d.window, produced); {
		case distance > reach:
			err = d.word(distance-reach-1, length, end)
		case length > end-len(d.out):
			err = errCorrupt
		default:
			if !again {
				d.latest = (d.latest + 1) & 3
				d.recent[d.latest] = distance
			}
			d.repeat(distance, length)
		}
		if err != nil {
			return err
		}
		if len(d.out) == end {
			return nil
		}
	}
}

// insert decodes literals.
func (d *decoder) insert(b *block, count int) error {
	const most = 4 << 10 // at once: memory grows with what is there, not with what is claimed
	for count > 0 {
		if b.literals.left == 0 {
			if err := d.next(&b.literals); err != nil {
				return err
			}
		}
		n := min(count, b.literals.left, most)
		count -= n
		b.literals.left -= n
		d.literals(b, n)
		if d.r.overrun() {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// literals decodes literals of one block.
func (d *decoder) literals(b *block, count int) {
	mode := &modes[b.modes[b.literals.kind]]
	codes := b.literalMap[b.literals.kind<<6:][:64]
	var p1, p2 uint8
	if produced := len(d.out) - d.start; produced > 1 {
		p1, p2 = d.out[len(d.out)-1], d.out[len(d.out)-2]
	} else if produced > 0 {
		p1 = d.out[len(d.out)-1]
	}
	d.out = slices.Grow(d.out, count)
	out, r := d.out[len(d.out):len(d.out)+count], &d.r
	for i := range out {
		if r.n < maxLength {
			r.fill()
		}
		c := uint8(r.symbol(b.literalCodes[codes[(mode.last[p1]|mode.before[p2])&63]]))
		out[i] = c
		p1, p2 = c, p1
	}
	d.out = d.out[:len(d.out)+count]
}

// distance decodes a distance (section 4). again reports whether it is the last one once more.
func (d *decoder) distance(b *block, length int) (distance int, again bool, err error) {
	if b.distances.left == 0 {
		if err := d.next(&b.distances); err != nil {
			return 0, false, err
		}
	}
	b.distances.left--
	d.r.fill()
	context := min(length, 5) - 2
	symbol := d.r.symbol(b.distCodes[b.distMap[b.distances.kind<<2+context]])
	if symbol < len(recent) {
		distance = d.recent[(d.latest-recent[symbol].which)&3] + recent[symbol].add
		if distance <= 0 {
			return 0, false, errCorrupt
		}
		return distance, symbol == 0, nil
	}
	if symbol -= len(recent); symbol < b.direct {
		return symbol + 1, false, nil
	}
	symbol -= b.direct
	high, low := symbol>>b.postfix, symbol&(1<<b.postfix-1)
	extra := uint(1 + high>>1)
	offset := (2+high&1)<<extra - 4
	return (offset+d.r.take(extra))<<b.postfix + low + b.direct + 1, false, nil
}

// repeat appends what is a distance back. It may go on into what it appends.
func (d *decoder) repeat(distance, length int) {
	d.out = slices.Grow(d.out, length)
	for from := len(d.out) - distance; length > 0; {
		n := min(length, len(d.out)-from)
		d.out = append(d.out, d.out[from:from+n]...)
		length -= n
	}
}

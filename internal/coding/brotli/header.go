package brotli

// Codes of code lengths come in this order.
var lengthOrder = [18]int{1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// The lengths of these have a fixed code: by its next four bits the length, and how many bits it takes.
var (
	lengthCode = [16]uint8{0, 4, 3, 2, 0, 4, 3, 1, 0, 4, 3, 2, 0, 4, 3, 5}
	lengthBits = [16]uint8{2, 2, 2, 3, 2, 2, 2, 4, 2, 2, 2, 3, 2, 2, 2, 4}
)

// readCode reads a prefix code for that many symbols (RFC 7932, sections 3.4 and 3.5).
func (d *decoder) readCode(symbols int) (prefixCode, error) {
	d.r.fill()
	skipped := d.r.take(2)
	if skipped == 1 {
		return d.readSimpleCode(symbols)
	}
	lengths, err := d.readLengths(skipped, symbols)
	if err != nil {
		return nil, err
	}
	return d.codes.build(lengths), nil
}

// simpleLengths are the lengths of simple codes, by the number of symbols; the last is for a second form of four.
var simpleLengths = [...][]uint8{2: {1, 1}, 3: {1, 2, 2}, 4: {2, 2, 2, 2}, 5: {1, 2, 3, 3}}

// readSimpleCode reads a code of one to four symbols.
func (d *decoder) readSimpleCode(symbols int) (prefixCode, error) {
	count := d.r.take(2) + 1
	width := bitsOf(symbols - 1)
	var listed [4]int
	for i := range count {
		s := d.r.read(width)
		if s >= symbols {
			return nil, errCorrupt
		}
		for _, before := range listed[:i] {
			if before == s {
				return nil, errCorrupt
			}
		}
		listed[i] = s
	}
	if count == 1 {
		return d.codes.single(listed[0]), nil
	}
	form := count
	if count == 4 {
		form += d.r.read(1)
	}
	lengths := d.lengths(symbols)
	for i, n := range simpleLengths[form] {
		lengths[listed[i]] = n
	}
	return d.codes.build(lengths), nil
}

// lengths returns room for as many code lengths, all 0.
func (d *decoder) lengths(symbols int) []uint8 {
	lengths := d.codes.lengths[:symbols]
	clear(lengths)
	return lengths
}

// readLengths reads the code lengths of symbols, which are themselves coded. The lengths that it returns make a complete code.
func (d *decoder) readLengths(skipped, symbols int) ([]uint8, error) {
	var codes [18]uint8
	space, used, last := 32, 0, 0
	for i := skipped; i < len(lengthOrder) && space > 0; i++ {
		d.r.fill()
		at := d.r.acc & 15
		d.r.take(uint(lengthBits[at]))
		if n := lengthCode[at]; n > 0 {
			codes[lengthOrder[i]] = n
			space -= 32 >> n
			used, last = used+1, lengthOrder[i]
		}
	}
	var code prefixCode
	switch {
	case used == 1:
		code = d.codes.single(last)
	case space == 0:
		code = d.codes.build(codes[:])
	default:
		return nil, errCorrupt
	}

	lengths := d.lengths(symbols)
	space = 1 << maxLength
	previous, repeated, times := uint8(8), uint8(0), 0
	for i := 0; i < symbols && space > 0; {
		d.r.fill()
		s := d.r.symbol(code)
		if s < 16 {
			lengths[i], times = uint8(s), 0
			if i++; s > 0 {
				previous = uint8(s)
				space -= 1 << maxLength >> s
			}
			continue
		}
		// 16 repeats the last length that is not 0, and 17 repeats 0. One that follows another of its kind goes on from it.
		n, extra := previous, uint(2)
		if s == 17 {
			n, extra = 0, 3
		}
		if repeated != n {
			repeated, times = n, 0
		}
		before := times
		if times > 0 {
			times = (times - 2) << extra
		}
		times += d.r.take(extra) + 3
		if times-before > symbols-i {
			return nil, errCorrupt
		}
		for range times - before {
			lengths[i] = n
			i++
		}
		if n > 0 {
			space -= (times - before) << (maxLength - n)
		}
	}
	if space != 0 {
		return nil, errCorrupt
	}
	return lengths, nil
}

// readCount reads a number from 1 to 256 (section 9.2: NBLTYPES, NTREES).
func (d *decoder) readCount() int {
	d.r.fill()
	if d.r.take(1) == 0 {
		return 1
	}
	n := uint(d.r.take(3))
	return 1<<n + d.r.take(n) + 1
}

// readContextMap reads which of the prefix codes each context uses (section 7.3).
func (d *decoder) readContextMap(size int) (codes int, m []uint8, err error) {
	m = make([]uint8, size)
	if codes = d.readCount(); codes == 1 {
		return codes, m, nil
	}
	longest := 0
	if d.r.fill(); d.r.take(1) == 1 {
		longest = d.r.take(4) + 1
	}
	code, err := d.readCode(codes + longest)
	if err != nil {
		return 0, nil, err
	}
	for i := 0; i < size; {
		d.r.fill()
		s := d.r.symbol(code)
		switch {
		case s == 0:
			i++
		case s <= longest: // zeros
			if i += 1<<s + d.r.take(uint(s)); i > size {
				return 0, nil, errCorrupt
			}
		default:
			m[i] = uint8(s - longest)
			i++
		}
	}
	if d.r.read(1) == 1 {
		undoMoveToFront(m)
	}
	return codes, m, nil
}

func undoMoveToFront(m []uint8) {
	var front [256]uint8
	for i := range front {
		front[i] = uint8(i)
	}
	for i, at := range m {
		v := front[at]
		copy(front[1:], front[:at])
		front[0] = v
		m[i] = v
	}
}

// blocks are the blocks of one kind of symbol: each has a type, which selects prefix codes, and a length.
type blocks struct {
	types          int
	typeCode       prefixCode
	lengthCode     prefixCode
	left           int // symbols in this block
	kind, previous int // types of this block and of the one before
}

const endless = 1 << 24 // no meta-block is longer

// readBlocks reads how the blocks of one kind of symbol are coded (section 6).
func (d *decoder) readBlocks() (b blocks, err error) {
	b = blocks{types: d.readCount(), left: endless, previous: 1}
	if b.types == 1 {
		return b, nil
	}
	if b.typeCode, err = d.readCode(b.types + 2); err != nil {
		return b, err
	}
	if b.lengthCode, err = d.readCode(len(blockLengths)); err != nil {
		return b, err
	}
	d.r.fill()
	b.left = d.coded(blockLengths[:], d.r.symbol(b.lengthCode))
	return b, nil
}

// next begins the next block.
func (d *decoder) next(b *blocks) error {
	if b.types == 1 {
		return errCorrupt // longer than any meta-block
	}
	d.r.fill()
	kind := d.r.symbol(b.typeCode)
	switch kind {
	case 0:
		kind = b.previous
	case 1:
		if kind = b.kind + 1; kind == b.types {
			kind = 0
		}
	default:
		kind -= 2
	}
	b.previous, b.kind = b.kind, kind
	d.r.fill()
	b.left = d.coded(blockLengths[:], d.r.symbol(b.lengthCode))
	return nil
}

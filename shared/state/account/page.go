package account

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// pageEntries is how many accounts a record of the store has at most.
const pageEntries = 8

// page is a record of the store: some accounts whose keys lead to it. Names and windows are parts of raw.
type page struct {
	slot    int
	cas     uint32
	raw     []byte
	n       int
	entries [pageEntries]entry
}

// entry is an account in a page.
type entry struct {
	key    Key
	name   []byte
	window []byte // Window.Append
	limit  int64
	shared bool
	bucket bucket
}

// find returns the account with that key, or nil.
func (p *page) find(key Key) *entry {
	for i := range p.n {
		if p.entries[i].key == key {
			return &p.entries[i]
		}
	}
	return nil
}

// place returns a place for a new account: a free one, or that of an idle account. Nil if the page is full.
// taken are accounts that this request has found already.
func (p *page) place(own, allocators int64, taken []place) *entry {
	if p.n < pageEntries {
		p.n++
		return &p.entries[p.n-1]
	}
	for i := range p.entries {
		e := &p.entries[i]
		now := own
		if e.shared {
			now = allocators
		}
		e.bucket.expire(own)
		if e.bucket.idle(now, own) && !slices.ContainsFunc(taken, func(t place) bool { return t.entry == e }) {
			return e
		}
	}
	return nil
}

// pageFormat is the first byte of a page: a build that finds another one starts with an empty page.
const pageFormat = 2

// append appends the page as it is stored. The stamp is another one each time, so that no two writings have one digest.
func (p *page) append(dst []byte, stamp uint64) []byte {
	dst = binary.LittleEndian.AppendUint64(append(dst, pageFormat), stamp)
	for i := range p.n {
		e := &p.entries[i]
		dst = binary.LittleEndian.AppendUint64(dst, e.key.Hi)
		dst = binary.LittleEndian.AppendUint64(dst, e.key.Lo)
		dst = appendBytes(dst, e.name)
		dst = appendBytes(dst, e.window)
		dst = binary.AppendVarint(dst, e.limit)
		dst = e.bucket.append(dst)
		dst = appendFlag(dst, e.shared)
		if e.shared {
			dst = e.bucket.lease.append(dst)
		}
	}
	return dst
}

// decode reads a page from raw. One that cannot be read is empty.
func (p *page) decode() {
	p.n = 0
	if len(p.raw) == 0 || p.raw[0] != pageFormat {
		return
	}
	r := reader{rest: p.raw[1:]}
	_ = r.fixed() // the stamp
	for n := 0; len(r.rest) > 0; n++ {
		if n == pageEntries {
			p.n = 0
			return
		}
		e := &p.entries[n]
		*e = entry{key: Key{Hi: r.fixed(), Lo: r.fixed()}, name: r.bytes(), window: r.bytes(), limit: r.int()}
		r.bucket(&e.bucket)
		if e.shared = r.flag(); e.shared {
			r.lease(&e.bucket.lease)
		}
		if r.bad {
			p.n = 0
			return
		}
		p.n = n + 1
	}
}

func (b *bucket) append(dst []byte) []byte {
	for _, n := range [...]int64{b.start, b.end - b.start, b.name - b.start, b.used, b.back, b.next} {
		dst = binary.AppendVarint(dst, n)
	}
	for i := range b.holds {
		dst = binary.AppendVarint(dst, b.holds[i].until)
		if b.holds[i].until != 0 {
			dst = binary.AppendVarint(dst, b.holds[i].amount)
		}
	}
	return dst
}

func (r *reader) bucket(b *bucket) {
	b.start = r.int()
	b.end, b.name = b.start+r.int(), b.start+r.int()
	b.used, b.back, b.next = r.int(), r.int(), r.int()
	for i := range b.holds {
		if b.holds[i].until = r.int(); b.holds[i].until != 0 {
			b.holds[i].amount = r.int()
		}
	}
}

func (l *lease) append(dst []byte) []byte {
	for _, n := range [...]int64{
		l.seq, l.heardSeq, l.granted, l.released, l.said, l.confirmed, l.heardAt, l.free, l.freeAt, l.total, l.batch, l.credit, l.waiting, l.waitingAt,
		int64(l.lapses), int64(l.generation), l.rate.step, l.rate.now, l.rate.before,
	} {
		dst = binary.AppendVarint(dst, n)
	}
	return dst
}

func (r *reader) lease(l *lease) {
	for _, n := range [...]*int64{
		&l.seq, &l.heardSeq, &l.granted, &l.released, &l.said, &l.confirmed, &l.heardAt, &l.free, &l.freeAt, &l.total, &l.batch, &l.credit, &l.waiting, &l.waitingAt,
	} {
		*n = r.int()
	}
	l.lapses, l.generation = uint32(r.int()), uint32(r.int())
	l.rate.step, l.rate.now, l.rate.before = r.int(), r.int(), r.int()
}

// append appends the link as it is stored.
func (k *link) append(dst []byte) []byte {
	dst = append(dst, pageFormat)
	for _, n := range [...]int64{int64(k.generation), int64(k.lapses), k.skew, k.trusted, k.proxies, k.heard, k.beatAt} {
		dst = binary.AppendVarint(dst, n)
	}
	return appendBytes(appendFlag(appendFlag(dst, k.known), k.silent), k.id)
}

// decodeLink reads a link. One that cannot be read is a new one.
func decodeLink(b []byte) (k link) {
	if len(b) == 0 || b[0] != pageFormat {
		return link{}
	}
	r := reader{rest: b[1:]}
	k.generation, k.lapses = uint32(r.int()), uint32(r.int())
	k.skew, k.trusted, k.proxies, k.heard, k.beatAt = r.int(), r.int(), r.int(), r.int(), r.int()
	k.known, k.silent, k.id = r.flag(), r.flag(), bytes.Clone(r.bytes())
	if r.bad {
		return link{}
	}
	return k
}

// reader reads what was appended. After a fault all that it reads is 0.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) fixed() uint64 {
	if len(r.rest) < 8 {
		r.fail()
		return 0
	}
	n := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return n
}

func (r *reader) bytes() []byte {
	size, n := binary.Uvarint(r.rest)
	if n <= 0 || size > uint64(len(r.rest)-n) {
		r.fail()
		return nil
	}
	b := r.rest[n : n+int(size)]
	r.rest = r.rest[n+int(size):]
	return b
}

func (r *reader) flag() bool {
	if len(r.rest) == 0 {
		r.fail()
		return false
	}
	is := r.rest[0] == 1
	r.rest = r.rest[1:]
	return is
}

func (r *reader) fail() { r.rest, r.bad = nil, true }

func appendFlag(dst []byte, is bool) []byte {
	if is {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

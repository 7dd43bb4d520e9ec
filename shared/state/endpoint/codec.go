package endpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The wire form, all fixed numbers little-endian:
//
//	snapshot: "inlt", format (u8), then sections until the end
//	section:  type (u16), length (u32), that many bytes
//
// A section of an unknown type is skipped, so a newer companion can send more to an older proxy: a new fact is a new section, never a
// change of one below. Sections are in ascending order of type, each at most once. A complete snapshot has a head and pools, and those of
// the others that are known; a delta has a head, a base and changes. Either may have the sections of the relay (relay.go) after them:
//
//	1 head:  source (u64), version (u64), taken (i64, nanoseconds since 1970)
//	2 pools: number of pools, number of endpoints in all of them, then per pool:
//	           name, number of endpoints, then per endpoint:
//	             address, flags (u8: 1 ready, 2 gauges known), then if known:
//	               age in microseconds, waiting, running, KV use in steps of 1/65535 (u16)
//	16 models: names, number of sets, then per set:
//	             number of models, each as a name; number of adapters, each as a name and its parent's (1 more than the name, 0: none);
//	           then per endpoint: 1 more than the number of its set, 0: unknown
//	17 LoRA:   names, number of endpoints with it, number of names in them, then per endpoint:
//	             1 more than max, 0: unknown; then if known: number of running adapters, each as a name; the same of waiting ones
//	18 cache:  per endpoint: tokens in a block, blocks
//	19 origin: per endpoint: priority, start of its process in seconds since 1970
//	32 base:   version (u64, of the same source)
//	33 changes: names, number of endpoints with new LoRA, number of names in them, number of changes, then per change:
//	             how many endpoints lie between it and the one before, flags (u8: 1 ready, 2 gauges known, 4 new LoRA),
//	             if known: the same as in pools; if new LoRA: the same as in LoRA
//
// where numbers without a type are uvarints, and a string is its length (uvarint) and its bytes. "Per endpoint" is in the order of the
// pools section. "Names" is their number and each as a string; "a name" is then the position in it.
const (
	magic  = "inlt"
	format = 1

	sectionHead    = 1
	sectionPools   = 2
	sectionModels  = 16
	sectionLoRA    = 17
	sectionCache   = 18
	sectionOrigin  = 19
	sectionBase    = 32
	sectionChanges = 33

	flagReady = 1
	flagKnown = 2
	flagLoRA  = 4

	sectionHeader = 2 + 4
	headSize      = 8 + 8 + 8
	baseSize      = 8
	minPool       = 1 + 1 + 1 // bytes of the smallest pool: a name of one byte and no endpoints
	minEndpoint   = 1 + 1 + 1 // bytes of the smallest endpoint: an address of one byte, flags
)

// ContentType is the media type of the wire form.
const ContentType = "application/vnd.inlet.snapshot"

var (
	// ErrMalformed is wrapped by the errors about bytes that Append does not write.
	ErrMalformed = errors.New("malformed snapshot")
	// ErrBase means that a delta is for another snapshot.
	ErrBase = errors.New("a delta to another snapshot")
)

// Append appends the wire form of the snapshot to dst. Negative gauges count as 0, a KVUse outside of 0..1 as the nearer bound.
func Append(dst []byte, s *Snapshot) []byte {
	dst = appendHead(dst, s)
	dst, start := openSection(dst, sectionPools)
	dst = closeSection(appendPools(dst, s.Pools), start)
	dst = appendFacts(dst, s.Pools)
	return appendKnownPeers(dst, s)
}

func appendHead(dst []byte, s *Snapshot) []byte {
	dst = append(dst, magic...)
	dst = append(dst, format)
	dst, start := openSection(dst, sectionHead)
	dst = binary.LittleEndian.AppendUint64(dst, s.Source)
	dst = binary.LittleEndian.AppendUint64(dst, s.Version)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.Taken.UnixNano()))
	return closeSection(dst, start)
}

// openSection begins a section whose length closeSection fills in.
func openSection(dst []byte, kind uint16) (section []byte, start int) {
	dst = binary.LittleEndian.AppendUint16(dst, kind)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	return dst, len(dst)
}

func closeSection(dst []byte, start int) []byte {
	binary.LittleEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
	return dst
}

func appendPools(dst []byte, pools []Pool) []byte {
	total := 0
	for i := range pools {
		total += len(pools[i].Endpoints)
	}
	dst = binary.AppendUvarint(dst, uint64(len(pools)))
	dst = binary.AppendUvarint(dst, uint64(total))
	for i := range pools {
		dst = appendString(dst, pools[i].Name)
		dst = binary.AppendUvarint(dst, uint64(len(pools[i].Endpoints)))
		for j := range pools[i].Endpoints {
			dst = appendEndpoint(dst, &pools[i].Endpoints[j])
		}
	}
	return dst
}

func appendEndpoint(dst []byte, e *Endpoint) []byte {
	return appendState(appendString(dst, e.Address), e, 0)
}

// appendState appends what changes all the time.
func appendState(dst []byte, e *Endpoint, flags byte) []byte {
	if e.Ready {
		flags |= flagReady
	}
	if e.Gauges.Known {
		flags |= flagKnown
	}
	dst = append(dst, flags)
	if e.Gauges.Known {
		g := &e.Gauges
		dst = binary.AppendUvarint(dst, uint64(max(0, g.Age.Microseconds())))
		dst = binary.AppendUvarint(dst, uint64(min(max(0, g.Waiting), math.MaxInt32)))
		dst = binary.AppendUvarint(dst, uint64(min(max(0, g.Running), math.MaxInt32)))
		dst = binary.LittleEndian.AppendUint16(dst, kvSteps(g.KVUse))
	}
	return dst
}

// kvSteps rounds a share to the steps of the wire.
func kvSteps(use float64) uint16 {
	if !(use > 0) { // NaN too
		return 0
	}
	return uint16(math.Round(min(use, 1) * math.MaxUint16))
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Decode decodes a complete snapshot: it is Apply without a previous one. It allocates the snapshot, its pools, one slice of endpoints and one string that
// all their names lie in, and a few things more if there are models or adapters.
func Decode(b []byte) (*Snapshot, error) { return Apply(nil, b) }

// Apply decodes the wire form, complete or a delta to have, and returns the new snapshot; have, which may be nil, is not changed, and b is
// not kept. A delta to another snapshot is ErrBase: poll for a complete one. Every truncation, wrong length or number out of range is an
// error that wraps ErrMalformed.
//
// After a delta the endpoints keep their Load. Gauges that are not in it have aged by the time between the two.
func Apply(have *Snapshot, b []byte) (*Snapshot, error) {
	d := decoder{snapshot: new(Snapshot), have: have}
	if err := d.decode(b); err != nil {
		return nil, err
	}
	return d.snapshot, nil
}

// eachSection calls f with every section, in ascending order of type.
func eachSection(b []byte, f func(kind int, body []byte) error) error {
	if len(b) < len(magic)+1 || string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: does not begin with %q", ErrMalformed, magic)
	}
	if f := b[len(magic)]; f != format {
		return fmt.Errorf("%w: format %d, this build reads %d", ErrMalformed, f, format)
	}
	last := -1
	for rest := b[len(magic)+1:]; len(rest) > 0; {
		kind, body, after, err := cutSection(rest)
		if err != nil {
			return err
		}
		if kind <= last {
			return fmt.Errorf("%w: section %d after section %d", ErrMalformed, kind, last)
		}
		last, rest = kind, after
		if err := f(kind, body); err != nil {
			return err
		}
	}
	return nil
}

// decoder builds a snapshot from the sections, which come in ascending order.
type decoder struct {
	snapshot  *Snapshot
	have      *Snapshot
	endpoints []Endpoint // of all pools

	series *Series // nil: the snapshot stands by itself
	issue  issue   // what the series keeps of it

	head, listed, base, changed bool // which sections were there
}

func (d *decoder) decode(b []byte) error {
	if err := eachSection(b, d.section); err != nil {
		return err
	}
	if !d.head || !d.listed || d.base != d.changed {
		return fmt.Errorf("%w: a required section is missing", ErrMalformed)
	}
	return nil
}

func (d *decoder) section(kind int, body []byte) error {
	switch kind {
	case sectionHead:
		d.head = true
		return d.snapshot.decodeHead(body)
	case sectionPools:
		d.listed = true
		return d.decodePools(body)
	case sectionModels, sectionLoRA, sectionCache, sectionOrigin:
		if !d.listed {
			return fmt.Errorf("%w: section %d without pools", ErrMalformed, kind)
		}
		return d.decodeFacts(kind, body)
	case sectionBase:
		if !d.head || d.listed {
			return fmt.Errorf("%w: a base with pools or without head", ErrMalformed)
		}
		d.base, d.listed = true, true
		return d.decodeBase(body)
	case sectionChanges:
		if !d.base {
			return fmt.Errorf("%w: changes without a base", ErrMalformed)
		}
		d.changed = true
		return d.decodeChanges(body)
	case sectionPeers:
		if !d.listed {
			return fmt.Errorf("%w: peers without a list", ErrMalformed)
		}
		return d.decodePeers(body)
	case sectionHeard:
		return d.snapshot.decodeHeard(body)
	}
	return nil
}

func cutSection(b []byte) (kind int, body, rest []byte, err error) {
	if len(b) < sectionHeader {
		return 0, nil, nil, fmt.Errorf("%w: cut off in a section header", ErrMalformed)
	}
	kind = int(binary.LittleEndian.Uint16(b))
	length := uint64(binary.LittleEndian.Uint32(b[2:]))
	b = b[sectionHeader:]
	if length > uint64(len(b)) {
		return 0, nil, nil, fmt.Errorf("%w: section %d cut off", ErrMalformed, kind)
	}
	return kind, b[:length], b[length:], nil
}

func (s *Snapshot) decodeHead(b []byte) error {
	if len(b) != headSize {
		return fmt.Errorf("%w: a head of %d bytes", ErrMalformed, len(b))
	}
	s.Source = binary.LittleEndian.Uint64(b)
	s.Version = binary.LittleEndian.Uint64(b[8:])
	s.Taken = time.Unix(0, int64(binary.LittleEndian.Uint64(b[16:])))
	return nil
}

// reader reads values from a section. After the first malformed one it stays bad and returns zeros, so callers check once per pool and
// endpoint.
type reader struct {
	b    []byte // the section
	text string // a copy of it that names are cut from; "": each name is copied by itself
	at   int
	bad  string // what is malformed, "" if nothing
}

// textReader returns a reader whose names lie in one copy of the section.
func textReader(b []byte) reader { return reader{b: b, text: string(b)} }

func (r *reader) left() int { return len(r.b) - r.at }

func (r *reader) fail(why string) {
	if r.bad == "" {
		r.bad = why
	}
	r.at = len(r.b)
}

func (r *reader) byte() byte {
	if r.left() < 1 {
		r.fail("cut off")
		return 0
	}
	b := r.b[r.at]
	r.at++
	return b
}

// uvarint reads a number of at most limit, in its shortest form. Most are of one byte: that case is short enough to be inlined.
func (r *reader) uvarint(limit uint64) uint64 {
	if r.at < len(r.b) && r.b[r.at] < 0x80 && uint64(r.b[r.at]) <= limit {
		r.at++
		return uint64(r.b[r.at-1])
	}
	return r.longUvarint(limit)
}

func (r *reader) longUvarint(limit uint64) uint64 {
	var n uint64
	for shift, at := 0, r.at; at < len(r.b); shift += 7 {
		b := r.b[at]
		at++
		if shift == 63 && b > 1 || b == 0 && shift > 0 {
			r.fail("a number is written wrongly")
			return 0
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if n > limit {
				r.fail("a number is out of range")
				return 0
			}
			r.at = at
			return n
		}
	}
	r.fail("cut off")
	return 0
}

// count reads the number of items that follow, each of at least size bytes: a false number cannot make us allocate more than the section permits.
func (r *reader) count(size int) int {
	n := r.uvarint(math.MaxInt32)
	if n*uint64(size) > uint64(r.left()) {
		r.fail("a count is larger than what follows")
		return 0
	}
	return int(n)
}

// string reads a name, and returns the previous one if they are the same.
func (r *reader) string(before string) string {
	n := r.count(1)
	if n == 0 {
		r.fail("a name is empty")
		return ""
	}
	name := r.b[r.at : r.at+n]
	r.at += n
	switch {
	case r.text != "":
		return r.text[r.at-n : r.at]
	case string(name) == before:
		return before
	}
	return string(name)
}

func (r *reader) uint16() uint16 {
	if r.left() < 2 {
		r.fail("cut off")
		return 0
	}
	r.at += 2
	return uint16(r.b[r.at-2]) | uint16(r.b[r.at-1])<<8
}

// done returns the error of a section, which must have been read to its end.
func (r *reader) done(section string) error {
	if r.bad == "" && r.left() > 0 {
		r.fail("more than was announced, or less")
	}
	if r.bad != "" {
		return fmt.Errorf("%w: %s: %s", ErrMalformed, section, r.bad)
	}
	return nil
}

func (d *decoder) decodePools(b []byte) error {
	s := d.snapshot
	r := d.namesFrom(b)
	pools := r.count(minPool)
	total := r.count(minEndpoint)
	s.Pools = make([]Pool, 0, pools)
	d.endpoints = d.room(total)
	endpoints := d.endpoints
	for range pools {
		name := r.string(d.poolBefore(len(s.Pools)))
		n := int(r.uvarint(uint64(len(endpoints))))
		if r.bad != "" {
			break
		}
		if k := len(s.Pools); k > 0 && s.Pools[k-1].Name >= name {
			r.fail("pools are not sorted by name")
			break
		}
		for i := range n {
			r.endpoint(&endpoints[i], d.addressBefore(total-len(endpoints)+i))
			if i > 0 && r.bad == "" && endpoints[i-1].Address >= endpoints[i].Address {
				r.fail("endpoints are not sorted by address")
			}
		}
		s.Pools = append(s.Pools, Pool{Name: name, Endpoints: endpoints[:n:n]})
		endpoints = endpoints[n:]
	}
	if len(endpoints) > 0 {
		r.fail("more than was announced, or less")
	}
	return r.done("pools")
}

func (r *reader) endpoint(e *Endpoint, before string) {
	e.Address = r.string(before)
	r.state(e, 0)
}

// state reads what appendState wrote, and returns the flags. Those that are allowed beside its own are in also.
func (r *reader) state(e *Endpoint, also byte) (flags byte) {
	flags = r.byte()
	if flags&^(flagReady|flagKnown|also) != 0 {
		r.fail("unknown flags")
	}
	e.Ready = flags&flagReady != 0
	if flags&flagKnown == 0 {
		e.Gauges = Gauges{}
		return flags
	}
	const maxAge = math.MaxInt64 / uint64(time.Microsecond)
	g := &e.Gauges
	g.Known = true
	g.Age = time.Duration(r.uvarint(maxAge)) * time.Microsecond
	g.Waiting = int(r.uvarint(math.MaxInt32))
	g.Running = int(r.uvarint(math.MaxInt32))
	g.KVUse = float64(r.uint16()) / math.MaxUint16
	return flags
}

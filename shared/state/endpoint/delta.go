package endpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// Change is an endpoint that changed, by its position among the endpoints of all pools in their order.
type Change struct {
	Position int
	LoRA     bool // it has new LoRA; otherwise only readiness and gauges changed
}

// AppendDelta appends the wire form of s to dst for a proxy that has version base of the same source: only the endpoints that changed
// since, in ascending order of position. The rest must be the same in both: pools, addresses, models, adapters, caches and origins.
func AppendDelta(dst []byte, s *Snapshot, base uint64, changes []Change) []byte {
	dst = appendHead(dst, s)
	dst, start := openSection(dst, sectionBase)
	dst = closeSection(binary.LittleEndian.AppendUint64(dst, base), start)

	changed := endpointsAt(s.Pools, changes)
	var b loraBook
	for i, c := range changes {
		if c.LoRA {
			b.add(changed[i].LoRA)
		}
	}
	dst, start = openSection(dst, sectionChanges)
	dst = b.appendHeader(dst)
	dst = binary.AppendUvarint(dst, uint64(len(changes)))
	next := 0
	for i, c := range changes {
		dst = binary.AppendUvarint(dst, uint64(c.Position-next))
		next = c.Position + 1
		if !c.LoRA {
			dst = appendState(dst, changed[i], 0)
			continue
		}
		dst = appendState(dst, changed[i], flagLoRA)
		dst = b.appendLoRA(dst, changed[i].LoRA)
	}
	return closeSection(dst, start)
}

// endpointsAt returns the endpoints at the positions of the changes.
func endpointsAt(pools []Pool, changes []Change) []*Endpoint {
	found := make([]*Endpoint, len(changes))
	pool, first := 0, 0 // first is the position of the pool's first endpoint
	for i, c := range changes {
		for c.Position-first >= len(pools[pool].Endpoints) {
			first += len(pools[pool].Endpoints)
			pool++
		}
		found[i] = &pools[pool].Endpoints[c.Position-first]
	}
	return found
}

// decodeBase makes the snapshot a copy of the previous one, aged.
func (d *decoder) decodeBase(b []byte) error {
	if len(b) != baseSize {
		return fmt.Errorf("%w: a base of %d bytes", ErrMalformed, len(b))
	}
	s, have, base := d.snapshot, d.have, binary.LittleEndian.Uint64(b)
	if have == nil {
		return fmt.Errorf("%w: version %d, and there is none here", ErrBase, base)
	}
	if have.Source != s.Source || have.Version != base {
		return fmt.Errorf("%w: %s, not %s", ErrBase, (&Snapshot{Source: s.Source, Version: base}).ID(), have.ID())
	}
	total := 0
	for i := range have.Pools {
		total += len(have.Pools[i].Endpoints)
	}
	d.endpoints = make([]Endpoint, 0, total)
	s.Pools = slices.Clone(have.Pools)
	for i := range s.Pools {
		first := len(d.endpoints)
		d.endpoints = append(d.endpoints, s.Pools[i].Endpoints...)
		s.Pools[i].Endpoints = d.endpoints[first:len(d.endpoints):len(d.endpoints)]
	}
	passed := max(0, s.Taken.Sub(have.Taken))
	for i := range d.endpoints {
		d.endpoints[i].Peers = InFlight{} // sent again, or unknown
		if g := &d.endpoints[i].Gauges; g.Known {
			g.Age = older(g.Age, passed)
		}
	}
	return nil
}

// older adds two durations that are not negative.
func older(age, by time.Duration) time.Duration {
	if by > math.MaxInt64-age {
		return math.MaxInt64
	}
	return age + by
}

// endpointAt reads how many endpoints lie between the next one and the one before, and returns the next one, nil if there is none.
func (d *decoder) endpointAt(r *reader, next *int) *Endpoint {
	gap := r.uvarint(math.MaxInt32)
	if gap >= uint64(len(d.endpoints)-*next) {
		r.fail("there is no such endpoint")
	}
	if r.bad != "" {
		return nil
	}
	*next += int(gap) + 1
	return &d.endpoints[*next-1]
}

func (d *decoder) decodeChanges(b []byte) error {
	const minChange = 1 + 1
	r := textReader(b)
	room := r.loraRoom()
	next := 0
	for range r.count(minChange) {
		e := d.endpointAt(&r, &next)
		if e == nil {
			break
		}
		if flags := r.state(e, flagLoRA); flags&flagLoRA != 0 {
			e.LoRA = r.lora(&room)
		}
	}
	r.filled(room)
	return r.done("changes")
}

package relay

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// board is what the proxies reported. Everything reported gets a number, in the order of arrival; a proxy that has heard up to a number
// is sent the rest.
type board struct {
	last    uint64 // number of the latest report
	left    uint64 // the same, over the proxies that were forgotten
	proxies map[string]*proxy
	notes   *notes
	lives   lives

	// The replicas, as the snapshot lists them. One that is in two pools has two positions and one slot.
	slots     map[uint64]int      // by endpoint.ReplicaID
	positions []int               // slots, by position
	total     []endpoint.InFlight // by slot
	shares    int                 // of all proxies
	reported  []endpoint.InFlight // scratch, by slot: what one proxy reports; otherwise zero

	rate  float64 // bytes of notes that a proxy may report per second
	quota quota   // of all proxies
	stats BoardStats
}

// proxy is what is known about an Envoy.
type proxy struct {
	id    string
	last  uint64    // number of its latest report
	heard uint64    // the number in the last response to it
	seen  time.Time // its last call began or ended

	own   []share   // in ascending order of slot
	until time.Time // when that expires

	quota quota
}

// share is what a proxy has in flight on a replica.
type share struct {
	slot int
	endpoint.InFlight
}

// quota is how many bytes of notes may be reported, as of a time. At first it is full.
type quota struct {
	allowed float64
	counted time.Time
}

// fill adds what a rate gives since the last time, up to that of noteSeconds.
func (q *quota) fill(rate float64, now time.Time) {
	q.allowed = min(q.allowed+now.Sub(q.counted).Seconds()*rate, noteSeconds*rate)
	q.counted = now
}

// BoardStats counts what proxies report.
type BoardStats struct {
	Proxies       int    // that are known
	Reports       uint64 // that were taken
	Refused       uint64 // that were not: malformed, too long, or over the bound for all proxies
	ReportedBytes uint64 // of those that were taken
	Expired       uint64 // proxies that stopped reporting while they had requests in flight
	Notes         uint64 // that were taken
	Dropped       uint64 // that were over the quota of their proxy, or of all
	Forgotten     uint64 // to make room for others
	SentNotes     uint64 // counted each time they are sent
	SentBytes     uint64 // of responses, about other proxies
	Remembered    int    // stored notes ...
	Bytes         int64  // ... and their memory
}

const (
	// maxProxies bounds the memory that callers can take by using ever new names.
	maxProxies = 1024
	// maxShares bounds it, too: to 24 MiB, for 100 proxies with requests on each of 10,000 replicas.
	maxShares = 1 << 20
	// noteSeconds is how many seconds of its quota a proxy may report at once.
	noteSeconds = 2
	// noteProxies is the quota of all proxies together, in quotas of one: callers choose their names, and may use many.
	noteProxies = 4
	// notesOfResponse is about the most bytes of notes in a response: more would keep an Envoy worker busy for too long.
	notesOfResponse = 256 << 10
)

func newBoard(memory int64, rate int) *board {
	return &board{proxies: make(map[string]*proxy), notes: newNotes(memory), lives: make(lives), rate: float64(rate)}
}

// list takes over the list of replicas. What is in flight on removed ones is forgotten; what is on new ones is reported within a renewal.
func (b *board) list(s *endpoint.Snapshot) {
	ids := make([]uint64, len(b.slots)) // by previous slot
	for id, slot := range b.slots {
		ids[slot] = id
	}
	b.slots, b.positions = make(map[uint64]int), b.positions[:0]
	for _, p := range s.Pools {
		for i := range p.Endpoints {
			id := endpoint.ReplicaID(p.Endpoints[i].Address)
			slot, ok := b.slots[id]
			if !ok {
				slot = len(b.slots)
				b.slots[id] = slot
			}
			b.positions = append(b.positions, slot)
		}
	}
	b.total, b.reported = make([]endpoint.InFlight, len(b.slots)), make([]endpoint.InFlight, len(b.slots))
	b.shares = 0
	for _, p := range b.proxies {
		for _, s := range p.own {
			if slot, ok := b.slots[ids[s.slot]]; ok {
				b.reported[slot] = s.InFlight
			}
		}
		p.own = b.ownOfReported()
		b.shares += len(p.own)
		b.count(p.own, 1)
	}
}

// count adds what a proxy has in flight to the total, or subtracts it.
func (b *board) count(own []share, sign int64) {
	for _, s := range own {
		b.total[s.slot].Requests += sign * s.Requests
		b.total[s.slot].Tokens += sign * s.Tokens
	}
}

// proxy returns the proxy with an id, nil if there are too many.
func (b *board) proxy(id string, now time.Time) *proxy {
	p := b.proxies[id]
	if p == nil {
		if len(b.proxies) >= maxProxies {
			return nil
		}
		p = &proxy{id: id}
		b.proxies[id] = p
	}
	p.seen = now
	return p
}

var errTooMuch = fmt.Errorf("more than %d pairs of a proxy and a replica with requests in flight", maxShares)

// report takes a report, and reports whether it is news to the other proxies.
func (b *board) report(p *proxy, t *endpoint.Report, now time.Time, lease time.Duration) (news bool, err error) {
	own := b.ownOf(t)
	if b.shares-len(p.own)+len(own) > maxShares {
		return false, errTooMuch
	}
	p.until = now.Add(lease)
	if !slices.Equal(own, p.own) {
		b.change(p, own)
		news = true
	}
	return b.take(p, t.Notes, now) || news, nil
}

// take takes the notes of a report, as far as the quotas permit.
func (b *board) take(p *proxy, notes []byte, now time.Time) (news bool) {
	p.quota.fill(b.rate, now)
	b.quota.fill(noteProxies*b.rate, now)
	for rest := notes; ; {
		n, after, ok := endpoint.CutNote(rest)
		if !ok {
			return news
		}
		raw := rest[:len(rest)-len(after)]
		rest = after
		size := float64(len(raw))
		if min(p.quota.allowed, b.quota.allowed) < size {
			b.stats.Dropped++
			continue
		}
		p.quota.allowed -= size
		b.quota.allowed -= size
		b.last++
		p.last = b.last
		b.stats.Notes++
		b.stats.Forgotten += uint64(b.notes.add(p.id, b.last, n, raw))
		news = true
	}
}

// ownOf returns what is in flight on replicas that are listed.
func (b *board) ownOf(t *endpoint.Report) []share {
	for i := range t.InFlight {
		if slot, ok := b.slots[t.InFlight[i].Replica]; ok {
			b.reported[slot] = t.InFlight[i].InFlight
		}
	}
	return b.ownOfReported()
}

// ownOfReported takes what is in b.reported. It allocates for that alone, not for all replicas.
func (b *board) ownOfReported() []share {
	n := 0
	for _, f := range b.reported {
		if f != (endpoint.InFlight{}) {
			n++
		}
	}
	own := make([]share, 0, n)
	for slot, f := range b.reported {
		if f != (endpoint.InFlight{}) {
			own = append(own, share{slot, f})
		}
	}
	clear(b.reported)
	return own
}

// change replaces what a proxy has in flight.
func (b *board) change(p *proxy, own []share) {
	b.count(p.own, -1)
	b.shares += len(own) - len(p.own)
	p.own = own
	b.count(p.own, 1)
	b.last++
	p.last = b.last
}

// expire forgets what proxies had in flight that stopped reporting, and proxies that were not heard of for long. It reports whether that
// is news.
func (b *board) expire(now time.Time, forget time.Duration) (news bool) {
	for id, p := range b.proxies {
		if len(p.own) > 0 && !now.Before(p.until) {
			b.change(p, nil)
			b.stats.Expired++
			news = true
		}
		if now.Sub(p.seen) >= forget {
			b.left = max(b.left, p.last)
			delete(b.proxies, id)
		}
	}
	return news
}

// untilExpiry returns the time until something expires, at most limit.
func (b *board) untilExpiry(now time.Time, limit time.Duration) time.Duration {
	for _, p := range b.proxies {
		if len(p.own) > 0 {
			limit = min(limit, p.until.Sub(now))
		}
	}
	return max(0, limit)
}

// hasNews reports whether proxies other than p reported something after a number.
func (b *board) hasNews(p *proxy, heard uint64) bool {
	if b.left > heard {
		return true
	}
	for _, other := range b.proxies {
		if other != p && other.last > heard {
			return true
		}
	}
	return false
}

// appendNews appends to a response what proxies other than that one reported after a number.
func (b *board) appendNews(dst []byte, id string, p *proxy, heard uint64) []byte {
	if p != nil { // leave out its own
		b.count(p.own, -1)
		defer b.count(p.own, 1)
	}
	var peers []endpoint.Peer
	for position, slot := range b.positions {
		if f := b.total[slot]; f != (endpoint.InFlight{}) {
			peers = append(peers, endpoint.Peer{Position: position, InFlight: f})
		}
	}
	notes, sent, upTo := b.notes.since(heard, id, notesOfResponse)
	if upTo == 0 {
		upTo = b.last
	}
	b.stats.SentNotes += uint64(sent)
	before := len(dst)
	dst = endpoint.AppendRelayed(dst, peers, upTo, notes)
	b.stats.SentBytes += uint64(len(dst) - before)
	if p != nil {
		p.heard = upTo
	}
	return dst
}

// Proxy is an Envoy that takes part in the relay.
type Proxy struct {
	ID       string
	Silent   time.Duration     // since a call of it began or ended
	InFlight endpoint.InFlight // on all replicas
}

func (b *board) all(now time.Time) []Proxy {
	list := make([]Proxy, 0, len(b.proxies))
	for _, id := range slices.Sorted(maps.Keys(b.proxies)) {
		p := b.proxies[id]
		out := Proxy{ID: id, Silent: now.Sub(p.seen)}
		for _, f := range p.own {
			out.InFlight.Requests += f.Requests
			out.InFlight.Tokens += f.Tokens
		}
		list = append(list, out)
	}
	return list
}

// inFlight returns what all proxies have in flight on the replica at an address.
func (b *board) inFlight(address string) endpoint.InFlight {
	slot, ok := b.slots[endpoint.ReplicaID(address)]
	if !ok {
		return endpoint.InFlight{}
	}
	return b.total[slot]
}

// notes are the latest notes, in the order of arrival, within a memory bound. A prompt that continues another on the same replica has its
// blocks and more: then the other one is removed.
type notes struct {
	limit, bytes int64
	list         []*note // by number, the removed ones included ...
	out          int     // ... which are so many
	ends         map[end]*note
}

type note struct {
	number uint64
	origin string // id of the proxy
	raw    []byte // nil: removed
	end    end
}

// end is the last block of a prompt on a replica; it identifies the whole prompt.
type end struct{ replica, block uint64 }

// noteBytes is about the memory of a note in addition to its own bytes.
const noteBytes = 192

func newNotes(limit int64) *notes { return &notes{limit: limit, ends: make(map[end]*note)} }

// add stores a note, and returns how many old ones were forgotten for it.
func (s *notes) add(origin string, number uint64, n endpoint.Note, raw []byte) (forgotten int) {
	e := end{replica: n.Replica}
	for i := range n.Len() {
		e.block = n.Block(i)
		if old := s.ends[e]; old != nil {
			s.remove(old)
		}
	}
	added := &note{number: number, origin: origin, raw: slices.Clone(raw), end: e}
	s.list = append(s.list, added)
	s.ends[e] = added
	s.bytes += int64(len(raw)) + noteBytes
	oldest := 0
	for ; s.bytes > s.limit; oldest++ {
		if n := s.list[oldest]; n.raw != nil {
			s.remove(n)
			forgotten++
		}
	}
	if s.out > len(s.list)/2 {
		s.list = slices.DeleteFunc(s.list, func(n *note) bool { return n.raw == nil })
		s.out = 0
	}
	return forgotten
}

func (s *notes) remove(n *note) {
	s.bytes -= int64(len(n.raw)) + noteBytes
	delete(s.ends, n.end)
	n.raw = nil
	s.out++
}

// since returns the notes after a number that are not from a proxy, the oldest first, and how many they are. If there are more than limit
// bytes of them, upTo is the number of the last one returned, otherwise 0.
func (s *notes) since(number uint64, origin string, limit int) (raw []byte, sent int, upTo uint64) {
	first, _ := slices.BinarySearchFunc(s.list, number+1, func(n *note, number uint64) int {
		switch {
		case n.number < number:
			return -1
		case n.number > number:
			return 1
		}
		return 0
	})
	for _, n := range s.list[first:] {
		if n.raw == nil || n.origin == origin {
			continue
		}
		if len(raw)+len(n.raw) > limit && sent > 0 {
			return raw, sent, upTo
		}
		raw = append(raw, n.raw...)
		sent++
		upTo = n.number
	}
	return raw, sent, 0
}

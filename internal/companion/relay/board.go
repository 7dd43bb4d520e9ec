package relay

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// board is what the proxies told of themselves. Everything told gets a number, in the order in which it came; a proxy that has heard up to
// one is told the rest.
type board struct {
	last    uint64 // number of what was told last
	left    uint64 // the same of a proxy that is forgotten
	proxies map[string]*proxy
	notes   *notes
	lives   lives

	// The replicas, as the snapshot lists them. One that is in two pools has two positions and one slot.
	slots     map[uint64]int      // by endpoint.ReplicaID
	positions []int               // slots, by position
	total     []endpoint.InFlight // by slot
	shares    int                 // of all proxies
	told      []endpoint.InFlight // scratch, by slot: what one proxy tells; else nothing

	rate  float64 // bytes of notes that a proxy may tell in a second
	quota quota   // of all proxies
	stats BoardStats
}

// proxy is what is known of an Envoy.
type proxy struct {
	id    string
	last  uint64    // number of what it told last
	heard uint64    // that it was answered with
	seen  time.Time // its last call began or ended

	own   []share   // in ascending order of slot
	until time.Time // when that counts no more

	quota quota
}

// share is what a proxy has in flight on a replica.
type share struct {
	slot int
	endpoint.InFlight
}

// quota is how many bytes of notes may be told, as of a time. At first it is full.
type quota struct {
	allowed float64
	counted time.Time
}

// fill adds what a rate gives since the last time, up to that of noteSeconds.
func (q *quota) fill(rate float64, now time.Time) {
	q.allowed = min(q.allowed+now.Sub(q.counted).Seconds()*rate, noteSeconds*rate)
	q.counted = now
}

// BoardStats is what is counted of what proxies tell each other.
type BoardStats struct {
	Proxies    int    // that are known
	Tells      uint64 // that were taken
	Refused    uint64 // that were not: malformed, too long, or over a bound of what all may tell
	ToldBytes  uint64 // of those that were taken
	Expired    uint64 // proxies that fell silent with requests in flight
	Notes      uint64 // that were told and taken
	Dropped    uint64 // that were over the quota of their proxy, or of all
	Forgotten  uint64 // for which there was no memory any more
	SentNotes  uint64 // each as often as it was sent
	SentBytes  uint64 // of all that answers had of other proxies
	Remembered int    // notes that are remembered ...
	Bytes      int64  // ... and the memory that they take
}

const (
	// maxProxies bounds the memory that callers with ever new names can take.
	maxProxies = 1024
	// maxShares bounds it, too: 24 MiB, for 100 proxies with requests on each of 10,000 replicas.
	maxShares = 1 << 20
	// noteSeconds is how many seconds of its quota a proxy may tell at once.
	noteSeconds = 2
	// noteProxies is how many proxies may tell as much as one may: a caller gives itself its name, and as many as it likes.
	noteProxies = 4
	// notesOfAnswer is how many bytes of notes an answer has at most, about: more would keep a worker of Envoy busy for long.
	notesOfAnswer = 256 << 10
)

func newBoard(memory int64, rate int) *board {
	return &board{proxies: make(map[string]*proxy), notes: newNotes(memory), lives: make(lives), rate: float64(rate)}
}

// list takes over the list of replicas. What is in flight on those that are gone is forgotten, what on new ones, is told within a renewal.
func (b *board) list(s *endpoint.Snapshot) {
	ids := make([]uint64, len(b.slots)) // by slot, as it was
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
	b.total, b.told = make([]endpoint.InFlight, len(b.slots)), make([]endpoint.InFlight, len(b.slots))
	b.shares = 0
	for _, p := range b.proxies {
		for _, s := range p.own {
			if slot, ok := b.slots[ids[s.slot]]; ok {
				b.told[slot] = s.InFlight
			}
		}
		p.own = b.ownOfTold()
		b.shares += len(p.own)
		b.count(p.own, 1)
	}
}

// count adds what a proxy has in flight to the total, or takes it off.
func (b *board) count(own []share, sign int64) {
	for _, s := range own {
		b.total[s.slot].Requests += sign * s.Requests
		b.total[s.slot].Tokens += sign * s.Tokens
	}
}

// proxy returns that of an id, nil if it is one too many.
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

var errTooMuch = fmt.Errorf("all proxies together have requests on replicas %d times", maxShares)

// tell takes what a proxy tells, and reports whether it is news to the others.
func (b *board) tell(p *proxy, t *endpoint.Tell, now time.Time, lease time.Duration) (news bool, err error) {
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

// take takes the notes that a proxy tells, as far as the quotas go.
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

// ownOf is what is in flight on replicas that are listed.
func (b *board) ownOf(t *endpoint.Tell) []share {
	for i := range t.InFlight {
		if slot, ok := b.slots[t.InFlight[i].Replica]; ok {
			b.told[slot] = t.InFlight[i].InFlight
		}
	}
	return b.ownOfTold()
}

// ownOfTold takes what stands in told. It takes memory for that alone, and not for all replicas.
func (b *board) ownOfTold() []share {
	n := 0
	for _, f := range b.told {
		if f != (endpoint.InFlight{}) {
			n++
		}
	}
	own := make([]share, 0, n)
	for slot, f := range b.told {
		if f != (endpoint.InFlight{}) {
			own = append(own, share{slot, f})
		}
	}
	clear(b.told)
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

// expire forgets what proxies that fell silent had in flight, and those that are silent for long altogether. It reports whether that is
// news.
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

// untilExpiry is how long it is until something expires, at most limit.
func (b *board) untilExpiry(now time.Time, limit time.Duration) time.Duration {
	for _, p := range b.proxies {
		if len(p.own) > 0 {
			limit = min(limit, p.until.Sub(now))
		}
	}
	return max(0, limit)
}

// hasNews reports whether others than p told something after a number.
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

// appendNews appends to an answer what others than the proxy of that id told after a number.
func (b *board) appendNews(dst []byte, id string, p *proxy, heard uint64) []byte {
	if p != nil { // others than it
		b.count(p.own, -1)
		defer b.count(p.own, 1)
	}
	var peers []endpoint.Peer
	for position, slot := range b.positions {
		if f := b.total[slot]; f != (endpoint.InFlight{}) {
			peers = append(peers, endpoint.Peer{Position: position, InFlight: f})
		}
	}
	notes, sent, upTo := b.notes.since(heard, id, notesOfAnswer)
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

// inFlight is what all proxies have in flight on the replica at an address.
func (b *board) inFlight(address string) endpoint.InFlight {
	slot, ok := b.slots[endpoint.ReplicaID(address)]
	if !ok {
		return endpoint.InFlight{}
	}
	return b.total[slot]
}

// notes are the latest that were told, in the order in which they came, within a bound on their memory. A prompt that goes on from another
// on the same replica has its blocks and more: then the other is left out.
type notes struct {
	limit, bytes int64
	list         []*note // by number; those that are left out are still there
	out          int     // so many
	ends         map[end]*note
}

type note struct {
	number uint64
	origin string // id of the proxy
	raw    []byte // nil: left out
	end    end
}

// end is the last block of a prompt, which stands for all of it, on a replica.
type end struct{ replica, block uint64 }

// noteBytes is what a note takes besides its own bytes, about.
const noteBytes = 192

func newNotes(limit int64) *notes { return &notes{limit: limit, ends: make(map[end]*note)} }

// add takes a note, and returns how many old ones were forgotten for it.
func (s *notes) add(origin string, number uint64, n endpoint.Note, raw []byte) (forgotten int) {
	e := end{replica: n.Replica}
	for i := range n.Len() {
		e.block = n.Block(i)
		if old := s.ends[e]; old != nil {
			s.leaveOut(old)
		}
	}
	added := &note{number: number, origin: origin, raw: slices.Clone(raw), end: e}
	s.list = append(s.list, added)
	s.ends[e] = added
	s.bytes += int64(len(raw)) + noteBytes
	oldest := 0
	for ; s.bytes > s.limit; oldest++ {
		if n := s.list[oldest]; n.raw != nil {
			s.leaveOut(n)
			forgotten++
		}
	}
	if s.out > len(s.list)/2 {
		s.list = slices.DeleteFunc(s.list, func(n *note) bool { return n.raw == nil })
		s.out = 0
	}
	return forgotten
}

func (s *notes) leaveOut(n *note) {
	s.bytes -= int64(len(n.raw)) + noteBytes
	delete(s.ends, n.end)
	n.raw = nil
	s.out++
}

// since returns notes after a number that are not from a proxy, the oldest first, and how many they are. If those are not all, because they
// are more than limit bytes, upTo is the number of the last one.
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

package picker

import (
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/prefix"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// fleet is what this proxy knows of replicas from one request to the next. In a
// native module it is one for all threads; in wasm each VM has its own, and they
// tell each other through counters and the ring.
//
// What is counted is read and changed at any time. The rest needs the lock,
// which is held for microseconds: see insertBatch.
type fleet struct {
	counters kv.Counters
	ejected  kv.Counter // replicas that are ejected now, in all workers
	full     kv.Counter // replicas that workers hold back from now

	mu       filter.Mutex
	members  map[string]*member // by address
	byID     map[uint64]*member
	views    []*view // newest first
	swept    time.Time
	index    *prefix.Index
	memory   int64        // size of index in bytes; 0: no profile uses it
	reported int          // entries of index, as the metric has them
	ring     *prefix.Ring // nil where all threads use this fleet
	pools    map[string]*poolState
	held     []*member // that this worker holds back from
	ejecting bool      // some worker had a replica ejected at the last tick
	renewals renewals
	unused   []*scratch // as many as there were threads that chose at once, so no more than workers

	heard []uint64 // scratch of learnNotes, which one thread at a time runs
}

// member is one replica. All but health is fixed.
type member struct {
	address string
	id      uint64 // hash of the address, the same in every proxy
	slot    prefix.Replica
	load    kv.Counter // requests in flight from this Envoy
	tokens  kv.Counter // tokens of theirs that it has to compute
	ejected kv.Counter // workers that do not send to it
	full    kv.Counter // workers that hold back, because it said that it has no room

	// By the lock of the fleet:

	health health
	life   life
	absent bool // was in no view when the fleet was swept last
}

// poolState is what is learnt of a pool, by the lock of the fleet.
type poolState struct {
	turn    uint64        // of round robin
	service time.Duration // mean time from pick to end of a request, weighted towards the latest; 0: unknown
	first   firstBytes
	stray   time.Time // when Envoy last sent a request elsewhere than it was told
}

// view is a snapshot with the members that its endpoints are. It is not changed
// any more once it is made.
type view struct {
	snapshot *endpoint.Snapshot
	seats    [][]seat      // as the snapshot's pools and their endpoints
	renewal  time.Duration // see renewals
}

type seat struct {
	member *member
	ready  bool
	since  time.Time // when it became ready; zero: it always was
	cache  endpoint.Cache

	started int64 // its process, as endpoint.Endpoint has it
}

// keptViews is for how many snapshots at a time there may be requests: those of
// one companion before and after a change, and of a second one.
const keptViews = 4

// forgetAfter is how long a replica may be in no snapshot before it is forgotten.
const forgetAfter = 10 * time.Minute

func newFleet(d *filter.Deps) *fleet {
	f := &fleet{
		counters: d.Counters,
		ejected:  d.Counters.Open("#ejected"),
		full:     d.Counters.Open("#full"),
		mu:       d.Mutex(),
		members:  make(map[string]*member),
		byID:     make(map[uint64]*member),
		pools:    make(map[string]*poolState),
		index:    prefix.New(0),
	}
	if d.Worker != "" {
		f.ring = prefix.NewRing(d.Store, d.Worker)
	}
	return f
}

// remember has the fleet remember prefixes in an index of the given size.
func (f *fleet) remember(memory int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memory != memory {
		f.memory = memory
		f.index.SetSize(memory)
	}
}

// borrow returns memory to choose with.
func (f *fleet) borrow() *scratch {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := len(f.unused) - 1
	if last < 0 {
		return &scratch{}
	}
	s := f.unused[last]
	f.unused = f.unused[:last]
	return s
}

// giveBack ends the use of what was borrowed.
func (f *fleet) giveBack(s *scratch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unused = append(f.unused, s)
}

// see returns the view of a snapshot, and who holds how much of a prompt.
func (f *fleet) see(s *endpoint.Snapshot, chain []uint64, matches *prefix.Matches, now time.Time) *view {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.view(s, now)
	if len(chain) > 0 {
		f.index.Match(chain, matches)
	}
	return v
}

// view needs the lock.
func (f *fleet) view(s *endpoint.Snapshot, now time.Time) *view {
	for _, v := range f.views {
		if v.snapshot == s {
			return v
		}
	}
	var before *view
	if len(f.views) > 0 {
		before = f.views[0]
	}
	v := &view{snapshot: s, seats: make([][]seat, len(s.Pools))}
	for i := range s.Pools {
		v.seats[i] = f.seats(s, &s.Pools[i], before)
	}
	f.missing(v)
	if before != nil {
		f.renewals.note(before.snapshot, s)
	}
	v.renewal = f.renewals.least()
	f.views = slices.Insert(f.views, 0, v)
	f.views = f.views[:min(len(f.views), keptViews)]
	f.sweep(now)
	return v
}

// seats needs the lock. Endpoints are mostly those of the view before, in the
// same order: then nothing is looked up.
func (f *fleet) seats(s *endpoint.Snapshot, p *endpoint.Pool, before *view) []seat {
	_, old := before.find(p.Name)
	if slices.EqualFunc(old, p.Endpoints, seat.isOf) {
		return old // but for its gauges nothing is new, as in most snapshots
	}
	seats := make([]seat, len(p.Endpoints))
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		var was seat
		if i < len(old) && old[i].member.address == e.Address {
			was = old[i]
		} else {
			was = find(old, e.Address)
		}
		seats[i] = seat{member: was.member, ready: e.Ready, since: was.since, cache: e.Cache, started: e.Started}
		if was.member == nil {
			seats[i].member = f.member(e.Address)
		}
		if e.Cache != was.cache {
			f.index.Resize(seats[i].member.slot, blocksOf(e.Cache))
		}
		f.live(seats[i].member, s)
		if e.Ready && !was.ready && before != nil {
			seats[i].since = s.Received
			f.recovered(seats[i].member)
		}
	}
	return seats
}

// isOf reports whether it is the seat of an endpoint, as it is now.
func (s seat) isOf(e endpoint.Endpoint) bool {
	return s.ready == e.Ready && s.cache == e.Cache && s.started == e.Started && s.member.address == e.Address
}

// blocksOf returns how many blocks of a prompt a cache has room for, 0 if it does
// not say.
func blocksOf(c endpoint.Cache) int {
	return int(int64(c.Blocks) * int64(c.BlockTokens) / llm.PrefixBlockTokens)
}

// recovered takes back what was held against a replica that has just become
// ready; it needs the lock.
func (f *fleet) recovered(m *member) {
	if m.health.ejected {
		f.readmit(m)
	}
	f.release(m)
	m.health = health{}
}

// find looks for the seat of an address; seats are sorted by it.
func find(seats []seat, address string) seat {
	i, ok := slices.BinarySearchFunc(seats, address, func(s seat, a string) int {
		switch {
		case s.member.address < a:
			return -1
		case s.member.address > a:
			return 1
		}
		return 0
	})
	if !ok {
		return seat{}
	}
	return seats[i]
}

// find returns a pool and its seats, nil if there is none of that name.
func (v *view) find(name string) (*endpoint.Pool, []seat) {
	if v == nil {
		return nil, nil
	}
	for i := range v.snapshot.Pools {
		if p := &v.snapshot.Pools[i]; p.Name == name {
			return p, v.seats[i]
		}
	}
	return nil, nil
}

// member returns the member of an address; it needs the lock.
func (f *fleet) member(address string) *member {
	if m := f.members[address]; m != nil {
		return m
	}
	address = strings.Clone(address) // it may lie in the memory of an exchange, or in a list of all replicas
	m := &member{
		address: address,
		id:      endpoint.ReplicaID(address),
		slot:    f.index.Add(0),
		load:    f.counters.Open(address),
		tokens:  f.counters.Open(endpoint.TokensCounter(address)),
		ejected: f.counters.Open(address + "#ejected"),
		full:    f.counters.Open(address + "#full"),
	}
	f.members[address], f.byID[m.id] = m, m
	return m
}

// find returns the member that serves at an address.
func (f *fleet) find(address string) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.member(address)
}

// sweep forgets the members that were in no view for long; it needs the lock.
func (f *fleet) sweep(now time.Time) {
	if now.Sub(f.swept) < forgetAfter {
		return
	}
	f.swept = now
	for _, m := range f.members {
		if !f.seated(m) && m.absent {
			f.forget(m)
		}
		m.absent = true
	}
	for _, v := range f.views {
		for _, seats := range v.seats {
			for i := range seats {
				seats[i].member.absent = false
			}
		}
	}
}

func (f *fleet) seated(m *member) bool {
	for _, v := range f.views {
		for _, seats := range v.seats {
			if find(seats, m.address).member == m {
				return true
			}
		}
	}
	return false
}

func (f *fleet) forget(m *member) {
	delete(f.members, m.address)
	delete(f.byID, m.id)
	f.index.Remove(m.slot)
	if m.health.ejected {
		f.readmit(m)
	}
	f.release(m)
}

// insertBatch is how many blocks of a prompt are inserted while the lock is held
// once: some microseconds of work, for which other threads may have to wait.
const insertBatch = 64

// learn notes that a replica has, or will have in a moment, a prompt's blocks.
func (f *fleet) learn(m *member, chain []uint64) {
	for end := len(chain); end > 0; end -= insertBatch {
		f.mu.Lock()
		f.insert(m, chain[max(0, end-insertBatch):end])
		f.mu.Unlock()
	}
}

// insert needs the lock.
func (f *fleet) insert(m *member, chain []uint64) {
	if f.memory > 0 {
		f.index.Insert(m.slot, chain)
	}
}

// forgetAll notes that a replica does not have blocks of a prompt after all. It returns how
// many of the first it has in any case: it has answered with them.
func (f *fleet) forgetAll(m *member, blocks []uint64) (kept int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index.Forget(m.slot, blocks)
}

// computed notes that a replica has begun an answer to a prompt.
func (f *fleet) computed(m *member, chain []uint64) {
	for end, known := len(chain), false; end > 0 && !known; end -= insertBatch {
		f.mu.Lock()
		known = f.index.Answered(m.slot, chain[max(0, end-insertBatch):end])
		f.mu.Unlock()
	}
}

// exchange tells the other workers which prompts went where, and learns the same
// of them. It is called by workers that have a ring. What any of them has learnt
// itself, the other proxies are told.
func (f *fleet) exchange(others filter.Peers) error {
	tell := func([]byte) {}
	if others != nil {
		tell = others.Tell
	}
	return f.ring.Exchange(f.learnNotes, tell)
}

// hear learns what other proxies tell, and passes it on to the other workers.
func (f *fleet) hear(notes []byte) error {
	if f.memory == 0 {
		return nil
	}
	f.learnNotes(notes)
	if f.ring == nil {
		return nil
	}
	return f.ring.Pass(notes)
}

// learnNotes learns what others tell.
func (f *fleet) learnNotes(notes []byte) {
	for n, rest, ok := endpoint.CutNote(notes); ok; n, rest, ok = endpoint.CutNote(rest) {
		f.heard = n.AppendChain(f.heard[:0])
		if m := f.findID(n.Replica); m != nil {
			if f.believes(m) {
				f.learn(m, f.heard)
			}
		} else if m := f.findID(endpoint.Unlearnt(n.Replica)); m != nil {
			if kept := f.forgetAll(m, f.heard); kept > 0 && f.ring != nil {
				f.ring.Tell(m.id, f.heard[:kept]) // the others forget it: they do not know who was answered here
			}
		}
	}
}

// findID returns the member of an id, nil if there is none.
func (f *fleet) findID(id uint64) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[id]
}

// grown returns by how much the index has grown since it was last asked.
func (f *fleet) grown() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.index.Len() - f.reported
	f.reported += n
	return n
}

// state returns what is learnt of a pool; it needs the lock.
func (f *fleet) state(pool string) *poolState {
	p := f.pools[pool]
	if p == nil {
		p = &poolState{}
		f.pools[pool] = p
	}
	return p
}

// stray notes that Envoy sent a request of a pool elsewhere than it was told.
func (f *fleet) stray(pool string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state(pool).stray = now
}

// strays reports whether that happened lately.
func (f *fleet) strays(pool string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.state(pool).stray
	return !last.IsZero() && now.Sub(last) < time.Minute
}

// took notes how long a request of a pool took.
func (f *fleet) took(pool string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.state(pool)
	if p.service == 0 {
		p.service = d
	}
	p.service += (d - p.service) / 16
}

// service returns the mean time of a request of a pool, 0 if it is unknown.
func (f *fleet) service(pool string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state(pool).service
}

// turn returns 0, 1, 2 … for one request of a pool after the other.
func (f *fleet) turn(pool string, random func() uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.state(pool)
	if p.turn == 0 {
		p.turn = random() >> 1 // workers do not begin with the same replica
	}
	p.turn++
	return p.turn
}

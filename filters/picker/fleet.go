package picker

import (
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/prefix"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// fleet is what this proxy knows of replicas from one request to the next. In a native
// module there is one for all threads. In wasm each VM has its own, and they share
// through counters and the ring.
//
// It is split by duty: view.go (the snapshots), prefixes.go (who has which prompts),
// pool.go (means of a pool), process.go (restarts), and ejection.go, backoff.go and hang.go
// (health).
//
// Counters are read and changed at any time. The rest needs the lock, which is held for
// microseconds: see insertBatch.
type fleet struct {
	counters   kv.Counters
	ejected    kv.Counter // replicas that are ejected now, in all workers
	backingOff kv.Counter // replicas that workers back off from now

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
	backoffs []*member // that this worker backs off from
	ejecting bool      // some worker had a replica ejected at the last tick
	renewals renewals
	unused   []*pick // as many as there were threads that chose at once, so no more than workers

	received []uint64 // scratch of learnNotes, which one thread at a time runs
}

// member is one replica. All but health and process is fixed.
type member struct {
	address    string
	id         uint64 // hash of the address, the same in every proxy
	slot       prefix.Replica
	load       kv.Counter // requests in flight from this Envoy
	tokens     kv.Counter // tokens of theirs that it has to compute
	ejected    kv.Counter // workers that have it ejected
	backingOff kv.Counter // workers that back off from it

	// By the lock of the fleet:

	health  health
	process process
	absent  bool // was in no view when the fleet was swept last
}

// forgetAfter is how long a replica may be in no snapshot before it is forgotten.
const forgetAfter = 10 * time.Minute

func newFleet(d *filter.Deps) *fleet {
	f := &fleet{
		counters:   d.Counters,
		ejected:    d.Counters.Open("#ejected"),
		backingOff: d.Counters.Open("#full"),
		mu:         d.Mutex(),
		members:    make(map[string]*member),
		byID:       make(map[uint64]*member),
		pools:      make(map[string]*poolState),
		index:      prefix.New(0),
	}
	if d.Worker != "" {
		f.ring = prefix.NewRing(d.Store, d.Worker)
	}
	return f
}

// borrow returns memory for one pick.
func (f *fleet) borrow() *pick {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := len(f.unused) - 1
	if last < 0 {
		return &pick{}
	}
	p := f.unused[last]
	f.unused = f.unused[:last]
	return p
}

// giveBack ends the use of what was borrowed.
func (f *fleet) giveBack(p *pick) {
	p.request = nil
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unused = append(f.unused, p)
}

// member returns the member of an address; it needs the lock.
func (f *fleet) member(address string) *member {
	if m := f.members[address]; m != nil {
		return m
	}
	address = strings.Clone(address) // it may lie in the memory of an exchange, or in a list of all replicas
	m := &member{
		address:    address,
		id:         endpoint.ReplicaID(address),
		slot:       f.index.Add(0),
		load:       f.counters.Open(address),
		tokens:     f.counters.Open(endpoint.TokensCounter(address)),
		ejected:    f.counters.Open(address + "#ejected"),
		backingOff: f.counters.Open(address + "#full"),
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

// findID returns the member of an id, nil if there is none.
func (f *fleet) findID(id uint64) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[id]
}

// recovered takes back what is held against a replica that has just become ready; it
// needs the lock.
func (f *fleet) recovered(m *member) {
	if m.health.ejected {
		f.readmit(m)
	}
	f.endBackoff(m)
	m.health = health{}
}

// sweep forgets the members that were in no view for long; it needs the lock.
func (f *fleet) sweep(now time.Time) {
	if now.Sub(f.swept) < forgetAfter {
		return
	}
	f.swept = now
	f.views = slices.DeleteFunc(f.views, func(v *view) bool { return now.Sub(v.used) >= forgetAfter }) // mostly of a companion that is gone
	for _, m := range f.members {
		if m.absent && f.lastEntry(m.address).member == nil {
			f.forget(m)
		}
		m.absent = true
	}
	for _, v := range f.views {
		for _, entries := range v.entries {
			for i := range entries {
				entries[i].member.absent = false
			}
		}
	}
}

func (f *fleet) forget(m *member) {
	delete(f.members, m.address)
	delete(f.byID, m.id)
	f.index.Remove(m.slot)
	if m.health.ejected {
		f.readmit(m)
	}
	f.endBackoff(m)
}

package fleet

import (
	"math/rand/v2"
	"time"

	"github.com/inlet-proxy/inlet/bench/replay/workload"
	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// Random routes at random.
func Random(c Config, _ *workload.Workload, _ Gauges) (Router, error) {
	return &random{rand.New(rand.NewPCG(c.Seed, 2)), c.Replicas}, nil
}

type random struct {
	*rand.Rand
	replicas int
}

func (r *random) Pick(time.Duration, int, *Flight) (int, error) { return r.IntN(r.replicas), nil }
func (r *random) FirstToken(time.Duration, *Flight)             {}
func (r *random) Done(time.Duration, *Flight)                   {}
func (r *random) Every() []Periodic                             { return nil }

// EPP models the endpoint picker of the Gateway API Inference Extension 1.4.0 with its default profile. It is written
// from its documentation and its defaults:
//
//   - scorers queue 2, kv-cache-utilization 2, prefix-cache 3, and the picker of the highest score, at random among equal ones;
//   - the queue scorer is linear between the longest and the shortest queue, 1 for all if they are equal; the KV scorer is the free
//     share; the prefix scorer is the share of the prompt's blocks that the index has for the replica, from the beginning;
//   - an approximate index: a replica that was sent a prompt has its blocks. It takes block size and capacity from the
//     replica's metrics (autoTune), and looks at the first 256 blocks of a prompt;
//   - gauges are read every 50 ms; requests sent since are not in them, and nothing corrects that;
//   - there is one picker, however many proxies call it: of several, one is active.
//
// If the documentation does not say, the model takes what is better for it: metrics that are exact when they are read, an
// index that takes no time, no confusion of tenants' prompts, and the end of a prompt is forgotten before its beginning.
func EPP(c Config, _ *workload.Workload, g Gauges) (Router, error) {
	return &epp{
		gauges: g, waiting: make([]int, c.Replicas), kvUse: make([]float64, c.Replicas),
		Rand:  rand.New(rand.NewPCG(c.Seed, 2)),
		index: eppIndex{capacity: c.Engine.Blocks, of: make([]lru, c.Replicas), holders: map[uint64][]int32{}},
		match: make([]int, c.Replicas),
	}, nil
}

const (
	eppScrape    = 50 * time.Millisecond
	eppTurns     = 10 // in which the replicas are read, evenly spread
	eppMaxBlocks = 256
)

type epp struct {
	gauges  Gauges
	waiting []int
	kvUse   []float64
	turn    int

	*rand.Rand
	index eppIndex
	match []int // by replica
	chain []uint64
}

// Every implements Router.
func (e *epp) Every() []Periodic {
	return []Periodic{{First: 0, Period: eppScrape / eppTurns, Do: func(now time.Duration) {
		for i := e.turn; i < len(e.waiting); i += eppTurns {
			e.waiting[i], _, e.kvUse[i] = e.gauges.Read(now, i)
		}
		e.turn = (e.turn + 1) % eppTurns
	}}}
}

// Pick implements Router.
func (e *epp) Pick(_ time.Duration, _ int, f *Flight) (int, error) {
	e.read(f)
	blocks := e.index.match(e.chain, e.match)
	shortest, longest := e.waiting[0], e.waiting[0]
	for _, n := range e.waiting {
		shortest, longest = min(shortest, n), max(longest, n)
	}
	best, bestScore, ties := 0, -1.0, 0
	for i := range e.waiting {
		queue := 1.0
		if longest > shortest {
			queue = float64(longest-e.waiting[i]) / float64(longest-shortest)
		}
		score := 2*queue + 2*(1-e.kvUse[i])
		if blocks > 0 {
			score += 3 * float64(e.match[i]) / float64(blocks)
		}
		switch {
		case score > bestScore:
			best, bestScore, ties = i, score, 1
		case score == bestScore:
			if ties++; e.IntN(ties) == 0 {
				best = i
			}
		}
	}
	e.index.add(best, e.chain)
	return best, nil
}

// read computes the hashes of a prompt.
func (e *epp) read(f *Flight) {
	e.chain = e.chain[:0]
	hash := uint64(f.Asked.Tenant)<<32 | 1
	for _, id := range f.Asked.Blocks[:min(eppMaxBlocks, len(f.Asked.Blocks))] {
		hash = engine.Chain(hash, uint64(id)+1)
		e.chain = append(e.chain, hash)
	}
}

// FirstToken implements Router.
func (e *epp) FirstToken(time.Duration, *Flight) {}

// Done implements Router.
func (e *epp) Done(time.Duration, *Flight) {}

// eppIndex records which replica was sent which blocks.
type eppIndex struct {
	capacity int // blocks of a replica
	of       []lru
	holders  map[uint64][]int32
}

// match counts for each replica the leading blocks of a chain that it has; it returns the length of the chain.
func (x *eppIndex) match(chain []uint64, counts []int) int {
	clear(counts)
	for i, h := range chain {
		any := false
		for _, r := range x.holders[h] {
			if counts[r] == i {
				counts[r]++
				any = true
			}
		}
		if !any {
			break
		}
	}
	return len(chain)
}

// add records that a replica was sent a prompt.
func (x *eppIndex) add(replica int, chain []uint64) {
	l := &x.of[replica]
	for i := len(chain) - 1; i >= 0; i-- {
		if l.use(chain[i]) {
			x.holders[chain[i]] = append(x.holders[chain[i]], int32(replica))
		}
		if l.len() > x.capacity {
			x.drop(l.oldest(), int32(replica))
		}
	}
}

func (x *eppIndex) drop(hash uint64, replica int32) {
	held := x.holders[hash]
	for i, r := range held {
		if r == replica {
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
			break
		}
	}
	if len(held) == 0 {
		delete(x.holders, hash)
		return
	}
	x.holders[hash] = held
}

// lru is a list of hashes in the order of their use. Entry 0 is the head, not a hash.
type lru struct {
	at      map[uint64]int32
	entries []lruEntry
	free    []int32
}

type lruEntry struct {
	hash       uint64
	prev, next int32
}

func (l *lru) len() int { return len(l.at) }

// use makes a hash the latest, and reports whether it is new.
func (l *lru) use(hash uint64) bool {
	if l.at == nil {
		l.at, l.entries = map[uint64]int32{}, make([]lruEntry, 1)
	}
	i, known := l.at[hash]
	switch {
	case known:
		l.unlink(i)
	case len(l.free) > 0:
		i = l.free[len(l.free)-1]
		l.free = l.free[:len(l.free)-1]
	default:
		i = int32(len(l.entries))
		l.entries = append(l.entries, lruEntry{})
	}
	first := l.entries[0].next
	l.entries[i] = lruEntry{hash, 0, first}
	l.entries[first].prev = i
	l.entries[0].next = i
	l.at[hash] = i
	return !known
}

// oldest removes the least recently used hash.
func (l *lru) oldest() uint64 {
	i := l.entries[0].prev
	l.unlink(i)
	l.free = append(l.free, i)
	hash := l.entries[i].hash
	delete(l.at, hash)
	return hash
}

func (l *lru) unlink(i int32) {
	e := l.entries[i]
	l.entries[e.prev].next = e.next
	l.entries[e.next].prev = e.prev
}

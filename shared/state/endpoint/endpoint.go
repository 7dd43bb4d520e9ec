// Package endpoint is the snapshot that the companion sends to the proxies: which replicas each pool has, whether they are ready, their
// gauges with the age of each, and what they serve. Apply and Append (or AppendDelta, for a proxy that has most of it) decode and encode it;
// the poll itself is described at [Path].
package endpoint

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// Snapshot is one state of the replicas. It is not changed after it was built, except by Attach.
type Snapshot struct {
	Source  uint64    // id of the companion process; versions of different sources do not compare
	Version uint64    // grows with every change
	Taken   time.Time // when the companion built it, by the companion's clock
	Pools   []Pool    // sorted by name, each name once

	// Heard is the number, counted by the same companion, up to which this proxy has received what others reported; 0: nothing. The Peers
	// come with it.
	Heard uint64

	// Received is when the proxy received it, by the proxy's clock; set by the proxy, not on the wire. The ages of gauges grow from here, so
	// the two clocks are never compared.
	Received time.Time
}

// Pool is the replicas that serve the same models.
type Pool struct {
	Name      string
	Endpoints []Endpoint // sorted by address, each address once
}

// Endpoint is one replica.
type Endpoint struct {
	Address string // ip:port, an IPv6 address in brackets: as Envoy's override_host compares it
	Ready   bool   // the companion reached it recently, and its source does not list it as unhealthy or draining

	// Priority is that of its source of replicas: those with the lowest number come first, the others are used when there are none of them.
	// 0 where the source has no priorities. It is next to Ready because each pick reads both of each replica.
	Priority uint16

	Gauges Gauges
	Cache  Cache    // the size of its KV cache
	Peers  InFlight // from the other proxies, when the snapshot was received
	Load   *Load    // from this Envoy, now; attached by the proxy, not on the wire

	// Started is when the server's process started, or was last put to sleep, in seconds since 1970; 0: unknown. Another time
	// means that the contents of its cache are gone.
	Started int64

	// Both are shared by endpoints and snapshots and must not be changed.
	LoRA   *LoRA   // the adapters in use when the gauges were read; nil: unknown
	Models *Models // the names that it serves; nil: unknown
}

// Load counts what is in flight on a replica from one Envoy.
type Load struct {
	Requests kv.Counter
	Tokens   kv.Counter // of their prompts, that it has to compute
}

// LoRA is the state of a replica's adapters by its metrics. The names are those of Models.Adapters.
type LoRA struct {
	Running []string // adapters with running requests, sorted
	Waiting []string // adapters with waiting requests and no running ones, sorted
	Max     int      // that it can run at a time
}

// Models is a replica's list of models.
type Models struct {
	Names    []string  // adapters not among them, sorted
	Adapters []Adapter // the LoRA adapters that are loaded, sorted by name
}

// Adapter is a LoRA adapter that requests can name as their model.
type Adapter struct {
	Name   string
	Parent string // the model that it is made for, "" if unknown
}

// Cache is the size of a replica's KV cache, all its engines together; zero: unknown.
type Cache struct {
	BlockTokens int32 // tokens in a block
	Blocks      int32 // blocks that there are, used or not
}

// Gauges are a replica's metrics when they were last read.
type Gauges struct {
	Known   bool          // false: never read, or a metric was missing. The other fields are then zero and mean nothing
	Age     time.Duration // at Taken, since they were read. On the wire in microseconds
	Waiting int           // requests in the replica's queue, all its engines together
	Running int           // running requests, all its engines together
	KVUse   float64       // share of its KV cache in use, 0..1, mean of its engines. On the wire in steps of 1/65535
}

// DefaultStale is the age at which gauges are ignored, unless configured otherwise. The companion sends them more often than that, even
// when nothing changes.
const DefaultStale = 2 * time.Second

// Pool returns the pool of that name, nil if there is none.
func (s *Snapshot) Pool(name string) *Pool {
	for i := range s.Pools { // a handful
		if s.Pools[i].Name == name {
			return &s.Pools[i]
		}
	}
	return nil
}

// Process returns whether the replica at an address is ready in any pool, and its latest start in any. Pools may be scraped and drained
// separately, but the replica is one process.
func (s *Snapshot) Process(address string) (ready bool, started int64) {
	for i := range s.Pools {
		endpoints := s.Pools[i].Endpoints
		j, ok := slices.BinarySearchFunc(endpoints, address, func(e Endpoint, a string) int { return strings.Compare(e.Address, a) })
		if ok {
			ready = ready || endpoints[j].Ready
			started = max(started, endpoints[j].Started)
		}
	}
	return ready, started
}

// Attach sets the Load of every endpoint that has none to the counters of its address: a replica that is in two pools has them in both.
// What the previous snapshot has in the same place is reused, which is faster; before may be nil.
func (s *Snapshot) Attach(c kv.Counters, before *Snapshot) {
	for i := range s.Pools {
		var old []Endpoint
		if before != nil && i < len(before.Pools) {
			old = before.Pools[i].Endpoints
		}
		endpoints := s.Pools[i].Endpoints
		for j := range endpoints {
			switch e := &endpoints[j]; {
			case e.Load != nil:
			case j < len(old) && old[j].Address == e.Address:
				e.Load = old[j].Load
			default:
				e.Load = &Load{Requests: c.Open(e.Address), Tokens: c.Open(TokensCounter(e.Address))}
			}
		}
	}
}

// Sort brings pools and endpoints into the order that Decode requires.
func (s *Snapshot) Sort() {
	slices.SortFunc(s.Pools, func(a, b Pool) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range s.Pools {
		slices.SortFunc(p.Endpoints, func(a, b Endpoint) int { return cmp.Compare(a.Address, b.Address) })
	}
}

// Trust returns how far the gauges can be trusted, from 1 (fresh) to 0 (useless), sinceTaken after the snapshot was received. Use it to weigh
// a gauge against a neutral value: an old gauge means "unknown", never "idle" and never "saturated".
//
// Up to half of stale it is 1, because a valid gauge may get that old: the companion sends nothing while nothing changes, up to its
// heartbeat. From there it falls linearly to 0 at stale.
func (g Gauges) Trust(sinceTaken, stale time.Duration) float64 {
	if !g.Known {
		return 0
	}
	return Trust(older(g.Age, sinceTaken), stale)
}

// Trust returns how far something of an age can be trusted, as for gauges.
func Trust(age, stale time.Duration) float64 {
	switch {
	case stale <= 0 || age >= stale:
		return 0
	case age <= stale/2:
		return 1
	}
	return float64(stale-age) / float64(stale-stale/2)
}

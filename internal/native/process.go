// Package native is what the native builds of Inlet have in common, whatever SDK of Envoy they are made
// with: the state that outlives a configuration, making a configuration of a document, following the companion, and
// keeping count of metric series. It imports no SDK.
package native

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// Process is what outlives a configuration: an update must neither forget the
// requests in flight nor the replicas.
type Process struct {
	Store    kv.Store
	Counters kv.Counters
	Worker   string // how the companion tells this Envoy from others

	main  atomic.Pointer[Source] // of the newest listener's configuration in use that has one
	aside listeners              // of routes' documents that name no companion

	mu      sync.Mutex
	sources map[string]*Source       // by cluster
	kept    map[string]any           // by filters
	used    map[uint64]*atomic.Int64 // configurations in use, by document
	mains   []*Config                // of listeners, in use and with a source; the newest last

	companions companions
	spared     sync.Once // room for them
}

// NewProcess returns the state of a process that has had no configuration yet.
func NewProcess() *Process {
	return &Process{
		Store:    mem.NewStore(),
		Counters: mem.NewCounters(),
		Worker:   strconv.FormatUint(rand.Uint64(), 16),
		sources:  make(map[string]*Source),
		kept:     make(map[string]any),
		used:     make(map[uint64]*atomic.Int64),

		companions: companions{shown: make(map[series]int64)},
	}
}

// Source returns that of the companion in an Envoy cluster.
func (p *Process) Source(cluster string) *Source {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[cluster]
	if s == nil {
		s = &Source{process: p, Notes: feed.NewNotes(new(sync.Mutex))}
		s.Notes.Hear(s.learn)
		p.sources[cluster] = s
	}
	return s
}

// Keep implements filter.Deps.Keep.
func (p *Process) Keep(name string, create func() any) any {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept, ok := p.kept[name]
	if !ok {
		kept = create()
		p.kept[name] = kept
	}
	return kept
}

// use counts a configuration with a document, and returns how many there are with the same.
func (p *Process) use(document uint64) *atomic.Int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.used[document]
	if n == nil {
		n = new(atomic.Int64)
		p.used[document] = n
	}
	n.Add(1)
	return n
}

// unuse is the end of a configuration.
func (p *Process) unuse(document uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.used[document]; n.Add(-1) == 0 {
		delete(p.used, document)
	}
}

// lead adds a listener's configuration that has a source.
func (p *Process) lead(c *Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mains = append(p.mains, c)
	p.main.Store(c.source)
}

// unlead is the end of a configuration: Envoy may have found a new one wrong elsewhere, or dropped a listener.
func (p *Process) unlead(c *Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mains = slices.DeleteFunc(p.mains, func(other *Config) bool { return other == c })
	var newest *Source
	if n := len(p.mains); n > 0 {
		newest = p.mains[n-1].source
	}
	p.main.Store(newest)
}

// Live is how many configurations are in use.
func (p *Process) Live() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, with := range p.used {
		n += with.Load()
	}
	return n
}

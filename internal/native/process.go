// Package native is what the native builds of Inlet have in common, whatever SDK of Envoy they are made
// with: the state that outlives a configuration, making a configuration of a document, following the companion, and
// keeping count of metric series. It imports no SDK.
package native

import (
	"math/rand/v2"
	"strconv"
	"sync"

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

	mu      sync.Mutex
	sources map[string]*Source // by cluster
	kept    map[string]any     // by filters
}

// NewProcess returns the state of a process that has had no configuration yet.
func NewProcess() *Process {
	return &Process{
		Store:    mem.NewStore(),
		Counters: mem.NewCounters(),
		Worker:   strconv.FormatUint(rand.Uint64(), 16),
		sources:  make(map[string]*Source),
		kept:     make(map[string]any),
	}
}

// Source returns that of the companion in an Envoy cluster.
func (p *Process) Source(cluster string) *Source {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[cluster]
	if s == nil {
		s = &Source{proxy: p.Worker, Notes: feed.NewNotes(new(sync.Mutex))}
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

package module

import (
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// process is what outlives a configuration: an update must neither forget the
// requests in flight nor the replicas.
type process struct {
	store    kv.Store
	counters kv.Counters
	worker   string // how the companion tells this Envoy from others

	mu      sync.Mutex
	sources map[string]*source // by cluster
	kept    map[string]any     // by filters
}

func newProcess() *process {
	return &process{
		store:    mem.NewStore(),
		counters: mem.NewCounters(),
		worker:   strconv.FormatUint(rand.Uint64(), 16),
		sources:  make(map[string]*source),
		kept:     make(map[string]any),
	}
}

// source returns that of the companion in an Envoy cluster.
func (p *process) source(cluster string) *source {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[cluster]
	if s == nil {
		s = &source{proxy: p.worker, notes: feed.NewNotes(new(sync.Mutex))}
		p.sources[cluster] = s
	}
	return s
}

// keep implements filter.Deps.Keep.
func (p *process) keep(name string, create func() any) any {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept, ok := p.kept[name]
	if !ok {
		kept = create()
		p.kept[name] = kept
	}
	return kept
}

// threadsVariable overrides the bound of [boundThreads].
const threadsVariable = "INLET_GOMAXPROCS"

// boundThreads lets Go run on as many threads at once as can call it: Envoy's
// workers and its main thread. More would serve the garbage collector alone,
// which takes idle ones for itself and so the cores that Envoy's workers need.
// Fewer would let workers wait for each other.
//
// Go's own default follows the CPU affinity and the cgroup, Envoy's --concurrency
// need not. The bound is the smaller of the two; INLET_GOMAXPROCS overrides it,
// and a GOMAXPROCS in the environment is left alone.
func boundThreads() {
	n := threads(os.Args, os.Getenv, runtime.GOMAXPROCS(0))
	if n != runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}

// threads returns the value for GOMAXPROCS, given Envoy's command line.
func threads(args []string, getenv func(string) string, now int) int {
	if n, err := strconv.Atoi(getenv(threadsVariable)); err == nil && n > 0 {
		return n
	}
	if getenv("GOMAXPROCS") != "" {
		return now
	}
	if workers := concurrency(args); workers > 0 {
		return min(now, workers+1)
	}
	return now
}

// concurrency returns the number of workers that Envoy was told to have, 0 if it
// was told nothing.
func concurrency(args []string) int {
	for i, arg := range args {
		value, found := strings.CutPrefix(arg, "--concurrency")
		if !found {
			continue
		}
		if value == "" && i+1 < len(args) {
			value = args[i+1]
		}
		n, err := strconv.Atoi(strings.TrimPrefix(value, "="))
		if err == nil && n > 0 {
			return n
		}
	}
	return 0
}

package module

import (
	"sync"
	"sync/atomic"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/adapters/module/balancer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// process is what outlives a configuration, and what all filter names of the module share.
type process struct {
	*native.Process
	metrics *recorder
	balanced
	log    log
	routes atomic.Int64 // documents of routes in use
}

func newProcess(known []filter.Factory) *process {
	p := &process{Process: native.NewProcess(), metrics: newRecorder(known)}
	p.balanced = newBalanced(native.NewMetrics(p.metrics, p.Keep), balancer.Shared)
	return p
}

// log is Envoy's. Documents of routes have no way of their own to it, and the first ones are read before any
// listener's configuration: their lines wait for it.
type log struct {
	mu    sync.Mutex
	to    func(filter.Level, string) // nil: nobody yet
	early []line
}

type line struct {
	level   filter.Level
	message string
}

// maxEarly bounds the lines that wait.
const maxEarly = 100

// leads gives the log a way to Envoy. That of any configuration will do, also when it is gone.
func (l *log) leads(to func(filter.Level, string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
	for _, e := range l.early {
		to(e.level, e.message)
	}
	l.early = nil
}

// write writes a line; from any thread.
func (l *log) write(level filter.Level, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.to != nil:
		l.to(level, message)
	case len(l.early) < maxEarly:
		l.early = append(l.early, line{level, message})
	}
}

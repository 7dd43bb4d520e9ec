package module

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
	inletversion "github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// config is one configured chain. All workers of Envoy use it at once.
type config struct {
	chain   *chain.Chain
	metrics *recorder
	broken  filter.Metric // counts panics of this package
	streams sync.Pool     // of *stream
	source  *source       // nil if the document names no companion
	poller  *poller
	same    *atomic.Int64 // configurations with the same document, this one among them
	log     func(filter.Level, string)
	told    atomic.Int32 // whether Envoy tells how exchanges went: see stream.tells
}

// newConfig reads a document and makes its chain. It does no I/O: what needs
// the network starts with the first turn of Envoy's main loop.
func newConfig(handle shared.HttpFilterConfigHandle, document []byte, known []filter.Factory, p *process) (*config, error) {
	c := &config{metrics: &recorder{handle: handle, keep: p.keep}, log: logger(handle)}
	others := &peers{}
	deps := &filter.Deps{
		Now:       time.Now,
		Rand:      rand.Uint64,
		Store:     p.store,
		Counters:  p.counters,
		Snapshot:  c.snapshot,
		Watch:     others.watch,
		Metrics:   c.metrics,
		Keep:      p.keep,
		NewMutex:  func() filter.Mutex { return new(sync.Mutex) },
		Peers:     others,
		Companion: &filter.Link{Proxy: p.worker},
		Log:       c.log,
	}
	var err error
	// The document lies in Envoy's memory and is gone when Create returns.
	if c.chain, err = chain.New(bytes.Clone(document), known, deps); err != nil {
		return nil, c.refuse(err)
	}
	c.broken = c.metrics.Counter("inlet_filter_failure_total", "filter", "failure_mode")
	if err := c.metrics.err; err != nil {
		return nil, err
	}
	c.streams.New = func() any { return newStream(c) }
	if from := c.chain.Companion(); from.Cluster != "" {
		c.source = p.source(from.Cluster)
		others.join(c.source)
		c.poller = c.source.join(handle, c.chain, deps)
	}
	c.same = p.keep(fmt.Sprintf("document %x", c.chain.ID()), func() any { return new(atomic.Int64) }).(*atomic.Int64)
	c.same.Add(1)
	c.announce(p)
	return c, nil
}

// announce logs version and chain, and shows the version as a metric.
func (c *config) announce(p *process) {
	v, first := inletversion.String(), false
	info := c.metrics.Gauge("inlet_build_info", "version")
	p.keep("inlet_build_info", func() any { first = true; return nil })
	if first { // the gauge is of the whole process
		info.Record(1, filter.Values{v})
	}
	c.log(filter.Info, "version "+v+", chain: "+c.chain.String())
}

// refuse logs every mistake of a document on a line of its own.
func (c *config) refuse(err error) error {
	var mistakes conf.Errors
	if !errors.As(err, &mistakes) {
		return err
	}
	for _, m := range mistakes {
		c.log(filter.Error, "configuration: "+m.Error())
	}
	return fmt.Errorf("the configuration has %d mistake(s), all of them logged", len(mistakes))
}

// snapshot is the newest picture of the replicas, nil before the first.
func (c *config) snapshot() *endpoint.Snapshot {
	if c.source == nil {
		return nil
	}
	return c.source.latest.Load()
}

// Create makes the filter of one exchange.
func (c *config) Create(handle shared.HttpFilterHandle) (f shared.HttpFilter) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
			f = &refuser{handle: handle}
		}
	}()
	s := c.streams.Get().(*stream)
	s.handle = handle
	return s
}

// OnDestroy runs when the last exchange of this configuration is over and Envoy
// has dropped it, on any thread.
func (c *config) OnDestroy() {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	c.same.Add(-1)
	if c.poller != nil {
		c.poller.leave()
	}
}

// logger writes to Envoy's log; from any thread.
func logger(handle shared.HttpFilterConfigHandle) func(filter.Level, string) {
	levels := [...]shared.LogLevel{
		filter.Debug:    shared.LogLevelDebug,
		filter.Info:     shared.LogLevelInfo,
		filter.Warn:     shared.LogLevelWarn,
		filter.Error:    shared.LogLevelError,
		filter.Critical: shared.LogLevelCritical,
	}
	return func(l filter.Level, message string) {
		handle.Log(levels[min(int(l), len(levels)-1)], "inlet: %s", message)
	}
}

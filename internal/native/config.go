package native

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/chain"
	inletversion "github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Env is what an adapter has of Envoy when it makes a configuration.
type Env struct {
	Log     func(filter.Level, string) // to Envoy's log, from any thread
	Metrics Backend
	// Main returns the thread for the companion's poller; asked only if there is a companion.
	Main func() Main
}

// Config is one configured chain. All workers of Envoy use it at once.
type Config struct {
	Chain   *chain.Chain
	Metrics *Metrics
	Log     func(filter.Level, string)
	Poller  *Poller // nil if the document names no companion

	broken filter.Metric // counts panics of adapters
	source *Source       // nil if the document names no companion
	same   *atomic.Int64 // configurations with the same document, this one among them
}

// Configure reads a document and makes its chain. It does no I/O: what needs
// the network starts with the first turn of the poller's thread.
func (p *Process) Configure(document []byte, known []filter.Factory, env Env) (*Config, error) {
	c := &Config{Metrics: NewMetrics(env.Metrics, p.Keep), Log: env.Log}
	others := &peers{}
	deps := &filter.Deps{
		Now:       time.Now,
		Rand:      rand.Uint64,
		Store:     p.Store,
		Counters:  p.Counters,
		Snapshot:  c.Snapshot,
		Watch:     others.watch,
		Metrics:   c.Metrics,
		Keep:      p.Keep,
		NewMutex:  func() filter.Mutex { return new(sync.Mutex) },
		Peers:     others,
		Companion: &filter.Link{Proxy: p.Worker},
		Log:       c.Log,
	}
	var err error
	// The document may lie in Envoy's memory.
	if c.Chain, err = chain.New(bytes.Clone(document), known, deps); err != nil {
		return nil, c.refuse(err)
	}
	c.broken = c.Metrics.Counter("inlet_filter_failure_total", "filter", "failure_mode")
	if err := c.Metrics.err; err != nil {
		return nil, err
	}
	if from := c.Chain.Companion(); from.Cluster != "" {
		c.source = p.Source(from.Cluster)
		others.join(c.source)
		c.Poller = newPoller(c.source, env.Main(), c.Chain, deps)
	}
	c.same = p.Keep(fmt.Sprintf("document %x", c.Chain.ID()), func() any { return new(atomic.Int64) }).(*atomic.Int64)
	c.same.Add(1)
	c.announce(p)
	return c, nil
}

// announce logs version and chain, and shows the version as a metric.
func (c *Config) announce(p *Process) {
	v, first := inletversion.String(), false
	info := c.Metrics.Gauge("inlet_build_info", "version")
	p.Keep("inlet_build_info", func() any { first = true; return nil })
	if first { // the gauge is of the whole process
		info.Record(1, filter.Values{v})
	}
	c.Log(filter.Info, "version "+v+", chain: "+c.Chain.String())
}

// refuse logs every mistake of a document on a line of its own.
func (c *Config) refuse(err error) error {
	var mistakes conf.Errors
	if !errors.As(err, &mistakes) {
		return err
	}
	for _, m := range mistakes {
		c.Log(filter.Error, "configuration: "+m.Error())
	}
	return fmt.Errorf("the configuration has %d mistake(s), all of them logged", len(mistakes))
}

// Snapshot is the newest picture of the replicas, nil before the first.
func (c *Config) Snapshot() *endpoint.Snapshot {
	if c.source == nil {
		return nil
	}
	return c.source.Latest()
}

// Twice reports whether another configuration with the same document is in use, so that one may
// have to tell requests that the other has decided about.
func (c *Config) Twice() bool { return c.same.Load() > 1 }

// Panicked logs and counts a panic. Panics of filters do not come here, the
// chain has its own barrier: this is a defect of the adapter or the chain.
func (c *Config) Panicked(v any) {
	c.broken.Record(1, filter.Values{"adapter", string(filter.FailClosed)})
	c.Log(filter.Critical, Describe(v))
}

// Close is called when the last exchange of this configuration is over and Envoy
// has dropped it, on any thread.
func (c *Config) Close() {
	c.same.Add(-1)
	if c.Poller != nil {
		c.Poller.Leave()
	}
}

package native

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/companion/embedded"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	inletversion "github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Env is what an adapter has of Envoy when it makes a configuration.
type Env struct {
	Log     func(filter.Level, string) // to Envoy's log, from any thread
	Metrics Backend
	// Check refuses a document that is right and that this adapter cannot do, before anything is begun; nil: it can do all.
	Check func() error
	// Main returns the thread for the companion's poller; asked only if there is a companion. Nil for the document of a
	// route, which has no such thread: it is told what a listener's configuration asks for.
	Main func() Main
	// PassedOver is filter.Deps.PassedOver; nil if there is no load-balancing policy that tells.
	PassedOver func(address string, since time.Time) bool
	// Anytime says that samples reach Envoy at any time, on any thread; else those that are taken outside an exchange wait for one.
	Anytime bool
}

// Config is one configured chain. All workers of Envoy use it at once.
type Config struct {
	Chain   *chain.Chain
	Metrics *Metrics
	Log     func(filter.Level, string)
	Poller  *Poller // nil if the document names no companion, and for that of a route

	process *Process
	own     own
	source  *Source // nil if the document names no companion
	route   bool
	speaker *speaker
	inside  *companion      // nil if the document embeds none
	shown   []filter.Metric // of inside
	anytime bool            // Env.Anytime
	closed  atomic.Bool
	same    *atomic.Int64 // configurations with the same document, this one among them
}

// Configure reads a document and makes its chain. It does no I/O: what needs
// the network starts with the first turn of the thread of Env.Main.
func (p *Process) Configure(document []byte, known []filter.Factory, env Env) (*Config, error) {
	c := &Config{Metrics: NewMetrics(env.Metrics, p.Keep), Log: env.Log, process: p, route: env.Main == nil, anytime: env.Anytime}
	others := &peers{from: c.from}
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

		PassedOver: env.PassedOver,
	}
	var err error
	// The document may lie in Envoy's memory.
	var section *replicas.Config
	embed := chain.Embed(func(o *conf.Object) { section = c.readEmbedded(o) }, nil)
	if c.Chain, err = chain.New(bytes.Clone(document), known, deps, embed); err != nil {
		return nil, c.refuse(err)
	}
	if env.Check != nil {
		if err := env.Check(); err != nil {
			return nil, c.refuse(err)
		}
	}
	c.own = newOwn(c.Metrics)
	if section != nil {
		c.shown = newShown(c.Metrics)
	}
	if err := c.Metrics.err; err != nil {
		return nil, err
	}
	if from := c.Chain.Companion(); from.Cluster != "" {
		c.source = p.Source(from.Cluster)
		c.source.join(others)
		c.speaker = c.source.hear(c.Chain.Conversations())
		if !c.route {
			p.lead(c)
			c.Poller = newPoller(c.source, env.Main(), c.Chain, deps)
		}
	} else if section != nil {
		c.inside = p.companions.join(c, section, env.Main())
		c.source = c.inside.source
		c.source.join(others)
		p.lead(c)
	} else if c.route {
		p.aside.join(others)
	}
	c.same = p.use(c.Chain.ID())
	c.own.live.Record(1, filter.Values{c.kind()})
	c.announce()
	return c, nil
}

// readEmbedded reads the section of an embedded companion.
func (c *Config) readEmbedded(o *conf.Object) *replicas.Config {
	if c.route {
		o.Errorf("", "stands in the listener's configuration: remove it here, and the route uses that one")
	}
	return embedded.Read(o)
}

// kind says whose document it is.
func (c *Config) kind() string {
	if c.route {
		return "route"
	}
	return "listener"
}

// own are the metrics of the native builds themselves.
type own struct{ broken, build, live filter.Metric }

func newOwn(m filter.Metrics) own {
	return own{
		broken: m.Counter("inlet_filter_failure_total", "filter", "failure_mode"), // panics of adapters; the chain counts in it, too
		build:  m.Gauge("inlet_build_info", "version"),
		live:   m.Gauge("inlet_configurations", "kind"),
	}
}

// DefineMetrics defines all metrics that documents of the known filters may have.
func DefineMetrics(m filter.Metrics, known []filter.Factory) {
	newOwn(m)
	newShown(m)
	chain.DefineMetrics(m)
	for i := range known {
		defineOf(&known[i], m)
	}
}

// defineOf defines those of one filter. A panic leaves some out, and so its documents are refused: while a library is
// loaded, it would end Envoy.
func defineOf(f *filter.Factory, m filter.Metrics) {
	defer func() { _ = recover() }()
	if f.Metrics != nil {
		f.Metrics(m)
	}
}

// announce logs version and chain, and shows the version as a metric.
func (c *Config) announce() {
	v, first := inletversion.String(), false
	c.process.Keep("inlet_build_info", func() any { first = true; return nil })
	if first { // the gauge is of the whole process
		c.own.build.Record(1, filter.Values{v})
	}
	if c.route { // of which there may be thousands
		c.Log(filter.Debug, "chain of a route: "+c.Chain.String())
		return
	}
	c.Log(filter.Info, "version "+v+", chain: "+c.Chain.String())
}

// refuse logs every mistake of a document on a line of its own. What is wrong with a route's document is told by the
// error alone: there may be no log yet, since Envoy reads routes first.
func (c *Config) refuse(err error) error {
	var mistakes conf.Errors
	if !errors.As(err, &mistakes) {
		return err
	}
	var lines strings.Builder
	for _, m := range mistakes {
		if c.route {
			lines.WriteString("\nconfiguration: " + m.Error())
		} else {
			c.Log(filter.Error, "configuration: "+m.Error())
		}
	}
	if c.route {
		return fmt.Errorf("the configuration of a route has %d mistake(s):%s", len(mistakes), &lines)
	}
	return fmt.Errorf("the configuration has %d mistake(s), all of them logged", len(mistakes))
}

// from is where the configuration learns of the replicas, nil if it does not. A route's document that names no companion
// learns of them from that of the newest listener's configuration in use that has one.
func (c *Config) from() *Source {
	if c.source == nil && c.route {
		return c.process.main.Load()
	}
	return c.source
}

// Snapshot is the newest picture of the replicas, nil before the first.
func (c *Config) Snapshot() *endpoint.Snapshot {
	if from := c.from(); from != nil {
		return from.Latest()
	}
	return nil
}

// Unheard reports whether the document of a route names a companion that no listener's configuration asks.
func (c *Config) Unheard() bool { return c.route && c.source != nil && !c.source.asked() }

// Twice reports whether another configuration with the same document is in use, so that one may
// have to tell requests that the other has decided about.
func (c *Config) Twice() bool { return c.same.Load() > 1 }

// Panicked logs and counts a panic. Panics of filters do not come here, the
// chain has its own barrier: this is a defect of the adapter or the chain.
func (c *Config) Panicked(v any) {
	c.own.broken.Record(1, filter.Values{"adapter", string(filter.FailClosed)})
	c.Log(filter.Critical, Describe(v))
}

// Close is called when the last exchange of this configuration is over and Envoy
// has dropped it, on any thread.
func (c *Config) Close() {
	if c.closed.Swap(true) {
		return
	}
	c.own.live.Record(-1, filter.Values{c.kind()})
	c.process.unuse(c.Chain.ID())
	c.process.unlead(c)
	if c.source != nil {
		c.source.forget(c.speaker)
	}
	if c.Poller != nil {
		c.Poller.Leave()
	}
	if c.inside != nil {
		c.inside.leave(c)
	}
}

// RecordDue records the metrics of all embedded companions, if there are new ones. Adapters call it where they can record
// samples at once; it never waits.
func (c *Config) RecordDue() {
	if c.inside != nil {
		c.inside.all.record(c.shown)
	}
}

package native

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/embedded"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// companions are the embedded companions of a process: one for each section that a configuration in use has. They belong to
// the process: a configuration with the same section finds its companion running. One with another section gets another companion,
// and until that has tried every replica, the last snapshot of the one before.
type companions struct {
	mu      sync.Mutex
	running []*companion       // the newest configuration's last
	last    *endpoint.Snapshot // of one that has stopped
	shown   map[series]int64   // gauges as they were recorded last
	options replicas.Options   // for tests
}

// companion is one embedded companion.
type companion struct {
	config *replicas.Config
	source *Source
	all    *companions
	log    atomic.Pointer[func(filter.Level, string)] // of the newest configuration

	// These are guarded by companions.mu.
	users int
	stop  context.CancelFunc // nil: not started

	due     atomic.Bool // there are values to record
	values  atomic.Pointer[[]embedded.Value]
	counted map[series]int64 // counters as they were recorded last
}

// series is one series of embedded.Metrics.
type series struct {
	metric int
	labels filter.Values
}

// join returns the companion of a section. It begins with the first task of the main thread: Envoy makes configurations
// to validate them, too. (The contrib filter gives no such thread: there the first task runs at once.)
func (all *companions) join(p *Process, section *replicas.Config, main Main, log func(filter.Level, string)) *companion {
	all.mu.Lock()
	defer all.mu.Unlock()
	i := slices.IndexFunc(all.running, func(c *companion) bool { return reflect.DeepEqual(c.config, section) })
	c := &companion{config: section, all: all, counted: make(map[series]int64)}
	if i >= 0 {
		c = all.running[i]
		all.running = slices.Delete(all.running, i, i+1)
	} else {
		c.source = &Source{process: p}
		c.source.latest.Store(all.newest())
	}
	all.running = append(all.running, c)
	c.log.Store(&log)
	c.users++
	main.Schedule(func() {
		defer c.caught()
		c.start(p)
	})
	return c
}

// newest needs the lock.
func (all *companions) newest() *endpoint.Snapshot {
	for _, c := range slices.Backward(all.running) {
		if s := c.source.Latest(); s != nil {
			return s
		}
	}
	return all.last
}

// leave is called for each join.
func (c *companion) leave() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	c.all.running = slices.DeleteFunc(c.all.running, func(other *companion) bool { return other == c })
	if s := c.source.Latest(); s != nil {
		c.all.last = s
	}
	if c.stop != nil {
		c.stop()
	}
}

// start begins, once, unless nobody needs it any more.
func (c *companion) start(p *Process) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.stop != nil || c.users == 0 {
		return
	}
	p.spared.Do(addThreads)
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	write := func(l filter.Level, line string) { (*c.log.Load())(l, line) }
	follows := embedded.Start(ctx, c.config, embedded.Options{Log: write, Replicas: c.all.options, Apply: func(s *endpoint.Snapshot) {
		s.Attach(p.Counters, c.source.Latest())
		c.source.Apply(s)
	}})
	go c.measure(ctx, follows)
}

// caught ends a panic of this package.
func (c *companion) caught() {
	if v := recover(); v != nil {
		(*c.log.Load())(filter.Critical, Describe(v))
	}
}

// metricsPeriod is how often metrics are computed. They are recorded with the next request.
const metricsPeriod = time.Second

// measure computes the metrics until ctx ends.
func (c *companion) measure(ctx context.Context, follows *embedded.Companion) {
	defer c.caught()
	tick := time.NewTicker(metricsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			values := follows.Values(now)
			c.values.Store(&values)
			c.due.Store(true)
		}
	}
}

// newShown defines the metrics of an embedded companion.
func newShown(m filter.Metrics) []filter.Metric {
	all := make([]filter.Metric, len(embedded.Metrics))
	for i, e := range embedded.Metrics {
		if e.Gauge {
			all[i] = m.Gauge(e.Name, e.Labels...)
		} else {
			all[i] = m.Counter(e.Name, e.Labels...)
		}
	}
	return all
}

// record records what changed since the last time, if it is time for that. It never waits.
func (c *companion) record(metrics []filter.Metric) {
	if !c.due.Load() || !c.all.mu.TryLock() {
		return
	}
	defer c.all.mu.Unlock()
	if !c.due.Swap(false) || len(c.all.running) == 0 || c.all.running[len(c.all.running)-1] != c {
		return // gauges are those of the newest section
	}
	gone := make(map[series]bool, len(c.all.shown))
	for s := range c.all.shown {
		gone[s] = true
	}
	for _, v := range *c.values.Load() {
		s, before := series{v.Metric, v.Labels}, c.counted
		if embedded.Metrics[v.Metric].Gauge {
			before = c.all.shown
			delete(gone, s)
		} else if v.N < before[s] {
			before[s] = 0 // it has started again
		}
		if n := v.N - before[s]; n != 0 {
			metrics[v.Metric].Record(n, v.Labels)
			before[s] = v.N
		}
	}
	for s := range gone { // a pool that there is no more
		if n := c.all.shown[s]; n != 0 && !c.has(s.labels[0]) {
			metrics[s.metric].Record(-n, s.labels)
			delete(c.all.shown, s)
		}
	}
}

// has reports whether there is a pool of that name.
func (c *companion) has(pool string) bool {
	return slices.ContainsFunc(c.config.Pools, func(p replicas.Pool) bool { return p.Name == pool })
}

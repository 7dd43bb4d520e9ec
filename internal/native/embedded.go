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
	due     atomic.Bool        // there are values to record
	options replicas.Options   // for tests
}

// companion is one embedded companion.
type companion struct {
	config *replicas.Config
	source *Source
	all    *companions
	log    atomic.Pointer[func(filter.Level, string)] // of the newest configuration

	// These are guarded by companions.mu.
	users []*Config          // the newest last
	stop  context.CancelFunc // nil: not started

	publishes atomic.Bool // it has published a snapshot of its own
	values    atomic.Pointer[[]embedded.Value]
	counted   map[series]int64 // counters as they were recorded last
}

// series is one series of embedded.Metrics.
type series struct {
	metric int
	labels filter.Values
}

// join returns the companion of a section, for a configuration that has it. It begins with the first task of the main
// thread: Envoy makes configurations to validate them, too. (The contrib filter gives no such thread: there the first task
// runs at once.)
func (all *companions) join(user *Config, section *replicas.Config, main Main) *companion {
	p := user.process
	all.mu.Lock()
	defer all.mu.Unlock()
	i := slices.IndexFunc(all.running, func(c *companion) bool { return reflect.DeepEqual(c.config, section) })
	c := &companion{config: section, all: all, counted: make(map[series]int64)}
	if i >= 0 {
		c = all.running[i]
		all.running = slices.Delete(all.running, i, i+1)
	} else {
		c.source = &Source{process: p}
		c.source.latest.Store(all.newest(keptStales * section.Stale))
	}
	all.running = append(all.running, c)
	c.log.Store(&user.Log)
	c.users = append(c.users, user)
	main.Schedule(func() {
		defer c.caught()
		c.start(p)
	})
	return c
}

// keptStales is for how many times the age at which gauges no longer count the last snapshot is kept without a companion: a
// listener may go and come again in an update. Replicas of long ago are worse than none.
const keptStales = 5

// newest returns the newest snapshot, if that is of a companion that runs or not older than so long. It needs the lock.
func (all *companions) newest(kept time.Duration) *endpoint.Snapshot {
	for _, c := range slices.Backward(all.running) {
		if s := c.source.Latest(); s != nil {
			return s
		}
	}
	if all.last != nil && time.Since(all.last.Received) > kept {
		all.last = nil
	}
	return all.last
}

// leave is called for each join.
func (c *companion) leave(user *Config) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.users = slices.DeleteFunc(c.users, func(other *Config) bool { return other == user })
	if len(c.users) > 0 {
		return
	}
	c.count(user.shown)
	c.all.running = slices.DeleteFunc(c.all.running, func(other *companion) bool { return other == c })
	if s := c.source.Latest(); s != nil {
		c.all.last = s
	}
	if c.stop != nil {
		c.stop()
	}
	c.all.show(user.shown)
}

// start begins, once, unless nobody needs it any more.
func (c *companion) start(p *Process) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.stop != nil || len(c.users) == 0 {
		return
	}
	p.spared.Do(addThreads)
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	write := func(l filter.Level, line string) { (*c.log.Load())(l, line) }
	follows := embedded.Start(ctx, c.config, embedded.Options{Log: write, Replicas: c.all.options, Apply: func(s *endpoint.Snapshot) {
		s.Attach(p.Counters, c.source.Latest())
		c.publishes.Store(true)
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

// metricsPeriod is how often metrics are computed. They are recorded at once where that is possible, else with the next request.
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
			c.all.due.Store(true)
			c.recordAlone()
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

// recordAlone records where no request is needed for it.
func (c *companion) recordAlone() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if n := len(c.users); n > 0 && c.users[n-1].anytime {
		c.all.recordDue(c.users[n-1].shown)
	}
}

// record records what changed since the last time, if it is time for that. It never waits.
func (all *companions) record(metrics []filter.Metric) {
	if !all.due.Load() || !all.mu.TryLock() {
		return
	}
	defer all.mu.Unlock()
	all.recordDue(metrics)
}

// recordDue needs the lock. Whichever configuration has it done, all companions are recorded: the series are of the process, and
// there may be no request for the configuration of one.
func (all *companions) recordDue(metrics []filter.Metric) {
	if !all.due.Swap(false) {
		return
	}
	for _, c := range all.running {
		c.count(metrics)
	}
	all.show(metrics)
}

// count records the counters; it needs the lock.
func (c *companion) count(metrics []filter.Metric) {
	for _, v := range c.latest() {
		if embedded.Metrics[v.Metric].Gauge {
			continue
		}
		s := series{v.Metric, v.Labels}
		if v.N < c.counted[s] {
			c.counted[s] = 0 // it has started again
		}
		if n := v.N - c.counted[s]; n != 0 {
			metrics[v.Metric].Record(n, v.Labels)
			c.counted[s] = v.N
		}
	}
}

// show records the gauges of all companions that run; it needs the lock.
func (all *companions) show(metrics []filter.Metric) {
	gauges := all.gauges()
	for s, n := range gauges {
		if d := n - all.shown[s]; d != 0 {
			metrics[s.metric].Record(d, s.labels)
			all.shown[s] = n
		}
	}
	for s, n := range all.shown {
		if _, ok := gauges[s]; !ok && !all.has(s.labels[0]) { // a pool that there is no more
			metrics[s.metric].Record(-n, s.labels)
			delete(all.shown, s)
		}
	}
}

// gauges are those of all companions; it needs the lock. Where several have a pool, the newest counts that knows its replicas: one
// that has just begun does not. What is of no pool is added up.
func (all *companions) gauges() map[series]int64 {
	gauges := make(map[series]int64)
	for _, c := range all.running {
		for _, v := range c.latest() {
			s := series{v.Metric, v.Labels}
			_, known := gauges[s]
			switch {
			case !embedded.Metrics[v.Metric].Gauge:
			case s.labels[0] == "":
				gauges[s] += v.N
			case !known || c.publishes.Load():
				gauges[s] = v.N
			}
		}
	}
	return gauges
}

// latest are the newest values, none before it has begun.
func (c *companion) latest() []embedded.Value {
	if values := c.values.Load(); values != nil {
		return *values
	}
	return nil
}

// has reports whether some section has a pool of that name; it needs the lock.
func (all *companions) has(pool string) bool {
	return slices.ContainsFunc(all.running, func(c *companion) bool {
		return slices.ContainsFunc(c.config.Pools, func(p replicas.Pool) bool { return p.Name == pool })
	})
}

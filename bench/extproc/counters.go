package main

import (
	"sync"
	"sync/atomic"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// counters count samples, like a server with a metrics page; a histogram keeps number and sum.
type counters struct {
	mu    sync.Mutex
	known map[string]*counter
}

func newCounters() *counters { return &counters{known: map[string]*counter{}} }

// Counter implements filter.Metrics.
func (c *counters) Counter(name string, _ ...string) filter.Metric { return c.define(name) }

// Gauge implements filter.Metrics.
func (c *counters) Gauge(name string, _ ...string) filter.Metric { return c.define(name) }

// Histogram implements filter.Metrics.
func (c *counters) Histogram(name string, _ ...string) filter.Metric { return c.define(name) }

func (c *counters) define(name string) filter.Metric {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[name] == nil {
		c.known[name] = &counter{}
	}
	return c.known[name]
}

type counter struct {
	series sync.Map // of *series, by filter.Values whose strings do not belong to an exchange
}

type series struct{ number, sum atomic.Int64 }

// Record implements filter.Metric.
func (c *counter) Record(n int64, v filter.Values) {
	found, ok := c.series.Load(v)
	if !ok {
		found, _ = c.series.LoadOrStore(v, &series{})
	}
	s := found.(*series)
	s.number.Add(1)
	s.sum.Add(n)
}

package embedded

import (
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Metric is a metric of the companion. A companion process has more, since a proxy's own gauges are whole numbers and cannot be absent.
type Metric struct {
	Name   string
	Gauge  bool // else a counter
	Labels []string
}

// Metrics are those that a companion in a proxy has, by the names that they have elsewhere.
var Metrics = []Metric{
	{"inlet_companion_endpoints", true, []string{"pool"}},
	{"inlet_companion_stale_endpoints", true, []string{"pool"}},
	{"inference_pool_ready_pods", true, []string{"name"}},
	{"llm_d_epp_ready_endpoints", true, []string{"name"}},
	{"inlet_companion_waiting_requests", true, []string{"pool"}},
	{"inlet_companion_running_requests", true, []string{"pool"}},
	{"inlet_companion_oldest_gauge_seconds", true, []string{"pool"}},
	{"inlet_companion_pollers", true, nil},
	{"inlet_companion_scrapes_total", false, []string{"pool", "result"}},
	{"inlet_companion_late_scrapes_total", false, []string{"pool"}},
	{"inlet_companion_endpoint_lists_total", false, []string{"result"}},
}

// Places of the metrics in Metrics.
const (
	endpoints = iota
	stale
	ready
	readyAlias
	waiting
	running
	oldest
	pollers
	scrapes
	late
	lists
)

// Value is what a series is at a moment.
type Value struct {
	Metric int // in Metrics
	Labels filter.Values
	N      int64
}

// Values returns the present values, none before the replicas are followed.
func (c *Companion) Values(now time.Time) (all []Value) {
	r := c.follows.Load()
	if r == nil {
		return nil
	}
	add := func(metric int, n int64, labels ...string) {
		v := Value{Metric: metric, N: n}
		copy(v.Labels[:], labels)
		all = append(all, v)
	}
	for _, p := range r.Pools(now) {
		var l replicas.Load
		for i := range p.Endpoints {
			l.Add(&p.Endpoints[i], c.config.Stale)
		}
		add(endpoints, int64(l.Replicas), p.Name)
		add(stale, int64(l.Replicas-l.Fresh), p.Name)
		add(ready, int64(l.Ready), p.Name)
		add(readyAlias, int64(l.Ready), p.Name)
		add(oldest, int64(l.Oldest.Seconds()), p.Name)
		if l.Fresh > 0 { // a pool without data must not look idle to an autoscaler
			add(waiting, int64(l.Waiting), p.Name)
			add(running, int64(l.Running), p.Name)
		}
	}
	for pool, s := range r.Stats() {
		add(scrapes, int64(s.OK), pool, "ok")
		add(scrapes, int64(s.Incomplete), pool, "incomplete")
		add(scrapes, int64(s.Failed), pool, "failed")
		add(late, int64(s.Late), pool)
	}
	add(pollers, int64(r.Pollers()))
	loaded, failed := r.Lists()
	add(lists, int64(loaded), "loaded")
	add(lists, int64(failed), "failed")
	return all
}

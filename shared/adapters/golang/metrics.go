package golang

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"github.com/inlet-proxy/inlet/internal/native"
)

// totals are the series of the process, whatever configurations have recorded them.
//
// In Envoy a series lasts as long as a configuration that has defined it, and begins at 0 again when the last of them is
// gone. So a new configuration defines all of them at once, and a gauge is set to its value, which is kept here: differences
// would go below 0.
type totals struct {
	mu  sync.Mutex
	all map[string]*total
}

// total is one metric with one combination of label values. Envoy's API has counters and gauges without labels, so these are written
// into the name, "name;label=value;label=value", as in the wasm build, and stats_tags in Envoy's configuration take them out
// again. A histogram is two counters, name_count and name_sum.
type total struct {
	kind       native.Kind
	name, tags string

	value  atomic.Int64          // of a gauge
	newest atomic.Pointer[bound] // of a gauge, in Envoy
	setter sync.Mutex            // held while Envoy's is set to it
}

func newTotals() *totals { return &totals{all: make(map[string]*total)} }

func (t *totals) of(k native.Kind, name string, labels, values []string) *total {
	var tags strings.Builder
	for i, label := range labels {
		tags.WriteString(";" + label + "=" + values[i])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.all[name+tags.String()]
	if one == nil {
		one = &total{kind: k, name: name, tags: tags.String()}
		t.all[name+one.tags] = one
	}
	return one
}

// stats are the metrics of one configuration in Envoy.
type stats struct {
	totals *totals
	from   atomic.Pointer[api.ConfigCallbackHandler] // nil: no samples are taken yet
}

// bind says where samples go from now on.
func (b *stats) bind(to api.ConfigCallbackHandler) { b.from.Store(&to) }

// show defines all series of the process.
func (b *stats) show() {
	from := b.from.Load()
	if from == nil {
		return
	}
	b.totals.mu.Lock()
	defer b.totals.mu.Unlock()
	for _, t := range b.totals.all {
		if to := t.define(from); t.kind == native.Gauge {
			t.set(to)
		}
	}
}

// forget lets go of what belongs to a configuration that is over, so that its memory can be freed.
func (b *stats) forget() {
	from := b.from.Load()
	b.totals.mu.Lock()
	defer b.totals.mu.Unlock()
	for _, t := range b.totals.all {
		if newest := t.newest.Load(); newest != nil && newest.from == from {
			t.newest.CompareAndSwap(newest, nil)
		}
	}
}

// Define implements native.Backend. Envoy refuses no definition.
func (b *stats) Define(k native.Kind, name string, labels []string) (func([]string) native.Series, error) {
	return func(values []string) native.Series {
		return &series{stats: b, total: b.totals.of(k, name, labels, values)}
	}, nil
}

// bound is a series in Envoy, as one configuration has it.
type bound struct {
	from       *api.ConfigCallbackHandler
	count, sum api.CounterMetric
	gauge      api.GaugeMetric
}

func (t *total) define(from *api.ConfigCallbackHandler) *bound {
	to := &bound{from: from}
	switch t.kind {
	case native.Gauge:
		to.gauge = (*from).DefineGaugeMetric(t.name + t.tags)
		t.newest.Store(to)
	case native.Histogram:
		to.count = (*from).DefineCounterMetric(t.name + "_count" + t.tags)
		to.sum = (*from).DefineCounterMetric(t.name + "_sum" + t.tags)
	default:
		to.count = (*from).DefineCounterMetric(t.name + t.tags)
	}
	return to
}

// set sets Envoy's gauge: the last one to do so has read the last value. A configuration that Envoy has dropped does it by the
// newest one.
func (t *total) set(to *bound) {
	t.setter.Lock()
	defer t.setter.Unlock()
	value := uint64(max(0, t.value.Load()))
	if to.record(value) {
		return
	}
	if newest := t.newest.Load(); newest != nil {
		newest.record(value)
	}
}

// record reports whether the configuration is there: the API panics if Envoy has dropped it.
func (to *bound) record(value uint64) (ok bool) {
	defer func() { ok = recover() == nil }()
	to.gauge.Record(value)
	return true
}

// series is one of a configuration.
type series struct {
	*total
	stats *stats

	mu   sync.Mutex // held to bind
	open atomic.Pointer[bound]
}

// Record implements native.Series. Envoy takes no samples of a configuration that it has dropped, and the API panics.
func (s *series) Record(n int64) {
	defer func() { _ = recover() }()
	if s.kind == native.Gauge {
		s.value.Add(n)
	}
	from := s.stats.from.Load()
	if from == nil {
		return
	}
	to := s.open.Load()
	if to == nil || to.from != from {
		to = s.bind(from)
	}
	switch {
	case s.kind == native.Gauge:
		s.set(to)
	case s.kind == native.Histogram:
		to.count.Increment(1)
		to.sum.Increment(max(0, n))
	case n > 0:
		to.count.Increment(n)
	}
}

func (s *series) bind(from *api.ConfigCallbackHandler) *bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to := s.open.Load(); to != nil && to.from == from {
		return to
	}
	to := s.define(from)
	s.open.Store(to)
	return to
}

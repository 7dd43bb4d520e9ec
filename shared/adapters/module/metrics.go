package module

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// recorder defines the metrics of a configuration and records their samples.
//
// Samples are taken on any thread and with no
// exchange at hand; Envoy records it through the handle of a live exchange, on
// that exchange's thread. So samples wait here until the callback that took them
// ends, and its exchange carries over all that wait. Any exchange of the
// configuration will do: Envoy's stats belong to the process.
type recorder struct {
	handle shared.HttpFilterConfigHandle
	keep   func(name string, create func() any) any // what outlives a configuration
	known  map[string]*metric
	err    error // first definition that Envoy refused

	waiting atomic.Int32 // samples, so that nobody locks for nothing
	mu      sync.Mutex
	samples []sample
	spare   []sample
}

type sample struct {
	series *series
	n      int64
}

// maxWaiting bounds the samples of a time in which no callback ends.
const maxWaiting = 1 << 16

type kind uint8

const (
	counter kind = iota
	gauge
	histogram
)

func (r *recorder) Counter(name string, labels ...string) filter.Metric {
	return r.define(counter, name, labels)
}

func (r *recorder) Gauge(name string, labels ...string) filter.Metric {
	return r.define(gauge, name, labels)
}

func (r *recorder) Histogram(name string, labels ...string) filter.Metric {
	return r.define(histogram, name, labels)
}

// define defines a metric once: filters that count the same thing share it.
func (r *recorder) define(k kind, name string, labels []string) filter.Metric {
	if m := r.known[name]; m != nil {
		if m.kind != k || m.labels != len(labels) {
			r.fail(fmt.Errorf("metric %s is defined twice, in different ways", name))
		}
		return m
	}
	define := r.handle.DefineCounter
	switch k {
	case gauge:
		define = r.handle.DefineGauge
	case histogram:
		define = r.handle.DefineHistogram
	}
	id, result := define(name, labels...)
	if result != shared.MetricsSuccess {
		r.fail(fmt.Errorf("metric %s could not be defined: result %d", name, result))
	}
	m := &metric{recorder: r, kind: k, id: id, labels: len(labels)}
	m.admitted = r.keep("metric "+name, func() any { return &admitted{values: make(map[filter.Values]filter.Values)} }).(*admitted)
	m.series.Store(&map[filter.Values]*series{})
	if r.known == nil {
		r.known = make(map[string]*metric)
	}
	r.known[name] = m
	return m
}

func (r *recorder) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// take keeps a sample until the next flush.
func (r *recorder) take(s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) < maxWaiting {
		r.samples = append(r.samples, s)
		r.waiting.Store(int32(len(r.samples)))
	}
}

// flush records what waits through the handle of a live exchange.
func (r *recorder) flush(handle shared.HttpFilterHandle) {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	batch := r.samples
	r.samples, r.spare = r.spare[:0], nil
	r.waiting.Store(0)
	r.mu.Unlock()
	for i := range batch {
		batch[i].record(handle)
	}
	r.mu.Lock()
	r.spare = batch
	r.mu.Unlock()
}

func (s *sample) record(handle shared.HttpFilterHandle) {
	id, tags := s.series.metric.id, s.series.tags
	switch s.series.metric.kind {
	case counter:
		handle.IncrementCounterValue(id, uint64(max(0, s.n)), tags...)
	case histogram:
		handle.RecordHistogramValue(id, uint64(max(0, s.n)), tags...)
	case gauge:
		if s.n < 0 {
			handle.DecrementGaugeValue(id, uint64(-s.n), tags...)
		} else {
			handle.IncrementGaugeValue(id, uint64(s.n), tags...)
		}
	}
}

// metric is one metric and its series.
type metric struct {
	recorder *recorder
	kind     kind
	id       shared.MetricID
	labels   int

	// series by label values. The map is replaced when a series is new, never
	// written to, so that the many look-ups of old ones need no lock.
	series   atomic.Pointer[map[filter.Values]*series]
	mu       sync.Mutex // held to add one
	admitted *admitted
}

// admitted are the label values of a metric for which Envoy has a series. They are
// counted for the whole process, since Envoy forgets none when a configuration goes.
type admitted struct {
	mu     sync.Mutex
	values map[filter.Values]filter.Values // the same in strings of its own
}

// admit returns the values under which these are counted: a copy of them, or those
// of the series beyond the last.
func (a *admitted) admit(v filter.Values, labels int) filter.Values {
	a.mu.Lock()
	defer a.mu.Unlock()
	own, ok := a.values[v]
	switch {
	case ok:
	case len(a.values) < filter.MaxSeries:
		for i := range v {
			own[i] = strings.Clone(v[i])
		}
		a.values[own] = own
	default:
		for i := range labels {
			own[i] = other
		}
	}
	return own
}

// series is one combination of label values. It owns its strings: those of a
// sample may lie in an exchange's memory.
type series struct {
	metric *metric
	tags   []string
}

// other is the label value of all series beyond the last.
const other = "other"

// Record takes a sample. It allocates nothing when the series is known.
func (m *metric) Record(n int64, v filter.Values) {
	clear(v[m.labels:])
	s := (*m.series.Load())[v]
	if s == nil {
		s = m.add(v)
	}
	m.recorder.take(sample{s, n})
}

func (m *metric) add(v filter.Values) *series {
	m.mu.Lock()
	defer m.mu.Unlock()
	v = m.admitted.admit(v, m.labels)
	present := *m.series.Load()
	if s := present[v]; s != nil {
		return s
	}
	s := &series{metric: m}
	for _, value := range v[:m.labels] {
		s.tags = append(s.tags, filter.LabelValue(value))
	}
	next := maps.Clone(present)
	next[v] = s
	m.series.Store(&next)
	return s
}

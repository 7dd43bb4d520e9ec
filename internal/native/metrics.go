package native

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Kind is what a metric is.
type Kind uint8

// What a metric can be.
const (
	Counter Kind = iota
	Gauge
	Histogram
)

// Backend is how an adapter has metrics in Envoy.
type Backend interface {
	// Define defines a metric, while a configuration is made. What it returns makes a series of it for the
	// values of its labels, later and on any thread.
	Define(k Kind, name string, labels []string) (func(values []string) Series, error)
}

// Series takes the samples of one metric with one combination of label values, on any thread.
type Series interface {
	Record(n int64)
}

// Metrics keeps the metrics of a configuration and their series.
type Metrics struct {
	backend Backend
	keep    func(name string, create func() any) any // what outlives a configuration
	known   map[string]*metric
	err     error
}

var _ filter.Metrics = (*Metrics)(nil)

// NewMetrics returns metrics of which none is defined. keep is Process.Keep.
func NewMetrics(b Backend, keep func(string, func() any) any) *Metrics {
	return &Metrics{backend: b, keep: keep, known: make(map[string]*metric)}
}

// Counter implements filter.Metrics.
func (r *Metrics) Counter(name string, labels ...string) filter.Metric {
	return r.define(Counter, name, labels)
}

// Gauge implements filter.Metrics.
func (r *Metrics) Gauge(name string, labels ...string) filter.Metric {
	return r.define(Gauge, name, labels)
}

// Histogram implements filter.Metrics.
func (r *Metrics) Histogram(name string, labels ...string) filter.Metric {
	return r.define(Histogram, name, labels)
}

// define defines a metric once: filters that count the same thing share it.
func (r *Metrics) define(k Kind, name string, labels []string) filter.Metric {
	if m := r.known[name]; m != nil {
		if m.kind != k || m.labels != len(labels) {
			r.fail(fmt.Errorf("metric %s is defined twice, in different ways", name))
		}
		return m
	}
	open, err := r.backend.Define(k, name, labels)
	if err != nil {
		r.fail(fmt.Errorf("metric %s could not be defined: %w", name, err))
	}
	m := &metric{kind: k, labels: len(labels), open: open}
	m.admitted = r.keep("metric "+name, func() any { return &admitted{values: make(map[filter.Values]filter.Values)} }).(*admitted)
	m.series.Store(&map[filter.Values]Series{})
	r.known[name] = m
	return m
}

// Err is the first definition that Envoy refused.
func (r *Metrics) Err() error { return r.err }

func (r *Metrics) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// metric is one metric and its series.
type metric struct {
	kind   Kind
	labels int
	open   func(values []string) Series

	// series by label values. The map is replaced when a series is new, never
	// written to, so that the many look-ups of old ones need no lock.
	series   atomic.Pointer[map[filter.Values]Series]
	mu       sync.Mutex // held to add one
	admitted *admitted
}

// admitted are the label values of a metric for which Envoy has a series. They are
// counted for the whole process, since Envoy forgets none when a configuration goes.
type admitted struct {
	mu     sync.Mutex
	values map[filter.Values]filter.Values // the same in strings of its own
}

// other is the label value of all series beyond the last.
const other = "other"

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

// Record takes a sample. It allocates nothing when the series is known.
func (m *metric) Record(n int64, v filter.Values) {
	clear(v[m.labels:])
	s := (*m.series.Load())[v]
	if s == nil {
		s = m.add(v)
	}
	if s != nil {
		s.Record(n)
	}
}

// add makes a series, which owns its strings: those of a sample may lie in an exchange's memory.
func (m *metric) add(v filter.Values) Series {
	m.mu.Lock()
	defer m.mu.Unlock()
	v = m.admitted.admit(v, m.labels)
	present := *m.series.Load()
	if s := present[v]; s != nil || m.open == nil { // nil: Envoy refused it
		return s
	}
	values := make([]string, m.labels)
	for i := range values {
		values[i] = filter.LabelValue(v[i])
	}
	s := m.open(values)
	next := maps.Clone(present)
	next[v] = s
	m.series.Store(&next)
	return s
}

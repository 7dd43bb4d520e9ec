package module

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// recorder has the metrics of the process and their samples.
//
// Samples are taken on any thread and with no exchange at hand; Envoy records them through the handle of a live
// exchange, on that exchange's thread. So samples wait here until some callback ends, and its exchange carries over
// all that wait. Any exchange will do, whatever its configuration: Envoy's stats belong to the process.
//
// Envoy has metrics defined while a listener's configuration is created, never for a route's, and numbers them again in
// each. So all that the filters may count are known from the beginning (filter.Factory.Metrics), have a number of
// their own, and are defined with each listener's configuration: for the documents of its routes, too.
//
// In Envoy a series lasts as long as some configuration has recorded a sample of it: it is in the scopes of these, and
// begins at 0 again when the last of them is gone. So each configuration is shown all series (see keep), and a gauge
// is set to its value, which is kept here: differences would go below 0, which for Envoy is a very large number.
type recorder struct {
	known   map[string]int // by name, the number
	metrics []metric

	serieses sync.Mutex
	byTags   map[string]*series
	all      atomic.Pointer[[]*series] // only grows

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

type metric struct {
	kind   native.Kind
	name   string
	labels []string
}

// newRecorder returns the metrics of all that the filters and the load-balancing policies may count.
func newRecorder(known []filter.Factory) *recorder {
	r := &recorder{known: make(map[string]int), byTags: make(map[string]*series)}
	r.all.Store(new([]*series))
	native.DefineMetrics(catalog{r}, known)
	newBalanced(catalog{r}, nil)
	return r
}

// catalog takes metrics in.
type catalog struct{ *recorder }

func (c catalog) Counter(name string, labels ...string) filter.Metric {
	return c.add(native.Counter, name, labels)
}

func (c catalog) Gauge(name string, labels ...string) filter.Metric {
	return c.add(native.Gauge, name, labels)
}

func (c catalog) Histogram(name string, labels ...string) filter.Metric {
	return c.add(native.Histogram, name, labels)
}

func (c catalog) add(k native.Kind, name string, labels []string) filter.Metric {
	if _, twice := c.known[name]; !twice {
		c.known[name] = len(c.metrics)
		c.metrics = append(c.metrics, metric{k, name, labels})
	}
	return nil // nothing is counted while metrics are taken in
}

// Define implements native.Backend.
func (r *recorder) Define(k native.Kind, name string, labels []string) (func([]string) native.Series, error) {
	number, ok := r.known[name]
	if !ok {
		return nil, errors.New("its filter does not name it in Factory.Metrics")
	}
	if m := &r.metrics[number]; m.kind != k || len(m.labels) != len(labels) {
		return nil, errors.New("its filter names it in Factory.Metrics in a different way")
	}
	return func(tags []string) native.Series { return r.series(k, number, tags) }, nil
}

// series returns the one of a metric with these tags.
func (r *recorder) series(k native.Kind, number int, tags []string) *series {
	r.serieses.Lock()
	defer r.serieses.Unlock()
	name := strconv.Itoa(number) + "\x00" + strings.Join(tags, "\x00")
	s := r.byTags[name]
	if s == nil {
		s = &series{recorder: r, kind: k, number: number, tags: tags}
		r.byTags[name] = s
		all := append(*r.all.Load(), s) // those who have the list do not look beyond its end
		r.all.Store(&all)
	}
	return s
}

// numbers has Envoy define all metrics for a configuration, and returns Envoy's numbers of them.
func (r *recorder) numbers(handle shared.HttpFilterConfigHandle) ([]shared.MetricID, error) {
	numbers := make([]shared.MetricID, len(r.metrics))
	for i := range r.metrics {
		m := &r.metrics[i]
		define := handle.DefineCounter
		switch m.kind {
		case native.Counter:
		case native.Gauge:
			define = handle.DefineGauge
		case native.Histogram:
			define = handle.DefineHistogram
		}
		id, result := define(m.name, m.labels...)
		if result != shared.MetricsSuccess {
			return nil, fmt.Errorf("metric %s could not be defined: result %d", m.name, result)
		}
		numbers[i] = id
	}
	return numbers, nil
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

// mostKept is how many series one callback shows to Envoy.
const mostKept = 64

// keep shows a configuration series that it has not had yet, a few at a time, through the handle of an exchange of it.
func (r *recorder) keep(handle shared.HttpFilterHandle, numbers []shared.MetricID, shown *atomic.Int64) {
	all := *r.all.Load()
	from := shown.Load()
	if from == int64(len(all)) {
		return
	}
	to := min(from+mostKept, int64(len(all)))
	if !shown.CompareAndSwap(from, to) {
		return // another worker does it
	}
	for _, s := range all[from:to] {
		if s.kind != native.Histogram { // a sample of 0 would count
			s.record(handle, numbers[s.number], 0)
		}
	}
}

// flush records what waits through the handle of a live exchange, whose configuration has these numbers.
func (r *recorder) flush(handle shared.HttpFilterHandle, numbers []shared.MetricID) {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	batch := r.samples
	r.samples, r.spare = r.spare[:0], nil
	r.waiting.Store(0)
	r.mu.Unlock()
	for i := range batch {
		batch[i].series.record(handle, numbers[batch[i].series.number], batch[i].n)
	}
	r.mu.Lock()
	r.spare = batch
	r.mu.Unlock()
}

// series is one metric with one combination of label values. It lasts as long as the process.
type series struct {
	recorder *recorder
	kind     native.Kind
	number   int
	tags     []string

	value  atomic.Int64 // of a gauge
	setter sync.Mutex   // held while Envoy's is set to it
}

// Record implements native.Series.
func (s *series) Record(n int64) {
	if s.kind == native.Gauge {
		s.value.Add(n)
	}
	s.recorder.take(sample{s, n})
}

// record records a sample in Envoy. With 0, a counter and a gauge are only shown.
func (s *series) record(handle shared.HttpFilterHandle, id shared.MetricID, n int64) {
	switch s.kind {
	case native.Counter:
		handle.IncrementCounterValue(id, uint64(max(0, n)), s.tags...)
	case native.Histogram:
		handle.RecordHistogramValue(id, uint64(max(0, n)), s.tags...)
	case native.Gauge:
		s.setter.Lock() // the last one to set it has read the last value
		defer s.setter.Unlock()
		handle.SetGaugeValue(id, uint64(max(0, s.value.Load())), s.tags...)
	}
}

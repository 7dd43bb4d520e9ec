package module

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/native"
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

// Define implements native.Backend.
func (r *recorder) Define(k native.Kind, name string, labels []string) (func([]string) native.Series, error) {
	define := r.handle.DefineCounter
	switch k {
	case native.Gauge:
		define = r.handle.DefineGauge
	case native.Histogram:
		define = r.handle.DefineHistogram
	}
	id, result := define(name, labels...)
	if result != shared.MetricsSuccess {
		return nil, fmt.Errorf("result %d", result)
	}
	return func(tags []string) native.Series { return &series{r, k, id, tags} }, nil
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
	id, tags := s.series.id, s.series.tags
	switch s.series.kind {
	case native.Counter:
		handle.IncrementCounterValue(id, uint64(max(0, s.n)), tags...)
	case native.Histogram:
		handle.RecordHistogramValue(id, uint64(max(0, s.n)), tags...)
	case native.Gauge:
		if s.n < 0 {
			handle.DecrementGaugeValue(id, uint64(-s.n), tags...)
		} else {
			handle.IncrementGaugeValue(id, uint64(s.n), tags...)
		}
	}
}

// series is one metric with one combination of label values.
type series struct {
	recorder *recorder
	kind     native.Kind
	id       shared.MetricID
	tags     []string
}

// Record implements native.Series.
func (s *series) Record(n int64) { s.recorder.take(sample{s, n}) }

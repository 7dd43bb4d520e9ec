package golang

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"github.com/inlet-proxy/inlet/internal/native"
)

// stats defines metrics in Envoy. Its API has counters and gauges without labels, so these are written into the name,
// "name;label=value;label=value", as in the wasm build, and stats_tags in Envoy's configuration take them out again. A histogram is
// two counters, name_count and name_sum.
type stats struct {
	from atomic.Pointer[api.ConfigCallbackHandler] // nil: no samples are taken yet
}

// bind says where samples go from now on.
func (b *stats) bind(to api.ConfigCallbackHandler) { b.from.Store(&to) }

// Define implements native.Backend. Envoy refuses no definition.
func (b *stats) Define(k native.Kind, name string, labels []string) (func([]string) native.Series, error) {
	return func(values []string) native.Series {
		var tags strings.Builder
		for i, label := range labels {
			tags.WriteString(";" + label + "=" + values[i])
		}
		return &series{stats: b, kind: k, name: name, tags: tags.String()}
	}, nil
}

// series is one metric with one combination of label values.
type series struct {
	stats      *stats
	kind       native.Kind
	name, tags string

	mu   sync.Mutex // held to bind
	open atomic.Pointer[bound]
}

// bound is a series in Envoy.
type bound struct {
	from       *api.ConfigCallbackHandler
	count, sum api.CounterMetric
	gauge      api.GaugeMetric
}

// Record implements native.Series. Envoy takes no samples of a configuration that it has dropped, and the API panics.
func (s *series) Record(n int64) {
	defer func() { _ = recover() }()
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
		to.gauge.Increment(n)
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
	to := &bound{from: from}
	switch s.kind {
	case native.Gauge:
		to.gauge = (*from).DefineGaugeMetric(s.name + s.tags)
	case native.Histogram:
		to.count = (*from).DefineCounterMetric(s.name + "_count" + s.tags)
		to.sum = (*from).DefineCounterMetric(s.name + "_sum" + s.tags)
	default:
		to.count = (*from).DefineCounterMetric(s.name + s.tags)
	}
	s.open.Store(to)
	return to
}

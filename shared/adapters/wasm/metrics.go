package wasm

import (
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// metrics defines metrics in the host. Envoy's wasm ABI has no labels, so they
// are written into the name, "name;label=value;label=value", and stats_tags in
// Envoy's configuration take them out again.
type metrics struct{}

func (metrics) Counter(name string, labels ...string) filter.Metric {
	return newMetric(name, labels, func(series string) recorder {
		id := proxywasm.DefineCounterMetric(series)
		return func(n int64) {
			if n > 0 { // the host knows no other step
				id.Increment(uint64(n))
			}
		}
	})
}

func (metrics) Gauge(name string, labels ...string) filter.Metric {
	return newMetric(name, labels, func(series string) recorder {
		return proxywasm.DefineGaugeMetric(series).Add
	})
}

func (metrics) Histogram(name string, labels ...string) filter.Metric {
	return newMetric(name, labels, func(series string) recorder {
		id := proxywasm.DefineHistogramMetric(series)
		return func(n int64) { id.Record(uint64(max(0, n))) }
	})
}

// recorder takes the samples of one series.
type recorder func(n int64)

// metric is one name with all its series.
type metric struct {
	name   string
	labels []string
	define func(series string) recorder
	series map[filter.Values]*series
	last   *series       // of the last sample, which mostly is that of the next one
	rest   filter.Values // what the series above the limit are counted under
}

type series struct {
	values filter.Values
	record recorder
}

func newMetric(name string, labels []string, define func(string) recorder) *metric {
	m := &metric{name: name, labels: labels, define: define, series: map[filter.Values]*series{}}
	for i := range labels {
		m.rest[i] = "other"
	}
	if len(labels) == 0 {
		m.find(filter.Values{}) // its one series is there from the start, as in the native build
	}
	return m
}

// Record implements filter.Metric. Only a new series allocates.
func (m *metric) Record(n int64, v filter.Values) {
	if m.last == nil || m.last.values != v {
		m.last = m.find(v)
	}
	m.last.record(n)
}

// find returns the series of some values. A new one is made, or the one for all
// the rest taken when there are filter.MaxSeries already. The limit holds for
// each VM.
func (m *metric) find(v filter.Values) *series {
	if s := m.series[v]; s != nil {
		return s
	}
	if len(m.series) >= filter.MaxSeries {
		v = m.rest
		if s := m.series[v]; s != nil {
			return s
		}
	}
	for i := range v {
		v[i] = strings.Clone(v[i]) // the caller's may alias a whole header map
	}
	s := &series{v, m.define(m.seriesName(&v))}
	m.series[v] = s
	return s
}

func (m *metric) seriesName(v *filter.Values) string {
	var b strings.Builder
	b.WriteString(m.name)
	for i, label := range m.labels {
		b.WriteByte(';')
		b.WriteString(label)
		b.WriteByte('=')
		b.WriteString(filter.LabelValue(v[i]))
	}
	return b.String()
}

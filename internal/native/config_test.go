package native

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

func known(name string, metrics func(filter.Metrics)) filter.Factory {
	return filter.Factory{Name: name, Metrics: metrics, New: func(_ *conf.Object, d *filter.Deps) filter.Filter {
		d.Metrics.Counter(name + "_total")
		return filter.Base{}
	}}
}

// catalog are metrics by name; others cannot be defined.
type catalog map[string]bool

func (c catalog) Counter(name string, _ ...string) filter.Metric   { c[name] = true; return nil }
func (c catalog) Gauge(name string, _ ...string) filter.Metric     { c[name] = true; return nil }
func (c catalog) Histogram(name string, _ ...string) filter.Metric { c[name] = true; return nil }

func (c catalog) Define(_ Kind, name string, _ []string) (func([]string) Series, error) {
	if !c[name] {
		return nil, errUnknown
	}
	return func([]string) Series { return &sum{envoy{}, name} }, nil
}

const errUnknown = unknown("unknown")

type unknown string

func (u unknown) Error() string { return string(u) }

// A filter whose metrics cannot even be named is refused, and no other one.
func TestMetricsThatPanic(t *testing.T) {
	all := []filter.Factory{
		known("bad", func(filter.Metrics) { panic("a secret") }),
		known("good", func(m filter.Metrics) { m.Counter("good_total") }),
	}
	c := catalog{}
	DefineMetrics(c, all)
	env := Env{Log: func(filter.Level, string) {}, Metrics: c}
	p := NewProcess()
	_, err := p.Configure([]byte("filters: [{bad: {}}]"), all, env)
	require.EqualError(t, err, "metric bad_total could not be defined: unknown")
	good, err := p.Configure([]byte("filters: [{good: {}}]"), all, env)
	require.NoError(t, err)
	require.EqualValues(t, 1, p.Live())
	good.Close()
	good.Close() // Envoy may do so
	require.Zero(t, p.Live())
}

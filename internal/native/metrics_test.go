package native

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// envoy is a backend that sums what is recorded, by name and label values.
type envoy map[string]int64

func (e envoy) Define(_ Kind, name string, _ []string) (func([]string) Series, error) {
	if name == "late" {
		return nil, errors.New("it is too late")
	}
	return func(values []string) Series { return &sum{e, name + "{" + strings.Join(values, ",") + "}"} }, nil
}

type sum struct {
	of   envoy
	name string
}

func (s *sum) Record(n int64) { s.of[s.name] += n }

func TestMetricsAreSharedByName(t *testing.T) {
	r := NewMetrics(envoy{}, NewProcess().Keep)
	require.Same(t, r.Counter("a", "x"), r.Counter("a", "x"))
	require.NoError(t, r.Err())
	r.Gauge("a", "x")
	require.ErrorContains(t, r.Err(), "metric a is defined twice")
	r = NewMetrics(envoy{}, NewProcess().Keep)
	r.Histogram("a", "x")
	r.Histogram("a", "x", "y")
	require.ErrorContains(t, r.Err(), "metric a is defined twice")
}

func TestMetricThatEnvoyRefuses(t *testing.T) {
	r := NewMetrics(envoy{}, NewProcess().Keep)
	require.NotPanics(t, func() { r.Counter("late").Record(1, filter.Values{}) })
	require.ErrorContains(t, r.Err(), "metric late could not be defined: it is too late")
	r.Gauge("late", "again")
	require.ErrorContains(t, r.Err(), "it is too late", "the first mistake stays")
}

// A client that makes up names fills the series and then only "other".
func TestSeriesAreBounded(t *testing.T) {
	e, p := envoy{}, NewProcess()
	c := NewMetrics(e, p.Keep).Counter("c", "model", "pool")
	for i := range filter.MaxSeries + 50 {
		c.Record(1, filter.Values{fmt.Sprint(i), "p"})
	}
	c.Record(1, filter.Values{"0", "p", "beyond the labels"}) // an old one keeps its own
	require.Len(t, e, filter.MaxSeries+1)
	require.EqualValues(t, 50, e["c{other,other}"])
	require.EqualValues(t, 2, e["c{0,p}"])

	// Envoy forgets no series when the configuration is another.
	c = NewMetrics(e, p.Keep).Counter("c", "model", "pool")
	c.Record(1, filter.Values{"new", "p"})
	c.Record(1, filter.Values{"0", "p"})
	require.Len(t, e, filter.MaxSeries+1)
	require.EqualValues(t, 3, e["c{0,p}"])
}

// The strings of a sample may lie in memory that is used again.
func TestSeriesOwnTheirStrings(t *testing.T) {
	e := envoy{}
	c := NewMetrics(e, NewProcess().Keep).Counter("c", "model")
	memory := []byte("first")
	c.Record(1, filter.Values{unsafe.String(&memory[0], len(memory))})
	copy(memory, "other")
	c.Record(1, filter.Values{"first"})
	require.Equal(t, envoy{"c{first}": 2}, e)
}

func TestRecordingAllocatesNothing(t *testing.T) {
	c := NewMetrics(envoy{}, NewProcess().Keep).Counter("c", "model")
	record := func() { c.Record(1, filter.Values{"llama"}) }
	record()
	require.Zero(t, testing.AllocsPerRun(100, record))
}

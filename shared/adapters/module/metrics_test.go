package module

import (
	"fmt"
	"sync"
	"testing"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// measured are the metrics of one configuration, as filters and Envoy have them.
type measured struct {
	*native.Metrics
	*recorder
}

func newMeasured(e *envoyConfig) (measured, *envoyStream) {
	r := &recorder{handle: e}
	return measured{native.NewMetrics(r, native.NewProcess().Keep), r}, &envoyStream{config: e, metrics: recorded{}}
}

func TestMetrics(t *testing.T) {
	r, s := newMeasured(&envoyConfig{})
	c := r.Counter("requests", "model", "pool", "outcome")
	g := r.Gauge("in_flight", "pool")
	h := r.Histogram("duration")
	require.NoError(t, r.Err())
	c.Record(2, filter.Values{"m", "", "ok"})
	c.Record(3, filter.Values{"m", "", "ok"})
	c.Record(-1, filter.Values{"m", "", "bad"}) // a counter only grows
	g.Record(5, filter.Values{"p"})
	g.Record(-2, filter.Values{"p", "beyond the labels"})
	h.Record(-7, filter.Values{})
	h.Record(9, filter.Values{})
	require.Empty(t, s.metrics, "nothing without an exchange")
	r.flush(s)
	want := recorded{"requests{m,,ok}": 5, "requests{m,,bad}": 0, "in_flight{p}": 3, "duration{}": 9}
	require.Equal(t, want, s.metrics)
	r.flush(s)
	require.Equal(t, want, s.metrics, "each sample once")
}

func TestMetricThatEnvoyRefuses(t *testing.T) {
	r, _ := newMeasured(&envoyConfig{refused: shared.MetricsFrozen})
	require.NotPanics(t, func() { r.Counter("late").Record(1, filter.Values{}) })
	require.ErrorContains(t, r.Err(), "metric late could not be defined")
}

func TestSeriesOwnTheirStrings(t *testing.T) {
	r, s := newMeasured(&envoyConfig{})
	c := r.Counter("c", "model")
	var a arena
	c.Record(1, filter.Values{a.copy(viewString("first"))})
	a.reset()
	a.copy(viewString("other"))
	c.Record(1, filter.Values{"first"})
	r.flush(s)
	require.Equal(t, recorded{"c{first}": 2}, s.metrics)
}

func TestRecordingAllocatesNothing(t *testing.T) {
	r, _ := newMeasured(&envoyConfig{})
	c := r.Counter("c", "model", "pool", "outcome")
	v := filter.Values{"llama", "pool", "ok"}
	var silent silentStream
	record := func() {
		for range 8 {
			c.Record(1, v)
		}
		r.flush(&silent)
	}
	record()
	record() // both batches have their memory
	require.Zero(t, testing.AllocsPerRun(100, record))
	require.EqualValues(t, 103*8, silent.n)
}

type silentStream struct {
	shared.HttpFilterHandle
	n uint64
}

func (s *silentStream) IncrementCounterValue(_ shared.MetricID, n uint64, _ ...string) shared.MetricsResult {
	s.n += n
	return shared.MetricsSuccess
}

// Workers record and flush at once; no sample is lost or counted twice.
func TestMetricsOfManyThreads(t *testing.T) {
	r, _ := newMeasured(&envoyConfig{})
	c := r.Counter("c", "worker")
	const workers, samples = 8, 2000
	handles := make([]silentStream, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range samples {
				c.Record(1, filter.Values{fmt.Sprint(w, i%20)})
				if i%3 == 0 {
					r.flush(&handles[w])
				}
			}
		})
	}
	all.Wait()
	r.flush(&handles[0])
	var sum uint64
	for i := range handles {
		sum += handles[i].n
	}
	require.EqualValues(t, workers*samples, sum)
}

// What a sample costs, with the ten of a request before each flush, when all threads do nothing else.
func BenchmarkSamples(b *testing.B) {
	r, _ := newMeasured(&envoyConfig{})
	c := r.Counter("c", "model", "pool", "outcome")
	b.RunParallel(func(pb *testing.PB) {
		v := filter.Values{"llama", "pool", "ok"}
		var silent silentStream
		for n := 1; pb.Next(); n++ {
			if c.Record(1, v); n%10 == 0 {
				r.flush(&silent)
			}
		}
	})
}

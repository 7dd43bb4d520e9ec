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
	numbers []shared.MetricID
}

// newMeasured has Envoy define what a filter names in its factory.
func newMeasured(t testing.TB, metrics func(filter.Metrics)) (measured, *envoyStream) {
	t.Helper()
	e, p := &envoyConfig{}, newProcess([]filter.Factory{{Metrics: metrics}})
	numbers, err := p.metrics.numbers(e)
	require.NoError(t, err)
	return measured{native.NewMetrics(p.metrics, p.Keep), p.metrics, numbers}, &envoyStream{config: e, metrics: recorded{}}
}

func (m *measured) flush(handle shared.HttpFilterHandle) { m.recorder.flush(handle, m.numbers) }

func requests(m filter.Metrics) { m.Counter("c", "model", "pool", "outcome") }

func TestMetrics(t *testing.T) {
	r, s := newMeasured(t, func(m filter.Metrics) {
		m.Counter("requests", "model", "pool", "outcome")
		m.Gauge("in_flight", "pool")
		m.Histogram("duration")
	})
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
	_, err := newProcess(nil).metrics.numbers(&envoyConfig{refused: shared.MetricsFrozen})
	require.ErrorContains(t, err, "metric inlet_filter_failure_total could not be defined")
}

// What the factory does not name cannot be counted: in the document of a route there is no way to define it.
func TestMetricThatItsFactoryDoesNotName(t *testing.T) {
	for name, define := range map[string]func(filter.Metrics){
		"metric late could not be defined: its filter does not name it in Factory.Metrics":         func(m filter.Metrics) { m.Counter("late") },
		"metric c could not be defined: its filter names it in Factory.Metrics in a different way": func(m filter.Metrics) { m.Gauge("c", "model", "pool", "outcome") },
	} {
		r, _ := newMeasured(t, requests)
		define(r)
		require.EqualError(t, r.Err(), name)
	}
}

func TestSeriesOwnTheirStrings(t *testing.T) {
	r, s := newMeasured(t, requests)
	c := r.Counter("c", "model", "pool", "outcome")
	var a arena
	c.Record(1, filter.Values{a.copy(viewString("first"))})
	a.reset()
	a.copy(viewString("other"))
	c.Record(1, filter.Values{"first"})
	r.flush(s)
	require.Equal(t, recorded{"c{first,,}": 2}, s.metrics)
}

func TestRecordingAllocatesNothing(t *testing.T) {
	r, _ := newMeasured(t, requests)
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
	r, _ := newMeasured(t, requests)
	c := r.Counter("c", "model", "pool", "outcome")
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
	r, _ := newMeasured(b, requests)
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

// Envoy forgets a series with the last configuration that recorded a sample of it. So a new configuration is shown all
// there are, and gauges go on from their value.
func TestSeriesOutliveConfigurations(t *testing.T) {
	m := &markers{}
	known := []filter.Factory{m.factory()}
	known[0].Metrics = func(m filter.Metrics) {
		m.Counter("marked", "by")
		m.Gauge("in_use_total", "by") // the fake Envoy ignores additions of 0 to what has this ending
	}
	p := newProcess(known)
	l := &loader{known: known, process: p}
	configure := func() (*config, *envoyConfig, *native.Metrics) {
		e := &envoyConfig{}
		f, err := l.Create(e, []byte(ofListener))
		require.NoError(t, err)
		return f.(*config), e, native.NewMetrics(p.metrics, p.Keep)
	}
	first, e, d := configure()
	gauge, counter := d.Gauge("in_use_total", "by"), d.Counter("marked", "by")
	gauge.Record(5, filter.Values{"a"})
	counter.Record(3, filter.Values{"a"})
	for i := range 3 * mostKept {
		counter.Record(1, filter.Values{fmt.Sprint(i)})
	}
	open(t, first, e).end()

	second, e, _ := configure()
	first.OnDestroy()
	var last *envoyStream
	seen := recorded{}
	for range 5 { // a few at a time
		last = open(t, second, e)
		last.end()
		require.LessOrEqual(t, len(last.metrics), mostKept+5)
		for name, n := range last.metrics {
			seen[name] += n
		}
	}
	require.Contains(t, seen, "marked{a}")
	require.Contains(t, seen, fmt.Sprintf("marked{%d}", 3*mostKept-1))
	require.Zero(t, seen["marked{a}"], "counted once")
	require.EqualValues(t, 5, seen["in_use_total{a}"])
	require.EqualValues(t, 1, seen["inlet_configurations{listener}"])

	gauge.Record(-2, filter.Values{"a"})
	last = open(t, second, e)
	last.end()
	require.EqualValues(t, 3, last.metrics["in_use_total{a}"])
	gauge.Record(-4, filter.Values{"a"})
	last = open(t, second, e)
	last.end()
	require.Zero(t, last.metrics["in_use_total{a}"], "never below 0")
}

package picker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/kv/mem"
)

// metrics keeps the sum of each series.
type metrics map[string]int64

func (m metrics) Counter(name string, _ ...string) filter.Metric   { return sample{m, name} }
func (m metrics) Gauge(name string, _ ...string) filter.Metric     { return sample{m, name} }
func (m metrics) Histogram(name string, _ ...string) filter.Metric { return sample{m, name} }

type sample struct {
	m    metrics
	name string
}

func (s sample) Record(n int64, v filter.Values) {
	s.m[s.name+"/"+strings.Trim(strings.Join(v[:], ","), ",")] += n
}

// rig is a picker with a snapshot that a test can change.
type rig struct {
	f        *Filter
	snapshot *endpoint.Snapshot
	metrics  metrics
	logs     []string
	deps     *filter.Deps
}

func newRig(t require.TestingT, doc string) *rig {
	rng := rand.New(rand.NewPCG(3, 4))
	r := &rig{metrics: metrics{}}
	r.deps = &filter.Deps{
		Now:      func() time.Time { return time.Unix(100, 0) },
		Rand:     rng.Uint64,
		Store:    mem.NewStore(),
		Counters: mem.NewCounters(),
		Snapshot: func() *endpoint.Snapshot { return r.snapshot },
		Metrics:  r.metrics,
		Log:      func(_ filter.Level, m string) { r.logs = append(r.logs, m) },
	}
	var f filter.Filter
	require.NoError(t, conf.Decode([]byte(doc), func(o *conf.Object) { f = newFilter(o, r.deps) }))
	r.f = f.(*Filter)
	return r
}

// serve sets the replicas of pool p; each is idle, ready and freshly read.
func (r *rig) serve(eps ...endpoint.Endpoint) {
	for i := range eps {
		eps[i].Gauges.Known = true
	}
	r.snapshot = &endpoint.Snapshot{
		Received: time.Unix(100, 0),
		Pools:    []endpoint.Pool{{Name: "p", Endpoints: eps}},
	}
	r.snapshot.Attach(r.deps.Counters)
}

func ready(n int) []endpoint.Endpoint {
	eps := make([]endpoint.Endpoint, n)
	for i := range eps {
		eps[i] = endpoint.Endpoint{Address: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250), Ready: true}
	}
	return eps
}

func (r *rig) pick(x *filter.Exchange) filter.Verdict {
	x.Reset(1)
	x.Route.Pool = "p"
	return r.f.OnRequest(x)
}

func header(x *filter.Exchange) string {
	for _, h := range x.Effects().Request {
		if h.Name == EndpointHeader {
			return h.Value
		}
	}
	return ""
}

func TestRankedList(t *testing.T) {
	r := newRig(t, "endpoints: 3")
	eps := ready(4)
	for i, waiting := range []int{9, 0, 3, 20} {
		eps[i].Gauges.Waiting = waiting
	}
	r.serve(eps...)
	x := &filter.Exchange{}
	require.Equal(t, filter.Next, r.pick(x))
	require.Equal(t, "10.0.0.1:80,10.0.0.2:80,10.0.0.0:80", header(x))
	require.Equal(t, "10.0.0.1:80", x.Target.Address)
	require.EqualValues(t, 1, r.metrics["inlet_pick_total/p,picked"])
}

func TestOnlyReadyReplicas(t *testing.T) {
	r := newRig(t, "{}")
	eps := ready(3)
	eps[0].Ready, eps[2].Ready = false, false
	eps[1].Gauges.Waiting = 1000
	r.serve(eps...)
	x := &filter.Exchange{}
	r.pick(x)
	require.Equal(t, "10.0.0.1:80", header(x))
}

func TestNoReplica(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(endpoint.Endpoint{Address: "10.0.0.1:80"})
	x := &filter.Exchange{}
	v := r.pick(x)
	require.Equal(t, 503, v.Refusal().Status)
	require.Equal(t, "no-endpoints", v.Refusal().Reason)
	require.Positive(t, v.Refusal().RetryAfter)
}

func TestNothingKnown(t *testing.T) {
	r := newRig(t, "{}")
	x := &filter.Exchange{}
	require.Equal(t, "no-snapshot", r.pick(x).Failure())
	r.serve(ready(1)...)
	x.Reset(1)
	x.Route.Pool = "another"
	require.Equal(t, "no-snapshot", r.f.OnRequest(x).Failure())
	x.Reset(1)
	require.Equal(t, filter.Next, r.f.OnRequest(x), "no pool: an ordinary route decides")
	require.Empty(t, header(x))
}

func TestFallback(t *testing.T) {
	down := func(address string) endpoint.Endpoint { return endpoint.Endpoint{Address: address} }
	up := func(address string) endpoint.Endpoint { return endpoint.Endpoint{Address: address, Ready: true} }
	external := filter.Pool{Name: "x", External: true}
	for _, c := range []struct {
		name     string
		pools    map[string]endpoint.Endpoint
		fallback []filter.Pool
		pool     string // taken; "" if refused
		address  string
	}{
		{"the first is ready", map[string]endpoint.Endpoint{"p": up("1:1"), "q": up("2:1")}, []filter.Pool{{Name: "q"}}, "p", "1:1"},
		{"the second is", map[string]endpoint.Endpoint{"p": down("1:1"), "q": up("2:1")}, []filter.Pool{{Name: "q"}, external}, "q", "2:1"},
		{"the third is", map[string]endpoint.Endpoint{"p": down("1:1"), "q": down("2:1"), "r": up("3:1")}, []filter.Pool{{Name: "q"}, {Name: "r"}}, "r", "3:1"},
		{"one is unknown", map[string]endpoint.Endpoint{"p": down("1:1"), "r": up("3:1")}, []filter.Pool{{Name: "q"}, {Name: "r"}}, "r", "3:1"},
		{"somebody else's", map[string]endpoint.Endpoint{"p": down("1:1"), "q": down("2:1")}, []filter.Pool{{Name: "q"}, external}, "x", ""},
		{"none", map[string]endpoint.Endpoint{"p": down("1:1"), "q": down("2:1")}, []filter.Pool{{Name: "q"}}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "{}")
			r.snapshot = &endpoint.Snapshot{Received: time.Unix(100, 0)}
			for _, name := range []string{"p", "q", "r"} {
				if e, ok := c.pools[name]; ok {
					r.snapshot.Pools = append(r.snapshot.Pools, endpoint.Pool{Name: name, Endpoints: []endpoint.Endpoint{e}})
				}
			}
			r.snapshot.Attach(r.deps.Counters)
			x := &filter.Exchange{}
			x.Reset(1)
			x.Route = filter.Route{Pool: "p", Fallback: c.fallback}
			v := r.f.OnRequest(x)
			if c.pool == "" {
				require.Equal(t, 503, v.Refusal().Status)
				return
			}
			require.Equal(t, filter.Next, v)
			require.Equal(t, filter.Target{Address: c.address, Pool: c.pool}, x.Target)
			require.Equal(t, c.address, header(x))
			var moved []string
			for _, h := range x.Effects().Request {
				if h.Name == PoolHeader {
					moved = append(moved, h.Value)
				}
			}
			if c.pool == "p" {
				require.Empty(t, moved)
			} else {
				require.Equal(t, []string{c.pool}, moved)
			}
			r.f.OnResponseHeaders(x)
			r.f.OnDone(x, filter.End{})
			require.Zero(t, r.metrics["inlet_in_flight_requests/"+c.pool])
		})
	}
}

// What is not known is not down: without a snapshot the model's own pool gets
// the request, by the picker's failure mode.
func TestNoFallbackForWhatIsUnknown(t *testing.T) {
	r := newRig(t, "{}")
	r.snapshot = &endpoint.Snapshot{Pools: []endpoint.Pool{{Name: "q", Endpoints: ready(1)}}}
	x := &filter.Exchange{}
	x.Reset(1)
	x.Route = filter.Route{Pool: "p", Fallback: []filter.Pool{{Name: "q"}}}
	require.Equal(t, "no-snapshot", r.f.OnRequest(x).Failure())
	require.Empty(t, x.Effects().Request)
}

func TestExternalPoolsArePassedBy(t *testing.T) {
	r := newRig(t, "{}")
	x := &filter.Exchange{}
	x.Reset(1)
	x.Route = filter.Route{Pool: "x", External: true}
	require.Equal(t, filter.Next, r.f.OnRequest(x))
	require.Equal(t, filter.Target{Pool: "x"}, x.Target)
	require.Empty(t, x.Effects().Request)
	r.f.OnDone(x, filter.End{})
	require.Empty(t, r.metrics)
}

func TestPoolOfItsOwn(t *testing.T) {
	r := newRig(t, "pool: p")
	r.serve(ready(1)...)
	x := &filter.Exchange{}
	x.Reset(1)
	require.Equal(t, filter.Next, r.f.OnRequest(x))
	require.Equal(t, "10.0.0.0:80", header(x))
}

// A burst within one scrape spreads evenly, since what was sent counts at once.
func TestBurstSpreads(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(8)...)
	hits := map[string]int{}
	for range 200 {
		x := &filter.Exchange{}
		r.pick(x)
		hits[x.Target.Address]++
	}
	for address, n := range hits {
		require.Equal(t, 25, n, address)
	}
}

// Equal replicas are equally likely, whatever their place in the list.
func TestTiesAreBrokenAtRandom(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(4)...)
	hits := map[string]int{}
	for range 4000 {
		x := &filter.Exchange{}
		r.pick(x)
		hits[x.Target.Address]++
		r.f.OnDone(x, filter.End{})
	}
	for _, n := range hits {
		require.InDelta(t, 1000, n, 3*27.4) // three standard deviations
	}
}

func TestChargeMovesToWhoServes(t *testing.T) {
	for _, c := range []struct {
		served, outcome string
		warns           bool
	}{{"10.0.0.1:80", "retried", false}, {"10.9.9.9:80", "missed", true}} {
		r := newRig(t, "{}")
		eps := ready(2)
		eps[1].Gauges.Waiting = 1
		r.serve(eps...)
		x := &filter.Exchange{}
		r.pick(x)
		require.EqualValues(t, 1, r.deps.Counters.Open("10.0.0.0:80").Value())
		x.Response.Served = c.served
		require.Equal(t, filter.Next, r.f.OnResponseHeaders(x))
		require.Zero(t, r.deps.Counters.Open("10.0.0.0:80").Value())
		require.EqualValues(t, 1, r.deps.Counters.Open(c.served).Value())
		require.EqualValues(t, 1, r.metrics["inlet_pick_total/p,"+c.outcome])
		require.Equal(t, c.warns, len(r.logs) == 1)
		r.f.OnDone(x, filter.End{})
		require.Zero(t, r.deps.Counters.Open(c.served).Value())
	}
}

func TestMissesAreLoggedOnceAMinute(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(1)...)
	now := time.Unix(100, 0)
	r.deps.Now = func() time.Time { return now }
	miss := func() {
		x := &filter.Exchange{}
		r.pick(x)
		x.Response.Served = "10.9.9.9:80"
		r.f.OnResponseHeaders(x)
		r.f.OnDone(x, filter.End{})
	}
	miss()
	miss()
	require.Len(t, r.logs, 1)
	now = now.Add(missPause)
	miss()
	require.Len(t, r.logs, 2)
	require.EqualValues(t, 3, r.metrics["inlet_pick_total/p,missed"])
}

// However exchanges run and end, what is in flight returns to zero and is
// never negative on the way.
func TestInFlightReturnsToZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t, "{}")
		r.serve(ready(3)...)
		var open []*filter.Exchange
		for range rapid.IntRange(1, 50).Draw(t, "events") {
			if len(open) == 0 || rapid.Bool().Draw(t, "another request") {
				x := &filter.Exchange{}
				r.pick(x)
				open = append(open, x)
				continue
			}
			i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
			open[i].Response.Served = rapid.SampledFrom([]string{"", "10.0.0.0:80", "10.0.0.1:80", "10.7.7.7:80"}).Draw(t, "served")
			r.f.OnResponseHeaders(open[i])
			if rapid.Bool().Draw(t, "ends") {
				r.f.OnDone(open[i], filter.End{})
				open = append(open[:i], open[i+1:]...)
			}
		}
		for _, x := range open {
			r.f.OnDone(x, filter.End{})
		}
		for _, a := range []string{"10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80", "10.7.7.7:80"} {
			if n := r.deps.Counters.Open(a).Value(); n != 0 {
				t.Fatalf("%s: %d in flight after everything ended", a, n)
			}
		}
		if n := r.metrics["inlet_in_flight_requests/p"]; n != 0 {
			t.Fatalf("the gauge stands at %d", n)
		}
	})
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{8, 100, 1000} {
		b.Run(fmt.Sprintf("replicas=%d", n), func(b *testing.B) {
			r := newRig(b, "endpoints: 3")
			r.serve(ready(n)...)
			s := &state{}
			b.ReportAllocs()
			for b.Loop() {
				s.reset()
				s.gather(r.snapshot.Pools[0].Endpoints)
				r.f.rank(s, 0)
				if len(s.ranked) != 3 {
					b.Fatal("no list")
				}
			}
		})
	}
}

func TestRankingAllocatesNothing(t *testing.T) {
	r := newRig(t, "endpoints: 3")
	r.serve(ready(100)...)
	s := &state{}
	rank := func() {
		s.reset()
		s.gather(r.snapshot.Pools[0].Endpoints)
		r.f.rank(s, 0)
	}
	rank()
	require.Zero(t, testing.AllocsPerRun(100, rank))
}

package picker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What other pickers of this field have failed at in production, each as a test.
// Some are shown elsewhere:
//
//	all requests of one scrape interval go to one replica    TestNoHerd, TestABurstSpreadsAmongWorkers
//	the replica that was idle when last read gets everything TestStaleGauges
//	equal replicas: always the first one                     TestTiesAreBrokenAtRandom
//	in-flight counts below zero                              TestInFlightReturnsToZero
//	an index without a bound                                 prefix.TestNeverGrows
//	a picker that fails open, and refuses                    scenarios/failure.yaml of hosttest
//	the companion's interval longer than its own bound       refused by the companion (its config_test)

// A prompt that nobody knows went to the replica with the smallest index, which had
// just been started and was the busiest by the time: a spiral.
func TestIncidentMissesGoByLoadAndNotByTheSizeOfTheIndex(t *testing.T) {
	for _, profile := range []string{"sticky", "weighted"} {
		r := newRig(t, "{slowStart: 0s, profile: "+profile+"}")
		eps := ready(4)
		r.serve(eps[1:]...)
		for seed := range uint64(60) { // the others know much
			r.serveOne(t, request(seed, 10), 200)
		}
		eps[0].Gauges = endpoint.Gauges{Waiting: 4, Running: 60, KVUse: 0.7}
		r.serve(eps...)
		hits := map[string]int{}
		for seed := range uint64(60) {
			hits[r.serveOne(t, request(1000+seed, 10), 200)]++
		}
		require.Zero(t, hits[eps[0].Address], "%s: %v", profile, hits)
	}
}

// One request at a time, each with a prompt of its own: everybody gets some.
func TestIncidentLittleTrafficIsNotAllForTheFirst(t *testing.T) {
	for _, p := range profiles {
		r := newRig(t, "profile: "+p.name)
		r.serve(ready(4)...)
		hits := map[string]int{}
		for seed := range uint64(400) {
			hits[r.serveOne(t, request(seed, 6), 200)]++
		}
		require.Len(t, hits, 4, p.name)
		require.LessOrEqual(t, most(hits), 150, "%s: %v", p.name, hits)
	}
}

// A replica whose metrics come no more looked idle forever, while everything was
// sent to it. What is in flight from here is known, however old the gauges are.
func TestIncidentABusyReplicaWithOldGaugesIsNotIdle(t *testing.T) {
	for _, profile := range []string{"sticky", "weighted", "least-request"} {
		r := newRig(t, "{slowStart: 0s, profile: "+profile+"}")
		eps := ready(3)
		r.serve(eps[0])
		for range 30 {
			r.send(t, request(0, 0)) // in flight on the first, which had said to be idle
		}
		r.now = r.now.Add(time.Minute)
		r.serve(eps...)
		r.snapshot.Pools[0].Endpoints[0].Gauges.Age = time.Minute
		hits := r.spread(t, 40, func(int) *filter.Exchange { return request(0, 0) })
		require.Zero(t, hits[eps[0].Address], "%s: %v", profile, hits)
	}
}

// With a bound of staleness below the interval of the scrapes nearly every look at
// the gauges found them stale, which was taken for saturated: nothing was sent for
// 98 % of the time. When all scrapes fail the same went on forever.
func TestIncidentStaleIsNotSaturated(t *testing.T) {
	r := newRig(t, "{stale: 200ms, shed: true}")
	eps := ready(2)
	for i := range eps {
		eps[i].Gauges = endpoint.Gauges{Waiting: 100, KVUse: 1}
	}
	r.serve(eps...)
	for range 150 { // 15 s between two scrapes
		r.now = r.now.Add(100 * time.Millisecond)
		x := request(0, 0)
		v := r.f.OnRequest(x)
		if r.now.Sub(r.snapshot.Received) >= 200*time.Millisecond {
			require.Equal(t, filter.Next, v)
			r.answer(x, 200)
		}
	}
}

// ... and nobody was told. Here a warning names the two numbers, when it is so time
// and again; not for an outage, nor when all is well.
func TestIncidentAMisfitOfIntervalAndBoundIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		interval time.Duration
		outage   bool
		warnings int
	}{
		"fits":          {50 * time.Millisecond, false, 0},
		"does not fit":  {15 * time.Second, false, 5}, // one a minute
		"one bad while": {50 * time.Millisecond, true, 0},
	} {
		r := newRig(t, "{stale: 200ms, shed: true}")
		for round := range 16 + 17 {
			r.now = r.now.Add(c.interval)
			if c.outage && round == 20 {
				r.now = r.now.Add(time.Hour)
			}
			r.serve(ready(3)...)
			r.snapshot.Taken = r.now // each time with fresh gauges
			r.serveOne(t, request(0, 0), 200)
		}
		require.Len(t, r.logs, c.warnings, name)
		if c.warnings > 0 {
			require.Contains(t, r.logs[0], "gauges are renewed every 15s, but \"stale\" ignores them after 200ms")
		}
	}
}

// What is told again without having been read again is not new.
func TestIncidentOldGaugesAreNotNewOnes(t *testing.T) {
	r := newRig(t, "{stale: 200ms}")
	for i := range 40 {
		r.now = r.now.Add(time.Second)
		r.serve(ready(3)...)
		r.snapshot.Taken = r.now
		for j := range 3 {
			r.snapshot.Pools[0].Endpoints[j].Gauges.Age = time.Duration(i) * time.Second
		}
		r.serveOne(t, request(0, 0), 200)
	}
	require.Empty(t, r.logs)
}

// A pool of one replica was answered with 500. It serves, whatever its state.
func TestIncidentAPoolOfOne(t *testing.T) {
	for _, p := range profiles {
		for name, change := range map[string]func(r *rig, e *endpoint.Endpoint){
			"idle":    func(*rig, *endpoint.Endpoint) {},
			"full":    func(_ *rig, e *endpoint.Endpoint) { e.Gauges = endpoint.Gauges{Waiting: 1000, Running: 1000, KVUse: 1} },
			"unknown": func(r *rig, _ *endpoint.Endpoint) { r.now = r.now.Add(time.Hour) },
			"failing": func(r *rig, _ *endpoint.Endpoint) { r.run(t, 10, func(string) int { return 503 }) },
		} {
			r := newRig(t, "{health: {failures: 1}, profile: "+p.name+"}")
			eps := ready(1)
			r.serve(eps...)
			change(r, &eps[0])
			r.serveAt(r.snapshot.Received, eps...)
			x := request(1, 3)
			require.Equal(t, eps[0].Address, r.send(t, x), "%s, %s", p.name, name)
			require.Equal(t, eps[0].Address, header(x, EndpointHeader))
		}
	}
}

// serveAt is serve with a snapshot that came earlier.
func (r *rig) serveAt(received time.Time, eps ...endpoint.Endpoint) {
	r.serve(eps...)
	r.snapshot.Received = received
}

// A replica that was not ready for a while, or was gone, came back with its count
// at zero, and the requests that had been there all the time took it below.
func TestIncidentInFlightSurvivesAbsence(t *testing.T) {
	for name, absent := range map[string]func(eps []endpoint.Endpoint) []endpoint.Endpoint{
		"not ready": func(eps []endpoint.Endpoint) []endpoint.Endpoint { eps[0].Ready = false; return eps },
		"gone":      func(eps []endpoint.Endpoint) []endpoint.Endpoint { return eps[1:] },
	} {
		r := newRig(t, "{}")
		r.serve(ready(1)...)
		var open []*filter.Exchange
		for range 5 {
			open = append(open, request(1, 10))
			r.send(t, open[len(open)-1])
		}
		at := open[0].Target.Address
		r.serve(absent(ready(2))...)
		r.answer(open[0], 200)
		require.EqualValues(t, 4, r.inFlight(at), name)
		for range 30 { // long enough to be forgotten
			r.now = r.now.Add(time.Minute)
			r.serve(absent(ready(2))...)
			r.serveOne(t, request(2, 10), 200)
		}
		r.serve(ready(2)...)
		for i, x := range open[1:] {
			require.EqualValues(t, 4-i, r.inFlight(at), name)
			r.answer(x, 200)
			r.f.OnDone(x, filter.End{}) // however often it is said
		}
		require.Zero(t, r.inFlight(at), name)
		require.Zero(t, r.tokens(at), name)
	}
}

// A draining replica, which the companion tells as not ready, gets nothing new,
// also of what it alone knows; what is in progress there ends as usual.
func TestDraining(t *testing.T) {
	for _, profile := range []string{"sticky", "session"} {
		r := newRig(t, "profile: "+profile)
		eps := ready(3)
		r.serve(eps...)
		said := func() *filter.Exchange {
			x := request(1, 10)
			x.RequestHeaders = headers{"x-session-token": "s"}
			return x
		}
		x := said()
		at := r.send(t, x)
		require.Equal(t, at, r.serveOne(t, said(), 200))
		for i := range eps {
			eps[i].Ready = eps[i].Address != at
		}
		r.serve(eps...)
		other := r.serveOne(t, said(), 200)
		require.NotEqual(t, at, other, profile)
		require.Equal(t, other, r.serveOne(t, said(), 200), profile)
		require.EqualValues(t, 1, r.inFlight(at))
		r.answer(x, 200)
		require.Zero(t, r.inFlight(at))
	}
}

// Requests with a value of their own in a header were served before others.
func TestIncidentAHeaderGivesNobodyPriority(t *testing.T) {
	r := newRig(t, "{objectives: [{name: chat, priority: 5}, {name: batch, priority: -5}]}")
	eps := ready(1)
	eps[0].Gauges.Waiting = 50
	r.serve(eps...)
	for _, c := range []struct {
		headers headers
		status  int
	}{
		{headers{}, 0},
		{headers{"x-gateway-inference-objective": "chat"}, 0},
		{headers{"x-llm-d-inference-objective": "batch"}, 429},
		{headers{"x-gateway-inference-objective": "batch"}, 429},
		{headers{"x-llm-d-inference-objective": "batch", "x-gateway-inference-objective": "chat"}, 429},
		{headers{"x-llm-d-inference-objective": "", "x-gateway-inference-objective": "batch"}, 429},
		{headers{"x-llm-d-inference-objective": "-7"}, 0},
		{headers{"x-llm-d-inference-objective": "2147483647"}, 0},
		{headers{"x-llm-d-inference-objective": "Batch"}, 0},
	} {
		x := request(1, 1)
		x.RequestHeaders = c.headers
		v := r.f.OnRequest(x)
		if c.status == 0 {
			require.Equal(t, filter.Next, v, "%v", c.headers)
			r.answer(x, 200)
			continue
		}
		require.Equal(t, c.status, v.Refusal().Status, "%v", c.headers)
		require.Equal(t, "rejected-saturated", v.Refusal().Reason)
		require.Positive(t, v.Refusal().RetryAfter)
		require.Contains(t, string(x.Why()), "priority=-5")
	}
	require.Zero(t, r.samples["inlet_in_flight_requests/p"])

	// A whole burst that shouts does not push the others out either.
	r = newRig(t, "{shed: true, objectives: [{name: chat, priority: 5}], saturation: {inFlight: 10}}")
	r.serve(ready(1)...)
	taken := map[string]int{}
	for i := range 40 {
		x := request(uint64(i), 1)
		who := []string{"chat", "9999"}[i%2]
		x.RequestHeaders = headers{"x-llm-d-inference-objective": who}
		if r.f.OnRequest(x) == filter.Next {
			taken[who]++
		}
	}
	require.Equal(t, map[string]int{"chat": 5, "9999": 5}, taken)
}

// Values that clients choose became labels, and metrics without end.
func TestIncidentClientsMakeNoSeries(t *testing.T) {
	r := newRig(t, "{profile: session, objectives: [{name: batch, priority: -1}]}")
	r.serve(ready(2)...)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		x := request(rng.Uint64(), 2)
		own := fmt.Sprint(rng.Uint64())
		x.RequestHeaders = headers{"x-session-token": own, "x-llm-d-inference-objective": own, "x-gateway-inference-fairness-id": own}
		x.Route.Target = own
		r.serveOne(t, x, 200)
	}
	require.LessOrEqual(t, len(r.samples), 10, "%v", r.samples)
}

// Tries grew until they fell: 30 MB to 6.4 GB in minutes. The index of the picker is
// as large as it is configured, whatever comes.
func TestIncidentTheIndexKeepsToItsBudget(t *testing.T) {
	r := newRig(t, "{prefix: {memory: 256KiB}}")
	r.serve(ready(50)...)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		r.serveOne(t, request(rng.Uint64(), 100), 200)
	}
	x := r.f.fleet.index
	require.LessOrEqual(t, 16*x.Size(), 256<<10)
	require.LessOrEqual(t, x.Len(), x.Size())
	require.LessOrEqual(t, r.samples["inlet_prefix_indexer_size/p"], int64(x.Size()))
}

// Nothing is known at first, and the request goes on by the failure mode; it is for
// the chain to say how, and for the picker to leave nothing behind.
func TestIncidentFailingOpenLeavesNothingBehind(t *testing.T) {
	require.Equal(t, filter.FailOpen, Factory.FailureMode)
	r := newRig(t, "{}")
	x := request(1, 10)
	require.Equal(t, "no-snapshot", r.f.OnRequest(x).Failure())
	require.Empty(t, x.Effects().Request)
	x.Response.Served, x.Response.Status = "10.0.0.000:80", 200
	require.Equal(t, filter.Next, r.f.OnResponseHeaders(x))
	r.f.OnFirstByte(x)
	r.f.OnDone(x, filter.End{Complete: true, Status: 200})
	require.Zero(t, r.inFlight("10.0.0.000:80"))
	for series := range r.samples {
		require.False(t, strings.HasPrefix(series, "inlet_in_flight_requests"), series)
	}
}

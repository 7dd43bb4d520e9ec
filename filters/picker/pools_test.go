package picker

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// pools are two, the second one for when the first is full.
func (r *rig) pools(first, second endpoint.Gauges) {
	a, b := ready(2), ready(4)[2:]
	for i := range a {
		a[i].Gauges, b[i].Gauges = first, second
	}
	r.servePools(endpoint.Pool{Name: "p", Endpoints: a}, endpoint.Pool{Name: "q", Endpoints: b})
}

func falling(fallback ...filter.Pool) *filter.Exchange {
	x := request(1, 5)
	x.Route.Fallback = fallback
	return x
}

func TestFallback(t *testing.T) {
	free, full := endpoint.Gauges{}, endpoint.Gauges{Waiting: 5}
	q := filter.Pool{Name: "q"}
	for name, c := range map[string]struct {
		first, second endpoint.Gauges
		fallback      []filter.Pool
		pool          string
	}{
		"the first is not saturated":     {free, free, []filter.Pool{q}, "p"},
		"the first is full":              {full, free, []filter.Pool{q}, "q"},
		"both are full":                  {full, full, []filter.Pool{q}, "p"},
		"the first is full, no fallback": {full, free, nil, "p"},
		"an unknown one is passed over":  {full, free, []filter.Pool{{Name: "x"}, q}, "q"},
		"one has much in its cache":      {endpoint.Gauges{KVUse: 0.9}, free, []filter.Pool{q}, "q"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "{}")
			r.pools(c.first, c.second)
			x := falling(c.fallback...)
			at := r.send(t, x)
			require.Equal(t, c.pool, x.Target.Pool)
			require.Equal(t, c.pool == "p", at < "10.0.0.002:80", at)
			if c.pool == "p" {
				require.Empty(t, header(x, PoolHeader))
			} else {
				require.Equal(t, "q", header(x, PoolHeader))
				require.EqualValues(t, 1, r.samples["inlet_pick_total/p,spilled"])
			}
			require.EqualValues(t, 1, r.samples["inlet_in_flight_requests/"+c.pool])
			r.answer(x, 200)
			require.Zero(t, r.samples["inlet_in_flight_requests/"+c.pool])
		})
	}
}

// A burst fills the first pool before it spills, and gauges need not say so.
func TestAFullPoolSpills(t *testing.T) {
	r := newRig(t, "{saturation: {inFlight: 10}}")
	r.pools(endpoint.Gauges{}, endpoint.Gauges{})
	hits := map[string]int{}
	for i := range 50 {
		x := request(uint64(i), 5)
		x.Route.Fallback = []filter.Pool{{Name: "q"}}
		r.send(t, x)
		hits[x.Target.Pool]++
	}
	require.Equal(t, map[string]int{"p": 20 + 10, "q": 20}, hits, "if all are saturated, the first is used")
}

func TestFallbackToWhoIsReady(t *testing.T) {
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
			r.snapshot.Attach(r.deps.Counters, nil)
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
			require.Equal(t, c.address, header(x, EndpointHeader))
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
			require.Zero(t, r.samples["inlet_in_flight_requests/"+c.pool])
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
	require.Empty(t, r.samples)
}

func TestMissesAreLoggedOnceAMinute(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(1)...)
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
	r.now = r.now.Add(warnPause)
	miss()
	require.Len(t, r.logs, 2)
	require.EqualValues(t, 3, r.samples["inlet_pick_total/p,missed"])
}

func TestNoReplicaInTheFirstPool(t *testing.T) {
	r := newRig(t, "{}")
	r.servePools(endpoint.Pool{Name: "p"}, endpoint.Pool{Name: "q", Endpoints: ready(1)})
	x := falling(filter.Pool{Name: "q"})
	r.send(t, x)
	require.Equal(t, "q", x.Target.Pool)
	require.Equal(t, "no-endpoints", r.f.OnRequest(falling()).Refusal().Reason)
}

// A pool of somebody else's has no replicas to choose from.
func TestExternalPools(t *testing.T) {
	r := newRig(t, "{}")
	r.pools(endpoint.Gauges{Waiting: 9}, endpoint.Gauges{})
	x := falling(filter.Pool{Name: "them", External: true}, filter.Pool{Name: "q"})
	require.Empty(t, r.send(t, x))
	require.Equal(t, "them", x.Target.Pool)
	require.Equal(t, "them", header(x, PoolHeader))
	require.Empty(t, header(x, EndpointHeader))
	r.answerFrom(x, "1.2.3.4:443", 200)

	x = request(1, 5)
	x.Route.Pool, x.Route.External = "them", true
	require.Empty(t, r.send(t, x))
	require.Equal(t, "them", x.Target.Pool)
	require.Empty(t, header(x, PoolHeader))
	r.snapshot = nil
	x = request(1, 5)
	x.Route.Pool, x.Route.External = "them", true
	require.Empty(t, r.send(t, x), "nothing need be known of it")
}

func TestShed(t *testing.T) {
	full := endpoint.Gauges{Waiting: 50}
	r := newRig(t, "{shed: true}")
	r.pools(full, endpoint.Gauges{})
	r.send(t, falling(filter.Pool{Name: "q"}))
	v := r.f.OnRequest(falling())
	require.Equal(t, 429, v.Refusal().Status)
	require.Equal(t, "rejected-saturated", v.Refusal().Reason)
	require.Equal(t, time.Second, v.Refusal().RetryAfter)
	require.EqualValues(t, 1, r.samples["inlet_pick_total/p,shed"])
	require.Zero(t, r.samples["inlet_in_flight_requests/p"])

	r = newRig(t, "{shed: false}")
	r.pools(full, full)
	require.NotEmpty(t, r.send(t, falling(filter.Pool{Name: "q"})))
}

// Retry-After is how long requests take here.
func TestRetryAfterIsMeasured(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		10 * time.Millisecond: time.Second, 4 * time.Second: 4 * time.Second, 5 * time.Minute: 30 * time.Second,
	} {
		r := newRig(t, "{shed: true, saturation: {inFlight: 1}, health: {failures: 1000}}")
		r.serve(ready(1)...)
		for i := range 20 {
			r.takes(t, uint64(i), took)
		}
		require.InDelta(t, want, r.retryAfter(t), float64(time.Millisecond))
	}

	// It is a mean, of which the latest requests are a part each.
	r := newRig(t, "{shed: true, saturation: {inFlight: 1}}")
	r.serve(ready(1)...)
	r.takes(t, 1, 16*time.Second)
	require.Equal(t, 16*time.Second, r.retryAfter(t))
	r.takes(t, 2, 0)
	require.Equal(t, 15*time.Second, r.retryAfter(t))
	r.takes(t, 3, 31*time.Second)
	require.Equal(t, 16*time.Second, r.retryAfter(t))
	for i := range 200 {
		r.takes(t, uint64(i), 4*time.Second)
	}
	require.InDelta(t, 4*time.Second, r.retryAfter(t), float64(time.Millisecond))
}

// takes has a request served in a time.
func (r *rig) takes(t *testing.T, seed uint64, d time.Duration) {
	x := request(seed, 1)
	r.send(t, x)
	r.now = r.now.Add(d)
	r.answer(x, 200)
	r.snapshot.Received = r.now
}

// retryAfter is the Retry-After of a request that arrives while another one saturates all replicas.
func (r *rig) retryAfter(t *testing.T) time.Duration {
	x := request(1, 1)
	r.send(t, x)
	defer r.f.fleet.pools["p"].keep()()
	v := r.f.OnRequest(request(2, 1))
	require.NotNil(t, v.Refusal())
	r.answer(x, 200)
	return v.Refusal().RetryAfter
}

// keep returns what takes back what is learnt meanwhile.
func (p *poolState) keep() func() {
	was := *p
	return func() { *p = was }
}

// Replicas that come and go leave nothing behind forever.
func TestTheFleetForgets(t *testing.T) {
	r := newRig(t, "{}")
	for i := range 200 {
		eps := ready(5)
		for j := range eps {
			eps[j].Address = fmt.Sprintf("10.%d.0.%d:80", i, j)
		}
		r.serve(eps...)
		r.serveOne(t, request(uint64(i), 3), 200)
		r.now = r.now.Add(time.Minute)
	}
	require.Less(t, len(r.f.fleet.members), 30*5)
	require.Len(t, r.f.fleet.byID, len(r.f.fleet.members))
	require.Len(t, r.f.fleet.views, keptViews)
}

// A new configuration knows what the one before learnt; an index of another size starts empty.
func TestANewConfigurationGoesOn(t *testing.T) {
	r := newRig(t, "{}")
	kept := map[string]any{"picker": r.f.fleet}
	r.deps.Keep = func(name string, _ func() any) any { return kept[name] }
	r.serve(ready(20)...)
	at := r.serveOne(t, request(1, 10), 200)
	r.f = r.filter(t, "{prefix: {hit: 0.5}}")
	x := request(1, 10)
	require.Equal(t, at, r.send(t, x))
	require.Contains(t, string(x.Why()), "hit=10/10")
	r.f = r.filter(t, "{prefix: {memory: 1MiB}}")
	x = request(1, 10)
	r.send(t, x)
	require.Contains(t, string(x.Why()), "hit=0/10")
}

// What served is told in the memory of one exchange. A replica that no snapshot has is one replica all the same.
func TestUnlistedReplicasAreKeptByName(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(1)...)
	memory := []byte("10.9.9.9:80")
	served := unsafe.String(&memory[0], len(memory))
	for range 3 {
		x := request(1, 10)
		r.send(t, x)
		copy(memory, "10.9.9.9:80")
		r.answerFrom(x, served, 200)
		copy(memory, "secret12345")
	}
	require.Len(t, r.f.fleet.members, 2)
	require.Contains(t, r.f.fleet.members, "10.9.9.9:80")
	require.Equal(t, "10.9.9.9:80", r.f.fleet.find("10.9.9.9:80").address)
}

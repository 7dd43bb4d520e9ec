package picker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// samples keeps the sum of each series.
type samples map[string]int64

func (m samples) Counter(name string, _ ...string) filter.Metric   { return sample{m, name} }
func (m samples) Gauge(name string, _ ...string) filter.Metric     { return sample{m, name} }
func (m samples) Histogram(name string, _ ...string) filter.Metric { return sample{m, name} }

type sample struct {
	m    samples
	name string
}

func (s sample) Record(n int64, v filter.Values) {
	s.m[s.name+"/"+strings.Trim(strings.Join(v[:], ","), ",")] += n
}

type headers map[string]string

func (h headers) Get(name string) (string, bool) { v, ok := h[name]; return v, ok }

func (h headers) At(name string, n int) (string, bool) { v, ok := h[name]; return v, ok && n == 0 }

func (h headers) Line(n int) (name, value string, ok bool) {
	if n >= len(h) {
		return "", "", false
	}
	name = slices.Sorted(maps.Keys(h))[n]
	return name, h[name], true
}

// rig is a picker with a snapshot and a clock that a test can change.
type rig struct {
	f        *Filter
	now      time.Time
	snapshot *endpoint.Snapshot
	samples  samples
	logs     []string
	deps     *filter.Deps
}

// strictMutex is a lock for one thread: locked twice it would wait forever, and panics.
type strictMutex struct{ locked bool }

func (m *strictMutex) Lock()   { m.turn(true) }
func (m *strictMutex) Unlock() { m.turn(false) }

func (m *strictMutex) turn(locked bool) {
	if m.locked == locked {
		panic("locked or unlocked twice")
	}
	m.locked = locked
}

func newRig(t require.TestingT, doc string) *rig {
	rng := rand.New(rand.NewPCG(3, 4))
	r := &rig{samples: samples{}, now: time.Unix(100, 0)}
	r.deps = &filter.Deps{
		Now:      func() time.Time { return r.now },
		Rand:     rng.Uint64,
		Store:    mem.NewStore(),
		Counters: mem.NewCounters(),
		Snapshot: func() *endpoint.Snapshot { return r.snapshot },
		Metrics:  r.samples,
		Log:      func(_ filter.Level, m string) { r.logs = append(r.logs, m) },
		NewMutex: func() filter.Mutex { return new(strictMutex) },
	}
	r.f = r.filter(t, doc)
	return r
}

// filter makes a picker of the rig's process.
func (r *rig) filter(t require.TestingT, doc string) *Filter {
	var f filter.Filter
	require.NoError(t, conf.Decode([]byte(doc), func(o *conf.Object) { f = newFilter(o, r.deps) }))
	return f.(*Filter)
}

// serve sets the replicas of pool p; each is freshly read.
func (r *rig) serve(eps ...endpoint.Endpoint) { r.servePools(endpoint.Pool{Name: "p", Endpoints: eps}) }

func (r *rig) servePools(pools ...endpoint.Pool) {
	for _, p := range pools {
		for i := range p.Endpoints {
			p.Endpoints[i].Gauges.Known = true
		}
	}
	r.snapshot = &endpoint.Snapshot{Received: r.now, Pools: pools}
	r.snapshot.Attach(r.deps.Counters, nil)
}

// ready is n replicas that are ready and idle.
func ready(n int) []endpoint.Endpoint {
	eps := make([]endpoint.Endpoint, n)
	for i := range eps {
		eps[i] = endpoint.Endpoint{Address: fmt.Sprintf("10.0.%d.%03d:80", i/250, i%250), Ready: true}
	}
	return eps
}

// request is a request to pool p with a prompt of so many blocks; the same seed
// gives the same prompt, and a longer one goes on from a shorter one.
func request(seed uint64, blocks int) *filter.Exchange {
	x := &filter.Exchange{}
	x.Reset(1)
	x.Route.Pool = "p"
	x.RequestHeaders = headers{}
	x.Request = &llm.Request{PromptBytes: blocks*llm.PrefixBlockBytes + 100, Prefix: make([]uint64, blocks)}
	rng := rand.New(rand.NewPCG(seed, 5))
	for i := range x.Request.Prefix {
		x.Request.Prefix[i] = rng.Uint64()
	}
	return x
}

// pick has a request without a prompt picked for.
func (r *rig) pick(x *filter.Exchange) filter.Verdict {
	*x = *request(0, 0)
	return r.f.OnRequest(x)
}

// send has a request picked for that nobody answers yet, and returns where it went.
func (r *rig) send(t require.TestingT, x *filter.Exchange) string {
	require.Equal(t, filter.Next, r.f.OnRequest(x))
	return x.Target.Address
}

// answer ends a request with a status by the replica that was picked.
func (r *rig) answer(x *filter.Exchange, status int) { r.answerFrom(x, x.Target.Address, status) }

func (r *rig) answerFrom(x *filter.Exchange, served string, status int) {
	x.Response.Served, x.Response.Status = served, status
	r.f.OnResponseHeaders(x)
	r.f.OnDone(x, filter.End{Complete: true, Status: status, At: r.now})
}

// serveOne sends a request and has it answered.
func (r *rig) serveOne(t require.TestingT, x *filter.Exchange, status int) string {
	at := r.send(t, x)
	r.answer(x, status)
	return at
}

func (r *rig) inFlight(address string) int64 { return r.deps.Counters.Open(address).Value() }
func (r *rig) tokens(address string) int64   { return r.deps.Counters.Open(address + "#tokens").Value() }

func header(x *filter.Exchange, name string) string {
	for _, h := range x.Effects().Request {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func TestRankedList(t *testing.T) {
	for _, profile := range []string{"sticky", "least-request", "weighted"} {
		r := newRig(t, "{endpoints: 3, profile: "+profile+"}")
		eps := ready(4)
		for i, waiting := range []int{9, 0, 3, 20} {
			eps[i].Gauges.Waiting = waiting
		}
		r.serve(eps...)
		x := request(0, 0)
		require.Equal(t, "10.0.0.001:80", r.send(t, x))
		require.Equal(t, "10.0.0.001:80,10.0.0.002:80,10.0.0.000:80", header(x, EndpointHeader), profile)
		require.EqualValues(t, 1, r.samples["inlet_pick_total/p,picked"])
		require.Equal(t, "p", x.Target.Pool)
	}
}

func TestOnlyReadyReplicas(t *testing.T) {
	for _, p := range profiles {
		r := newRig(t, "profile: "+p.name)
		eps := ready(3)
		eps[0].Ready, eps[2].Ready = false, false
		eps[1].Gauges.Waiting = 1000
		r.serve(eps...)
		x := &filter.Exchange{}
		r.pick(x)
		require.Equal(t, "10.0.0.001:80", header(x, EndpointHeader))
	}
}

func TestNoReplica(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(endpoint.Endpoint{Address: "10.0.0.1:80"})
	v := r.pick(&filter.Exchange{})
	require.Equal(t, 503, v.Refusal().Status)
	require.Equal(t, "no-endpoints", v.Refusal().Reason)
	require.Positive(t, v.Refusal().RetryAfter)
	r.serve()
	require.Equal(t, "no-endpoints", r.pick(&filter.Exchange{}).Refusal().Reason)
}

func TestNothingKnown(t *testing.T) {
	r := newRig(t, "{}")
	x := &filter.Exchange{}
	require.Equal(t, "no-snapshot", r.pick(x).Failure())
	r.serve(ready(1)...)
	x = request(0, 0)
	x.Route.Pool = "another"
	require.Equal(t, "no-snapshot", r.f.OnRequest(x).Failure())
	x = request(0, 0)
	x.Route.Pool = ""
	require.Equal(t, filter.Next, r.f.OnRequest(x), "no pool: an ordinary route decides")
	require.Empty(t, header(x, EndpointHeader))
}

func TestPoolOfItsOwn(t *testing.T) {
	r := newRig(t, "pool: p")
	r.serve(ready(1)...)
	x := request(0, 0)
	x.Route.Pool = ""
	require.Equal(t, "10.0.0.000:80", r.send(t, x))
}

// Every profile works with one replica and with very many.
func TestFewAndMany(t *testing.T) {
	for _, p := range profiles {
		for _, n := range []int{0, 1, 3, 2000} {
			r := newRig(t, "profile: "+p.name)
			r.serve(ready(n)...)
			for seed := range uint64(20) {
				x := request(seed, 3)
				if n == 0 {
					require.Equal(t, 503, r.f.OnRequest(x).Refusal().Status)
					continue
				}
				require.NotEmpty(t, r.send(t, x))
				require.Len(t, strings.Split(header(x, EndpointHeader), ","), min(n, 3))
			}
		}
	}
}

// Equal replicas are equally likely, whatever their place in the list. (Routers
// of this field have sent everything to replica 0 as long as there was little.)
func TestTiesAreBrokenAtRandom(t *testing.T) {
	for _, p := range profiles {
		r := newRig(t, "profile: "+p.name)
		r.serve(ready(4)...)
		hits := map[string]int{}
		for range 4000 {
			hits[r.serveOne(t, request(0, 0), 200)]++
		}
		require.Len(t, hits, 4)
		for _, n := range hits {
			require.InDelta(t, 1000, n, 4*27.4, p.name) // four standard deviations
		}
	}
}

func TestChargeMovesToWhoServes(t *testing.T) {
	for _, c := range []struct {
		served, outcome string
		warns           bool
	}{{"10.0.0.001:80", "retried", false}, {"10.9.9.9:80", "missed", true}} {
		r := newRig(t, "{}")
		eps := ready(2)
		eps[1].Gauges.Waiting = 1
		r.serve(eps...)
		x := request(1, 10)
		require.Equal(t, "10.0.0.000:80", r.send(t, x))
		require.EqualValues(t, 1, r.inFlight("10.0.0.000:80"))
		tokens := r.tokens("10.0.0.000:80")
		require.EqualValues(t, (10*256+100)/4+tokensOfRequest, tokens)
		x.Response.Served, x.Response.Status = c.served, 200
		require.Equal(t, filter.Next, r.f.OnResponseHeaders(x))
		require.Zero(t, r.inFlight("10.0.0.000:80"))
		require.Zero(t, r.tokens("10.0.0.000:80"))
		require.EqualValues(t, 1, r.inFlight(c.served))
		require.Equal(t, tokens, r.tokens(c.served))
		require.EqualValues(t, 1, r.samples["inlet_pick_total/p,"+c.outcome])
		require.Equal(t, c.warns, len(r.logs) == 1)
		r.f.OnDone(x, filter.End{})
		require.Zero(t, r.inFlight(c.served))
		require.Zero(t, r.tokens(c.served))
	}
}

// However exchanges run and end, and replicas come, go and fail meanwhile, what
// is in flight returns to zero and is never negative on the way.
func TestInFlightReturnsToZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		profile := rapid.SampledFrom(profileNames(profiles)).Draw(t, "profile")
		r := newRig(t, "{health: {failures: 1, eject: 1s}, profile: "+profile+"}")
		r.serve(ready(3)...)
		var open []*filter.Exchange
		addresses := []string{"10.0.0.000:80", "10.0.0.001:80", "10.0.0.002:80", "10.7.7.7:80"}
		for range rapid.IntRange(1, 50).Draw(t, "events") {
			r.now = r.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			switch op := rapid.IntRange(0, 5).Draw(t, "op"); {
			case op == 0:
				eps := ready(3)
				for i := range eps {
					eps[i].Ready = rapid.Bool().Draw(t, "ready")
				}
				r.serve(eps[:rapid.IntRange(1, 3).Draw(t, "replicas")]...)
			case op <= 2 || len(open) == 0:
				x := request(rapid.Uint64Range(0, 3).Draw(t, "prompt"), rapid.IntRange(0, 20).Draw(t, "blocks"))
				r.f.OnRequest(x)
				open = append(open, x)
			default:
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				open[i].Response.Served = rapid.SampledFrom(append(addresses, "")).Draw(t, "served")
				open[i].Response.Status = rapid.SampledFrom([]int{200, 404, 429, 500, 503}).Draw(t, "status")
				open[i].Response.Attempts = rapid.IntRange(0, 3).Draw(t, "attempts")
				open[i].Response.Origin = filter.Origin(rapid.IntRange(0, 2).Draw(t, "origin"))
				r.f.OnResponseHeaders(open[i])
				if rapid.Bool().Draw(t, "first byte") {
					r.f.OnFirstByte(open[i])
				}
				if rapid.Bool().Draw(t, "ends") {
					r.f.OnDone(open[i], filter.End{Broken: rapid.Bool().Draw(t, "broken"), At: r.now})
					open = append(open[:i], open[i+1:]...)
				}
			}
			for _, a := range addresses {
				if r.inFlight(a) < 0 || r.tokens(a) < 0 {
					t.Fatalf("%s: %d in flight, %d tokens", a, r.inFlight(a), r.tokens(a))
				}
			}
		}
		for _, x := range open {
			r.f.OnDone(x, filter.End{})
		}
		for _, a := range addresses {
			if n, tokens := r.inFlight(a), r.tokens(a); n != 0 || tokens != 0 {
				t.Fatalf("%s: %d in flight, %d tokens after everything ended", a, n, tokens)
			}
		}
		if n := r.samples["inlet_in_flight_requests/p"]; n != 0 {
			t.Fatalf("the gauge stands at %d", n)
		}
		out := 0
		for _, m := range r.f.fleet.members {
			if m.health.ejected {
				out++
			}
			require.Equal(t, m.health.ejected, m.ejected.Value() == 1)
			require.Equal(t, m.health.backoffUntil.IsZero(), m.backingOff.Value() == 0)
			require.False(t, m.health.probing)
		}
		require.EqualValues(t, out, r.f.fleet.ejected.Value())
		require.EqualValues(t, len(r.f.fleet.backoffs), r.f.fleet.backingOff.Value())
		require.False(t, r.f.fleet.isBackingOff(r.now.Add(time.Hour)))
	})
}

func TestRoundRobin(t *testing.T) {
	r := newRig(t, "profile: round-robin")
	r.serve(ready(3)...)
	var order []string
	for range 6 {
		order = append(order, r.send(t, request(0, 0)))
	}
	require.Equal(t, order[:3], order[3:])
	require.NotEqual(t, order[0], order[1])
	require.NotEqual(t, order[1], order[2])
}

func TestSessionProfile(t *testing.T) {
	r := newRig(t, "{profile: session, session: {header: x-s}}")
	r.serve(ready(8)...)
	used := map[string]bool{}
	for session := range 50 {
		first := ""
		for range 3 {
			x := request(uint64(session), 0)
			x.RequestHeaders = headers{"x-s": fmt.Sprint("s", session)}
			at := r.send(t, x)
			if first == "" {
				first = at
			}
			require.Equal(t, first, at)
		}
		used[first] = true
	}
	require.Len(t, used, 8)
	hits := map[string]int{}
	r = newRig(t, "profile: session")
	r.serve(ready(4)...)
	for range 40 {
		hits[r.send(t, request(0, 0))]++
	}
	require.Equal(t, map[string]int{"10.0.0.000:80": 10, "10.0.0.001:80": 10, "10.0.0.002:80": 10, "10.0.0.003:80": 10}, hits,
		"without a session the load decides")
}

// Each worker begins elsewhere, so that those of one Envoy do not all begin with the same replica.
func TestRoundRobinBeginsAnywhere(t *testing.T) {
	first := map[string]bool{}
	for worker := range uint64(4) {
		r := newRig(t, "profile: round-robin")
		r.f.deps.Rand = func() uint64 { return worker << 1 }
		r.serve(ready(4)...)
		first[r.send(t, request(0, 0))] = true
	}
	require.Len(t, first, 4)
}

func TestExplain(t *testing.T) {
	r := newRig(t, "{explainHeader: x-why}")
	r.serve(ready(1)...)
	r.serveOne(t, request(1, 10), 200)
	x := request(1, 20)
	r.serveOne(t, x, 200)
	require.Equal(t, "picker=sticky candidates=1 hit=10/20 in-flight=0 tokens=0", string(x.Why()))
	require.Equal(t, []filter.HeaderEdit{{Name: "x-why", Value: string(x.Why())}}, x.Effects().Response)
	require.EqualValues(t, 30*64, r.samples["inlet_prefix_indexer_prompt_tokens_total/p"])
	require.EqualValues(t, 10*64, r.samples["inlet_prefix_indexer_hit_tokens_total/p"])
	require.EqualValues(t, 20, r.samples["inlet_prefix_indexer_size/p"])
}

// The gauge of the index is what it holds, block by block, also when some are taken back.
func TestTheSizeOfTheIndex(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(1)...)
	for blocks, status := range []int{200, 200, 200, 503, 200} {
		r.serveOne(t, request(1, blocks), status)
		r.serveOne(t, request(2, 1), 200) // tells what was taken back before
		require.EqualValues(t, r.f.fleet.index.Len(), r.samples["inlet_prefix_indexer_size/p"], blocks)
	}
	require.EqualValues(t, 4+1, r.samples["inlet_prefix_indexer_size/p"])
}

// What was looked for among prefixes is said of any prompt that has a full block, and of no other.
func TestExplainOfShortPrompts(t *testing.T) {
	r := newRig(t, "{explainHeader: x-why}")
	r.serve(ready(1)...)
	for blocks, want := range []string{"", " hit=0/1", " hit=1/2", " hit=2/3"} {
		x := request(1, blocks)
		r.serveOne(t, x, 200)
		require.Equal(t, "picker=sticky candidates=1"+want+" in-flight=0 tokens=0", string(x.Why()))
	}
}

func BenchmarkPick(b *testing.B) {
	for _, p := range profiles {
		for _, n := range []int{8, 100, 1000, 2000} {
			b.Run(fmt.Sprintf("%s/replicas=%d", p.name, n), func(b *testing.B) {
				choose, s := chooser(b, p.name, n, min(4*n, 4000))
				b.ReportAllocs()
				for b.Loop() {
					choose()
				}
				if len(s.ranked) != 3 {
					b.Fatal("no list")
				}
			})
		}
	}
}

// chooser returns the whole decision for one request, of a prompt of 64 blocks
// (4,096 tokens) whose beginning some replicas hold, of n that have served so many
// prompts.
func chooser(t require.TestingT, profile string, n, prompts int) (func(), *state) {
	r := newRig(t, "{endpoints: 3, profile: "+profile+"}")
	eps := ready(n)
	for i := range eps {
		eps[i].Gauges.Waiting, eps[i].Gauges.Running = i%4, i%8
	}
	r.serve(eps...)
	for seed := range uint64(prompts) {
		x := request(seed, 40)
		if seed%3 > 0 {
			x = request(1, 20) // what many prompts begin with
			x.Request.Prefix = append(x.Request.Prefix, request(seed, 30).Request.Prefix...)
		}
		r.send(t, x)
	}
	x := request(1, 20)
	x.Request.Prefix = append(x.Request.Prefix, request(2, 44).Request.Prefix...)
	s := &state{pick: &pick{}}
	return func() {
		s.reset()
		s.read(r.f, x)
		r.f.choosePool(x, s, s.begin(r.f, r.now), filter.Pool{Name: "p"})
		s.rank()
	}, s
}

// Requests that wait for their answers keep nothing that grows with the pool.
func TestWaitingRequestsAreSmall(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(1000)...)
	for seed := range uint64(50) {
		x := request(seed, 10)
		r.send(t, x)
		require.Nil(t, stateOf(x).pick)
	}
	require.Len(t, r.f.fleet.unused, 1)
}

func TestADefectLosesNoMemory(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(3)...)
	r.send(t, request(0, 0))
	sound := r.f.deps.Rand
	r.f.deps.Rand = func() uint64 { panic("a defect") }
	x := request(1, 3)
	for range 2 {
		require.Panics(t, func() { r.f.OnRequest(x) })
		require.Nil(t, stateOf(x).pick)
		require.Len(t, r.f.fleet.unused, 1)
	}
	r.f.deps.Rand = sound
	require.NotEmpty(t, r.send(t, request(2, 3)))
}

func TestChoosingAllocatesNothing(t *testing.T) {
	for _, p := range profiles {
		for _, n := range []int{1, 100, 2000} {
			choose, s := chooser(t, p.name, n, 50)
			choose()
			require.Len(t, s.ranked, min(n, 3))
			require.Zero(t, testing.AllocsPerRun(10, choose), p.name)
		}
	}
}

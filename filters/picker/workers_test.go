package picker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

const tick = 20 * time.Millisecond

// workers are wasm VMs of one Envoy: each has a picker, and nothing in common with
// the others but a store.
type workers struct {
	rigs    []*rig
	ledgers []*kv.Ledger
	turn    int
}

func newWorkers(t require.TestingT, n int, doc string) *workers {
	w := &workers{}
	store := mem.NewStore()
	for i := range n {
		r := &rig{samples: samples{}, now: time.Unix(100, 0)}
		ledger := kv.NewLedger(store, fmt.Sprint(i), func() time.Time { return r.now }, 3*tick)
		r.deps = &filter.Deps{
			Now: func() time.Time { return r.now }, Rand: rand.New(rand.NewPCG(uint64(i), 1)).Uint64,
			Store: store, Counters: ledger, Worker: fmt.Sprint(i), Metrics: r.samples,
			Snapshot: func() *endpoint.Snapshot { return r.snapshot }, Log: func(filter.Level, string) {},
		}
		r.f = r.filter(t, doc)
		w.rigs, w.ledgers = append(w.rigs, r), append(w.ledgers, ledger)
	}
	return w
}

func (w *workers) serve(eps []endpoint.Endpoint) {
	for _, r := range w.rigs {
		r.serve(eps...)
	}
}

// tick lets all exchange what they know, each once.
func (w *workers) tick(t require.TestingT) {
	for _, ledger := range w.ledgers {
		require.NoError(t, ledger.Tick())
	}
	for i, r := range w.rigs {
		r.now = r.now.Add(tick)
		r.f.OnTick()
		require.NoError(t, w.ledgers[i].Tick())
	}
}

// next is the worker that gets the next request.
func (w *workers) next() *rig {
	w.turn++
	return w.rigs[w.turn%len(w.rigs)]
}

// A burst of different prompts within one scrape spreads, in whatever part of a
// tick it comes.
func TestABurstSpreadsAmongWorkers(t *testing.T) {
	for _, perTick := range []int{1, 10, 200} {
		w := newWorkers(t, 4, "{}")
		w.serve(ready(8))
		w.tick(t)
		hits := map[string]int{}
		for i := range 200 {
			if i%perTick == 0 {
				w.tick(t)
			}
			hits[w.next().send(t, request(uint64(i), 20))]++
		}
		require.LessOrEqual(t, most(hits), 200/8*13/10, "%d a tick: %v", perTick, hits)
	}
}

// A burst of one prompt goes to one replica, through whichever worker, also within
// one tick; when that has more than its share, to a second one.
func TestOnePromptStaysAmongWorkers(t *testing.T) {
	for _, perTick := range []int{1, fewRequests} {
		w := newWorkers(t, 4, "{}")
		w.serve(ready(8))
		w.tick(t)
		hits := map[string]int{}
		for i := range fewRequests {
			if i%perTick == 0 {
				w.tick(t)
			}
			hits[w.next().send(t, request(1, 20))]++
		}
		require.Len(t, hits, 1, "%d a tick", perTick)
		w.tick(t)
		for i := range 240 {
			if i%10 == 0 {
				w.tick(t)
			}
			hits[w.next().send(t, request(1, 20))]++
		}
		require.Greater(t, len(hits), 5)
		require.LessOrEqual(t, most(hits), 38+fewRequests+10, "the bound, and what was sent within one tick")
	}
}

// A conversation whose turns come to different workers stays where it is.
func TestAConversationStaysAmongWorkers(t *testing.T) {
	w := newWorkers(t, 4, "{}")
	w.serve(ready(8))
	w.tick(t)
	at := map[uint64]string{}
	for turn := range 10 {
		for conversation := range uint64(30) {
			to := w.next().serveOne(t, request(conversation, 20+turn), 200)
			if turn > 0 {
				require.Equal(t, at[conversation], to)
			}
			at[conversation] = to
		}
		w.tick(t)
	}
	used := map[string]bool{}
	for _, to := range at {
		used[to] = true
	}
	require.GreaterOrEqual(t, len(used), 6)
}

// A worker that comes late, as a VM that replaces a dead one, learns what was told
// lately.
func TestALateWorkerLearns(t *testing.T) {
	w := newWorkers(t, 2, "{}")
	w.serve(ready(8))
	w.tick(t)
	at := w.rigs[0].serveOne(t, request(1, 20), 200)
	w.tick(t)
	late := &rig{samples: samples{}, now: w.rigs[0].now, deps: &filter.Deps{}}
	*late.deps = *w.rigs[0].deps
	late.deps.Worker = "late"
	late.deps.Counters = mem.NewCounters()
	late.f = late.filter(t, "{}")
	late.snapshot = w.rigs[0].snapshot
	late.deps.Snapshot = func() *endpoint.Snapshot { return late.snapshot }
	late.f.OnTick()
	x := request(1, 20)
	require.Equal(t, at, late.send(t, x))
	require.Contains(t, string(x.Why()), "hit=20/20")
}

// The threads of a native module share one fleet.
func TestThreadsShareAFleet(t *testing.T) {
	snapshots := []*endpoint.Snapshot{}
	counters := mem.NewCounters()
	for v := range 3 {
		s := &endpoint.Snapshot{Version: uint64(v), Pools: []endpoint.Pool{{Name: "p", Endpoints: ready(10 + v)}}}
		s.Attach(counters, nil)
		snapshots = append(snapshots, s)
	}
	var metrics discard
	deps := &filter.Deps{
		Now: time.Now, Rand: rand.Uint64, Counters: counters, Metrics: metrics, Log: func(filter.Level, string) {},
		Snapshot: func() *endpoint.Snapshot { return snapshots[rand.IntN(len(snapshots))] },
		NewMutex: func() filter.Mutex { return new(sync.Mutex) },
	}
	f := (&rig{deps: deps}).filter(t, "{health: {failures: 2, eject: 100ms}, prefix: {memory: 64KiB}}")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				x := request(uint64(i%20), i%30)
				f.OnRequest(x)
				x.Response.Served, x.Response.Status = x.Target.Address, []int{200, 200, 503}[rand.IntN(3)]
				f.OnResponseHeaders(x)
				f.OnDone(x, filter.End{Complete: true, Status: x.Response.Status})
			}
		})
	}
	wg.Wait()
	for _, e := range snapshots[2].Pools[0].Endpoints {
		require.Zero(t, counters.Open(e.Address).Value())
		require.Zero(t, counters.Open(e.Address+"#tokens").Value())
	}
}

// discard is metrics that any number of threads may record.
type discard struct{}

func (discard) Counter(string, ...string) filter.Metric   { return discard{} }
func (discard) Gauge(string, ...string) filter.Metric     { return discard{} }
func (discard) Histogram(string, ...string) filter.Metric { return discard{} }
func (discard) Record(int64, filter.Values)               {}

// BenchmarkThreads is a whole request through the picker, by as many threads as
// there are processors, that share one fleet.
func BenchmarkThreads(b *testing.B) {
	counters := mem.NewCounters()
	s := &endpoint.Snapshot{Received: time.Now(), Pools: []endpoint.Pool{{Name: "p", Endpoints: ready(100)}}}
	s.Attach(counters, nil)
	deps := &filter.Deps{
		Now: time.Now, Rand: rand.Uint64, Counters: counters, Metrics: discard{}, Log: func(filter.Level, string) {},
		Snapshot: func() *endpoint.Snapshot { return s },
		NewMutex: func() filter.Mutex { return new(sync.Mutex) },
	}
	f := (&rig{deps: deps}).filter(b, "{}")
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		x := request(rand.Uint64(), 64)
		template := *x.Request
		for p.Next() {
			x.Reset(1)
			x.Route.Pool, x.RequestHeaders, x.Request = "p", headers{}, &template
			template.Prefix[len(template.Prefix)-1]++ // a new question about the same page
			f.OnRequest(x)
			x.Response.Served, x.Response.Status = x.Target.Address, 200
			f.OnResponseHeaders(x)
			f.OnDone(x, filter.End{Complete: true, Status: 200})
		}
	})
}

package relay_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// fleet is replicas whose gauges a test reads and sets; read is when each was scraped.
type fleet struct {
	pools []endpoint.Pool
	read  map[string]time.Time
}

func newFleet(sizes ...int) *fleet {
	f := &fleet{read: map[string]time.Time{}}
	for i, n := range sizes {
		f.pools = append(f.pools, endpoint.Pool{Name: fmt.Sprint("pool-", i)})
		for j := range n {
			f.pools[i].Endpoints = append(f.pools[i].Endpoints, endpoint.Endpoint{
				Address: fmt.Sprintf("10.0.%d.%02d:80", i, j), Ready: true, Gauges: endpoint.Gauges{Known: true},
			})
			f.scrape(i, j)
		}
	}
	return f
}

func (f *fleet) scrape(pool, i int) *endpoint.Endpoint {
	e := &f.pools[pool].Endpoints[i]
	f.read[e.Address] = time.Now()
	return e
}

// now returns the pools with the ages of now.
func (f *fleet) now() []endpoint.Pool {
	for _, p := range f.pools {
		for i := range p.Endpoints {
			p.Endpoints[i].Gauges.Age = time.Since(f.read[p.Endpoints[i].Address])
		}
	}
	return f.pools
}

func size(r http.Handler, have *endpoint.Snapshot) int {
	return get(r, endpoint.Path(have, "w", 0)).Body.Len()
}

// A proxy that has the version before gets the few endpoints that changed; one that has nothing, or another list, gets all.
func TestDeltas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(500, 500)
		r := relay.New(relay.Options{})
		r.Publish(f.now())
		first := poll(t, r, nil, 0)
		whole := size(r, nil)

		f.scrape(1, 7).Gauges.Waiting = 9
		f.scrape(0, 3).LoRA = &endpoint.LoRA{Running: []string{"sql"}, Max: 4}
		r.Publish(f.now())
		require.LessOrEqual(t, size(r, first), 2*100)
		second := poll(t, r, first, 0)
		require.Equal(t, 9, second.Pools[1].Endpoints[7].Gauges.Waiting)
		require.Equal(t, []string{"sql"}, second.Pools[0].Endpoints[3].LoRA.Running)
		require.Greater(t, size(r, nil), whole)

		f.scrape(1, 8).Ready = false
		r.Publish(f.now())
		fromFirst, fromSecond := poll(t, r, first, 0), poll(t, r, second, 0)
		require.Empty(t, cmp.Diff(fromFirst, fromSecond), "it is the same whether one was away or not")
		require.Empty(t, cmp.Diff(poll(t, r, nil, 0), fromSecond))

		for name, change := range map[string]func(){
			"a cache":     func() { f.scrape(0, 0).Cache = endpoint.Cache{BlockTokens: 16, Blocks: 9} },
			"a priority":  func() { f.scrape(0, 0).Priority = 1 },
			"a restart":   func() { f.scrape(1, 0).Started = 1_789_999_000 },
			"models":      func() { f.scrape(0, 1).Models = &endpoint.Models{Names: []string{"m"}} },
			"one is gone": func() { f.pools[1].Endpoints = f.pools[1].Endpoints[1:] },
		} {
			have := poll(t, r, nil, 0)
			change()
			r.Publish(f.now())
			require.GreaterOrEqual(t, size(r, have), whole*9/10, name)
			require.Empty(t, cmp.Diff(poll(t, r, nil, 0), poll(t, r, have, 0)), name)
		}
		stats := r.Stats()
		require.EqualValues(t, 4, stats.Deltas)
	})
}

// Whatever happens, a proxy that follows has what the companion has; it believes no gauge to be younger than it is, and none that is read
// again and again to be much older.
func TestProxiesThatFollow(t *testing.T) {
	const heartbeat, interval = 500 * time.Millisecond, 100 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { // no deadline: there is none in virtual time
			f := newFleet(3, 0, 2)
			healthy := map[string]bool{}
			r := relay.New(relay.Options{Heartbeat: heartbeat})
			r.Publish(f.now())
			var have [2]*endpoint.Snapshot
			for range rapid.IntRange(1, 30).Draw(rt, "steps") {
				time.Sleep(interval)
				for i, p := range f.pools {
					for j := range p.Endpoints {
						healthy[p.Endpoints[j].Address] = (i+j)%3 > 0
						if (i+j)%3 == 0 {
							continue // its scrapes fail
						}
						e := f.scrape(i, j)
						switch rapid.IntRange(0, 20).Draw(rt, "change") {
						case 0:
							e.Gauges.Waiting++
						case 1:
							e.LoRA = &endpoint.LoRA{Max: rapid.IntRange(0, 2).Draw(rt, "max")}
						case 2:
							e.Models = &endpoint.Models{Names: []string{rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "model")}}
						}
					}
				}
				r.Publish(f.now())
				for i := range have {
					if i == 1 && rapid.IntRange(0, 3).Draw(rt, "away") > 0 {
						continue // the second one calls now and then
					}
					w := get(r, endpoint.Path(have[i], fmt.Sprint(i), 0))
					if w.Code != http.StatusOK {
						continue
					}
					var err error
					have[i], err = endpoint.Apply(have[i], w.Body.Bytes())
					require.NoError(rt, err)
					have[i].Received = time.Now()
				}
				for i, s := range have {
					if s == nil || i == 1 && time.Since(s.Received) > 0 {
						continue
					}
					require.Empty(rt, cmp.Diff(r.Snapshot().Pools, s.Pools, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(endpoint.Gauges{}, "Age")))
					for _, p := range s.Pools {
						for _, e := range p.Endpoints {
							believed, real := e.Gauges.Age+time.Since(s.Received), time.Since(f.read[e.Address])
							require.GreaterOrEqual(rt, believed, real.Truncate(time.Microsecond))
							if healthy[e.Address] {
								require.LessOrEqual(rt, believed, 3*heartbeat/2+2*interval)
							}
						}
					}
				}
			}
		})
	})
}

// A busy fleet: of 1,000 replicas a tenth changes with every version, and a proxy follows.
func BenchmarkFollow1000(b *testing.B) {
	f := newFleet(1000)
	r := relay.New(relay.Options{})
	r.Publish(f.now())
	w := get(r, endpoint.Path(nil, "w", 0))
	have, err := endpoint.Decode(w.Body.Bytes())
	require.NoError(b, err)
	b.ReportAllocs()
	bytes := 0
	for n := 0; b.Loop(); n++ {
		for i := range 100 {
			f.scrape(0, i*10).Gauges.Waiting = n + 1
		}
		r.Publish(f.now())
		w := get(r, endpoint.Path(have, "w", 0))
		bytes += w.Body.Len()
		if have, err = endpoint.Apply(have, w.Body.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bytes)/float64(b.N)/100, "bytes/change")
}

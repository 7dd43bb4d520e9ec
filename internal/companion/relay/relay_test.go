package relay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const heartbeat = endpoint.DefaultStale / 4

// queue is one pool with one replica whose queue has that length.
func queue(waiting int) []endpoint.Pool { return aged(waiting, 0) }

func aged(waiting int, age time.Duration) []endpoint.Pool {
	return []endpoint.Pool{{Name: "llama", Endpoints: []endpoint.Endpoint{
		{Address: "10.0.0.1:8000", Ready: true, Gauges: endpoint.Gauges{Known: true, Age: age, Waiting: waiting, Running: 1, KVUse: 0.25}},
	}}}
}

// get makes one call in this goroutine.
func get(r http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// poll makes the proxy's call, which must be answered with a snapshot.
func poll(t require.TestingT, r http.Handler, have *endpoint.Snapshot, wait time.Duration) *endpoint.Snapshot {
	w := get(r, endpoint.Path(have, "w1", wait))
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	require.Equal(t, endpoint.ContentType, w.Header().Get("Content-Type"))
	s, err := endpoint.Apply(have, w.Body.Bytes())
	require.NoError(t, err)
	return s
}

// waitFor starts a call in the background and returns where its answer comes.
func waitFor(r http.Handler, path string) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() { answer <- get(r, path) }()
	return answer
}

func TestTheFirstCallIsAnsweredAtOnce(t *testing.T) {
	r := relay.New(relay.Options{Source: 9})
	r.Publish(queue(3))
	s := poll(t, r, nil, time.Hour)
	require.EqualValues(t, 9, s.Source)
	require.EqualValues(t, 1, s.Version)
	require.Equal(t, 3, s.Pool("llama").Endpoints[0].Gauges.Waiting)
}

func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{})
		r.Publish(queue(3))
		have := poll(t, r, nil, 0)

		began := time.Now()
		w := get(r, endpoint.Path(have, "w1", 20*time.Second))
		require.Equal(t, http.StatusNotModified, w.Code)
		require.Zero(t, w.Body.Len())
		require.Equal(t, 20*time.Second, time.Since(began))

		began = time.Now()
		answer := waitFor(r, endpoint.Path(have, "w1", 20*time.Second))
		time.Sleep(7 * time.Second)
		r.Publish(queue(4))
		w = <-answer
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, 7*time.Second, time.Since(began), "a change is told at once")

		require.Equal(t, http.StatusNotModified, get(r, endpoint.Path(poll(t, r, nil, 0), "w1", 0)).Code, "a call that does not want to wait")
	})
}

// A proxy that has another state than this one is answered at once: an older version, one of another process, a version that is not there yet.
func TestAnyOtherStateIsAnsweredAtOnce(t *testing.T) {
	r := relay.New(relay.Options{Source: 9})
	r.Publish(queue(3))
	first := poll(t, r, nil, time.Hour)
	r.Publish(queue(4))
	for _, have := range []*endpoint.Snapshot{first, {Source: 8, Version: 2}, {Source: 9, Version: 3}} {
		require.EqualValues(t, 2, poll(t, r, have, time.Hour).Version)
	}
}

// A companion that has just started lets proxies keep what they have until it knows better.
func TestBeforeTheFirstSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{})
		w := get(r, endpoint.Path(&endpoint.Snapshot{Source: 1, Version: 7}, "w1", time.Second))
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.Equal(t, http.StatusServiceUnavailable, get(r, "/v1/snapshot.json").Code)

		answer := waitFor(r, endpoint.Path(nil, "w1", time.Minute))
		time.Sleep(time.Second)
		r.Publish(queue(3))
		require.Equal(t, http.StatusOK, (<-answer).Code)
	})
}

// Ages alone are no change; every other difference is one.
func TestWhatIsAChange(t *testing.T) {
	base := func() []endpoint.Pool { return append(queue(3), endpoint.Pool{Name: "other"}) }
	for name, c := range map[string]struct {
		pools func(p []endpoint.Pool) []endpoint.Pool
		same  bool
	}{
		"nothing":           {func(p []endpoint.Pool) []endpoint.Pool { return p }, true},
		"age":               {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Gauges.Age = time.Second; return p }, true},
		"order of pools":    {func(p []endpoint.Pool) []endpoint.Pool { p[0], p[1] = p[1], p[0]; return p }, true},
		"LoRA":              {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].LoRA = &endpoint.LoRA{}; return p }, false},
		"models":            {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Models = &endpoint.Models{}; return p }, false},
		"cache":             {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Cache.Blocks++; return p }, false},
		"waiting":           {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Gauges.Waiting++; return p }, false},
		"running":           {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Gauges.Running++; return p }, false},
		"kv use":            {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Gauges.KVUse = 0.5; return p }, false},
		"gauges unknown":    {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Gauges = endpoint.Gauges{}; return p }, false},
		"readiness":         {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Ready = false; return p }, false},
		"address":           {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints[0].Address = "10.0.0.2:8000"; return p }, false},
		"an endpoint gone":  {func(p []endpoint.Pool) []endpoint.Pool { p[0].Endpoints = nil; return p }, false},
		"a pool more":       {func(p []endpoint.Pool) []endpoint.Pool { return append(p, endpoint.Pool{Name: "third"}) }, false},
		"a pool's new name": {func(p []endpoint.Pool) []endpoint.Pool { p[1].Name = "another"; return p }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := relay.New(relay.Options{})
				r.Publish(base())
				r.Publish(c.pools(base()))
				want := uint64(2)
				if c.same {
					want = 1
				}
				require.Equal(t, want, r.Snapshot().Version)
			})
		})
	}
}

// The caller may go on with what it published.
func TestPublishCopies(t *testing.T) {
	r := relay.New(relay.Options{})
	pools := queue(3)
	r.Publish(pools)
	pools[0].Endpoints[0].Gauges.Waiting = 99
	require.Equal(t, 3, poll(t, r, nil, 0).Pools[0].Endpoints[0].Gauges.Waiting)
}

// Whenever a proxy comes, the ages in the answer are those of that moment.
func TestAgesAreOfTheMomentOfTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{})
		r.Publish(aged(3, 40*time.Millisecond))
		require.Equal(t, 40*time.Millisecond, poll(t, r, nil, 0).Pools[0].Endpoints[0].Gauges.Age)
		time.Sleep(time.Second)
		s := poll(t, r, nil, 0)
		require.Equal(t, 1040*time.Millisecond, s.Pools[0].Endpoints[0].Gauges.Age)
		require.True(t, s.Taken.Equal(time.Now()))
		require.EqualValues(t, 1, s.Version)
	})
}

// A replica whose gauges do not change, but are scraped all the time, is trusted all the time by a proxy that only listens; one whose
// scrapes fail loses the trust within the bound; and at no time does a proxy take a gauge for younger than it is.
func TestTrustOfAProxyThatListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 100 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := relay.New(relay.Options{})
		defer r.Close()
		scraped := time.Now() // of the good replica, each interval
		stopped := time.Now() // of the other, never again
		go r.Run(ctx, nil, func(now time.Time) []endpoint.Pool {
			scraped = scraped.Add(now.Sub(scraped).Truncate(interval))
			gauges := endpoint.Gauges{Known: true, Waiting: 1}
			good, bad := gauges, gauges
			good.Age, bad.Age = now.Sub(scraped), now.Sub(stopped)
			return []endpoint.Pool{{Name: "p", Endpoints: []endpoint.Endpoint{{Address: "1:1", Gauges: good}, {Address: "2:2", Gauges: bad}}}}
		})

		have := poll(t, r, nil, time.Second)
		received := time.Now()
		for time.Since(stopped) < 5*time.Second {
			answer := waitFor(r, endpoint.Path(have, "w1", 30*time.Millisecond))
			w := <-answer
			if w.Code == http.StatusOK {
				var err error
				have, err = endpoint.Apply(have, w.Body.Bytes())
				require.NoError(t, err)
				received = time.Now()
			}
			since := time.Since(received)
			good, bad := have.Pools[0].Endpoints[0].Gauges, have.Pools[0].Endpoints[1].Gauges
			require.Equal(t, 1.0, good.Trust(since, endpoint.DefaultStale))
			require.InDelta(t, time.Since(stopped), bad.Age+since, float64(6*time.Millisecond))
			if time.Since(stopped) > endpoint.DefaultStale+10*time.Millisecond {
				require.Zero(t, bad.Trust(since, endpoint.DefaultStale))
			}
		}
		require.Greater(t, have.Version, uint64(8), "heartbeats")
		require.Less(t, have.Version, uint64(13))
	})
}

// Changes are told within the interval, and no more often than that.
func TestRunIsQuickAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := relay.New(relay.Options{Interval: 20 * time.Millisecond})
		var n atomic.Int64
		changed := make(chan struct{}, 1)
		go r.Run(ctx, changed, func(time.Time) []endpoint.Pool { return queue(int(n.Load())) })
		have := poll(t, r, nil, time.Second)
		time.Sleep(50 * time.Millisecond)

		n.Add(1)
		began := time.Now()
		changed <- struct{}{}
		have = poll(t, r, have, time.Second)
		require.Zero(t, time.Since(began), "after a silence: at once")

		for range 1000 { // a change each millisecond
			n.Add(1)
			select {
			case changed <- struct{}{}:
			default:
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		last := poll(t, r, have, time.Second)
		require.EqualValues(t, n.Load(), last.Pools[0].Endpoints[0].Gauges.Waiting, "the last state arrives")
		require.InDelta(t, 50, last.Version-have.Version, 2)
	})
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := relay.New(relay.Options{})
		go r.Run(ctx, nil, func(time.Time) []endpoint.Pool { return queue(1) })
		have := poll(t, r, nil, time.Second)
		for range 5 {
			began := time.Now()
			next := poll(t, r, have, time.Minute)
			require.Equal(t, heartbeat, time.Since(began))
			require.Equal(t, have.Version+1, next.Version)
			have = next
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{})
		r.Publish(queue(3))
		have := poll(t, r, nil, 0)
		answer := waitFor(r, endpoint.Path(have, "w1", time.Minute))
		synctest.Wait()
		began := time.Now()
		r.Close()
		r.Close()
		require.Equal(t, http.StatusNotModified, (<-answer).Code)
		require.Equal(t, http.StatusNotModified, get(r, endpoint.Path(have, "w1", time.Minute)).Code, "calls after it do not wait")
		r.Publish(queue(4))
		require.Equal(t, have.Version, r.Snapshot().Version)
		require.Zero(t, time.Since(began))
	})
}

func TestWorkersHoldLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{Lease: 10 * time.Second})
		r.Publish(queue(3))
		have := poll(t, r, nil, 0)
		get(r, endpoint.Path(nil, "b", 0))
		gone, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, http.MethodGet, endpoint.Path(have, "a", time.Hour), nil))
		}()
		time.Sleep(3 * time.Second)
		require.Equal(t, []relay.Worker{
			{ID: "a", Has: have.ID(), Waiting: true}, {ID: "b", Silent: 3 * time.Second}, {ID: "w1", Silent: 3 * time.Second},
		}, r.Workers())
		require.Equal(t, 1, r.Stats().Waiting)

		time.Sleep(8 * time.Second)
		require.Equal(t, []relay.Worker{{ID: "a", Has: have.ID(), Waiting: true}}, r.Workers(), "an open call holds the lease")

		cancel() // the proxy dies
		<-done
		require.Len(t, r.Workers(), 1)
		time.Sleep(10 * time.Second)
		require.Empty(t, r.Workers())
		require.Zero(t, r.Stats().Workers)
	})
}

func TestWorkersAreBounded(t *testing.T) {
	now := time.Unix(100, 0) // it stands still: calls that take long let no worker's place end
	r := relay.New(relay.Options{Now: func() time.Time { return now }})
	r.Publish(queue(3))
	for i := range 9000 {
		require.Equal(t, http.StatusOK, get(r, fmt.Sprintf("/v1/snapshot?worker=w%d", i)).Code)
	}
	require.Equal(t, 8192, r.Stats().Workers)
	require.Equal(t, http.StatusOK, get(r, "/v1/snapshot").Code, "a call without a name is served")
	require.Equal(t, 8192, r.Stats().Workers)

	now = now.Add(10 * time.Second)
	get(r, "/v1/snapshot?worker=late")
	require.Equal(t, []relay.Worker{{ID: "late"}}, r.Workers(), "the leases of the others are over: there is room")
}

func TestStats(t *testing.T) {
	r := relay.New(relay.Options{})
	get(r, "/v1/snapshot")
	r.Publish(queue(3))
	size := get(r, "/v1/snapshot").Body.Len()
	get(r, endpoint.Path(r.Snapshot(), "a", 0))
	require.Equal(t, relay.Stats{Version: 1, Workers: 1, Sent: 1, Unchanged: 1, Early: 1, SentBytes: uint64(size)}, r.Stats())
}

func TestBadCalls(t *testing.T) {
	r := relay.New(relay.Options{})
	r.Publish(queue(3))
	for path, want := range map[string]string{
		"/v1/snapshot?since=7":                            `since: "7" is not <source>-<version>`,
		"/v1/snapshot?since=a-b":                          `since: "a-b" is not <source>-<version>`,
		"/v1/snapshot?wait=2s":                            `wait: "2s" is not a number of milliseconds`,
		"/v1/snapshot?wait=-1":                            `wait: "-1" is not a number of milliseconds`,
		"/v1/snapshot?wait=99999999999":                   `wait: "99999999999" is not a number of milliseconds`,
		"/v1/snapshot?worker=" + strings.Repeat("x", 129): "worker: exceeds 128 bytes",
	} {
		w := get(r, path)
		require.Equal(t, http.StatusBadRequest, w.Code, path)
		require.Equal(t, want, strings.TrimSpace(w.Body.String()))
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/snapshot", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "GET", w.Header().Get("Allow"))
	require.Equal(t, http.StatusNotFound, get(r, "/v1/other").Code)
}

func TestJSONTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{Source: math.MaxUint64})
		r.Publish(append(aged(3, 42*time.Millisecond), endpoint.Pool{Name: "new", Endpoints: []endpoint.Endpoint{{Address: "10.0.0.9:1", Priority: 10, Started: 1_789_999_000}}}))
		get(r, endpoint.Path(r.Snapshot(), "w1", 0))
		time.Sleep(1500 * time.Microsecond)
		w := get(r, "/v1/snapshot.json")
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		want := `{"id":"18446744073709551615-1","source":"18446744073709551615","version":1,"taken":"` + time.Now().UTC().Format(time.RFC3339Nano) + `",
			"pools":[
				{"name":"llama","ready":1,"endpoints":[{"address":"10.0.0.1:8000","ready":true,"gauges":{"waiting":3,"running":1,"kvUse":0.25,"ageMs":43.5}}]},
				{"name":"new","ready":0,"endpoints":[{"address":"10.0.0.9:1","ready":false,"gauges":null,"priority":10,"started":"2026-09-21T13:56:40Z"}]}],
			"workers":[{"id":"w1","has":"18446744073709551615-1","waiting":false,"silentMs":1.5}]}`
		require.JSONEq(t, want, w.Body.String())
		require.True(t, json.Valid(w.Body.Bytes()))
	})
}

// Whatever is published and whenever proxies come, a proxy that keeps polling has what was published last, and versions only grow.
func TestProxiesConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := relay.New(relay.Options{})
		var have [3]*endpoint.Snapshot
		var last []endpoint.Pool
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			if last == nil || rapid.Bool().Draw(rt, "publish") {
				last = queue(rapid.IntRange(0, 3).Draw(rt, "waiting"))
				r.Publish(last)
				continue
			}
			i := rapid.IntRange(0, 2).Draw(rt, "proxy")
			w := get(r, endpoint.Path(have[i], fmt.Sprint(i), 0))
			if w.Code == http.StatusOK {
				s, err := endpoint.Apply(have[i], w.Body.Bytes())
				require.NoError(rt, err)
				if have[i] != nil {
					require.Greater(rt, s.Version, have[i].Version)
				}
				have[i] = s
			}
			require.Equal(rt, last[0].Endpoints[0].Gauges.Waiting, have[i].Pools[0].Endpoints[0].Gauges.Waiting)
		}
	})
}

// Over a real socket, as a proxy does it.
func TestOverHTTP(t *testing.T) {
	r := relay.New(relay.Options{})
	server := httptest.NewServer(r)
	defer server.Close()
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waiting := make(chan int, 1)
	changed := make(chan struct{}, 1)
	n := 5
	go r.Run(ctx, changed, func(time.Time) []endpoint.Pool {
		select {
		case n = <-waiting:
		default:
		}
		return queue(n)
	})

	fetch := func(have *endpoint.Snapshot) *endpoint.Snapshot {
		resp, err := http.Get(server.URL + endpoint.Path(have, "w1", time.Minute))
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
		s, err := endpoint.Apply(have, body)
		require.NoError(t, err)
		return s
	}
	s := fetch(nil)
	require.Equal(t, 5, s.Pools[0].Endpoints[0].Gauges.Waiting)
	waiting <- 6
	changed <- struct{}{}
	for s.Pools[0].Endpoints[0].Gauges.Waiting != 6 { // a heartbeat may come first
		s = fetch(s)
	}
}

// What each change costs the companion, with 1,000 replicas and 64 workers that wait: one encoding for all.
func BenchmarkPublish1000(b *testing.B) {
	r := relay.New(relay.Options{})
	pools := []endpoint.Pool{{Name: "p"}}
	for i := range 1000 {
		pools[0].Endpoints = append(pools[0].Endpoints, endpoint.Endpoint{
			Address: fmt.Sprintf("10.1.%d.%d:8000", i/250, i%250), Ready: true, Gauges: endpoint.Gauges{Known: true, Age: time.Millisecond, Waiting: 1, Running: 9, KVUse: 0.5},
		})
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		pools[0].Endpoints[0].Gauges.Waiting = n
		r.Publish(pools)
		for range 64 {
			get(r, "/v1/snapshot")
		}
	}
}

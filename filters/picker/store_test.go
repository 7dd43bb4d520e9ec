package picker

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// outage is a store that fails on command.
type outage struct {
	kv.Store
	on bool
}

func (o *outage) Get(key string) ([]byte, uint32, error) {
	if o.on {
		return nil, 0, errors.New("no store")
	}
	return o.Store.Get(key)
}

func (o *outage) Set(key string, v []byte, cas uint32) error {
	if o.on {
		return errors.New("no store")
	}
	return o.Store.Set(key, v, cas)
}

// pair is two workers, of which the first one's store may fail, its peers are the test's and its log is kept.
func pair(t *testing.T) (w *workers, store *outage, p *relayed) {
	w, p = newWorkers(t, 2, "{}"), &relayed{}
	r := w.rigs[0]
	store = &outage{Store: r.deps.Store}
	r.deps.Store, r.deps.Peers = store, p
	r.deps.Log = func(_ filter.Level, m string) { r.logs = append(r.logs, m) }
	r.f = r.filter(t, "{}")
	w.serve(ready(8))
	w.tick(t)
	w.tick(t)
	require.Empty(t, r.logs)
	return w, store, p
}

// What could not be told is logged, and told with a later tick.
func TestATickWithoutAStore(t *testing.T) {
	w, store, _ := pair(t)
	at := w.rigs[0].serveOne(t, request(1, 20), 200)
	store.on = true
	w.rigs[0].f.OnTick()
	require.Len(t, w.rigs[0].logs, 1)
	require.Contains(t, w.rigs[0].logs[0], "no store")
	store.on = false
	w.tick(t)
	w.tick(t)
	require.Equal(t, 20, w.rigs[1].known(at, request(1, 20)))
	require.Len(t, w.rigs[0].logs, 1)
}

// What other proxies told is known here, also if it cannot be passed on.
func TestHearingWithoutAStore(t *testing.T) {
	w, store, p := pair(t)
	x := request(3, 20)
	newRigOf(t).f.OnRequest(x)
	store.on = true
	p.learn(endpoint.AppendNote(nil, endpoint.ReplicaID("10.0.0.005:80"), stateOf(x).chain))
	require.Len(t, w.rigs[0].logs, 1)
	require.Contains(t, w.rigs[0].logs[0], "no store")
	require.Equal(t, 20, w.rigs[0].known("10.0.0.005:80", request(3, 20)))
}

// More prompts than can be told in one tick are not told, which is logged once.
func TestTooMuchForATick(t *testing.T) {
	w, _, _ := pair(t)
	long := []string{w.rigs[0].serveOne(t, request(1, 20_000), 200), w.rigs[0].serveOne(t, request(2, 20_000), 200)}
	for range 3 {
		w.tick(t)
	}
	require.Len(t, w.rigs[0].logs, 1)
	require.Contains(t, w.rigs[0].logs[0], "too many in one tick")
	require.Equal(t, 20_000, w.rigs[1].known(long[0], request(1, 20_000)))
	require.Less(t, w.rigs[1].known(long[1], request(2, 20_000)), 20_000)
}

// The host says when there is a new snapshot: a replica is new from then on, not from the first request that comes.
func TestSnapshotsAreWatched(t *testing.T) {
	r := newRig(t, "{}")
	var watch []func()
	r.deps.Watch = func(f func()) { watch = append(watch, f) }
	r.f = r.filter(t, "{slowStart: 10s}")
	require.Len(t, watch, 1)
	r.serve(ready(2)[1:]...)
	watch[0]()
	r.serve(ready(2)...)
	watch[0]()
	r.now = r.now.Add(10 * time.Second)
	r.serve(ready(2)...)
	hits := r.spread(t, 40, func(int) *filter.Exchange { return request(0, 0) })
	require.Equal(t, map[string]int{"10.0.0.000:80": 20, "10.0.0.001:80": 20}, hits)
}

// What was held against a replica goes with it when it is gone for good.
func TestWhoIsGoneIsHeldBackNoMore(t *testing.T) {
	for status, counter := range map[int]string{500: "#ejected", 429: "#full"} {
		r := newRig(t, "{health: {failures: 1, eject: 1h, maxEject: 1h}}")
		r.serve(ready(3)...)
		x := request(0, 0)
		at := r.send(t, x)
		x.Response.Headers = headers{"retry-after": "86400"}
		r.answer(x, status)
		require.EqualValues(t, 1, r.deps.Counters.Open(counter).Value())
		require.EqualValues(t, 1, r.deps.Counters.Open(at+counter).Value())
		var left []endpoint.Endpoint
		for _, e := range ready(3) {
			if e.Address != at {
				left = append(left, e)
			}
		}
		for range 30 {
			r.now = r.now.Add(time.Minute)
			r.serve(left...)
			r.serveOne(t, request(0, 0), 200)
		}
		require.Zero(t, r.deps.Counters.Open(counter).Value(), counter)
		require.Zero(t, r.deps.Counters.Open(at+counter).Value(), counter)
	}
}

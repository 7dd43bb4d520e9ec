package relay_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const lease = 1500 * time.Millisecond

func post(r http.Handler, path string, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
	return w
}

// tell tells what a proxy has in flight on the replicas at 10.0.0.00:80, 10.0.0.01:80 …, and notes.
func tell(t require.TestingT, r http.Handler, proxy string, inFlight []int64, notes ...[]byte) {
	told := endpoint.Report{Notes: bytes.Join(notes, nil)}
	for i, n := range inFlight {
		told.InFlight = append(told.InFlight, endpoint.Reported{
			Replica: endpoint.ReplicaID(fmt.Sprintf("10.0.0.%02d:80", i)), InFlight: endpoint.InFlight{Requests: n, Tokens: 100 * n},
		})
	}
	w := post(r, endpoint.ReportPath(proxy), endpoint.AppendReport(nil, &told))
	require.Equal(t, http.StatusNoContent, w.Code, w.Body.String())
}

func note(replica uint64, chain ...uint64) []byte { return endpoint.AppendNote(nil, replica, chain) }

// listener is a proxy that polls.
type listener struct {
	id   string
	have *endpoint.Snapshot
}

func (l *listener) path(wait time.Duration) string {
	return endpoint.RelayedPath(l.have, "w-"+l.id, wait, l.id)
}

// take takes an answer, and returns the notes in it.
func (l *listener) take(t require.TestingT, w *httptest.ResponseRecorder) []byte {
	if w.Code == http.StatusNotModified {
		return nil
	}
	require.Equal(t, http.StatusOK, w.Code)
	before := l.have
	var err error
	l.have, err = endpoint.Apply(before, w.Body.Bytes())
	require.NoError(t, err)
	if before != nil && before.Source == l.have.Source {
		require.True(t, l.have.Version > before.Version || l.have.Heard > before.Heard, "an answer without news")
	}
	return endpoint.Notes(w.Body.Bytes())
}

func (l *listener) poll(t require.TestingT, r http.Handler) []byte {
	return l.take(t, get(r, l.path(0)))
}

// peers are the requests that others have in flight, by replica.
func (l *listener) peers() (requests []int64) {
	for _, e := range l.have.Pools[0].Endpoints {
		requests = append(requests, e.Peers.Requests)
	}
	return requests
}

func TestProxiesHearOfEachOther(t *testing.T) {
	r := relay.New(relay.Options{})
	r.Publish(newFleet(3).now())
	a, b := listener{id: "a"}, listener{id: "b"}
	a.poll(t, r)
	b.poll(t, r)
	tell(t, r, "a", []int64{1, 2}, note(7, 1, 2))
	tell(t, r, "b", []int64{0, 5})
	require.Empty(t, a.poll(t, r), "what one told itself is no news to it")
	require.Equal(t, []int64{0, 5, 0}, a.peers())
	require.Equal(t, note(7, 1, 2), b.poll(t, r))
	require.Equal(t, []int64{1, 2, 0}, b.peers())
	require.EqualValues(t, 200, b.have.Pools[0].Endpoints[1].Peers.Tokens)
	require.Equal(t, http.StatusNotModified, get(r, b.path(0)).Code)

	f := newFleet(3)
	f.pools[0].Endpoints = f.pools[0].Endpoints[1:]
	r.Publish(f.now())
	b.poll(t, r)
	require.Equal(t, []int64{2, 0}, b.peers(), "the list has changed")
	require.Equal(t, []relay.Proxy{
		{ID: "a", InFlight: endpoint.InFlight{Requests: 2, Tokens: 200}}, {ID: "b", InFlight: endpoint.InFlight{Requests: 5, Tokens: 500}},
	}, silenced(r.Proxies()))
	require.Nil(t, poll(t, r, nil, 0).Pool("pool-0").Endpoints[0].Load)
	require.Zero(t, poll(t, r, nil, 0).Heard, "who does not take part is not bothered")
}

func silenced(list []relay.Proxy) []relay.Proxy {
	for i := range list {
		list[i].Silent = 0
	}
	return list
}

// A replica in two pools counts once, and is told in both.
func TestAReplicaInTwoPools(t *testing.T) {
	r := relay.New(relay.Options{})
	pools := newFleet(2).pools
	r.Publish(append(pools, endpoint.Pool{Name: "other", Endpoints: pools[0].Endpoints[1:]}))
	tell(t, r, "a", []int64{1, 2})
	l := listener{id: "b"}
	l.poll(t, r)
	require.EqualValues(t, 2, l.have.Pools[0].Endpoints[0].Peers.Requests)
	require.EqualValues(t, 2, l.have.Pools[1].Endpoints[1].Peers.Requests)
}

// News of one proxy ends the long poll of another, at most once in the interval, and not its own.
func TestNewsEndALongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := relay.New(relay.Options{Heartbeat: time.Hour})
		f := newFleet(3)
		go r.Run(ctx, nil, func(time.Time) []endpoint.Pool { return f.pools })
		a, b := listener{id: "a"}, listener{id: "b"}
		synctest.Wait()
		a.poll(t, r)
		b.poll(t, r)
		time.Sleep(time.Second)
		own, other := waitFor(r, a.path(time.Minute)), waitFor(r, b.path(time.Minute))
		synctest.Wait()
		began := time.Now()
		tell(t, r, "a", []int64{1})
		b.take(t, <-other)
		require.Less(t, time.Since(began), time.Millisecond)
		require.Equal(t, []int64{1, 0, 0}, b.peers())
		for n := range int64(50) {
			tell(t, r, "a", []int64{n + 2})
			time.Sleep(time.Millisecond)
		}
		answers := 0
		for b.peers()[0] != 51 {
			b.take(t, <-waitFor(r, b.path(time.Minute)))
			answers++
		}
		require.LessOrEqual(t, answers, 3)
		select {
		case <-own:
			t.Fatal("its own news")
		default:
		}
		require.Equal(t, http.StatusNotModified, (<-own).Code)
	})
}

// A proxy that dies is forgotten with what it had in flight, and who waits is told.
func TestInFlightHasALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := relay.New(relay.Options{Heartbeat: time.Hour, MaxWait: time.Minute, Lease: time.Second})
		f := newFleet(3)
		go r.Run(ctx, nil, func(time.Time) []endpoint.Pool { return f.pools })
		b := listener{id: "b"}
		synctest.Wait()
		tell(t, r, "a", []int64{4}, note(1, 2))
		b.poll(t, r)
		for range 5 { // it renews
			time.Sleep(lease / 2)
			tell(t, r, "a", []int64{4})
			require.Equal(t, http.StatusNotModified, get(r, b.path(0)).Code, "that is no news")
		}
		began := time.Now()
		b.take(t, <-waitFor(r, b.path(time.Minute)))
		require.Equal(t, lease, time.Since(began))
		require.Equal(t, []int64{0, 0, 0}, b.peers())
		require.EqualValues(t, 1, r.Stats().Relay.Expired)
		require.Len(t, r.Proxies(), 2)

		time.Sleep(2 * time.Minute)
		r.Publish(f.pools)
		require.Empty(t, r.Proxies(), "forgotten")
		b.poll(t, r)
		c := listener{id: "c"}
		require.Equal(t, note(1, 2), c.poll(t, r), "its notes stay")
	})
}

// Whatever proxies report, a follower has what all the others have in flight, and has heard each prompt of theirs.
func TestWhoFollowsKnows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := relay.New(relay.Options{})
		f := newFleet(3)
		r.Publish(f.now())
		const proxies = 3
		var listeners [proxies]listener
		var flying [proxies][]int64
		var knows, others [proxies]map[string]bool // "replica/block"
		for i := range listeners {
			listeners[i].id = fmt.Sprint(i)
			knows[i], others[i] = map[string]bool{}, map[string]bool{}
			flying[i] = make([]int64, 3)
		}
		hear := func(i int) {
			for rest := listeners[i].poll(t, r); ; {
				n, after, ok := endpoint.CutNote(rest)
				if !ok {
					break
				}
				rest = after
				for _, block := range n.AppendChain(nil) {
					knows[i][fmt.Sprint(n.Replica, block)] = true
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, proxies-1).Draw(t, "proxy")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				flying[i][rapid.IntRange(0, 2).Draw(t, "replica")] = rapid.Int64Range(0, 3).Draw(t, "requests")
				var notes []byte
				if length := rapid.IntRange(0, 5).Draw(t, "blocks"); length > 0 {
					replica, seed := rapid.Uint64Range(0, 1).Draw(t, "at"), rapid.Uint64Range(1, 3).Draw(t, "prompt")
					var chain []uint64
					for n := range length {
						block := 100*seed + uint64(n)
						chain = append(chain, block)
						knows[i][fmt.Sprint(replica, block)] = true
						for j := range others {
							if j != i {
								others[j][fmt.Sprint(replica, block)] = true
							}
						}
					}
					notes = note(replica, chain...)
				}
				tell(t, r, listeners[i].id, flying[i], notes)
			case 2:
				hear(i)
			case 3:
				f.scrape(0, rapid.IntRange(0, 2).Draw(t, "scraped")).Gauges.Waiting++
				r.Publish(f.now())
			}
		}
		for i := range listeners {
			hear(i)
			want := make([]int64, 3)
			for j := range flying {
				for k, n := range flying[j] {
					if j != i {
						want[k] += n
					}
				}
			}
			require.Equal(t, want, listeners[i].peers())
			for block := range others[i] {
				require.True(t, knows[i][block], block)
			}
			require.Equal(t, http.StatusNotModified, get(r, listeners[i].path(0)).Code)
		}
	})
}

// What a proxy that comes new hears is all that is remembered: prompts without those that go on in others, in the order of their use, in
// answers of a bounded size, within the memory.
func TestNotesAreRemembered(t *testing.T) {
	const memory = 1 << 20
	r := relay.New(relay.Options{Memory: memory})
	r.Publish(newFleet(1).now())
	tell(t, r, "a", nil, note(1, 10, 11), note(2, 10, 11), note(1, 20), note(1, 10, 11, 12), note(1, 20))
	c := listener{id: "c"}
	require.Equal(t, bytes.Join([][]byte{note(2, 10, 11), note(1, 10, 11, 12), note(1, 20)}, nil), c.poll(t, r))

	chain := make([]uint64, 100)
	var last []byte
	for i := range uint64(3000) {
		for j := range chain {
			chain[j] = rand.Uint64()
		}
		last = note(i, chain...)
		tell(t, r, "a", nil, last)
	}
	s := r.Stats().Relay
	require.LessOrEqual(t, s.Bytes, int64(memory))
	require.Greater(t, s.Bytes, int64(memory*9/10))
	require.EqualValues(t, 3000+3, s.Forgotten+uint64(s.Remembered))
	d := listener{id: "d"}
	var heard []byte
	answers := 0
	for {
		notes := d.poll(t, r)
		require.LessOrEqual(t, len(notes), 256<<10)
		if len(notes) == 0 {
			break
		}
		heard = append(heard, notes...)
		answers++
	}
	require.Equal(t, s.Remembered*len(last), len(heard))
	require.True(t, bytes.HasSuffix(heard, last))
	require.Equal(t, 4, answers)
}

// A proxy that goes to and fro between two companions hears each note once from each.
func TestTwoCompanions(t *testing.T) {
	first, second := relay.New(relay.Options{}), relay.New(relay.Options{})
	l := listener{id: "l"}
	heard := 0
	for i, r := range []*relay.Relay{first, second} {
		r.Publish(newFleet(1).now())
		tell(t, r, "a", []int64{1}, note(uint64(i), 1))
	}
	for range 5 {
		for _, r := range []*relay.Relay{first, second} {
			heard += len(l.poll(t, r))
			require.Equal(t, []int64{1}, l.peers())
		}
	}
	require.Equal(t, 2*len(note(1, 1)), heard)
}

func TestBadTells(t *testing.T) {
	r := relay.New(relay.Options{NoteRate: 1000})
	good := endpoint.AppendReport(nil, &endpoint.Report{})
	for name, c := range map[string]struct {
		path string
		body []byte
		want int
	}{
		"no name":       {"/v1/relay", good, http.StatusBadRequest},
		"a long name":   {"/v1/relay?proxy=" + strings.Repeat("x", 129), good, http.StatusBadRequest},
		"empty":         {"/v1/relay?proxy=a", nil, http.StatusBadRequest},
		"garbage":       {"/v1/relay?proxy=a", []byte("garbage"), http.StatusBadRequest},
		"truncated":     {"/v1/relay?proxy=a", good[:len(good)-1], http.StatusBadRequest},
		"a cut note":    {"/v1/relay?proxy=a", endpoint.AppendReport(nil, &endpoint.Report{Notes: note(1, 2)[:12]}), http.StatusBadRequest},
		"far too large": {"/v1/relay?proxy=a", make([]byte, 1<<20+1), http.StatusRequestEntityTooLarge},
	} {
		require.Equal(t, c.want, post(r, c.path, c.body).Code, name)
	}
	require.EqualValues(t, 7, r.Stats().Relay.Refused)
	require.Zero(t, r.Stats().Relay.Proxies)
	w := get(r, "/v1/relay?proxy=a")
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "POST", w.Header().Get("Allow"))
	require.Equal(t, http.StatusBadRequest, get(r, "/v1/snapshot?proxy="+strings.Repeat("x", 129)).Code)
	require.Equal(t, http.StatusBadRequest, get(r, "/v1/snapshot?heard=x").Code)

	tell(t, r, "a", nil, note(1, make([]uint64, 200)...), note(2, make([]uint64, 200)...))
	s := r.Stats().Relay
	require.EqualValues(t, 1, s.Notes)
	require.EqualValues(t, 1, s.Dropped, "over the quota")

	for i := range 1100 {
		post(r, endpoint.ReportPath(fmt.Sprint(i)), good)
	}
	require.Equal(t, 1024, r.Stats().Relay.Proxies)
	r.Publish(newFleet(1).now())
	l := listener{id: "one too many"}
	require.NotEmpty(t, l.poll(t, r), "it is answered, and hears what the others told")
}

// However many names a caller gives itself: what they tell together is bounded, and so is what is remembered of it.
func TestManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{NoteRate: 1000})
		for i := range 5 {
			tell(t, r, fmt.Sprint(i), nil, note(1, make([]uint64, 200)...))
		}
		s := r.Stats().Relay
		require.EqualValues(t, 4, s.Notes)
		require.EqualValues(t, 1, s.Dropped, "over the quota of all")

		f := newFleet(4096)
		r.Publish(f.now())
		told := endpoint.Report{}
		for _, e := range f.pools[0].Endpoints {
			told.InFlight = append(told.InFlight, endpoint.Reported{Replica: endpoint.ReplicaID(e.Address), InFlight: endpoint.InFlight{Requests: 1}})
		}
		everywhere := endpoint.AppendReport(nil, &told)
		for i := range 256 {
			require.Equal(t, http.StatusNoContent, post(r, endpoint.ReportPath(fmt.Sprint(i)), everywhere).Code)
		}
		require.Equal(t, http.StatusServiceUnavailable, post(r, endpoint.ReportPath("one too many"), everywhere).Code)
		require.Equal(t, http.StatusNoContent, post(r, endpoint.ReportPath("0"), everywhere).Code, "who is there may go on")
		require.EqualValues(t, 1, r.Stats().Relay.Refused)
		time.Sleep(lease)
		r.Publish(f.now())
		require.Equal(t, http.StatusNoContent, post(r, endpoint.ReportPath("one too many"), everywhere).Code, "the others are silent")
	})
}

// No body of a tell is more than refused.
func FuzzTell(f *testing.F) {
	f.Add(endpoint.AppendReport(nil, &endpoint.Report{}))
	f.Add(endpoint.AppendReport(nil, &endpoint.Report{InFlight: []endpoint.Reported{{Replica: 1, InFlight: endpoint.InFlight{Requests: 2, Tokens: 3}}}, Notes: note(1, 2, 3)}))
	f.Add([]byte("inlt"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := relay.New(relay.Options{Memory: 4 << 10})
		r.Publish(newFleet(2).now())
		code := post(r, endpoint.ReportPath("a"), body).Code
		require.Contains(t, []int{http.StatusNoContent, http.StatusBadRequest, http.StatusRequestEntityTooLarge}, code)
		l := listener{id: "b"}
		l.poll(t, r)
	})
}

// A busy fleet: 1,000 replicas, 8 proxies that have something in flight on all of them, and a proxy that receives each change.
func BenchmarkHear1000(b *testing.B) {
	f := newFleet(1000)
	r := relay.New(relay.Options{})
	r.Publish(f.pools)
	told := endpoint.Report{}
	for _, e := range f.pools[0].Endpoints {
		told.InFlight = append(told.InFlight, endpoint.Reported{Replica: endpoint.ReplicaID(e.Address), InFlight: endpoint.InFlight{Requests: 9, Tokens: 30000}})
	}
	for i := range 8 {
		post(r, endpoint.ReportPath(fmt.Sprint(i)), endpoint.AppendReport(nil, &told))
	}
	l := listener{id: "l"}
	l.poll(b, r)
	b.ReportAllocs()
	size := 0
	for n := 0; b.Loop(); n++ {
		told.InFlight[0].Requests = int64(n)
		post(r, endpoint.ReportPath("0"), endpoint.AppendReport(nil, &told))
		w := get(r, l.path(0))
		size = w.Body.Len()
		l.take(b, w)
	}
	b.ReportMetric(float64(size)/1000, "bytes/replica")
}

// What a note costs the companion: a prompt of 128 blocks that goes on from one of 120.
func BenchmarkNotes(b *testing.B) {
	r := relay.New(relay.Options{NoteRate: 1 << 40})
	chain := make([]uint64, 128)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		for i := range chain {
			chain[i] = uint64(n*1000 + i)
		}
		tell(b, r, "a", nil, note(1, chain[:120]...), note(1, chain...))
	}
}

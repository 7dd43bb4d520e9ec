package wasm

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// world is one Envoy with several workers, and the companion as they see it.
type world struct {
	now   time.Time
	store kv.Store
	polls []poll // made and not answered
	tells []*feed.Request
	heard map[string][]byte // notes, by worker
	logs  []string
	talks []filter.Conversation
}

type poll struct {
	worker, path string
	timeout      time.Duration
	done         func(*filter.Reply)
}

// path is what a worker polls, given what it has.
func path(worker, since, heard string) string {
	if since != "" {
		since = "since=" + since + "&"
	}
	return "/v1/snapshot?" + since + "worker=" + worker + "&wait=20000&proxy=a&heard=" + heard
}

func newWorld() *world {
	return &world{now: time.Unix(1000, 0), store: mem.NewStore(), heard: map[string][]byte{}}
}

func (w *world) notes(worker string) *feed.Notes {
	n := feed.NewNotes((&filter.Deps{}).Mutex())
	n.Hear(func(notes []byte) { w.heard[worker] = append(w.heard[worker], notes...) })
	return n
}

func (w *world) worker(name string) *follower {
	deps := &filter.Deps{
		Now:       func() time.Time { return w.now },
		Rand:      func() uint64 { return 0 },
		Store:     w.store,
		Counters:  mem.NewCounters(),
		Companion: &filter.Link{Proxy: proxyID(w.store, name)},
		Log:       func(_ filter.Level, message string) { w.logs = append(w.logs, message) },
	}
	calls := func(r *feed.Request, done func(*filter.Reply)) error {
		if r.Method == "POST" {
			w.tells = append(w.tells, r)
			done(&filter.Reply{Status: 204})
			return nil
		}
		w.polls = append(w.polls, poll{name, r.Path, r.Timeout, done})
		return nil
	}
	return newFollower(chain.Companion{Cluster: "companion", Wait: 20 * time.Second}, name, w.notes(name), deps, w.talks, calls)
}

// pass advances the time with a tick of each feed every 20 ms.
func (w *world) pass(d time.Duration, feeds ...*follower) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(tickPeriod)
		for _, f := range feeds {
			f.tick()
		}
	}
}

// answer answers the oldest open poll.
func (w *world) answer(r *filter.Reply) {
	p := w.polls[0]
	w.polls = w.polls[1:]
	p.done(r)
}

func wire(version uint64) []byte {
	return endpoint.Append(nil, &endpoint.Snapshot{
		Source: 1, Version: version, Taken: time.Unix(5, 0),
		Pools: []endpoint.Pool{{Name: "llama", Endpoints: []endpoint.Endpoint{{Address: "10.0.0.1:80", Ready: true}}}},
	})
}

func snapshot(version uint64) *filter.Reply { return &filter.Reply{Status: 200, Body: wire(version)} }

func TestOnePollServesAllWorkers(t *testing.T) {
	w := newWorld()
	a, b, c := w.worker("a"), w.worker("b"), w.worker("c")
	w.pass(100*time.Millisecond, a, b, c)
	require.Len(t, w.polls, 1)
	require.Equal(t, path("a", "", "0"), w.polls[0].path)
	require.Greater(t, w.polls[0].timeout, 20*time.Second)

	w.answer(snapshot(1))
	received := w.now
	require.Equal(t, "1-1", a.current.ID(), "at once in the worker that polls")
	require.Len(t, w.polls, 1, "after news the next poll follows at once")
	require.Equal(t, path("a", "1-1", "0"), w.polls[0].path)

	w.pass(tickPeriod, a, b, c)
	for _, f := range []*follower{a, b, c} {
		require.Equal(t, "1-1", f.current.ID(), "within a tick in the others")
		require.Equal(t, received, f.current.Received, "all know the same age")
		require.NotNil(t, f.current.Pool("llama").Endpoints[0].Load)
	}
	require.Empty(t, w.logs)
}

func TestAWorkerThatStartsLaterFindsTheSnapshotAndItsAge(t *testing.T) {
	w := newWorld()
	a := w.worker("a")
	w.pass(tickPeriod, a)
	w.answer(snapshot(1))
	received := w.now
	w.now = w.now.Add(time.Hour)
	late := w.worker("late")
	late.load()
	require.Equal(t, "1-1", late.current.ID())
	require.Equal(t, received.UnixNano(), late.current.Received.UnixNano())
}

func TestAnotherWorkerPollsWhenTheHolderDies(t *testing.T) {
	w := newWorld()
	a, b := w.worker("a"), w.worker("b")
	w.pass(100*time.Millisecond, a, b)
	w.answer(snapshot(1))
	require.Equal(t, "a", w.polls[0].worker)
	w.pass(2*pollLease, b) // a is silent
	require.Len(t, w.polls, 2)
	require.Equal(t, "b", w.polls[1].worker)
	require.Contains(t, w.polls[1].path, "since=1-1", "it goes on where the other was")
}

func TestAHolderThatLeavesHandsOverAtOnce(t *testing.T) {
	w := newWorld()
	a, b := w.worker("a"), w.worker("b")
	w.pass(tickPeriod, a, b)
	a.close()
	w.pass(tickPeriod, b)
	require.Len(t, w.polls, 2)
	require.Equal(t, "b", w.polls[1].worker)
}

func TestANewCompanionIsBelieved(t *testing.T) {
	w := newWorld()
	a, b := w.worker("a"), w.worker("b")
	w.pass(tickPeriod, a, b)
	w.answer(snapshot(900))
	w.pass(tickPeriod, a, b)
	w.answer(&filter.Reply{Status: 200, Body: endpoint.Append(nil, &endpoint.Snapshot{Source: 2, Version: 1, Taken: time.Unix(9, 0)})})
	w.pass(tickPeriod, a, b)
	require.Equal(t, "2-1", a.current.ID())
	require.Equal(t, "2-1", b.current.ID())
}

func TestABadSnapshotInTheStoreIsToldOnce(t *testing.T) {
	w := newWorld()
	a := w.worker("a")
	w.pass(tickPeriod, a)
	w.answer(snapshot(1))
	require.NoError(t, w.store.Set(a.key, []byte("nonsense"), 0))
	require.NoError(t, w.store.Set(a.wordKey, []byte("x"), 0))
	w.pass(time.Second, a)
	require.Len(t, w.logs, 1)
	require.Equal(t, "1-1", a.current.ID())
}

// brokenStore fails every write.
type brokenStore struct{ kv.Store }

func (brokenStore) Set(string, []byte, uint32) error { return errors.New("does not fit") }

func TestASnapshotThatCannotBeSharedIsAFailure(t *testing.T) {
	w := newWorld()
	a := w.worker("a")
	w.pass(tickPeriod, a)
	a.deps.Store = brokenStore{w.store}
	w.answer(snapshot(1))
	require.Len(t, w.logs, 1)
	require.Contains(t, w.logs[0], "does not fit")
	require.Empty(t, w.polls)
}

// change is a delta from one version to the next.
func change(version uint64, waiting int) *filter.Reply {
	s, err := endpoint.Decode(wire(version))
	if err != nil {
		panic(err)
	}
	s.Pools[0].Endpoints[0].Gauges = endpoint.Gauges{Known: true, Waiting: waiting}
	return &filter.Reply{Status: 200, Body: endpoint.AppendDelta(nil, s, version-1, []endpoint.Change{{Position: 0}})}
}

// A delta is for the worker that polled; the store has whole snapshots.
func TestADeltaReachesAllWorkers(t *testing.T) {
	w := newWorld()
	a, b := w.worker("a"), w.worker("b")
	w.pass(tickPeriod, a, b)
	w.answer(snapshot(1))
	load := a.current.Pool("llama").Endpoints[0].Load
	w.answer(change(2, 7)) // b has not even seen version 1
	w.pass(tickPeriod, a, b)
	for _, f := range []*follower{a, b} {
		require.Equal(t, "1-2", f.current.ID())
		require.Equal(t, 7, f.current.Pool("llama").Endpoints[0].Gauges.Waiting)
		require.NotNil(t, f.current.Pool("llama").Endpoints[0].Load)
	}
	require.Equal(t, load, a.current.Pool("llama").Endpoints[0].Load)
	require.Contains(t, w.polls[0].path, "since=1-2")
	require.Empty(t, w.logs)
}

// The delta is to what the poll said, even if something newer came through the store meanwhile, which then stays.
func TestADeltaIsToWhatThePollSaid(t *testing.T) {
	w := newWorld()
	a := w.worker("a")
	w.pass(tickPeriod, a)
	w.answer(snapshot(1))
	other := w.worker("b")
	require.NoError(t, other.Adopt(&endpoint.Snapshot{Source: 1, Version: 9, Taken: time.Unix(9, 0)}))
	a.load()
	require.Equal(t, "1-9", a.current.ID())
	w.answer(change(2, 7))
	require.Equal(t, "1-9", a.current.ID())
	require.Empty(t, w.logs)
}

// A worker that was away for longer than its lease does not go on polling when
// its old poll is answered, and an old answer does not undo a newer one.
func TestAPollOutlivesItsLease(t *testing.T) {
	w := newWorld()
	a, b := w.worker("a"), w.worker("b")
	w.pass(tickPeriod, a)
	require.Len(t, w.polls, 1)
	w.pass(2*pollLease, b) // a does not tick
	require.Len(t, w.polls, 2, "another worker took over")
	late := w.polls[0]
	w.polls = w.polls[1:]
	w.answer(snapshot(7))
	require.Len(t, w.polls, 1)

	late.done(snapshot(6))
	require.Len(t, w.polls, 1, "the old holder does not go on")
	w.pass(tickPeriod, a, b)
	require.Equal(t, "1-7", a.current.ID())
	require.Equal(t, "1-7", b.current.ID())
	require.Len(t, w.polls, 1)
}

// All workers of an Envoy have one name among the proxies, and what one hears all know: the peers by the store, the notes by the worker that polled.
func TestOneProxyOfManyWorkers(t *testing.T) {
	w := newWorld()
	a, b := w.worker("a"), w.worker("b")
	w.pass(tickPeriod, b, a)
	require.Equal(t, "/v1/snapshot?worker=b&wait=20000&proxy=a&heard=0", w.polls[0].path, "the first one gave the name")
	notes := endpoint.AppendNote(nil, 1, []uint64{2, 3})
	w.answer(&filter.Reply{Status: 200, Body: endpoint.AppendRelayed(wire(1), []endpoint.Peer{{InFlight: endpoint.InFlight{Requests: 4, Tokens: 500}}}, 9, notes)})
	w.pass(tickPeriod, a)
	for _, f := range []*follower{a, b} {
		require.Equal(t, endpoint.InFlight{Requests: 4, Tokens: 500}, f.current.Pools[0].Endpoints[0].Peers)
	}
	require.Equal(t, map[string][]byte{"b": notes}, w.heard)

	b.close() // the next one goes on where it was
	w.polls = nil
	w.pass(tickPeriod, a)
	require.Equal(t, "/v1/snapshot?since=1-1&worker=a&wait=20000&proxy=a&heard=9", w.polls[0].path)
}

// The holder of the lease tells what all workers have in flight.
func TestTheHolderTellsForAll(t *testing.T) {
	w := newWorld()
	a, b := w.worker("a"), w.worker("b")
	ledgers := map[*follower]*kv.Ledger{}
	for f, name := range map[*follower]string{a: "a", b: "b"} {
		ledgers[f] = kv.NewLedger(w.store, name, f.deps.Now, workerLease)
		f.deps.Counters = ledgers[f]
	}
	tick := func() {
		for _, f := range []*follower{a, b} {
			w.now = w.now.Add(tickPeriod / 2)
			require.NoError(t, ledgers[f].Tick())
			f.tick()
		}
	}
	tick()
	w.answer(snapshot(1))
	tick()
	for f, n := range map[*follower]int64{a: 1, b: 2} {
		e := f.current.Pools[0].Endpoints[0]
		e.Load.Requests.Add(n)
		e.Load.Tokens.Add(100 * n)
	}
	for range 10 {
		tick()
	}
	last := w.tells[len(w.tells)-1]
	require.Equal(t, "/v1/relay?proxy=a", last.Path)
	told, err := endpoint.DecodeReport(last.Body)
	require.NoError(t, err)
	require.Equal(t, []endpoint.Reported{{Replica: endpoint.ReplicaID("10.0.0.1:80"), InFlight: endpoint.InFlight{Requests: 3, Tokens: 300}}}, told.InFlight)
}

// Filters converse in each worker, not only where the lease is, and all workers have one name.
func TestEveryWorkerConverses(t *testing.T) {
	w := newWorld()
	link := &filter.Link{}
	link.Converse("/v1/quota", func() []byte { return []byte("{}") }, func(*filter.Reply) {})
	w.talks = link.Conversations()
	a, b := w.worker("a"), w.worker("b")
	require.Equal(t, a.Proxy, b.Proxy)
	w.pass(tickPeriod, a, b)
	require.Len(t, w.polls, 1)
	require.Len(t, w.tells, 2)
	require.Equal(t, "/v1/quota", w.tells[1].Path)
	require.Equal(t, "{}", string(w.tells[1].Body))
}

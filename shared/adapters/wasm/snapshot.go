package wasm

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// pollLease is how long the companion is not called when the worker that calls
// it dies.
const pollLease = time.Second

// follower follows the companion for one worker. One of the workers, the
// holder of a lease, calls it and writes what comes to the store; the others look
// at a small version word there at every tick. The last snapshot is kept forever:
// its gauges age, its list of replicas is better than none.
type follower struct {
	*feed.Feed
	talks *feed.Talks
	deps  *filter.Deps
	calls feed.Caller
	lease *kv.Lease
	turn  bool // held the lease when last asked

	key     string // of the snapshot in the store
	wordKey string // of its version word: when it was received, and which it is
	word    string // version word of current

	current *endpoint.Snapshot
	series  endpoint.Series // of the store's
	wire    []byte          // memory for a snapshot that is written there
}

var _ feed.Host = (*follower)(nil)

func callCluster(cluster string) feed.Caller {
	return func(r *feed.Request, done func(*filter.Reply)) error {
		return dispatch(cluster, r.Headers(cluster), r.Body, r.Timeout, done)
	}
}

// newFollower returns the follower of one worker. The keys carry the cluster, since
// plugins with different companions may share a store.
func newFollower(c chain.Companion, worker string, notes *feed.Notes, deps *filter.Deps, talks []filter.Conversation, calls feed.Caller) *follower {
	w := &follower{
		deps: deps, calls: calls,
		lease:   kv.NewLease(deps.Store, "inlet.poll/"+c.Cluster, worker, deps.Now, pollLease),
		key:     "inlet.snapshot/" + c.Cluster,
		wordKey: "inlet.snapshot-version/" + c.Cluster,
	}
	w.Feed = feed.New(feed.Options{
		Companion: c.Cluster, Wait: c.Wait, Worker: worker, Proxy: deps.Companion.Proxy, Deps: deps, Notes: notes,
	}, w)
	w.talks = feed.NewTalks(c.Cluster, talks, deps, calls)
	return w
}

// proxyID is the id of this Envoy: that of the worker which was the first to ask.
func proxyID(store kv.Store, worker string) string {
	const key = "inlet.proxy"
	if store.Set(key, []byte(worker), kv.Create) == nil {
		return worker
	}
	first, _, err := store.Get(key)
	if err != nil {
		return worker
	}
	return string(first)
}

// tick takes over what another worker wrote, and polls if it is this one's job. Filters
// converse in every worker.
func (w *follower) tick() {
	w.load()
	w.Tick()
	w.talks.Tick()
}

func (w *follower) close() {
	if err := w.lease.Release(); err != nil {
		w.deps.Log(filter.Debug, "companion: "+err.Error()) // it expires
	}
}

// Turn implements feed.Host.
func (w *follower) Turn() bool {
	held, err := w.lease.Hold()
	w.turn = err == nil && held
	return w.turn
}

// Current implements feed.Host.
func (w *follower) Current() *endpoint.Snapshot { return w.current }

// Call implements feed.Host.
func (w *follower) Call(r *feed.Request, done func(*filter.Reply)) error { return w.calls(r, done) }

// load takes the store's snapshot if it is another than the one at hand.
func (w *follower) load() {
	word, _, err := w.deps.Store.Get(w.wordKey)
	if err != nil || string(word) == w.word {
		return
	}
	// Noted before the snapshot is read, so that a bad one is told once.
	w.word = string(word)
	wire, _, err := w.deps.Store.Get(w.key)
	if err == nil {
		var s *endpoint.Snapshot
		if s, err = w.series.Read(wire); err == nil {
			s.Received = receivedAt(w.word)
			s.Attach(w.deps.Counters, w.current)
			w.current = s
			return
		}
	}
	w.deps.Log(filter.Error, "companion: the snapshot of another worker cannot be read: "+err.Error())
}

// Adopt implements feed.Host. It writes the snapshot before its version word, so that a worker that
// sees the word finds this snapshot or a later one. The store has it whole, whatever came: a worker
// may have missed the one before.
func (w *follower) Adopt(s *endpoint.Snapshot) error {
	w.load()
	if !feed.Supersedes(s, w.current) {
		return nil
	}
	word := versionWord(s)
	w.wire = endpoint.Append(w.wire[:0], s)
	if err := w.deps.Store.Set(w.key, w.wire, 0); err != nil {
		return err
	}
	if err := w.deps.Store.Set(w.wordKey, []byte(word), 0); err != nil {
		return err
	}
	w.word, w.current = word, s
	return nil
}

// versionWord tells a snapshot apart from every other. The time goes with it
// because a VM that is started later must know the snapshot's age.
func versionWord(s *endpoint.Snapshot) string {
	word := binary.LittleEndian.AppendUint64(nil, uint64(s.Received.UnixNano()))
	word = append(append(word, s.ID()...), '-')
	return string(strconv.AppendUint(word, s.Heard, 10))
}

func receivedAt(word string) time.Time {
	if len(word) < 8 {
		return time.Unix(0, 0)
	}
	return time.Unix(0, int64(binary.LittleEndian.Uint64([]byte(word[:8]))))
}

// peers implements filter.Peers for all filters of a plugin. What the holder of the
// lease does not know yet from the other workers, it learns by their ring: so the
// others need not tell.
type peers struct{ plugin *plugin }

func (p peers) Tell(notes []byte) {
	if c := p.plugin.follower; c != nil && c.turn {
		p.plugin.notes.Tell(notes)
	}
}

func (p peers) Hear(learn func(notes []byte)) { p.plugin.notes.Hear(learn) }

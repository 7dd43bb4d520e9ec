package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/shared/chain"
	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/kv"
)

const (
	// pollLease is how long the poll rests when the worker that does it dies.
	pollLease = time.Second
	// pollGrace is what a long poll may take beyond the wait that it asks for.
	pollGrace = 5 * time.Second
	// Pauses after failed polls double from the first to the last.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// feed brings the companion's snapshots to all workers. One of them, the holder
// of a lease, keeps one long poll open and writes what comes to the store; the
// others look at a small version word there at every tick. The last snapshot is
// kept for ever: its gauges age, its list of replicas is better than none.
type feed struct {
	companion chain.Companion
	worker    string
	deps      *filter.Deps
	get       getter
	lease     *kv.Lease

	key     string // of the snapshot in the store
	wordKey string // of its version word: when it was received, and its id
	word    string // version word of current

	current *endpoint.Snapshot

	open     time.Time          // a poll is under way, until then at the longest
	told     *endpoint.Snapshot // what the open poll said we have; the answer may be a delta to it
	whole    bool               // the last answer could not be read: the next poll says that we have nothing
	pause    time.Duration
	resumeAt time.Time // no poll before
}

// getter does one GET; done gets the answer unless an error is returned.
type getter func(path string, timeout time.Duration, done func(*filter.Reply)) error

func getFrom(cluster string) getter {
	return func(path string, timeout time.Duration, done func(*filter.Reply)) error {
		return dispatch(cluster, [][2]string{
			{":method", "GET"}, {":path", path}, {":authority", cluster},
		}, nil, timeout, done)
	}
}

// newFeed returns the feed of one worker. The keys carry the cluster, since
// plugins with different companions may share a store.
func newFeed(c chain.Companion, worker string, deps *filter.Deps, get getter) *feed {
	return &feed{
		companion: c, worker: worker, deps: deps, get: get,
		lease:   kv.NewLease(deps.Store, "inlet.poll/"+c.Cluster, worker, deps.Now, pollLease),
		key:     "inlet.snapshot/" + c.Cluster,
		wordKey: "inlet.snapshot-version/" + c.Cluster,
	}
}

// tick takes over what another worker wrote, and polls if it is this one's job.
func (f *feed) tick() {
	f.load()
	if held, err := f.lease.Hold(); err != nil || !held {
		return
	}
	if now := f.deps.Now(); now.After(f.open) && !now.Before(f.resumeAt) {
		f.poll()
	}
}

func (f *feed) close() {
	if err := f.lease.Release(); err != nil {
		f.deps.Log(filter.Debug, "companion: "+err.Error()) // it expires
	}
}

// load takes the store's snapshot if it is another than the one at hand.
func (f *feed) load() {
	word, _, err := f.deps.Store.Get(f.wordKey)
	if err != nil || string(word) == f.word {
		return
	}
	// Noted before the snapshot is read, so that a bad one is told once.
	f.word = string(word)
	wire, _, err := f.deps.Store.Get(f.key)
	if err == nil {
		var s *endpoint.Snapshot
		if s, err = endpoint.Decode(wire); err == nil {
			f.adopt(s, receivedAt(f.word))
			return
		}
	}
	f.deps.Log(filter.Error, "companion: the snapshot of another worker cannot be read: "+err.Error())
}

func (f *feed) adopt(s *endpoint.Snapshot, received time.Time) {
	s.Received = received
	s.Attach(f.deps.Counters)
	f.current = s
}

func (f *feed) poll() {
	f.open = f.deps.Now().Add(f.companion.Wait + 2*pollGrace)
	f.told = f.current
	if f.whole {
		f.told = nil
	}
	path := endpoint.Path(f.told, f.worker, f.companion.Wait)
	if err := f.get(path, f.companion.Wait+pollGrace, f.answered); err != nil {
		f.failed(err)
	}
}

var errSameAgain = errors.New("it answers with the snapshot that it was told we have")

// answered takes the answer to a poll. After news the next poll follows at
// once, after silence at the next tick.
func (f *feed) answered(r *filter.Reply) {
	if r.Err == nil && r.Status == 304 {
		f.succeeded()
		return
	}
	s, err := f.decodeAnswer(r)
	if err == nil && f.told != nil && s.ID() == f.told.ID() {
		err = errSameAgain // polling on at once would be a tight loop
	}
	if err == nil {
		err = f.publish(s)
	}
	if err != nil {
		f.failed(err)
		return
	}
	f.succeeded()
	// The poll may have been open for longer than the lease, and another worker
	// may be at it now: only the holder goes on.
	if held, err := f.lease.Hold(); err == nil && held {
		f.poll()
	}
}

func (f *feed) decodeAnswer(r *filter.Reply) (*endpoint.Snapshot, error) {
	switch {
	case r.Err != nil:
		return nil, r.Err
	case r.Status != 200:
		return nil, fmt.Errorf("it answers %d", r.Status)
	}
	s, err := endpoint.Apply(f.told, r.Body)
	f.whole = err != nil
	return s, err
}

// publish writes the snapshot before its version word, so that whoever sees the
// word finds this snapshot or a later one. The store has it whole, whatever came:
// a worker may have missed the one before.
// A late answer never replaces a newer one of the same companion.
func (f *feed) publish(s *endpoint.Snapshot) error {
	f.load()
	if c := f.current; c != nil && c.Source == s.Source && c.Version >= s.Version {
		return nil
	}
	received := f.deps.Now()
	word := versionWord(received, s)
	if err := f.deps.Store.Set(f.key, endpoint.Append(nil, s), 0); err != nil {
		return err
	}
	if err := f.deps.Store.Set(f.wordKey, []byte(word), 0); err != nil {
		return err
	}
	f.word = word
	f.adopt(s, received)
	return nil
}

// versionWord tells a snapshot apart from every other. The time goes with it
// because a VM that is started later must know the snapshot's age.
func versionWord(received time.Time, s *endpoint.Snapshot) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(received.UnixNano()))) + s.ID()
}

func receivedAt(word string) time.Time {
	if len(word) < 8 {
		return time.Unix(0, 0)
	}
	return time.Unix(0, int64(binary.LittleEndian.Uint64([]byte(word[:8]))))
}

func (f *feed) succeeded() {
	if f.pause > 0 {
		f.deps.Log(filter.Info, fmt.Sprintf("companion: cluster %q answers again", f.companion.Cluster))
	}
	f.pause, f.open = 0, time.Time{}
}

// failed plans the next try; only the first failure in a row is logged.
func (f *feed) failed(err error) {
	if f.pause == 0 {
		f.deps.Log(filter.Warn, fmt.Sprintf("companion: no snapshot from cluster %q: %v; going on with what is there, and trying again",
			f.companion.Cluster, err))
	}
	f.pause = min(max(2*f.pause, firstPause), lastPause)
	// Half of the pause is random, so that many Envoys do not come back at once.
	half := f.pause / 2
	f.resumeAt = f.deps.Now().Add(half + time.Duration(f.deps.Rand()%uint64(half)))
	f.open = time.Time{}
}

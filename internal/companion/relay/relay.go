// Package relay hands the snapshot of all replicas to the proxies: the companion's side of the call that endpoint.Path describes.
//
// # Ages
//
// The age of a gauge grows by itself, so it is no change and wakes nobody. Instead a proxy ages what it has, from the moment it
// received it (endpoint.Gauges.Trust). What it believes is then never younger than the truth, but an unchanged gauge, scraped again and
// again, would look older and older to it. So at each heartbeat the relay makes a new version out of the same gauges with their ages of
// now. And a proxy that comes at some other time gets the ages of that time: they are brought up to date when the answer is written.
//
// # Deltas
//
// A proxy that has a version of this companion gets what changed since, as long as the list of endpoints and what they serve is the same.
// Gauges that did not change count as changed once the proxies would take them for a heartbeat old.
//
// # What proxies tell each other
//
// A proxy tells by POST /v1/relay what it has in flight, all of it each time, and notes about prompts that replicas have computed. The first
// has a lease. The notes are remembered, the latest within a bound, so that a proxy which comes new gets what the fleet knows. An answer to
// a proxy that takes part has what the others have in flight, and the notes since it heard last; see board.
package relay

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Options are the settings of a Relay; the zero value of each field stands for its default.
type Options struct {
	Interval  time.Duration // Run publishes at most once in it; 20 ms
	Heartbeat time.Duration // a new version at least that often; a quarter of endpoint.DefaultStale
	MaxWait   time.Duration // of a long poll, whatever the proxy asks for; 60 s
	Lease     time.Duration // a worker that did not call for it is forgotten; 10 s
	Source    uint64        // id of this companion; random

	ProxyLease time.Duration // what a proxy has in flight is forgotten if it does not tell it again; three of its renewals
	Memory     int64         // of the notes that are remembered, in bytes; 64 MiB
	NoteRate   int           // bytes of notes that one proxy may tell in a second; 8 MiB

	// Now is the time by a clock that is never set: one that was set would make gauges older or younger. Whoever calls Publish by itself, and
	// not Run, may have one of his own.
	Now func() time.Time
}

// Relay holds the current snapshot, what proxies told, and their open calls. Its methods are safe for concurrent use. It is an http.Handler
// for GET /v1/snapshot, GET /v1/snapshot.json and POST /v1/relay.
type Relay struct {
	opts Options

	mu      sync.Mutex
	current *endpoint.Snapshot // nil before the first Publish; never written to after it stands here
	history history            // of current
	bumped  time.Time          // when the version grew last
	next    chan struct{}      // closed when it grows again, or at Close
	closed  bool
	aged    *endpoint.Snapshot // current as of a moment ago, nil if that is not known ...
	wires   map[uint64][]byte  // ... and its encodings, by the version that the proxy has, 0 for none
	workers map[string]*worker
	board   *board
	told    chan struct{} // something was told that nobody was told yet
	stats   Stats
}

// worker is what is known of one worker of one proxy.
type worker struct {
	seen    time.Time // its last call began or ended
	waiting int       // calls that are open
	has     string    // the snapshot that it has, by ID
}

// maxWorkers bounds the memory that callers with ever new names can take.
const maxWorkers = 8192

// Stats is what the relay counts.
type Stats struct {
	Version   uint64 // of the current snapshot
	Workers   int    // that hold a lease
	Waiting   int    // calls that are open
	Sent      uint64 // answers with a whole snapshot
	Deltas    uint64 // answers with what changed
	Unchanged uint64 // answers without
	Early     uint64 // answers before there was a snapshot
	SentBytes uint64 // of both
	Relay     BoardStats
}

// New returns a relay that has no snapshot yet.
func New(o Options) *Relay {
	def := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	def(&o.Interval, 20*time.Millisecond)
	def(&o.Heartbeat, endpoint.DefaultStale/4)
	def(&o.MaxWait, time.Minute)
	def(&o.Lease, 10*time.Second)
	def(&o.ProxyLease, 3*feed.Renewal)
	if o.Memory <= 0 {
		o.Memory = 64 << 20
	}
	if o.NoteRate <= 0 {
		o.NoteRate = 8 << 20
	}
	for o.Source == 0 {
		o.Source = rand.Uint64()
	}
	if o.Now == nil {
		started := time.Now()
		o.Now = func() time.Time { return started.Round(0).Add(time.Since(started)) }
	}
	return &Relay{
		opts: o, next: make(chan struct{}), workers: make(map[string]*worker),
		board: newBoard(o.Memory, o.NoteRate), told: make(chan struct{}, 1),
	}
}

// Publish makes the pools, with the gauges' ages of now, the current snapshot. If they differ from what was current (in more than ages),
// or the last version is a heartbeat old, that is a new version and every waiting proxy gets it at once. The pools are copied.
func (r *Relay) Publish(pools []endpoint.Pool) {
	s := &endpoint.Snapshot{Source: r.opts.Source, Taken: r.opts.Now(), Pools: clonePools(pools)}
	s.Sort()

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	version := uint64(0)
	if r.current != nil {
		version = r.current.Version
	}
	beat := s.Taken.Sub(r.bumped) >= r.opts.Heartbeat
	grown := r.history.record(r.current, s, version+1, r.opts.Heartbeat, beat)
	if grown {
		version++
		r.bumped = s.Taken
	}
	s.Version = version
	before := r.current
	r.current, r.aged = s, nil
	if r.history.listed == version && grown {
		r.board.list(s)
		r.board.miss(s.Taken)
	}
	r.board.see(before, s)
	news := r.board.expire(s.Taken, r.opts.MaxWait+r.opts.Lease)
	select {
	case <-r.told:
		news = true
	default:
	}
	if grown || news {
		close(r.next)
		r.next = make(chan struct{})
	}
}

// Run publishes what pools returns: at once, at the heartbeat, and when changed receives a value or a proxy told something, but then not
// before the interval since the last time is over. It returns when ctx ends. changed may be nil.
//
// With pools that returns gauges set by hand (and an Age of 0), a test has a companion of its own:
//
//	r := relay.New(relay.Options{})
//	go r.Run(ctx, nil, func(time.Time) []endpoint.Pool { return pools })
//	server := httptest.NewServer(r)
func (r *Relay) Run(ctx context.Context, changed <-chan struct{}, pools func(now time.Time) []endpoint.Pool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.Publish(pools(time.Now()))
		timer.Reset(r.opts.Interval)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(r.untilDue())
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-r.told:
			r.tellAgain()
		case <-timer.C:
		}
	}
}

// untilDue is how long it is until the heartbeat, or until a proxy is given up.
func (r *Relay) untilDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Now()
	return r.board.untilExpiry(now, r.opts.Heartbeat-now.Sub(r.bumped))
}

// tellAgain has the next Publish wake those who wait.
func (r *Relay) tellAgain() {
	select {
	case r.told <- struct{}{}:
	default:
	}
}

// Close answers all open calls. Calls after it do not wait.
func (r *Relay) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		close(r.next)
	}
}

// Snapshot returns the current snapshot, nil if there is none. It must not be changed.
func (r *Relay) Snapshot() *endpoint.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// Stats returns the counts of now.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetWorkers(r.opts.Now())
	s := r.stats
	s.Relay = r.board.stats
	s.Relay.Proxies = len(r.board.proxies)
	s.Relay.Remembered, s.Relay.Bytes = len(r.board.notes.ends), r.board.notes.bytes
	s.Workers = len(r.workers)
	for _, w := range r.workers {
		s.Waiting += w.waiting
	}
	if r.current != nil {
		s.Version = r.current.Version
	}
	return s
}

// Worker is a worker of a proxy that holds a lease.
type Worker struct {
	ID      string
	Has     string        // the snapshot that it said it has, "" if none
	Waiting bool          // a call of it is open
	Silent  time.Duration // since it was heard of; 0 while it is waiting
}

// Workers returns the workers that hold a lease, sorted by id.
func (r *Relay) Workers() []Worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Now()
	r.forgetWorkers(now)
	list := make([]Worker, 0, len(r.workers))
	for id, w := range r.workers {
		out := Worker{ID: id, Has: w.has, Waiting: w.waiting > 0}
		if !out.Waiting {
			out.Silent = now.Sub(w.seen)
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(a, b Worker) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Proxies returns the proxies that take part in the relay, sorted by id.
func (r *Relay) Proxies() []Proxy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.board.all(r.opts.Now())
}

// forgetWorkers drops the workers whose lease is over. Callers hold r.mu.
func (r *Relay) forgetWorkers(now time.Time) {
	maps.DeleteFunc(r.workers, func(_ string, w *worker) bool {
		return w.waiting == 0 && now.Sub(w.seen) >= r.opts.Lease
	})
}

// arrive notes that a worker calls; the function that it returns notes the end of the call.
func (r *Relay) arrive(id, has string) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Now()
	w := r.workers[id]
	if w == nil {
		if len(r.workers) >= maxWorkers {
			r.forgetWorkers(now)
		}
		if id == "" || len(r.workers) >= maxWorkers {
			return func() {} // served all the same, not listed
		}
		w = new(worker)
		r.workers[id] = w
	}
	w.seen, w.has = now, has
	w.waiting++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		w.seen = r.opts.Now()
		w.waiting--
	}
}

// clonePools copies without what belongs to a proxy.
func clonePools(pools []endpoint.Pool) []endpoint.Pool {
	clones := slices.Clone(pools)
	for i := range clones {
		clones[i].Endpoints = slices.Clone(clones[i].Endpoints)
		for j := range clones[i].Endpoints {
			e := &clones[i].Endpoints[j]
			e.Load, e.Peers = nil, endpoint.InFlight{}
		}
	}
	return clones
}

// agedTo returns the snapshot as of a later moment.
func agedTo(s *endpoint.Snapshot, now time.Time) *endpoint.Snapshot {
	older := *s
	older.Taken = now
	older.Pools = clonePools(s.Pools)
	for _, p := range older.Pools {
		for j := range p.Endpoints {
			if g := &p.Endpoints[j].Gauges; g.Known {
				g.Age += now.Sub(s.Taken)
			}
		}
	}
	return &older
}

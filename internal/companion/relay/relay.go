// Package relay serves the snapshot of all replicas to the proxies: the companion's side of the poll that endpoint.Path describes.
//
// # Ages
//
// The age of a gauge grows by itself, so it is not a change and ends no poll. Instead a proxy ages its gauges from the moment it received
// them (endpoint.Gauges.Trust). They are then never younger to it than they are, but an unchanged gauge that is scraped again and again
// would look older and older. So at each heartbeat the relay makes a new version of the same gauges with their present ages. A proxy that
// polls at another time gets the ages of that time: they are updated when the response is written.
//
// # Deltas
//
// A proxy that has a version of this companion gets the changes since, as long as the list of endpoints and what they serve is the same.
// Unchanged gauges count as changed once they look a heartbeat old to the proxies.
//
// # What proxies share
//
// A proxy reports by POST /v1/relay everything that it has in flight, and notes about prompts that replicas have computed. What it has in
// flight has a lease. The latest notes are stored within a bound, so that a proxy that joins later gets what the others know. A response to
// a proxy that takes part contains what the others have in flight, and the notes since its last response; see board.
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
	Lease     time.Duration // a worker that did not poll for this long is forgotten; 10 s
	Source    uint64        // id of this companion; random

	ProxyLease time.Duration // what a proxy has in flight is forgotten if it does not report again; three of its renewals
	Memory     int64         // of the stored notes, in bytes; 64 MiB
	NoteRate   int           // bytes of notes that one proxy may report per second; 8 MiB

	// Now returns the time by a clock that is never adjusted, which would make gauges older or younger. A caller of Publish (and not Run) may
	// use its own.
	Now func() time.Time
}

// Relay holds the current snapshot, what proxies reported, and their open polls. Its methods are safe for concurrent use. It is an http.Handler
// for GET /v1/snapshot, GET /v1/snapshot.json and POST /v1/relay.
type Relay struct {
	opts Options

	mu       sync.Mutex
	current  *endpoint.Snapshot // nil before the first Publish; never written to after it stands here
	history  history            // of current
	bumped   time.Time          // when the version last changed
	next     chan struct{}      // closed when it changes again, or at Close
	closed   bool
	aged     *endpoint.Snapshot // current as of a moment ago, nil if that is not known ...
	wires    map[uint64][]byte  // ... and its encodings, by the version that the proxy has, 0 for none
	workers  map[string]*worker
	board    *board
	reported chan struct{} // something was reported that was not sent to any proxy yet
	stats    Stats
}

// worker is what is known about one worker of one proxy.
type worker struct {
	seen    time.Time // its last call began or ended
	waiting int       // calls that are open
	has     string    // the snapshot that it has, by ID
}

// maxWorkers bounds the memory that callers can take by using ever new names.
const maxWorkers = 8192

// Stats is what the relay counts.
type Stats struct {
	Version   uint64 // of the current snapshot
	Workers   int    // that hold a lease
	Waiting   int    // open polls
	Sent      uint64 // responses with a complete snapshot
	Deltas    uint64 // responses with the changes
	Unchanged uint64 // responses without either
	Early     uint64 // responses before there was a snapshot
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
		board: newBoard(o.Memory, o.NoteRate), reported: make(chan struct{}, 1),
	}
}

// Publish makes the pools, with the present ages of their gauges, the current snapshot. If they differ from it (in more than ages), or the
// last version is a heartbeat old, that is a new version and every waiting proxy gets it at once. The pools are copied.
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
	case <-r.reported:
		news = true
	default:
	}
	if grown || news {
		close(r.next)
		r.next = make(chan struct{})
	}
}

// Run publishes what pools returns: at once, at the heartbeat, and when changed receives a value or a proxy reported, but not before the
// interval since the last time is over. It returns when ctx ends. changed may be nil.
//
// With pools that returns fixed gauges (and an Age of 0), a test has its own companion:
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
		case <-r.reported:
			r.notifyAgain()
		case <-timer.C:
		}
	}
}

// untilDue returns the time until the heartbeat, or until a proxy's lease expires.
func (r *Relay) untilDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Now()
	return r.board.untilExpiry(now, r.opts.Heartbeat-now.Sub(r.bumped))
}

// notifyAgain makes the next Publish end the open polls.
func (r *Relay) notifyAgain() {
	select {
	case r.reported <- struct{}{}:
	default:
	}
}

// Close ends all open polls. Later ones do not wait.
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

// Stats returns the present counts.
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
	Has     string        // the snapshot that it has, "" if none
	Waiting bool          // it has an open poll
	Silent  time.Duration // since its last poll; 0 while it is waiting
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

// forgetWorkers removes the workers whose lease has expired. Callers hold r.mu.
func (r *Relay) forgetWorkers(now time.Time) {
	maps.DeleteFunc(r.workers, func(_ string, w *worker) bool {
		return w.waiting == 0 && now.Sub(w.seen) >= r.opts.Lease
	})
}

// arrive notes that a worker polls; the function that it returns notes the end of the poll.
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
			return func() {} // served, but not listed
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

// clonePools copies the pools without what belongs to a proxy.
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

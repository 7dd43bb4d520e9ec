package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// A replica that was away may be another process at the same address, and then what the
// one before had computed is gone. Where its metrics say when the process was started,
// that decides. Where they do not, it is taken for another one if it was not ready for
// lostAfter, or was not listed at all; a scrape that is missed once is neither.
//
// What other workers and proxies tell of a replica while it is away, or with the
// snapshot that says it is back, is of the one before.

// lostAfter is shorter than any model server takes to start, and longer than a replica is
// away for a scrape that failed.
const lostAfter = 2 * time.Second

// hearsayAfter is how long after a replica came back it is not believed what others tell.
const hearsayAfter = time.Second

// life is what is known of a member's process, by the lock of the fleet.
type life struct {
	started int64     // as told last; 0: never
	ready   bool      // as told last
	left    time.Time // when it was first not; zero: it has lost nothing
	gone    bool      // it was not listed since
	back    time.Time // when it was last taken for another process
	out     bool      // some worker had it ejected at the last tick
}

// live takes in what a snapshot says of a replica; it needs the lock.
func (f *fleet) live(m *member, e *endpoint.Endpoint, received time.Time) {
	l := &m.life
	told := l.started != 0 && e.Started != 0
	another := told && e.Started != l.started
	if e.Started != 0 {
		l.started = e.Started
	}
	if l.ready && !e.Ready {
		l.left = received
	}
	if l.ready = e.Ready; l.ready && !l.left.IsZero() {
		another = another || !told && (l.gone || received.Sub(l.left) >= lostAfter)
		l.left, l.gone = time.Time{}, false
	}
	if another {
		f.index.Empty(m.slot)
		l.back = received
	}
}

// missing notes which replicas a view lists no more; it needs the lock. Lists of different
// companions do not compare.
func (f *fleet) missing(v *view) {
	var before *view
	for _, old := range f.views {
		if old.snapshot.Source == v.snapshot.Source {
			before = old
			break
		}
	}
	if before == nil {
		return
	}
	for i := range before.seats {
		_, now := v.find(before.snapshot.Pools[i].Name)
		if sameSeats(before.seats[i], now) {
			continue // as nearly always
		}
		for _, was := range before.seats[i] {
			if !v.lists(was.member.address) {
				was.member.leave(v.snapshot.Received)
			}
		}
	}
}

// sameSeats reports whether two slices are one.
func sameSeats(a, b []seat) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// lists reports whether any pool of a view has a replica.
func (v *view) lists(address string) bool {
	for _, seats := range v.seats {
		if find(seats, address).member != nil {
			return true
		}
	}
	return false
}

// leave notes that a replica is not listed any more.
func (m *member) leave(received time.Time) {
	l := &m.life
	if l.ready {
		l.ready, l.left = false, received
	}
	l.gone = true
}

// believes reports whether what others tell of a replica's prompts is of this replica.
func (f *fleet) believes(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &m.life
	if !l.left.IsZero() || m.ejected.Value() > 0 {
		return false
	}
	return l.back.IsZero() || len(f.views) == 0 || f.views[0].snapshot.Received.Sub(l.back) >= hearsayAfter
}

// emptyEjected forgets the prompts of replicas that other workers have ejected, as these
// have.
func (f *fleet) emptyEjected() {
	if f.ejected.Value() <= 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		out := m.ejected.Value() > 0
		if out && !m.life.out {
			f.index.Empty(m.slot)
		}
		m.life.out = out
	}
}

package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What a replica has computed is gone with its process: see endpoint.Life. What other
// workers and proxies tell of a replica while it is away, or with the snapshot that says
// it is back, is of the process before.

// hearsayAfter is how long after another process was seen what others tell is ignored.
const hearsayAfter = time.Second

// life is what is known of a member's process, by the lock of the fleet.
type life struct {
	endpoint.Life
	back time.Time // when it was last taken for another process
	out  bool      // some worker had it ejected at the last tick
}

// live takes in what a snapshot says of a replica; it needs the lock.
func (f *fleet) live(m *member, s *endpoint.Snapshot) {
	ready, started := s.Process(m.address)
	if m.life.See(ready, started, s.Received) {
		f.index.Empty(m.slot)
		m.life.back = s.Received
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
				was.member.life.Miss(v.snapshot.Received)
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

// believes reports whether what others tell of a replica's prompts is of this replica.
func (f *fleet) believes(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &m.life
	if !l.Ready() || m.ejected.Value() > 0 {
		return false
	}
	return l.back.IsZero() || len(f.views) == 0 || f.views[0].snapshot.Received.Sub(l.back) >= hearsayAfter
}

// emptyEjected forgets the prompts of replicas that other workers have ejected, as these
// have.
func (f *fleet) emptyEjected() {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.ejecting
	f.ejecting = f.ejected.Value() > 0
	if !f.ejecting && !before {
		return
	}
	for _, m := range f.members {
		out := m.ejected.Value() > 0
		if out && !m.life.out {
			f.index.Empty(m.slot)
		}
		m.life.out = out
	}
}

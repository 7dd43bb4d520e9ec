package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What a replica has cached is gone with its process: see endpoint.Life. What other
// workers and proxies report of a replica while it is away, or with the snapshot that
// says it is back, is about the process before.

// ignoreReports is for how long after a restart was seen what others report is ignored.
const ignoreReports = time.Second

// process is what is known of a member's process; it needs the lock of the fleet.
type process struct {
	endpoint.Life
	restarted time.Time // when it was last taken for another process
	ejected   bool      // some worker had it ejected at the last tick
}

// noteProcess takes in what a snapshot says of a replica; it needs the lock.
func (f *fleet) noteProcess(m *member, s *endpoint.Snapshot) {
	ready, started := s.Process(m.address)
	if m.process.See(ready, started, s.Received) {
		f.index.Empty(m.slot)
		m.process.restarted = s.Received
	}
}

// believesReports reports whether what others report of a replica's prompts is about its
// present process.
func (f *fleet) believesReports(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &m.process
	if !p.Ready() || m.ejected.Value() > 0 {
		return false
	}
	return p.restarted.IsZero() || len(f.views) == 0 || f.views[0].snapshot.Received.Sub(p.restarted) >= ignoreReports
}

// emptyEjected forgets the prompts of replicas that other workers have ejected, as those
// workers have.
func (f *fleet) emptyEjected() {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.ejecting
	f.ejecting = f.ejected.Value() > 0
	if !f.ejecting && !before {
		return
	}
	for _, m := range f.members {
		ejected := m.ejected.Value() > 0
		if ejected && !m.process.ejected {
			f.index.Empty(m.slot)
		}
		m.process.ejected = ejected
	}
}

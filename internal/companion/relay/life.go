package relay

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// lives track for each replica, by endpoint.ReplicaID, whether it is still the process that its notes are about.
type lives map[uint64]*endpoint.Life

// see compares a snapshot with the previous one, which may be nil, and forgets the notes of replicas that are another process now. An
// unchanged replica costs a comparison.
func (b *board) see(before, s *endpoint.Snapshot) {
	for i := range s.Pools {
		p := &s.Pools[i]
		var old []endpoint.Endpoint
		if before != nil && i < len(before.Pools) && before.Pools[i].Name == p.Name {
			old = before.Pools[i].Endpoints
		}
		for j := range p.Endpoints {
			e := &p.Endpoints[j]
			if j < len(old) && old[j].Address == e.Address && old[j].Ready == e.Ready && old[j].Started == e.Started {
				continue
			}
			b.live(e.Address, s)
		}
	}
}

func (b *board) live(address string, s *endpoint.Snapshot) {
	id := endpoint.ReplicaID(address)
	l := b.lives[id]
	if l == nil {
		l = new(endpoint.Life)
		b.lives[id] = l
	}
	if ready, started := s.Process(address); l.See(ready, started, s.Taken) {
		b.notes.forget(id)
	}
}

// miss notes which replicas are no longer listed. It is called after list.
func (b *board) miss(now time.Time) {
	crowded := len(b.lives) > 2*len(b.slots)+maxMissing
	for id, l := range b.lives {
		if _, ok := b.slots[id]; ok {
			continue
		}
		if l.Miss(now); crowded {
			delete(b.lives, id)
			b.notes.forget(id)
		}
	}
}

// maxMissing is about how many unlisted replicas are remembered.
const maxMissing = 1000

// forget removes the notes of a replica.
func (s *notes) forget(replica uint64) {
	for _, n := range s.list {
		if n.raw != nil && (n.end.replica == replica || n.end.replica == endpoint.Unlearnt(replica)) {
			s.remove(n)
		}
	}
}

package relay

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// lives tell of each replica whether it is still the process of which the notes are. By endpoint.ReplicaID.
type lives map[uint64]*endpoint.Life

// see compares a snapshot with the one before, which may be nil, and forgets the notes of replicas that are another process now. What has not
// changed costs a comparison.
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

// miss takes in which replicas are not listed any more, after list.
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

// maxMissing is how many replicas are remembered that are not listed, about.
const maxMissing = 1000

// forget leaves out the notes of a replica.
func (s *notes) forget(replica uint64) {
	for _, n := range s.list {
		if n.raw != nil && (n.end.replica == replica || n.end.replica == endpoint.Unlearnt(replica)) {
			s.leaveOut(n)
		}
	}
}

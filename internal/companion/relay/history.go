package relay

import (
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// history records the version in which each endpoint changed last, so that a proxy with an older version is sent only the changes.
// Endpoints are identified by their position among those of all pools.
type history struct {
	listed uint64   // the version since which there are these endpoints, and they serve what they serve
	states []uint64 // of readiness and gauges
	loras  []uint64
	sent   []time.Time // when the gauges were read that the proxies have
}

// record compares the next snapshot with the previous one, nil if there was none, and reports whether it needs a new version. If it does,
// or a heartbeat is due, its changes belong to that version.
func (h *history) record(before, next *endpoint.Snapshot, version uint64, heartbeat time.Duration, beat bool) bool {
	if before == nil || !sameList(before.Pools, next.Pools) {
		h.begin(next, version)
		return true
	}
	grown := beat
	h.each(before, next, func(i int, a, b *endpoint.Endpoint) {
		grown = grown || !sameState(a, b) || !a.LoRA.Equal(b.LoRA) || h.overdue(i, next, b, heartbeat)
	})
	if !grown {
		return false
	}
	h.each(before, next, func(i int, a, b *endpoint.Endpoint) {
		// What is soon overdue is sent along, so that renewals do not each need a version.
		if !sameState(a, b) || h.overdue(i, next, b, heartbeat/2) {
			h.states[i], h.sent[i] = version, readTime(next, b)
		}
		if !a.LoRA.Equal(b.LoRA) {
			h.loras[i] = version
		}
	})
	return true
}

func (h *history) begin(s *endpoint.Snapshot, version uint64) {
	*h = history{listed: version}
	for _, p := range s.Pools {
		for i := range p.Endpoints {
			h.states = append(h.states, version)
			h.loras = append(h.loras, version)
			h.sent = append(h.sent, readTime(s, &p.Endpoints[i]))
		}
	}
}

func (h *history) each(before, next *endpoint.Snapshot, f func(i int, a, b *endpoint.Endpoint)) {
	i := 0
	for p := range next.Pools {
		for j := range next.Pools[p].Endpoints {
			f(i, &before.Pools[p].Endpoints[j], &next.Pools[p].Endpoints[j])
			i++
		}
	}
}

// overdue reports whether the gauges were read again while those of the proxies have reached an age.
func (h *history) overdue(i int, s *endpoint.Snapshot, e *endpoint.Endpoint, age time.Duration) bool {
	return e.Gauges.Known && s.Taken.Sub(h.sent[i]) >= age && readTime(s, e).After(h.sent[i])
}

func readTime(s *endpoint.Snapshot, e *endpoint.Endpoint) time.Time {
	return s.Taken.Add(-e.Gauges.Age)
}

// reaches reports whether there is a delta from that version to the current one.
func (h *history) reaches(version, current uint64) bool {
	return h.listed <= version && version <= current
}

// since returns what changed after a version.
func (h *history) since(version uint64) (changes []endpoint.Change) {
	for i := range h.states {
		lora := h.loras[i] > version
		if lora || h.states[i] > version {
			changes = append(changes, endpoint.Change{Position: i, LoRA: lora})
		}
	}
	return changes
}

// sameList compares what a delta cannot express.
func sameList(a, b []endpoint.Pool) bool {
	return slices.EqualFunc(a, b, func(a, b endpoint.Pool) bool {
		return a.Name == b.Name && slices.EqualFunc(a.Endpoints, b.Endpoints, func(a, b endpoint.Endpoint) bool {
			return a.Address == b.Address && a.Cache == b.Cache && a.Priority == b.Priority && a.Started == b.Started && a.Models.Equal(b.Models)
		})
	})
}

// sameState compares readiness and gauges, all but their age.
func sameState(a, b *endpoint.Endpoint) bool {
	g := a.Gauges
	g.Age = b.Gauges.Age
	return a.Ready == b.Ready && g == b.Gauges
}

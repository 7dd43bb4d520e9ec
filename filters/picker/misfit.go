package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// renewals watches how long it takes until gauges are told anew. If that is longer
// than the age at which they say nothing, healthy gauges say nothing for a part of
// the time, and nobody would notice.
//
// These are the means of the latest snapshots, of the gauges that are new in each.
// So many that one outage, after which all come late once, fills but a few.
type renewals [16]time.Duration

// note takes in a snapshot. Only those of one companion compare.
func (r *renewals) note(before, s *endpoint.Snapshot) {
	if before.Source != s.Source {
		return
	}
	var sum time.Duration
	n := 0
	for i := range min(len(s.Pools), len(before.Pools)) {
		last, latest := before.Pools[i].Endpoints, s.Pools[i].Endpoints
		for j := range min(len(last), len(latest)) {
			a, b := &last[j], &latest[j]
			if a.Address != b.Address || !a.Gauges.Known || !b.Gauges.Known {
				continue
			}
			// By the companion's clock; that of a gauge which is not new is 0.
			if d := a.Gauges.Age + s.Taken.Sub(before.Taken) - b.Gauges.Age; d > time.Millisecond {
				sum += d
				n++
			}
		}
	}
	if n > 0 {
		copy(r[1:], r[:])
		r[0] = sum / time.Duration(n)
	}
}

// least is the shortest of them, 0 if there are not enough yet.
func (r *renewals) least() time.Duration {
	least := r[0]
	for _, d := range r {
		least = min(least, d)
	}
	return least
}

// warnOfMisfit says that the bound of staleness is too low for what the companion
// tells.
func (f *Filter) warnOfMisfit(renewal time.Duration) {
	if f.mayWarn("picker.misfit") {
		f.deps.Log(filter.Warn, "gauges come every "+renewal.Round(time.Millisecond).String()+" and say nothing any more after "+f.stale.String()+
			": for a part of the time the picker does not know how busy replicas are. Raise \"stale\", or have the companion scrape more often")
	}
}

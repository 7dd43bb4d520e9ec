package scrape

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Stats counts the scrapes of a pool since the start.
type Stats struct {
	OK         uint64        // returned gauges
	Incomplete uint64        // the replica responded, a metric was missing
	Failed     uint64        // no response, or an unreadable one
	Late       uint64        // of the OK ones: just before, the gauges were too old for the proxies to trust, only because scraping is slow
	Took       time.Duration // all of them together
}

func (s *Stats) count(err error, took time.Duration) {
	switch {
	case err == nil:
		s.OK++
	case errors.Is(err, ErrMissing):
		s.Incomplete++
	default:
		s.Failed++
	}
	s.Took += took
}

// Pools returns the state of all replicas, sorted, with the gauges' ages at now.
func (s *Scraper) Pools(now time.Time) []endpoint.Pool { return s.poolsAt(now, false) }

// TriedPools is Pools without those of which too little is known: without a list yet, or with a first list that was not tried to its end.
// To show those would be to say that none of their replicas is ready.
func (s *Scraper) TriedPools(now time.Time) []endpoint.Pool { return s.poolsAt(now, true) }

func (s *Scraper) poolsAt(now time.Time, tried bool) []endpoint.Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	pools := make([]endpoint.Pool, 0, len(s.pools))
	for _, p := range s.pools {
		if tried && !p.tried {
			continue
		}
		endpoints := make([]endpoint.Endpoint, 0, len(p.members))
		for _, m := range p.sorted {
			r := &m.poller.reading
			e := endpoint.Endpoint{
				Address: m.address, Ready: m.ready(), Gauges: r.Gauges, Cache: r.Cache, LoRA: r.LoRA, Models: m.poller.models,
				Priority: m.priority, Started: m.poller.began,
			}
			if e.Gauges.Known {
				e.Gauges.Age = now.Sub(m.poller.scraped)
			}
			endpoints = append(endpoints, e)
		}
		pools = append(pools, endpoint.Pool{Name: p.name, Endpoints: endpoints})
	}
	slices.SortFunc(pools, func(a, b endpoint.Pool) int { return cmp.Compare(a.Name, b.Name) })
	return pools
}

// Stats returns the counts of each pool, by name.
func (s *Scraper) Stats() map[string]Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := make(map[string]Stats, len(s.pools))
	for _, p := range s.pools {
		stats[p.name] = p.stats
	}
	return stats
}

// Pollers returns how many replicas are scraped, each counted once.
func (s *Scraper) Pollers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pollers)
}

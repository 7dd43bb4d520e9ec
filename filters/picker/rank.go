package picker

import (
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/kv"
)

// state is what the picker keeps for one request. Its slices are used again by
// later requests of the same exchange object.
type state struct {
	pool    string
	ready   []*endpoint.Endpoint
	total   []float64            // score of each of ready
	scores  []float64            // of one scorer
	ranked  []*endpoint.Endpoint // best first
	keys    []key                // of ranked
	header  []byte
	charged kv.Counter // on which the request counts as in flight; nil if none
}

// key orders replicas: by score, equal ones at random, so that no replica is
// preferred for its place in the list.
type key struct {
	score float64
	tie   uint64
}

func (k key) before(o key) bool {
	if k.score != o.score {
		return k.score > o.score
	}
	return k.tie < o.tie
}

func stateOf(x *filter.Exchange) *state {
	s, ok := x.State().(*state)
	if !ok {
		s = &state{}
		x.SetState(s)
	}
	return s
}

func (s *state) reset() {
	s.pool, s.charged = "", nil
	s.ready, s.ranked, s.keys = s.ready[:0], s.ranked[:0], s.keys[:0]
}

// gather collects the replicas that may be picked.
func (s *state) gather(all []endpoint.Endpoint) {
	for i := range all {
		if all[i].Ready {
			s.ready = append(s.ready, &all[i])
		}
	}
}

// rank scores the ready replicas and keeps the best few, best first.
func (f *Filter) rank(s *state, sinceReceived time.Duration) {
	n := len(s.ready)
	s.total, s.scores = zeros(s.total, n), zeros(s.scores, n)
	in := scorer.Input{SinceReceived: sinceReceived, Stale: f.stale}
	for _, w := range f.profile.weights {
		w.scorer.Score(in, s.ready, s.scores)
		for i, v := range s.scores {
			s.total[i] += w.factor * min(1, max(0, v))
		}
	}
	seed := f.deps.Rand()
	for i, e := range s.ready {
		s.insert(e, key{s.total[i], mix(seed + uint64(i))}, f.endpoints)
	}
}

// zeros returns n zeros, in the memory of s if it has room.
func zeros(s []float64, n int) []float64 {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// insert puts e into the ranked list, which keeps at most limit entries.
func (s *state) insert(e *endpoint.Endpoint, k key, limit int) {
	at := len(s.keys)
	for at > 0 && k.before(s.keys[at-1]) {
		at--
	}
	if at == limit {
		return
	}
	if len(s.keys) < limit {
		s.keys = append(s.keys, key{})
		s.ranked = append(s.ranked, nil)
	}
	copy(s.keys[at+1:], s.keys[at:])
	copy(s.ranked[at+1:], s.ranked[at:])
	s.keys[at], s.ranked[at] = k, e
}

// list joins the addresses of the ranked replicas.
func (s *state) list() string {
	if len(s.ranked) == 1 {
		return s.ranked[0].Address
	}
	s.header = s.header[:0]
	for i, e := range s.ranked {
		if i > 0 {
			s.header = append(s.header, ',')
		}
		s.header = append(s.header, e.Address...)
	}
	return string(s.header)
}

// mix spreads the bits of x (the finaliser of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

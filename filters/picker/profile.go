package picker

import (
	"math"
	"slices"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
)

// profile is a way to choose. It gives every candidate of a request its rank.
type profile interface {
	name() string
	// usesPrefixes: who holds how much of the prompt is looked up.
	usesPrefixes() bool
	// usesSessions: the header that names the session is read.
	usesSessions() bool
	rank(f *Filter, s *state)
}

// profiles are those to choose from. The first is the default.
var profiles = []profile{
	sticky{},
	// The blend of the endpoint picker of the Gateway API Inference Extension
	// (queue 2, kv-cache 2, prefix 3, LoRA 1). It goes by gauges, which are a scrape late:
	// within one, a burst goes where they were best. The requests in flight weigh
	// against that, and a replica without room comes last. If none has room, it goes
	// by what is known at once: as sticky does.
	&blend{as: "weighted", asksForRoom: true, weights: []weight{
		{scorer.Queue{}, 2}, {scorer.KVCache{}, 2}, {scorer.Prefix{}, 3}, {scorer.LoRA{}, 1}, {scorer.InFlight{}, 1},
	}},
	&blend{as: "least-request", weights: []weight{{scorer.Requests{}, 1}}},
	roundRobin{},
	// The session decides, and only without one the load.
	&blend{as: "session", weights: []weight{{scorer.Session{}, 1e6}, {scorer.Requests{}, 1}}},
}

// rank orders candidates: by class, then by score, equal ones by a tie that is a
// hash, or random if the profile leaves it 0, so that none is preferred for its
// place in the list.
type rank struct {
	class int8
	score float64
	tie   uint64
}

// below reports whether a rank is worse than another whatever their ties.
func (k *rank) below(o *rank) bool {
	return k.class < o.class || k.class == o.class && k.score < o.score
}

// Classes, the best first.
const (
	classTry    = 3 // to see how an ejected replica is
	classBest   = 2 // where the prompt belongs
	classRoom   = 1 // has room, or nobody asks
	classNoRoom = 0
	classBackup = -1 // of a later priority
	classFull   = -2 // has said so: somebody holds back from it
	classLacks  = -3 // does not list the model, which others do
)

func (k rank) before(o rank) bool {
	switch {
	case k.class != o.class:
		return k.class > o.class
	case k.score != o.score:
		return k.score > o.score
	}
	return k.tie < o.tie
}

// blend is the sum of the opinions of scorers, by weight.
type blend struct {
	as          string
	asksForRoom bool
	weights     []weight
}

type weight struct {
	scorer scorer.Scorer
	factor float64
}

func (b *blend) name() string { return b.as }

func (b *blend) usesPrefixes() bool { return b.has(scorer.Prefix{}) }
func (b *blend) usesSessions() bool { return b.has(scorer.Session{}) }

func (b *blend) has(s scorer.Scorer) bool {
	return slices.ContainsFunc(b.weights, func(w weight) bool { return w.scorer == s })
}

func (b *blend) rank(f *Filter, s *state) {
	if b.asksForRoom && !s.hasRoom() {
		// Then gauges say little more than that: with a hundred requests in every
		// queue, what comes within a scrape would go to whom a block more is free.
		sticky{}.rank(f, s)
		return
	}
	n := len(s.replicas)
	s.total = resized(s.total, n)
	s.scores = resized(s.scores, n)
	clear(s.total)
	for _, w := range b.weights {
		w.scorer.Score(&s.input, s.replicas, s.scores)
		for i, v := range s.scores {
			s.total[i] += w.factor * min(1, max(0, v))
		}
	}
	for i := range s.ranks {
		s.ranks[i].class = classRoom
		if b.asksForRoom && !s.candidates[i].room {
			s.ranks[i].class = classNoRoom
		}
		s.ranks[i].score = s.total[i] * s.candidates[i].warm
	}
}

// resized returns a slice of length n, with whatever was in it.
func resized(s []float64, n int) []float64 {
	if cap(s) < n {
		return make([]float64, n)
	}
	return s[:n]
}

// roundRobin takes one replica after the other.
type roundRobin struct{}

func (roundRobin) name() string       { return "round-robin" }
func (roundRobin) usesPrefixes() bool { return false }
func (roundRobin) usesSessions() bool { return false }

func (roundRobin) rank(f *Filter, s *state) {
	n := uint64(len(s.ranks))
	turn := f.fleet.turn(s.pool, f.deps.Rand)
	for i := range s.ranks {
		s.ranks[i].class = classRoom
		s.ranks[i].score = -float64((uint64(i) + n - turn%n) % n)
	}
}

// sticky keeps a request where the beginning of its prompt was computed before,
// until that replica is saturated or has more than its share; else it goes where
// it waits least for tokens to be computed, its own among them.
//
// It leads with what this proxy knows at once and exactly, the tokens in flight.
// Gauges are a scrape late: they correct (work that others sent there) and veto
// (no room), they do not lead. The bounds and the cost are those to which the
// scheduler of llm-d came after its weighted blend.
//
// A token in the cache weighs more than one to wait for, see prefix.weight; where
// the request would not stay it counts for what it is.
type sticky struct{}

func (sticky) name() string       { return "sticky" }
func (sticky) usesPrefixes() bool { return true }
func (sticky) usesSessions() bool { return false }

func (sticky) rank(f *Filter, s *state) {
	others(s)
	placed := len(s.chain) > 0 // by the prompt
	if s.input.Adapter {
		placed = adapters(s) // by the adapter
	}
	var sum float64
	known := false
	most := f.bounds(s)
	for i := range s.replicas {
		r, c, k := &s.replicas[i], &s.candidates[i], &s.ranks[i]
		s.total[i] += float64(r.Tokens)
		load := s.total[i]
		sum += load
		stays := r.Hit > 0 && most.allow(r)
		k.class = classNoRoom
		if c.room || stays {
			k.class = classRoom
		}
		known = known || r.Hit > 0
		k.score = -(load + float64(s.tokens)*(1-r.Hit)) / c.warm
		if !stays || r.Tokens >= most.tokens {
			continue
		}
		// What is computed a second time delays everybody behind it and drives out
		// of the cache what others need, which then is computed a second time too:
		// judged by its own wait alone, each request would rather move, and all wait
		// longer for it.
		k.score += (f.weight - 1) * float64(s.tokens) * r.Hit
		if r.Hit >= f.hit {
			k.class = classBest
		}
	}
	if !known && placed {
		s.place(sum / float64(len(s.replicas)))
	}
}

// bounds are how much a replica may have for a request to stay with it.
type bounds struct {
	waiting  int
	inFlight int64
	tokens   int64
}

// bounds are the bounds for a request. All are above the mean of the pool: where
// all are busy, the bound alone would drive conversations from one replica to the
// next, and each would have to compute what the last one knew.
//
// That requests in flight are bounded as in place is for what many share, such as
// the instructions of an agent: they would all stay where it was first. The KV
// cache is no bound: who finds its prompt there takes the least of it.
func (f *Filter) bounds(s *state) bounds {
	var waiting, trust, inFlight, tokens float64
	for i := range s.replicas {
		r := &s.replicas[i]
		waiting += r.Trust * float64(r.Gauges.Waiting)
		trust += r.Trust
		inFlight += float64(r.InFlight)
		tokens += float64(r.Tokens)
	}
	n := float64(len(s.replicas))
	b := bounds{
		waiting:  f.room.queue,
		inFlight: int64(min(fewRequests, f.room.inFlight)) + int64(boundedLoad*inFlight/n),
		tokens:   f.saturation + int64(2*tokens/n),
	}
	if trust > 0 {
		b.waiting += int(2 * waiting / trust)
	}
	return b
}

// fewRequests are too few to tell from them who has more than its share.
const fewRequests = 8

// allow reports whether a request may stay with a replica, apart from the tokens.
func (b *bounds) allow(r *scorer.Replica) bool {
	return r.InFlight < b.inFlight && (r.Trust < believed || r.Gauges.Waiting < b.waiting)
}

// Work that other proxies sent to a replica, in tokens: it is seen in the gauges
// only, so its prompts are not known. One that waits is taken to have the length
// of a page or two; one that runs is computed already, and costs what every
// request costs.
const (
	tokensWaiting = 1024
	tokensRunning = tokensOfRequest
)

// others makes the totals the work before each replica that is not from here.
func others(s *state) {
	any := false
	for i := range s.replicas {
		r := &s.replicas[i]
		s.total[i] = 0
		if n := r.Others(); n > 0 {
			waiting := min(n, r.Gauges.Waiting)
			s.total[i] = float64(waiting*tokensWaiting + (n-waiting)*tokensRunning)
			any = true
		}
	}
	if any {
		scorer.Trusted(s.replicas, s.total, 0)
	}
}

// tokensOfAdapter is what it costs to have an adapter loaded: some hundred
// milliseconds.
const tokensOfAdapter = 4096

// adapters adds to the totals what it costs each replica to take up the adapter,
// and reports whether that is the same for all.
func adapters(s *state) (same bool) {
	s.scores = resized(s.scores, len(s.replicas))
	scorer.LoRA{}.Score(&s.input, s.replicas, s.scores)
	same = true
	for i, v := range s.scores {
		s.total[i] += tokensOfAdapter * (1 - v)
		same = same && v == s.scores[0]
	}
	return same
}

// boundedLoad is how far above the mean the load of a replica may be that is
// taken for its prompt.
const boundedLoad = 1.25

// place ranks the candidates for a prompt of which no replica holds anything, or
// an adapter that none has loaded, as far as is known: by rendezvous hashing with bounded load (Mirrokni, Thorup and Zadimoghaddam,
// 2016). Workers and proxies that have not told each other anything yet send it to
// the same replica.
func (s *state) place(mean float64) {
	key := s.seed
	if !s.input.Adapter {
		key = s.chain[0]
	}
	for i := range s.ranks {
		k := &s.ranks[i]
		if k.class != classRoom || s.total[i] > boundedLoad*mean {
			continue
		}
		if s.candidates[i].warm < 1 {
			continue
		}
		k.class, k.score = classBest, 0
		k.tie = math.MaxUint64 - scorer.Rendezvous(key, s.replicas[i].ID)
	}
}

package picker

import (
	"math"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
)

// Affinity keeps a request where the beginning of its prompt is cached, as long as that
// replica has not much more than its share. Otherwise the scorers decide.
//
// This proxy's own counts are exact and immediate; gauges are a scrape late. So gauges
// correct (work that others sent there) and veto (saturated), but they do not lead. The
// bounds and the cost are those that the scheduler of llm-d arrived at after its
// weighted blend.

// bounds are how much a replica may have for a request to stay with it.
type bounds struct {
	waiting  int
	inFlight int64
	tokens   int64
}

// fewRequests are too few to say that a replica has more than its share.
const fewRequests = 8

// boundedLoad is how far above the mean the load of a replica may be.
const boundedLoad = 1.25

// allow reports whether a request may stay with a replica, apart from the tokens.
func (b *bounds) allow(r *scorer.Replica) bool {
	return r.InFlight < b.inFlight && (r.Trust < minTrust || r.Gauges.Waiting < b.waiting)
}

// affinity is how much a cached prompt binds the request to its replica.
func (b *bounds) affinity(r *scorer.Replica) scorer.Affinity {
	switch {
	case r.Hit <= 0 || !b.allow(r):
		return scorer.NoAffinity
	case r.Tokens >= b.tokens:
		return scorer.Stays
	}
	return scorer.Attracts
}

// sums are what the bounds are made of.
type sums struct{ waiting, trust, inFlight, tokens float64 }

func (s *sums) add(r *scorer.Replica) {
	s.waiting += r.Trust * float64(r.Gauges.Waiting)
	s.trust += r.Trust
	s.inFlight += float64(r.InFlight)
	s.tokens += float64(r.Tokens)
}

// bounds are all above the mean of the pool: where all are busy, fixed bounds would
// drive conversations from one replica to the next, and each would have to compute what
// the last one had cached.
//
// The bound of requests in flight, with a factor of 1.25, is for prompts that many
// requests share, such as the instructions of an agent: they would all stay where the
// first one went. The KV cache is no bound: a request whose prompt is in it takes the
// least of it.
func (s *sums) bounds(f *Filter, n int) bounds {
	b := bounds{
		waiting:  f.saturation.queue,
		inFlight: int64(min(fewRequests, f.saturation.inFlight)) + int64(boundedLoad*s.inFlight/float64(n)),
		tokens:   f.maxTokens + int64(2*s.tokens/float64(n)),
	}
	if s.trust > 0 {
		b.waiting += int(2 * s.waiting / s.trust)
	}
	return b
}

// Requests that other clients sent to a replica are seen in its gauges only, so their
// prompts are not known. One in the queue is taken to have a page or two of text. One
// that runs is computed already, and costs what every request costs.
const (
	tokensWaiting = 1024
	tokensRunning = tokensOfRequest
)

// estimateWork fills in the work before each candidate, and the affinity of the prompt.
func (p *pick) estimateWork() {
	work, seen, totals := p.scratch[:len(p.replicas)], false, sums{}
	for i := range p.replicas {
		r := &p.replicas[i]
		totals.add(r)
		work[i] = 0
		if n := r.Others(); n > 0 {
			waiting := min(n, r.Gauges.Waiting)
			work[i] = float64(waiting*tokensWaiting + (n-waiting)*tokensRunning)
			seen = true
		}
	}
	if seen {
		scorer.Trusted(p.replicas, work, 0)
	}
	if p.request.input.Adapter {
		p.addAdapter(work)
	}
	most := totals.bounds(p.f, len(p.replicas))
	for i := range p.replicas {
		r := &p.replicas[i]
		r.Work = work[i] + float64(r.Tokens)
		r.Affinity = most.affinity(r)
	}
}

// tokensOfAdapter is what it costs to load an adapter: some hundred milliseconds.
const tokensOfAdapter = 4096

// addAdapter adds to the work what it costs each replica to load the adapter.
func (p *pick) addAdapter(work []float64) {
	scorer.LoRA{}.Score(&p.request.input, p.replicas, p.scores)
	p.adapterDiffers = false
	for i, v := range p.scores {
		work[i] += tokensOfAdapter * (1 - v)
		p.adapterDiffers = p.adapterDiffers || v != p.scores[0]
	}
}

// prefer marks the candidates where the prompt belongs: those that have enough of it
// cached; if none has any of it, those that a hash says.
func (p *pick) prefer() {
	known, sum := false, 0.0
	for i := range p.replicas {
		r := &p.replicas[i]
		r.Preferred = r.Affinity == scorer.Attracts && r.Hit >= p.f.minHit
		known = known || r.Hit > 0
		sum += r.Work
	}
	if s := p.request; !known && (s.input.Adapter && !p.adapterDiffers || !s.input.Adapter && len(s.chain) > 0) {
		p.preferByHash(sum / float64(len(p.replicas)))
	}
}

// preferByHash is for a prompt that no replica has cached, or an adapter that none has
// loaded, as far as is known: rendezvous hashing with bounded load (Mirrokni, Thorup and
// Zadimoghaddam, 2016). So workers and proxies that have not shared it yet send it to
// the same replica.
func (p *pick) preferByHash(mean float64) {
	p.hashed = true
	for i := range p.replicas {
		r := &p.replicas[i]
		r.Preferred = !r.Saturated && r.Work <= boundedLoad*mean && r.WarmUp >= 1
	}
}

// hashTie orders those that are preferred by hash.
func (p *pick) hashTie(r *scorer.Replica) uint64 {
	key := p.request.cacheKey
	if !p.request.input.Adapter {
		key = p.request.chain[0]
	}
	return math.MaxUint64 - scorer.Rendezvous(key, r.ID)
}

package picker

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/prefix"
	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// One pick, from top to bottom:
//
//	collect  the ready endpoints of a pool become candidates, with all that is known of
//	         each; with a subset hint only those in it. Ejected ones are set aside
//	filter   replicas of later priorities leave; those that serve another model are marked
//	score    the profile's scorers say how well each candidate would serve the request
//	order    the candidates are sorted by tier, then by score, equal ones at random; the
//	         best few are the ranked list for Envoy
//
// A candidate is a scorer.Replica all the way through.

// pick is one pick. It is as large as the pool, so it is only borrowed while it lasts
// (fleet.borrow): most requests in progress wait for their response.
type pick struct {
	f       *Filter
	request *state
	now     time.Time
	pool    *endpoint.Pool
	entries []entry // as the pool's endpoints

	matches prefix.Matches // who has how much of the prompt

	backingOff bool // some worker backs off from some replica

	replicas []scorer.Replica // the candidates
	ejected  []int            // places in the pool of those that are ejected
	standby  []scorer.Replica // those of a later priority ...
	behind   int              // ... and how many of them are in the ranked list

	scores  []float64 // as replicas: what orders them within a tier
	scratch []float64 // as replicas: one scorer's
	hashed  bool      // those that are preferred are so by a hash

	modelListed    bool // some candidate lists the model
	adapterDiffers bool // some replicas have the adapter, others have not

	ranked []int  // indices of replicas, best first
	ranks  []rank // as ranked

	subset []int // scratch of findSubset
}

// collect makes candidates of the endpoints of a pool that may serve the request.
func (p *pick) collect(pool *endpoint.Pool, entries []entry, subset *filter.Subset) {
	p.reset()
	p.pool, p.entries = pool, entries
	p.reserve(len(pool.Endpoints))
	ejecting := p.f.fleet.ejected.Value() > 0
	p.backingOff = p.f.fleet.isBackingOff(p.now)
	n := len(pool.Endpoints)
	if subset.Given {
		n = p.findSubset(subset.Addresses)
	}
	priorities := ejecting // whether there may be several: an ejected one may come back
	for i := range n {
		if subset.Given {
			i = p.subset[i]
		}
		e, m := &pool.Endpoints[i], entries[i].member
		if !e.Ready {
			continue
		}
		if ejecting && m.ejected.Value() > 0 {
			p.ejected = append(p.ejected, i)
			continue
		}
		p.add(i)
		priorities = priorities || e.Priority != p.replicas[0].Priority
	}
	p.limitEjections()
	p.filter(priorities)
}

// add makes a candidate of the endpoint at a place in the pool. There is memory for it
// (reserve).
func (p *pick) add(place int) *scorer.Replica {
	n := len(p.replicas) + 1
	p.replicas, p.scores = p.replicas[:n], p.scores[:n]
	r, e, m := &p.replicas[n-1], &p.pool.Endpoints[place], p.entries[place].member
	r.Endpoint, r.Place, r.ID = e, place, m.id
	// Counts of other workers may be a tick late. One below zero is no reason to send
	// requests there.
	r.InFlight, r.Tokens = max(0, m.load.Value()), max(0, m.tokens.Value())
	if e.Peers != (endpoint.InFlight{}) {
		trust := p.request.peersTrust
		r.InFlight += int64(math.Round(trust * float64(e.Peers.Requests)))
		r.Tokens += int64(trust * float64(e.Peers.Tokens))
	}
	r.Hit, r.WarmUp = 0, 1
	if blocks := p.matches.Of(m.slot); blocks > 0 {
		r.Hit = float64(blocks) / float64(len(p.request.chain))
	}
	if since := p.entries[place].since; !since.IsZero() {
		r.WarmUp = warmUp(p.now.Sub(since), p.f.slowStart)
	}
	r.Trust = e.Gauges.Trust(p.request.snapshotAge, p.f.stale)
	backingOff := p.backingOff && m.backingOff.Value() > 0
	r.Found = scorer.Found{BackingOff: backingOff, Saturated: backingOff || p.f.saturation.of(r)}
	return r
}

// minWarmUp is the share of the load that a replica gets when it has just become ready.
const minWarmUp = 0.1

// warmUp is the share of the load that a replica gets that has been ready for so long.
func warmUp(ready, slowStart time.Duration) float64 {
	if ready >= slowStart {
		return 1
	}
	return max(minWarmUp, float64(ready)/float64(slowStart))
}

// findSubset finds the places of addresses in the pool, each once, and returns how many
// there are.
func (p *pick) findSubset(addresses []string) int {
	p.subset = p.subset[:0]
	for _, address := range addresses {
		if i, ok := slices.BinarySearchFunc(p.pool.Endpoints, address, compareAddress); ok {
			p.subset = append(p.subset, i)
		}
	}
	slices.Sort(p.subset)
	p.subset = slices.Compact(p.subset)
	return len(p.subset)
}

func compareAddress(e endpoint.Endpoint, address string) int {
	return strings.Compare(e.Address, address)
}

// limitEjections takes ejected replicas back that exceed the allowed share: when so many
// fail, it may not be their fault, and somebody has to serve.
func (p *pick) limitEjections() {
	ready := len(p.replicas) + len(p.ejected)
	allowed := max(0, min(int(p.f.health.share*float64(ready)), ready-1))
	for len(p.ejected) > allowed {
		i := int(p.f.deps.Rand() % uint64(len(p.ejected)))
		place := p.ejected[i]
		last := len(p.ejected) - 1
		p.ejected[i] = p.ejected[last]
		p.ejected = p.ejected[:last]
		p.add(place).WarmUp = 1 // it is needed at once
	}
}

// filter leaves the candidates that may be scored.
func (p *pick) filter(priorities bool) {
	p.matchModels()
	if priorities {
		p.keepFirstPriority()
	}
}

// matchModels finds out who serves the model, and whether it is a LoRA adapter.
// Replicas that list the same models share the list, so it is mostly read once.
func (p *pick) matchModels() {
	input := &p.request.input
	var last *endpoint.Models
	serves, some, others := false, false, false
	for i := range p.replicas {
		m := p.replicas[i].Models
		if m == nil {
			continue
		}
		if m != last {
			last = m
			var adapter bool
			serves, adapter = m.Serves(input.Model)
			input.Adapter = input.Adapter || adapter
		}
		some = some || serves
		others = others || !serves
		p.replicas[i].OtherModel = !serves
	}
	p.modelListed = some
	if others && !some {
		// Then they know it by another name, or the lists are old.
		for i := range p.replicas {
			p.replicas[i].OtherModel = false
		}
	}
}

// servesOther reports whether an endpoint that is no candidate lists its models without
// the one asked for, which a candidate lists.
func (p *pick) servesOther(e *endpoint.Endpoint) bool {
	if !p.modelListed || e.Models == nil {
		return false
	}
	serves, _ := e.Models.Serves(p.request.input.Model)
	return !serves
}

// keepFirstPriority keeps the candidates of one priority: the lowest that can take the
// request, or the lowest if none can. The others are on standby.
func (p *pick) keepFirstPriority() {
	first, n := p.firstPriority(), 0
	for i := range p.replicas {
		if p.replicas[i].Priority != first {
			p.standby = append(p.standby, p.replicas[i])
			continue
		}
		p.replicas[n] = p.replicas[i]
		n++
	}
	p.replicas, p.scores = p.replicas[:n], p.scores[:n]
}

func (p *pick) firstPriority() (first uint16) {
	best := -1
	for i := range p.replicas {
		r := &p.replicas[i]
		fit := 2
		switch {
		case r.OtherModel:
			fit = 0
		case r.Saturated:
			fit = 1
		}
		if fit > best || fit == best && r.Priority < first {
			best, first = fit, r.Priority
		}
	}
	return first
}

// hasCapacity reports whether any candidate can take the request.
func (p *pick) hasCapacity() bool {
	for i := range p.replicas {
		if !p.replicas[i].Saturated {
			return true
		}
	}
	return false
}

// rank scores and orders the candidates.
func (p *pick) rank() {
	p.addProbe()
	by := p.f.profile
	if by.allSaturated != nil && !p.hasCapacity() {
		by = by.whenAllSaturated()
	}
	p.score(by)
	p.addStandby()
	p.order(by)
}

// addProbe adds an ejected replica whose turn it is to get a half-open probe: this
// request. The others follow it in the ranked list.
func (p *pick) addProbe() {
	for _, place := range p.ejected {
		e, m := &p.pool.Endpoints[place], p.entries[place].member
		// One of a later priority is probed when those before it cannot serve. For
		// another model a probe would only get 404.
		later := len(p.replicas) > 0 && e.Priority > p.replicas[0].Priority
		if !later && !p.servesOther(e) && p.f.fleet.startProbe(m, p.now) {
			p.request.probing = m
			r := p.add(place)
			r.Probe, r.WarmUp = true, 1
			return
		}
	}
}

// score has the profile score the candidates.
func (p *pick) score(by *profile) {
	input := &p.request.input
	if by.needs.Has(scorer.NeedTurn) {
		input.Turn = p.f.fleet.nextTurn(p.pool.Name, p.f.deps.Rand)
	}
	if by.needs.Has(scorer.NeedWork) {
		p.estimateWork()
	}
	if by.affinity {
		p.prefer()
	}
	by.score(input, p.replicas, p.scores, p.scratch[:len(p.replicas)])
}

// addStandby adds replicas of later priorities where fewer than the ranked list has
// places are left of the first, so that Envoy's retries reach them.
func (p *pick) addStandby() {
	if len(p.replicas) >= p.f.endpoints {
		return
	}
	p.behind = len(p.standby)
	for i := range p.standby {
		r := &p.standby[i]
		r.Standby = true
		p.replicas = append(p.replicas, *r)
		p.scores = append(p.scores, -float64(r.Priority)-float64(min(r.InFlight, maxScored))/(maxScored+1))
	}
}

// maxScored is the most requests in flight by which replicas on standby are told apart.
const maxScored = 1 << 20

// tier is the first thing that candidates are ordered by.
type tier int8

const (
	tierOtherModel tier = iota
	tierBackingOff
	tierStandby
	tierSaturated
	tierNormal
	tierPreferred
	tierProbe
)

func (p *profile) tierOf(r *scorer.Replica) tier {
	switch {
	case r.OtherModel:
		return tierOtherModel
	case r.BackingOff:
		return tierBackingOff
	case r.Probe:
		return tierProbe
	case r.Standby:
		return tierStandby
	case r.Preferred:
		return tierPreferred
	case p.saturatedLast && r.Saturated && r.Affinity == scorer.NoAffinity:
		return tierSaturated
	}
	return tierNormal
}

// rank is what a candidate is ordered by: tier, then score. Equal ones are ordered by a
// tie breaker, so that none is preferred for its place in the list.
type rank struct {
	tier  tier
	score float64
	tie   uint64
}

// worse reports whether a rank is behind another whatever their ties.
func (k *rank) worse(o *rank) bool {
	return k.tier < o.tier || k.tier == o.tier && k.score < o.score
}

func (k *rank) before(o *rank) bool {
	switch {
	case k.tier != o.tier:
		return k.tier > o.tier
	case k.score != o.score:
		return k.score > o.score
	}
	return k.tie < o.tie
}

// order sorts the best few candidates into the ranked list.
func (p *pick) order(by *profile) {
	seed := p.f.deps.Rand()
	for i := range p.replicas {
		r := &p.replicas[i]
		k := rank{tier: by.tierOf(r), score: p.scores[i]}
		if p.hashed && r.Preferred {
			k.score, k.tie = 0, p.hashTie(r)
		}
		if last := len(p.ranks) - 1; last+1 == p.f.endpoints && k.worse(&p.ranks[last]) {
			continue // as most are
		}
		if k.tie == 0 {
			k.tie = scorer.Mix(seed + uint64(i))
		}
		p.insert(i, &k)
	}
}

// insert puts candidate i into the ranked list, which keeps the best few.
func (p *pick) insert(i int, k *rank) {
	at := len(p.ranks)
	for at > 0 && k.before(&p.ranks[at-1]) {
		at--
	}
	if at == p.f.endpoints {
		return
	}
	if len(p.ranks) < p.f.endpoints {
		p.ranks = append(p.ranks, rank{})
		p.ranked = append(p.ranked, 0)
	}
	copy(p.ranks[at+1:], p.ranks[at:])
	copy(p.ranked[at+1:], p.ranked[at:])
	p.ranks[at], p.ranked[at] = *k, i
}

// list appends the addresses of the ranked list to dst, with commas between.
func (p *pick) list(dst []byte) []byte {
	for n, i := range p.ranked {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, p.replicas[i].Address...)
	}
	return dst
}

// memberOf returns the member that a candidate is.
func (p *pick) memberOf(r *scorer.Replica) *member { return p.entries[r.Place].member }

// reset forgets the candidates of a pool.
func (p *pick) reset() {
	p.pool, p.entries = nil, nil
	p.replicas, p.ejected, p.standby, p.behind = p.replicas[:0], p.ejected[:0], p.standby[:0], 0
	p.scores, p.hashed = p.scores[:0], false
	p.ranked, p.ranks = p.ranked[:0], p.ranks[:0]
}

// reserve takes memory for n candidates, so that add need not.
func (p *pick) reserve(n int) {
	if cap(p.replicas) < n {
		p.replicas = make([]scorer.Replica, 0, n)
		p.scores, p.scratch = make([]float64, 0, n), make([]float64, 0, n)
	}
}

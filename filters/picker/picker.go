// Package picker chooses the replica: it ranks the ready replicas of the request's pool,
// gives Envoy the best few in order, counts what is in flight on each, and remembers which
// prompts each has in its prefix cache.
package picker

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

const (
	// EndpointHeader carries the ranked list "ip:port[,ip:port…]", which
	// envoy.load_balancing_policies.override_host reads (endpoint picker protocol
	// of the Gateway API Inference Extension, proposal 004, v0.4).
	EndpointHeader = filter.EndpointHeader
	// PoolHeader names the pool to ordinary routes. It is written by bbr; here only
	// when another pool of the model is taken.
	PoolHeader = filter.PoolHeader
)

// Filter picks a replica. Reads x.Route, writes x.Target.
type Filter struct {
	filter.Base
	settings
	profile *profile
	needs   scorer.Needs // of the profile
	deps    *filter.Deps
	fleet   *fleet
	metrics metrics
}

// Needs the subset hint, and what the profile's scorers need of the request's body.
func (f *Filter) Needs() filter.Needs {
	switch {
	case f.needs.Has(scorer.NeedPrefix):
		return filter.NeedSubset | filter.NeedPrefix
	case f.needs.Has(scorer.NeedAdapter):
		return filter.NeedSubset | filter.NeedModel // for Fields
	}
	return filter.NeedSubset
}

// Fields implements filter.FieldReader.
func (f *Filter) Fields() []string {
	switch {
	case f.needs.Has(scorer.NeedPrefix):
		return llm.Partitions[:]
	case f.needs.Has(scorer.NeedAdapter):
		return []string{loraField}
	}
	return nil
}

// readSnapshot looks at the newest snapshot. Not only when a request comes: how long a
// replica has been ready, and whether it was away meanwhile, must not depend on traffic.
func (f *Filter) readSnapshot() {
	if snapshot := f.deps.Snapshot(); snapshot != nil {
		f.fleet.view(snapshot, nil, nil, f.deps.Now())
	}
}

// OnTick reports to the other workers what this one has learnt, and learns from them.
func (f *Filter) OnTick() {
	f.readSnapshot()
	f.fleet.isBackingOff(f.deps.Now()) // ends what is over: the others wait for this worker
	f.fleet.emptyEjected()
	if f.fleet.ring == nil || f.fleet.memory == 0 {
		return
	}
	if err := f.fleet.exchange(f.deps.Peers); err != nil {
		f.deps.Log(filter.Debug, "picker: "+err.Error()) // the next tick goes on
	}
	if n := f.fleet.ring.Lost(); n > 0 {
		f.deps.Log(filter.Debug, "picker: "+strconv.Itoa(n)+" prompts were not shared with the other workers: too many in one tick")
	}
}

// OnRequest picks among the ready replicas of the pool.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	s := stateOf(x)
	s.pick = f.fleet.borrow()
	defer func() { // also when a defect ends it
		f.fleet.giveBack(s.pick)
		s.pick = nil
	}()
	return f.serve(x, s)
}

func (f *Filter) serve(x *filter.Exchange, s *state) filter.Verdict {
	s.reset()
	first := x.Route.Pool
	if first == "" {
		first = f.pool
	}
	if first == "" || x.API == llm.Models {
		if x.Subset.Given {
			return refuseEmpty() // an ordinary route knows no subset
		}
		return filter.Next // an ordinary route decides
	}
	s.read(f, x)
	v := s.begin(f, f.deps.Now())
	priority := f.objectives.priority(x.RequestHeaders)
	if priority != 0 {
		x.Explain("priority", strconv.Itoa(priority))
	}
	found := f.choosePool(x, s, v, filter.Pool{Name: first, External: x.Route.External})
	switch {
	case found.external:
		f.route(x, first, found.name)
		return filter.Next
	case found.unknown && x.Subset.Given:
		return refuseEmpty() // to fail open would be to go around the subset
	case found.unknown:
		return filter.Fail("no-snapshot")
	case found.pool == nil:
		return refuseEmpty()
	case found.saturated && (f.shed || priority < 0):
		f.metrics.picks.Record(1, filter.Values{found.name, outcomeShed})
		return refuseSaturated(f.fleet.meanDuration(found.name))
	}
	s.rank()
	f.route(x, first, found.name)
	f.send(x, s)
	return filter.Next
}

// begin starts a pick: it looks at the newest snapshot, and at who has how much of the
// prompt.
func (s *state) begin(f *Filter, now time.Time) *view {
	p := s.pick
	p.f, p.request, p.now = f, s, now
	p.matches.Reset()
	snapshot := f.deps.Snapshot()
	if snapshot == nil {
		return nil
	}
	s.snapshotAge = now.Sub(snapshot.Received)
	s.peersTrust = endpoint.Trust(s.snapshotAge, f.stale)
	v := f.fleet.view(snapshot, s.chain, &p.matches, now)
	if v.renewal >= f.stale {
		f.warnOfLateGauges(v.renewal)
	}
	return v
}

// found is the pool that a request goes to.
type found struct {
	name      string
	pool      *endpoint.Pool // nil: none that has a ready replica
	external  bool
	saturated bool // no replica has capacity
	unknown   bool // nothing is known of the first pool
}

// choosePool returns the first of the request's pools in which a replica has capacity; if
// none has, the first that has any replica. Its candidates are collected.
//
// What is not known is not down: without a snapshot of the first pool the failure mode
// decides, and not the fallback.
func (f *Filter) choosePool(x *filter.Exchange, s *state, v *view, first filter.Pool) (best found) {
	collected := ""
	for i := -1; i < len(x.Route.Fallback); i++ {
		p := first
		if i >= 0 {
			p = x.Route.Fallback[i]
		}
		if p.External {
			if x.Subset.Given {
				continue // it is not known whether it keeps to the subset
			}
			// Nothing is known of it, so it is taken to have capacity.
			return found{name: p.Name, external: true}
		}
		pool, entries := v.find(p.Name)
		if pool == nil {
			f.metrics.picks.Record(1, filter.Values{p.Name, outcomeNoSnapshot})
			if i < 0 {
				return found{unknown: true}
			}
			continue
		}
		s.collect(pool, entries, &x.Subset)
		collected = p.Name
		if len(s.replicas) == 0 {
			f.metrics.picks.Record(1, filter.Values{p.Name, outcomeNoEndpoints})
			continue
		}
		saturated := !s.hasCapacity()
		if best.pool == nil || !saturated {
			best.name, best.pool, best.saturated = p.Name, pool, saturated
		}
		if !saturated {
			return best
		}
	}
	if best.pool != nil && collected != best.name {
		_, entries := v.find(best.name)
		s.collect(best.pool, entries, &x.Subset)
	}
	return best
}

// route notes where the request goes, and sets the header for routes if it is another
// pool than before.
func (f *Filter) route(x *filter.Exchange, first, pool string) {
	x.Target.Pool = pool
	if pool == first {
		return
	}
	x.SetRequestHeader(PoolHeader, pool)
	x.Explain("fallback", first+">"+pool)
	f.metrics.picks.Record(1, filter.Values{first, outcomeSpilled})
}

// send gives Envoy the ranked list and counts the request on the first replica.
func (f *Filter) send(x *filter.Exchange, s *state) {
	s.poolName = s.pool.Name
	for _, i := range s.ranked {
		s.sent = append(s.sent, s.memberOf(&s.replicas[i]))
	}
	r, m := &s.replicas[s.ranked[0]], s.sent[0]
	x.Target.Address = r.Address
	x.SetRequestHeader(EndpointHeader, s.headerValue())
	if s.probing != nil && s.probing != m {
		f.endProbe(s)
	}
	s.sentAt, s.waiting = s.now, true
	s.hitBlocks = int(math.Round(r.Hit * float64(len(s.chain))))
	s.charge(m, int64(float64(s.input.Tokens)*(1-r.Hit))+tokensOfRequest)
	f.metrics.inFlight.Record(1, filter.Values{s.poolName})
	f.metrics.picks.Record(1, filter.Values{s.poolName, outcomePicked})
	f.explain(x, s, r)
	if len(s.chain) > 0 {
		// Now and not with the response: what comes meanwhile, of the same
		// conversation or about the same document, belongs there too.
		f.learn(m, s)
		f.metrics.promptTokens.Record(int64(len(s.chain)*llm.PrefixBlockTokens), filter.Values{s.poolName})
		f.metrics.hitTokens.Record(int64(s.hitBlocks*llm.PrefixBlockTokens), filter.Values{s.poolName})
		if n := f.fleet.grown(); n != 0 {
			f.metrics.indexSize.Record(int64(n), filter.Values{s.poolName})
		}
	}
}

// headerValue is the ranked list as a header's value.
func (s *state) headerValue() string {
	if len(s.sent) == 1 {
		return s.replicas[s.ranked[0]].Address
	}
	s.header = s.list(s.header[:0])
	return string(s.header)
}

// explain says in a line why this replica.
func (f *Filter) explain(x *filter.Exchange, s *state, r *scorer.Replica) {
	x.Explain("picker", f.profile.name)
	x.Explain("candidates", strconv.Itoa(len(s.replicas)-s.behind))
	if r.Priority > 0 || len(s.standby) > 0 {
		x.Explain("rank", strconv.Itoa(int(r.Priority)))
	}
	if x.Subset.Given {
		x.Explain("subset", strconv.Itoa(len(x.Subset.Addresses)))
	}
	if len(s.ejected) > 0 {
		x.Explain("ejected", strconv.Itoa(len(s.ejected)))
	}
	switch {
	case r.Probe:
		x.Explain("by", "probe")
	case r.Saturated:
		x.Explain("by", "saturated")
	}
	if len(s.chain) > 0 {
		x.Explain("hit", strconv.Itoa(s.hitBlocks)+"/"+strconv.Itoa(len(s.chain)))
	}
	x.Explain("in-flight", strconv.FormatInt(r.InFlight, 10))
	if f.needs.Has(scorer.NeedPrefix) {
		x.Explain("tokens", strconv.FormatInt(r.Tokens, 10))
	}
	if f.explainWith != "" {
		s.why = string(x.Why())
	}
}

// warnPause is how often the workers of an Envoy give the same warning.
const warnPause = time.Minute

// mayWarn reports whether it is time for a warning, and this worker's turn.
func (f *Filter) mayWarn(key string) bool {
	now := f.deps.Now()
	last, cas, err := f.deps.Store.Get(key)
	if err == nil && len(last) == 8 && now.Sub(time.Unix(0, int64(binary.LittleEndian.Uint64(last)))) < warnPause {
		return false
	}
	if err != nil {
		cas = kv.Create
	}
	return f.deps.Store.Set(key, binary.LittleEndian.AppendUint64(nil, uint64(now.UnixNano())), cas) == nil
}

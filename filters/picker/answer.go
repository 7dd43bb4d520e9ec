package picker

import (
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What an answer, or its absence, says about replicas. An answer that Envoy or
// another filter gave says nothing: the request may never have left Envoy.

// OnResponseHeaders moves the charge to the replica that really serves: Envoy
// may have retried on a lower one of the list, or gone its own way. What was
// noted about prompts and health follows.
func (f *Filter) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	s := stateOf(x)
	if s.charged == nil {
		return filter.Next
	}
	if f.explainWith != "" {
		x.SetResponseHeader(f.explainWith, s.why)
	}
	f.follow(x, s)
	if x.Response.Status < 400 && x.Response.Served != "" {
		return filter.Next // its first byte is what counts
	}
	s.waits = false
	f.unlearn(s.charged, s) // it has computed nothing
	if x.Response.Origin != filter.OfProxy && x.Response.Served != "" {
		f.judge(x, s, s.charged)
	}
	return filter.Next
}

// follow moves the charge to the replica that Envoy turned to last.
func (f *Filter) follow(x *filter.Exchange, s *state) {
	if served := x.Response.Served; served != "" && served != s.charged.address {
		f.moved(x, s, f.fleet.find(served))
	}
}

// judge notes what an answer with an error status says about who gave it, or did not.
func (f *Filter) judge(x *filter.Exchange, s *state, m *member) {
	if m == s.trying {
		s.trying = nil
	}
	r := &x.Response
	now := f.deps.Now()
	switch {
	case r.Origin == filter.OfFailure, isFailure(r.Status):
		f.failed(m, s.pool, reasonStatus)
	case r.Status != 503 && !isFull(r.Status):
		f.fleet.succeeded(m)
	case r.Status == 503 && !f.isFresh(s.pool, m.address, now):
		f.failed(m, s.pool, reasonStatus)
	default:
		f.fleet.succeeded(m)
		f.fleet.backOff(m, now.Add(retryAfter(r.Headers, now)))
	}
}

// isFresh reports whether the metrics of a replica are answering.
func (f *Filter) isFresh(pool, address string, now time.Time) bool {
	return f.gauges(pool, address, now) != nil
}

// isAtWork reports whether they say that it has something to compute.
func (f *Filter) isAtWork(pool, address string, now time.Time) bool {
	g := f.gauges(pool, address, now)
	return g != nil && g.Running+g.Waiting > 0
}

// gauges returns the gauges of a replica, nil if there is little to believe of them.
func (f *Filter) gauges(pool, address string, now time.Time) *endpoint.Gauges {
	snapshot := f.deps.Snapshot()
	if snapshot == nil {
		return nil
	}
	p := snapshot.Pool(pool)
	if p == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(p.Endpoints, address, compareAddress)
	if !ok || p.Endpoints[i].Gauges.Trust(now.Sub(snapshot.Received), f.stale) < believed {
		return nil
	}
	return &p.Endpoints[i].Gauges
}

// OnFirstByte implements filter.FirstByter: the prompt has been computed.
func (f *Filter) OnFirstByte(x *filter.Exchange) {
	s := stateOf(x)
	if s.charged == nil {
		return
	}
	if s.tokensC > tokensOfRequest {
		s.charged.tokens.Add(tokensOfRequest - s.tokensC)
		s.tokensC = tokensOfRequest
	}
	if s.waits {
		now := x.Start.Add(x.Response.FirstByte) // a look at the clock costs wasm a call
		if x.Response.FirstByte == 0 {
			now = f.deps.Now()
		}
		f.answered(s, now)
	}
}

// answered notes that a replica has begun its answer.
func (f *Filter) answered(s *state, now time.Time) {
	s.waits = false
	if s.charged == s.trying {
		s.trying = nil
	}
	f.fleet.answered(s.charged, s.pool, s.start, now)
	f.fleet.computed(s.charged, s.chain)
}

// unanswered is for an exchange that ended before the first byte of its answer.
func (f *Filter) unanswered(x *filter.Exchange, s *state, end filter.End) {
	f.follow(x, s) // before there are headers nobody has said who serves
	s.waits = false
	m := s.charged
	asked := !end.Refused && !end.Answered && !end.Partial && x.Response.Served != "" && x.Response.Origin != filter.OfProxy
	failed := false
	if asked {
		long := false
		if long, failed = f.fleet.silent(m, s, end.At, &f.health, f.isAtWork(s.pool, m.address, end.At)); long || end.Broken {
			s.hit, failed = 0, failed || end.Broken // perhaps nobody ever got an answer to what it holds of this
		}
	}
	f.unlearn(m, s)
	if failed {
		if m == s.trying {
			s.trying = nil
		}
		f.failed(m, s.pool, reasonSilent)
	}
}

// moved is for a request that another replica serves than was picked. Only those that
// Envoy tried before have failed: at the first attempt nobody has.
func (f *Filter) moved(x *filter.Exchange, s *state, to *member) {
	attempts, at := x.Response.Attempts, slices.Index(s.sent, to)
	outcome := outcomeMissed
	switch {
	case attempts == 1:
		f.strayed(x, s, to, at)
	case at < 0:
		f.warnOfMiss(s.pool, to.address, x.Target.Address)
	default:
		outcome = outcomeRetried
		// With more places passed than attempts were made, or by a cluster that has gone its
		// own way lately, nobody can say who failed.
		if at < attempts && !f.fleet.strays(s.pool, f.deps.Now()) {
			for _, before := range s.sent[:at] {
				f.failed(before, s.pool, reasonUnused)
			}
		}
	}
	f.metrics.picks.Record(1, filter.Values{s.pool, outcome})
	f.unlearn(s.charged, s)
	tokens := s.tokensC
	s.release()
	s.charge(to, tokens)
	s.hit = 0
	if len(s.chain) > 0 {
		f.learn(to, s)
	}
}

// learn notes where a prompt is computed, for others too.
func (f *Filter) learn(m *member, s *state) {
	f.fleet.learn(m, s.chain)
	f.tell(s, m.id, s.chain)
}

// unlearn takes back what learn noted, but for what the replica had before, or has answered
// others with.
func (f *Filter) unlearn(m *member, s *state) {
	rest := s.chain[min(s.hit, len(s.chain)):]
	if len(rest) > 0 {
		rest = rest[f.fleet.forgetAll(m, rest):]
	}
	if len(rest) > 0 {
		f.tell(s, endpoint.Unlearnt(m.id), rest)
	}
}

// tell tells others of a prompt. Where all threads share the fleet, these are the other
// proxies, else the workers, of which one tells the proxies.
func (f *Filter) tell(s *state, id uint64, chain []uint64) {
	if f.fleet.ring != nil {
		f.fleet.ring.Tell(id, chain)
		return
	}
	if f.deps.Peers == nil {
		return
	}
	for end := len(chain); end > 0; end -= endpoint.MaxNote {
		s.note = endpoint.AppendNote(s.note[:0], id, chain[max(0, end-endpoint.MaxNote):end])
		f.deps.Peers.Tell(s.note)
	}
}

// strayed is for a request that Envoy sent elsewhere than it was told, though nobody had
// failed.
func (f *Filter) strayed(x *filter.Exchange, s *state, to *member, at int) {
	f.fleet.stray(s.pool, f.deps.Now())
	reason := reasonUnlisted
	if at >= 0 {
		reason = reasonPassedOver
	}
	f.metrics.unfollowed.Record(1, filter.Values{s.pool, reason})
	cluster := x.Response.Cluster
	if cluster == "" {
		cluster = "that serves it"
	}
	if f.mayWarn("picker.unfollowed/" + cluster) {
		f.deps.Log(filter.Warn, "pool "+s.pool+": the cluster "+cluster+" does not follow "+EndpointHeader+": a request for "+x.Target.Address+
			" went to "+to.address+" at the first attempt. Is its load balancing policy override_host with that header, and does it have that replica?")
	}
}

// warnOfMiss says that Envoy did not find the picked replica in the cluster. The
// metric counts every time.
func (f *Filter) warnOfMiss(pool, served, picked string) {
	if f.mayWarn("picker.missed/" + pool) {
		f.deps.Log(filter.Warn, "pool "+pool+": "+served+" served a request that was sent to "+picked+
			"; do the cluster that serves this pool and the companion know the same replicas?")
	}
}

// failed notes a failure of a replica.
func (f *Filter) failed(m *member, pool, reason string) {
	if f.fleet.failed(m, &f.health, f.deps.Now()) {
		f.metrics.ejections.Record(1, filter.Values{pool, reason})
		f.deps.Log(filter.Warn, "pool "+pool+": "+m.address+" fails ("+reason+") and gets nothing for a while")
	}
}

// OnDone takes the request out of the account.
func (f *Filter) OnDone(x *filter.Exchange, end filter.End) {
	s := stateOf(x)
	if s.charged == nil {
		f.endTry(s)
		return
	}
	switch {
	case !s.waits:
	case end.Complete && end.Status < 400:
		f.answered(s, end.At) // without a body
	default:
		f.unanswered(x, s, end)
	}
	f.endTry(s)
	s.release()
	f.metrics.inFlight.Record(-1, filter.Values{s.pool})
	if end.Complete && end.Status < 400 {
		f.fleet.took(s.pool, end.At.Sub(s.start))
	}
}

// endTry ends a try of which nothing was learnt.
func (f *Filter) endTry(s *state) {
	if s.trying != nil {
		f.fleet.tried(s.trying)
		s.trying = nil
	}
}

package picker

import (
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What a response, or its absence, says about replicas. A response from Envoy itself or
// from another filter says nothing: the request may never have left Envoy.

// OnResponseHeaders moves the charge to the replica that really serves: Envoy may have
// retried on a lower one of the list, or gone its own way. What was noted about prompts
// and health follows.
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
	s.waiting = false
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

// judge notes what a response with an error status says about the replica that sent it, or
// did not.
func (f *Filter) judge(x *filter.Exchange, s *state, m *member) {
	if m == s.probing {
		s.probing = nil
	}
	r := &x.Response
	now := f.deps.Now()
	switch {
	case r.Origin == filter.OfFailure, isFailure(r.Status):
		f.failed(m, s.poolName, reasonStatus)
	case r.Status != 503 && !isOverloaded(r.Status):
		f.fleet.succeeded(m)
	case r.Status == 503 && !f.isFresh(s.poolName, m.address, now):
		f.failed(m, s.poolName, reasonStatus)
	default:
		f.fleet.succeeded(m)
		f.fleet.backOff(m, now.Add(retryAfter(r.Headers, now)))
	}
}

// isFresh reports whether the metrics of a replica are fresh.
func (f *Filter) isFresh(pool, address string, now time.Time) bool {
	return f.gauges(pool, address, now) != nil
}

// isBusy reports whether they say that it has something to compute.
func (f *Filter) isBusy(pool, address string, now time.Time) bool {
	g := f.gauges(pool, address, now)
	return g != nil && g.Running+g.Waiting > 0
}

// gauges returns the gauges of a replica, nil if they are hardly to be believed.
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
	if !ok || p.Endpoints[i].Gauges.Trust(now.Sub(snapshot.Received), f.stale) < minTrust {
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
	if s.chargedTokens > tokensOfRequest {
		s.charged.tokens.Add(tokensOfRequest - s.chargedTokens)
		s.chargedTokens = tokensOfRequest
	}
	if s.waiting {
		now := x.Start.Add(x.Response.FirstByte) // reading the clock costs wasm a call
		if x.Response.FirstByte == 0 {
			now = f.deps.Now()
		}
		f.begun(s, now)
	}
}

// begun notes that a replica has begun its response.
func (f *Filter) begun(s *state, now time.Time) {
	s.waiting = false
	if s.charged == s.probing {
		s.probing = nil
	}
	f.fleet.firstByte(s.charged, s.poolName, s.sentAt, now)
	f.fleet.computed(s.charged, s.chain)
}

// noFirstByte is for an exchange that ended before the first byte of its response.
func (f *Filter) noFirstByte(x *filter.Exchange, s *state, end filter.End) {
	f.follow(x, s) // without response headers it is not known yet which replica serves
	s.waiting = false
	m := s.charged
	asked := !end.Refused && !end.Answered && !end.Partial && x.Response.Served != "" && x.Response.Origin != filter.OfProxy
	failed := false
	if asked {
		long := false
		if long, failed = f.fleet.timedOut(m, s, end.At, &f.health, f.isBusy(s.poolName, m.address, end.At)); long || end.Broken {
			s.hitBlocks, failed = 0, failed || end.Broken // perhaps it never responded to a prompt with what it has of this
		}
	}
	f.unlearn(m, s)
	if failed {
		if m == s.probing {
			s.probing = nil
		}
		f.failed(m, s.poolName, reasonTimeout)
	}
}

// moved is for a request that another replica serves than the picked one. Only those that
// Envoy tried before have failed: at the first attempt none has.
func (f *Filter) moved(x *filter.Exchange, s *state, to *member) {
	attempts, at := x.Response.Attempts, slices.Index(s.sent, to)
	before := s.sent // that were better
	if at >= 0 {
		before = s.sent[:at]
	}
	unhealthy := f.passedOver(before, s.sentAt)
	outcome := outcomeMissed
	switch {
	case attempts == 1 && unhealthy == len(before):
		f.metrics.unfollowed.Record(1, filter.Values{s.poolName, reasonUnhealthy})
	case attempts == 1:
		f.misrouted(x, s, to, at)
	case at >= 0:
		outcome = outcomeRetried
		// If more places were passed than attempts were made, or the cluster has gone its
		// own way lately, nobody can say which replicas failed.
		if at-unhealthy < attempts && !f.fleet.misroutes(s.poolName, f.deps.Now()) {
			f.blame(before, s)
		}
	case unhealthy == 0:
		f.warnOfMiss(s.poolName, to.address, x.Target.Address)
	}
	f.metrics.picks.Record(1, filter.Values{s.poolName, outcome})
	f.unlearn(s.charged, s)
	tokens := s.chargedTokens
	s.release()
	s.charge(to, tokens)
	s.hitBlocks = 0
	if len(s.chain) > 0 {
		f.learn(to, s)
	}
}

// passedOver counts those that Envoy did not ask because it knows them as unhealthy.
func (f *Filter) passedOver(members []*member, since time.Time) int {
	n := 0
	for _, m := range members {
		if f.isPassedOver(m, since) {
			n++
		}
	}
	return n
}

func (f *Filter) isPassedOver(m *member, since time.Time) bool {
	return f.deps.PassedOver != nil && f.deps.PassedOver(m.address, since)
}

// blame notes of replicas that a request was at before another one served it that they
// have failed.
func (f *Filter) blame(members []*member, s *state) {
	for _, m := range members {
		if !f.isPassedOver(m, s.sentAt) {
			f.failed(m, s.poolName, reasonConnect)
		}
	}
}

// misrouted is for a request that Envoy did not send to the picked replica, though that had
// not failed.
func (f *Filter) misrouted(x *filter.Exchange, s *state, to *member, at int) {
	f.fleet.noteMisrouted(s.poolName, f.deps.Now())
	reason := reasonUnlisted
	if at >= 0 {
		reason = reasonPassedOver
	}
	f.metrics.unfollowed.Record(1, filter.Values{s.poolName, reason})
	cluster := x.Response.Cluster
	if cluster == "" {
		cluster = "that serves it"
	}
	if f.mayWarn("picker.unfollowed/" + cluster) {
		f.deps.Log(filter.Warn, "pool "+s.poolName+": the cluster "+cluster+" does not follow "+EndpointHeader+": at the first attempt it sent a request for "+x.Target.Address+
			" to "+to.address+". Check that its load balancing policy is override_host with that header, and that it has that endpoint")
	}
}

// warnOfMiss says that Envoy did not find the picked replica in the cluster. The metric
// counts every time.
func (f *Filter) warnOfMiss(pool, served, picked string) {
	if f.mayWarn("picker.missed/" + pool) {
		f.deps.Log(filter.Warn, "pool "+pool+": endpoint "+served+" served a request that was sent to "+picked+
			". Check that the cluster that serves this pool has the same endpoints as the companion")
	}
}

// OnDone ends the charge.
func (f *Filter) OnDone(x *filter.Exchange, end filter.End) {
	s := stateOf(x)
	if s.charged == nil {
		f.endProbe(s)
		return
	}
	switch {
	case !s.waiting:
	case end.Complete && end.Status < 400:
		f.begun(s, end.At) // without a body
	default:
		f.noFirstByte(x, s, end)
	}
	f.endProbe(s)
	s.release()
	f.metrics.inFlight.Record(-1, filter.Values{s.poolName})
	if end.Complete && end.Status < 400 {
		f.fleet.noteDuration(s.poolName, end.At.Sub(s.sentAt))
	}
}

// warnOfLateGauges says that the bound of staleness is too low for what the companion
// sends.
func (f *Filter) warnOfLateGauges(renewal time.Duration) {
	if f.mayWarn("picker.gauges") {
		f.deps.Log(filter.Warn, "gauges are renewed every "+renewal.Round(time.Millisecond).String()+", but \"stale\" ignores them after "+f.stale.String()+
			": for a part of the time the picker does not know how busy replicas are. Raise \"stale\", or have the companion scrape more often")
	}
}

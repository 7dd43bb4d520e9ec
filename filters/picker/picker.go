// Package picker chooses the replica: it scores the ready replicas of the
// request's pool, hands Envoy a ranked list of them, and counts what is in
// flight on each.
package picker

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/kv"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// EndpointHeader carries the ranked list "ip:port[,ip:port…]", which
// envoy.load_balancing_policies.override_host reads (endpoint picker protocol
// of the Gateway API Inference Extension, proposal 004, v0.4).
const EndpointHeader = "x-gateway-destination-endpoint"

// PoolHeader names the pool to ordinary routes. It is written by bbr; here only
// when another pool of the model is taken.
const PoolHeader = "x-gateway-inference-pool"

// Filter picks a replica. Reads x.Route, writes x.Target.
type Filter struct {
	filter.Base
	profile   *profile
	endpoints int           // length of the ranked list
	pool      string        // pool of requests that bbr gave none
	stale     time.Duration // age at which a gauge says nothing
	deps      *filter.Deps
	inFlight  filter.Metric
	picks     filter.Metric
}

// Outcomes of a pick, as label values of inlet_pick_total.
const (
	outcomePicked  = "picked"
	outcomeEmpty   = "no_endpoints" // the pool has no ready replica
	outcomeBlind   = "no_snapshot"  // nothing is known about the pool
	outcomeRetried = "retried"      // a lower one of the list served
	outcomeMissed  = "missed"       // a replica outside of the list served
)

// OnRequest picks among the ready replicas of the first pool that has any.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	state := stateOf(x)
	state.reset()
	first := filter.Pool{Name: x.Route.Pool, External: x.Route.External}
	if first.Name == "" {
		first.Name = f.pool
	}
	if first.Name == "" || x.API == llm.Models {
		return filter.Next // an ordinary route decides
	}
	if first.External {
		x.Target.Pool = first.Name
		return filter.Next
	}
	snapshot := f.deps.Snapshot()
	if !f.gather(state, snapshot, first.Name) {
		return filter.Fail("no-snapshot")
	}
	for i := 0; len(state.ready) == 0; i++ {
		if i == len(x.Route.Fallback) {
			return refuseEmpty()
		}
		next := x.Route.Fallback[i]
		if next.External {
			f.fallBack(x, first.Name, next.Name)
			return filter.Next
		}
		if f.gather(state, snapshot, next.Name); len(state.ready) > 0 {
			f.fallBack(x, first.Name, next.Name)
		}
	}
	f.rank(state, f.deps.Now().Sub(snapshot.Received))
	f.send(x, state)
	return filter.Next
}

// gather collects the ready replicas of a pool, and reports whether the pool is
// known at all.
func (f *Filter) gather(s *state, snapshot *endpoint.Snapshot, pool string) (known bool) {
	s.pool = pool
	if snapshot == nil || snapshot.Pool(pool) == nil {
		f.picks.Record(1, filter.Values{pool, outcomeBlind})
		return false
	}
	s.gather(snapshot.Pool(pool).Endpoints)
	if len(s.ready) == 0 {
		f.picks.Record(1, filter.Values{pool, outcomeEmpty})
	}
	return true
}

// fallBack sends the request to another pool than the model's own.
func (f *Filter) fallBack(x *filter.Exchange, from, to string) {
	x.Target.Pool = to
	x.SetRequestHeader(PoolHeader, to)
	x.Explain("fallback", from+">"+to)
}

// send names the ranked list to Envoy and takes the first into account.
func (f *Filter) send(x *filter.Exchange, s *state) {
	first := s.ranked[0]
	x.Target = filter.Target{Address: first.Address, Pool: s.pool}
	x.SetRequestHeader(EndpointHeader, s.list())
	s.charge(first.Load)
	f.inFlight.Record(1, filter.Values{s.pool})
	f.picks.Record(1, filter.Values{s.pool, outcomePicked})
	x.Explain("picker", f.profile.name)
	x.Explain("ready", strconv.Itoa(len(s.ready)))
}

// OnResponseHeaders moves the charge to the replica that really serves: Envoy
// may have retried on a lower one of the list, or gone its own way.
func (f *Filter) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	s := stateOf(x)
	served := x.Response.Served
	if s.charged == nil || served == "" || served == x.Target.Address {
		return filter.Next
	}
	outcome := outcomeMissed
	for _, e := range s.ranked {
		if e.Address == served {
			outcome = outcomeRetried
		}
	}
	f.picks.Record(1, filter.Values{s.pool, outcome})
	if outcome == outcomeMissed {
		f.warnOfMiss(s.pool, served, x.Target.Address)
	}
	s.release()
	s.charge(f.deps.Counters.Open(served))
	return filter.Next
}

// missPause is how often a pool's misses are logged; the metric counts them all.
const missPause = time.Minute

// warnOfMiss says, once a while for each pool and Envoy, that Envoy did not
// find the picked replica in the cluster.
func (f *Filter) warnOfMiss(pool, served, picked string) {
	key := "picker.missed/" + pool
	now := f.deps.Now()
	last, cas, err := f.deps.Store.Get(key)
	if err == nil && len(last) == 8 && now.Sub(time.Unix(0, int64(binary.LittleEndian.Uint64(last)))) < missPause {
		return
	}
	if err != nil {
		cas = kv.Create
	}
	if f.deps.Store.Set(key, binary.LittleEndian.AppendUint64(nil, uint64(now.UnixNano())), cas) != nil {
		return // another worker says it
	}
	f.deps.Log(filter.Warn, "pool "+pool+": "+served+" served a request that was sent to "+picked+
		"; do the cluster that serves this pool and the companion know the same replicas?")
}

// OnDone takes the request out of the account.
func (f *Filter) OnDone(x *filter.Exchange, _ filter.End) {
	s := stateOf(x)
	if s.charged != nil {
		s.release()
		f.inFlight.Record(-1, filter.Values{s.pool})
	}
}

func refuseEmpty() filter.Verdict {
	return filter.Deny(filter.Refusal{
		Refusal: llm.Refusal{
			Status: 503, Type: "server_error", Code: "no_endpoints",
			Message: "No replica is ready to serve this model. Try again later.",
		},
		Reason:     "no-endpoints",
		RetryAfter: time.Second,
	})
}

// charge counts the request as in flight on c.
func (s *state) charge(c kv.Counter) {
	c.Add(1)
	s.charged = c
}

// release undoes charge.
func (s *state) release() {
	s.charged.Add(-1)
	s.charged = nil
}

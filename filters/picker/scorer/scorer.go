// Package scorer holds the scorers of which the profiles of the picker are made: one
// file each, listed in all.go.
package scorer

import (
	"math"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Scorer says how well each replica would serve a request.
//
// Score writes one score for each of rs to out, which has the same length, from 0
// (worst) to 1 (best). It must not allocate, keep or change rs, or depend on the order
// of the replicas. Equal inputs give equal scores. What it does not know about a
// replica must neither favour the replica nor count against it. scorer_test.go checks
// this for every scorer in All.
type Scorer interface {
	// Name is the name in the configuration.
	Name() string
	// Needs says what Score reads besides what is always there.
	Needs() Needs
	Score(in *Input, rs []Replica, out []float64)
}

// Standalone is a Scorer that ranks the replicas by itself. Its scores have a scale of
// their own: they are not added to those of others, and a profile that has it has no
// other scorer. Slow start (Replica.WarmUp) is its own business too.
type Standalone interface {
	Scorer
	Standalone()
}

// Needs is what must be prepared before scorers run. What no scorer of a profile needs
// is not computed, and where it comes from the request's body, the body is not read
// for it.
type Needs uint8

const (
	// NeedPrefix fills in Replica.Hit.
	NeedPrefix Needs = 1 << iota
	// NeedSession fills in Input.Session.
	NeedSession
	// NeedAdapter has the model named with the LoRA adapter that the request's body
	// asks for, where it stands apart from the model.
	NeedAdapter
	// NeedTurn fills in Input.Turn.
	NeedTurn
	// NeedWork fills in Replica.Work and Found.Affinity. They depend on prefixes and
	// adapters, so it comes with NeedPrefix and NeedAdapter.
	NeedWork
)

// Has reports whether all bits of want are set.
func (n Needs) Has(want Needs) bool { return n&want == want }

// Input is what is known of the request.
type Input struct {
	// Model is the name that the replica is asked for.
	Model string
	// Adapter says that it names a LoRA adapter.
	Adapter bool
	// Tokens is the estimated length of the prompt.
	Tokens int64
	// Session is a hash of the session that the request belongs to, 0 if there is none.
	Session uint64
	// Turn grows by one with every request of the pool.
	Turn uint64
	// CachedWeight is how much a token in the prefix cache counts against one to
	// wait for: prefix.weight of the configuration.
	CachedWeight float64
}

// Replica is a candidate of one pick, with what this proxy knows of it at that moment.
type Replica struct {
	*endpoint.Endpoint
	// Place is its index in the pool's list of endpoints.
	Place int
	// ID is a hash of the address, the same in every proxy.
	ID uint64
	// InFlight is the number of requests in flight, from this Envoy and, as far as
	// they reported lately, from the other proxies.
	InFlight int64
	// Tokens is how many tokens of these requests the replica has to compute.
	Tokens int64
	// Hit is the share of this prompt that is in the replica's prefix cache, 0 to 1.
	Hit float64
	// Trust is how much its gauges can be believed, from 1 (fresh) to 0 (they say
	// nothing).
	Trust float64
	// WarmUp is the share of the load that it gets in slow start, up to 1.
	WarmUp float64
	// Work is the number of tokens to be computed there before this request, by any proxy, and the cost of loading its adapter.
	Work float64
	// Found is what the filters of the pick found.
	Found
}

// Found is what the filters of a pick found out about a replica.
type Found struct {
	Affinity   Affinity // whether this prompt should stay where it is cached
	Saturated  bool     // it has no capacity for one more request
	BackingOff bool     // it said so itself (429, 503): it gets nothing for a while
	OtherModel bool     // it lists its models without the one asked for, and others list that
	Probe      bool     // it is ejected, and this request is to find out how it is
	Standby    bool     // of a later priority than those that serve
	Preferred  bool     // the prompt belongs there
}

// Affinity is how much the prompt that a replica has in its cache binds a request to it.
type Affinity uint8

const (
	// NoAffinity means that the prompt is not cached there, or that the replica has so
	// much more than its share that the request should go elsewhere.
	NoAffinity Affinity = iota
	// Stays means that the request may stay there even if the replica is saturated.
	Stays
	// Attracts means that cached tokens also count Input.CachedWeight times.
	Attracts
)

// falling maps a load of 0 and more to a score from 1 towards 0, ½ at half.
// The scale is absolute: whether a replica with one waiting request is much
// worse than one with none does not depend on how busy the rest is.
func falling(load, half float64) float64 {
	return half / (half + max(0, load))
}

// Others is the number of requests that a replica has besides those in flight from
// known proxies, if its gauges can be believed. The gauges count those too, so only
// what exceeds them counts.
func (r *Replica) Others() int {
	return max(0, r.Gauges.Waiting+r.Gauges.Running-int(r.InFlight))
}

// Trusted moves values that were read from gauges towards the mean of the trusted ones
// (towards otherwise, if none is): the older the gauge, the more. So an old gauge means
// "unknown", neither idle nor saturated. A value that is not a number counts as unknown.
func Trusted(rs []Replica, values []float64, otherwise float64) {
	var sum, weight float64
	for i := range rs {
		if !math.IsNaN(values[i]) {
			sum += rs[i].Trust * values[i]
			weight += rs[i].Trust
		}
	}
	mean := otherwise
	if weight > 0 {
		mean = sum / weight
	}
	for i := range rs {
		if math.IsNaN(values[i]) {
			values[i] = mean
			continue
		}
		values[i] = rs[i].Trust*values[i] + (1-rs[i].Trust)*mean
	}
}

// neutral is the score of a replica of which nothing is known.
const neutral = 0.5

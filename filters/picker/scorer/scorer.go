// Package scorer holds the opinions of which a picker profile is made: one
// file each, listed in all.go.
package scorer

import (
	"math"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Input is what one decision looks at besides the replicas themselves.
type Input struct {
	// Model is the name that the replica is asked for.
	Model string
	// Adapter: it is a LoRA adapter's.
	Adapter bool
	// Session is a hash of the session that the request belongs to, 0 if it is
	// none.
	Session uint64
}

// Replica is a candidate, with what this proxy knows of it at the moment of the
// decision.
type Replica struct {
	*endpoint.Endpoint
	// Trust is how far its gauges can be believed, from 1 (fresh) to 0 (they say
	// nothing).
	Trust float64
	// ID is a hash of the address, the same in every proxy.
	ID uint64
	// InFlight is the number of requests in flight, from this Envoy and, as far as
	// they told lately, from the other proxies.
	InFlight int64
	// Tokens of theirs that the replica has to compute.
	Tokens int64
	// Hit is the share of this prompt that is in the replica's prefix cache, 0..1.
	Hit float64
}

// Scorer says how well each of the replicas would serve the request.
//
// Score writes one score for each of rs to out (of the same length), from 0
// (worst) to 1 (best). It must not allocate, keep rs, or depend on the order
// of the replicas; equal inputs give equal scores. What it does not know about
// a replica must neither favour it nor count against it. scorer_test.go holds
// every scorer to this.
type Scorer interface {
	Name() string
	Score(in *Input, rs []Replica, out []float64)
}

// falling maps a load of 0 and more to a score from 1 towards 0, ½ at half.
// The scale is absolute: whether a replica with one waiting request is much
// worse than one with none does not depend on how busy the rest is.
func falling(load, half float64) float64 {
	return half / (half + max(0, load))
}

// Others is the number of requests that a replica had besides those in flight from
// proxies that are known, if its gauges are to be believed. The gauges have those
// too: only what is more than them counts.
func (r *Replica) Others() int {
	return max(0, r.Gauges.Waiting+r.Gauges.Running-int(r.InFlight))
}

// Trusted moves what was read from gauges towards the mean of those that are known
// (otherwise, if none is), the more the less the gauge is to be believed: unknown is
// neither idle nor saturated. A value that is not a number is not known at all.
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

// neutral is the score of what nothing is known about.
const neutral = 0.5

// Package scorer holds the opinions of which a picker profile is made: one
// file each, listed in all.go.
package scorer

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// Input is what one decision looks at besides the replicas themselves.
type Input struct {
	// SinceReceived is how long this proxy has had the snapshot.
	SinceReceived time.Duration
	// Stale is the age at which a gauge says nothing any more.
	Stale time.Duration
}

// Scorer says how well each of the replicas would serve the request.
//
// Score writes one score for each of eps to out (of the same length), from 0
// (worst) to 1 (best). It must not allocate, keep eps, or depend on the order
// of the replicas; equal inputs give equal scores. What it does not know about
// a replica must neither favour it nor count against it. scorer_test.go holds
// every scorer to this.
type Scorer interface {
	Name() string
	Score(in Input, eps []*endpoint.Endpoint, out []float64)
}

// falling maps a load of 0 and more to a score from 1 towards 0, ½ at half.
// The scale is absolute: whether a replica with one waiting request is much
// worse than one with none does not depend on how busy the rest is.
func falling(load, half float64) float64 {
	return half / (half + max(0, load))
}

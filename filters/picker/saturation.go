package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// saturation says when a replica has no capacity for another request.
type saturation struct {
	queue    int     // requests in its queue
	kv       float64 // share of its KV cache in use
	inFlight int     // requests in flight from all known proxies
}

// minTrust is the trust from which on a gauge may veto.
const minTrust = 0.5

// of reports whether a replica is saturated. Gauges that are hardly to be believed do
// not count: unknown is not saturated.
func (s *saturation) of(r *scorer.Replica) bool {
	return r.InFlight >= int64(s.inFlight) || r.Trust >= minTrust && (r.Gauges.KVUse >= s.kv || r.Gauges.Waiting >= s.queue)
}

// Bounds of Retry-After.
const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

// refuseSaturated is for requests when every replica is saturated. Within the mean
// duration of a request each of the running ones can be expected to end.
func refuseSaturated(duration time.Duration) filter.Verdict {
	return filter.Deny(filter.Refusal{
		Refusal: llm.Refusal{
			Status: 429, Type: "rate_limit_error", Code: "overloaded",
			Message: "All replicas that serve this model are busy. Try again later.",
		},
		Reason:     "rejected-saturated",
		RetryAfter: min(max(duration, minRetry), maxRetry),
	})
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

package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// room says when a replica has no room for another request.
type room struct {
	queue    int     // requests that wait there
	kv       float64 // share of its KV cache in use
	inFlight int     // requests from all proxies that are known
}

// believed is the trust from which on a gauge may veto.
const believed = 0.5

// has reports whether a replica has room. Gauges of which little is left to
// believe do not count: unknown is not saturated.
func (m *room) has(r *scorer.Replica) bool {
	return r.InFlight < int64(m.inFlight) && (r.Trust < believed || r.Gauges.KVUse < m.kv && r.Gauges.Waiting < m.queue)
}

// Bounds of Retry-After.
const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

// refuseFull is for requests for which nothing has room. In the mean time of a
// request each of those that are running is about to end.
func refuseFull(service time.Duration) filter.Verdict {
	return filter.Deny(filter.Refusal{
		Refusal: llm.Refusal{
			Status: 429, Type: "rate_limit_error", Code: "overloaded",
			Message: "All replicas that serve this model are busy. Try again later.",
		},
		Reason:     "rejected-saturated",
		RetryAfter: min(max(service, minRetry), maxRetry),
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

package picker

import "github.com/inlet-proxy/inlet/shared/contract/filter"

// metrics are what the picker counts.
type metrics struct {
	picks, inFlight, ejections         filter.Metric
	unfollowed                         filter.Metric
	promptTokens, hitTokens, indexSize filter.Metric
}

func newMetrics(m filter.Metrics) metrics {
	return metrics{
		picks:        m.Counter("inlet_pick_total", "pool", "outcome"),
		inFlight:     m.Gauge("inlet_in_flight_requests", "pool"),
		ejections:    m.Counter("inlet_ejection_total", "pool", "reason"),
		unfollowed:   m.Counter("inlet_unfollowed_total", "pool", "reason"),
		promptTokens: m.Counter("inlet_prefix_indexer_prompt_tokens_total", "pool"),
		hitTokens:    m.Counter("inlet_prefix_indexer_hit_tokens_total", "pool"),
		indexSize:    m.Gauge("inlet_prefix_indexer_size", "pool"),
	}
}

// Outcomes of a pick, as label values of inlet_pick_total.
const (
	outcomePicked  = "picked"
	outcomeSpilled = "spilled" // picked in another pool than the first
	outcomeShed    = "shed"    // refused: every replica is saturated
	outcomeRetried = "retried" // a lower one of the list served
	outcomeMissed  = "missed"  // another one served at the first attempt, or one outside of the list

	outcomeNoEndpoints = "no_endpoints" // the pool has no ready replica
	outcomeNoSnapshot  = "no_snapshot"  // nothing is known of the pool
)

// Reasons of an ejection, as label values of inlet_ejection_total.
const (
	reasonStatus  = "5xx"     // its response
	reasonConnect = "connect" // Envoy went on to the next of the list
	reasonTimeout = "silent"  // its requests end without a first byte, while others respond

	reasonMixed = "mixed" // in the log only: several of them
)

// Where a request went that Envoy sent elsewhere at the first attempt, as label values of
// inlet_unfollowed_total.
const (
	reasonPassedOver = "passed_over" // to a lower one of the list
	reasonUnlisted   = "unlisted"    // to none of the list
	reasonUnhealthy  = "unhealthy"   // to a lower one or none, since it knows the better ones as unhealthy
)

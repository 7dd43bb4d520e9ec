package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
)

// Factory makes the filter "picker".
var Factory = filter.Factory{
	Name:        "picker",
	Reads:       filter.FactRoute,
	Writes:      filter.FactTarget,
	FailureMode: filter.FailOpen,
	New:         newFilter,
}

// maxEndpoints bounds the ranked list: each entry is one more attempt that
// Envoy may make.
const maxEndpoints = 16

// profile is a weighted blend of scorers.
type profile struct {
	name    string
	weights []weight
}

type weight struct {
	scorer scorer.Scorer
	factor float64
}

// profiles are the blends to choose from. The first is the default.
var profiles = []profile{
	{name: "least-request", weights: []weight{{scorer.InFlight{}, 1}, {scorer.Queue{}, 1}}},
}

func newFilter(o *conf.Object, d *filter.Deps) filter.Filter {
	f := &Filter{
		endpoints: 3,
		stale:     endpoint.DefaultStale,
		deps:      d,
		inFlight:  d.Metrics.Gauge("inlet_in_flight_requests", "pool"),
		picks:     d.Metrics.Counter("inlet_pick_total", "pool", "outcome"),
	}
	name := profiles[0].name
	o.Enum("profile", &name, profileNames()...)
	for i := range profiles {
		if profiles[i].name == name {
			f.profile = &profiles[i]
		}
	}
	o.Int("endpoints", &f.endpoints, 1, maxEndpoints)
	o.String("pool", &f.pool, conf.NotEmpty)
	o.Duration("stale", &f.stale, 50*time.Millisecond, time.Hour)
	return f
}

func profileNames() []string {
	names := make([]string, len(profiles))
	for i := range profiles {
		names[i] = profiles[i].name
	}
	return names
}

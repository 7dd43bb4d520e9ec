package scrape

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
)

// Plan is how the replicas of a pool are scraped.
type Plan struct {
	Engine string // one of Engines, Auto or Custom
	Custom Engine // if Engine is Custom
	Access http1.Access
	Port   int    // of the metrics, 0: the replica's own
	Path   string // of the metrics, "" for the engine's
	Health string // path requested when a scrape fails or lacks metrics: 200 means ready; "" for the engine's
	Models string // path of the list of models, "" to not request it
}

const (
	defaultPath   = "/metrics"
	defaultHealth = "/health"
)

// plan is a Plan in use; pools with the same Plan share one.
type plan struct {
	Plan
	token *http1.Token // nil: none
}

// planFor returns the plan in use that is the same, a new one if there is none.
func (s *Scraper) planFor(p Plan) (*plan, error) {
	for _, other := range s.pools {
		if reflect.DeepEqual(other.plan.Plan, p) {
			return other.plan, nil
		}
	}
	if _, _, known := engineOf(p.Engine); !known && p.Engine != Auto && p.Engine != Custom {
		return nil, fmt.Errorf("unknown engine %q, want one of %s, %s, %s", p.Engine, strings.Join(Engines(), ", "), Auto, Custom)
	}
	if err := p.Access.Check(); err != nil {
		return nil, err
	}
	if t := p.Access.TLS; t != nil && t.InsecureSkipVerify {
		s.log.Warn("insecureSkipVerify is set: replicas' certificates are not verified, so anyone on the path can read the token and forge gauges")
	}
	return &plan{Plan: p, token: p.Access.Token()}, nil
}

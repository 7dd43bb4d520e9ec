package module

import (
	"github.com/inlet-proxy/inlet/shared/adapters/module/balancer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// balanced counts what the load-balancing policies of this module do. Envoy has metrics for
// policies, too, but keeps the labels of each sample for good, and without a lock (in its
// source of 1.38). So the counts wait in the journal for a callback of an exchange.
type balanced struct {
	journal                 *balancer.Journal
	picks, skips, instances filter.Metric
}

func newBalanced(m filter.Metrics, journal *balancer.Journal) balanced {
	return balanced{
		journal:   journal,
		picks:     m.Counter("inlet_balancer_pick_total", "cluster", "reason"),
		skips:     m.Counter("inlet_balancer_skip_total", "cluster", "reason"),
		instances: m.Gauge("inlet_balancers", "cluster"),
	}
}

// record takes what waits as samples.
func (b *balanced) record() { b.journal.Take(b.sample) }

func (b *balanced) sample(c balancer.Count) {
	switch c.Kind {
	case balancer.Picks:
		b.picks.Record(c.N, filter.Values{c.Cluster, c.Reason})
	case balancer.Skips:
		b.skips.Record(c.N, filter.Values{c.Cluster, c.Reason})
	case balancer.Instances:
		b.instances.Record(c.N, filter.Values{c.Cluster})
	}
}

package quota

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// metrics are what the filter counts. Products and measures come from the configuration, so that no client can make
// series of its own.
type metrics struct {
	decisions, refusals  filter.Metric
	tokens, spent        filter.Metric
	estimated, untold    filter.Metric
	failures, dry, ended filter.Metric
	crowded              filter.Metric
}

func newMetrics(m filter.Metrics) metrics {
	return metrics{
		decisions: m.Counter("inlet_quota_decision_total", "product", "outcome"),
		refusals:  m.Counter("inlet_quota_limit_total", "product", "limit"),
		tokens:    m.Counter("inlet_quota_tokens_total", "product", "kind"),
		spent:     m.Counter("inlet_quota_spent_nano_total", "product"),
		estimated: m.Counter("inlet_quota_estimated_total", "product", "reason"),
		untold:    m.Counter("inlet_quota_usage_unknown_total", "product"),
		failures:  m.Counter("inlet_quota_store_failure_total", "reason"),
		dry:       m.Counter("inlet_quota_wait_total", "outcome"),
		ended:     m.Counter("inlet_quota_stream_ended_total", "product"),
		crowded:   m.Counter("inlet_quota_crowded_total", "reason"),
	}
}

// Decisions.
const (
	admitted = "admitted"
	refused  = "refused"
	shadowed = "would_refuse"
	refunded = "refunded"
)

// Causes of store failures.
const (
	noDocument  = "no_document"
	unreachable = "unreachable"
	localShare  = "local_share"
	storeFailed = "store"
	contended   = "contended"
	tableFull   = "full"
	notSettled  = "not_settled"
	noQuota     = "no_quota"
)

var causes = map[account.Outcome]string{account.Unreachable: unreachable, account.Busy: contended, account.Full: tableFull, account.Failed: storeFailed}

func (m *metrics) decided(x *filter.Exchange, decision string) {
	m.decisions.Record(1, filter.Values{x.Tenant.Product, decision})
}

func (m *metrics) refused(x *filter.Exchange, l *limit) {
	m.decided(x, refused)
	m.refusals.Record(1, filter.Values{x.Tenant.Product, string(l.prefix)})
}

func (m *metrics) failed(cause string) { m.failures.Record(1, filter.Values{cause}) }

// charged records what a request was charged.
func (m *metrics) charged(x *filter.Exchange, r *request, u llm.Usage, how charging) {
	product := x.Tenant.Product
	for _, kind := range [...]struct {
		name string
		n    int
	}{{"prompt", u.Prompt}, {"completion", u.Completion}, {"cached", u.Cached}} {
		if kind.n > 0 {
			m.tokens.Record(int64(kind.n), filter.Values{product, kind.name})
		}
	}
	if !r.price.free() {
		m.spent.Record(r.price.of(u), filter.Values{product})
	}
	switch how {
	case chargeCounted, chargeBroken:
		m.estimated.Record(1, filter.Values{product, "cut"})
	case chargeEstimate:
		m.estimated.Record(1, filter.Values{product, "usage_unknown"})
		m.untold.Record(1, filter.Values{product})
	}
}

// crowd is what was recorded of a table's own counts.
type crowd struct {
	mu   filter.Mutex
	seen account.Counts
}

// count records that the table was too small, or too busy, since the last time.
func (c *crowd) count(t account.Table, m *metrics) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := t.Counts()
	now.Accounts = 0
	if now == c.seen {
		return
	}
	m.crowded.Record(now.Overflow-c.seen.Overflow, filter.Values{"overflow"})
	m.crowded.Record(now.Full-c.seen.Full, filter.Values{"full"})
	m.crowded.Record(now.Busy-c.seen.Busy, filter.Values{"busy"})
	c.seen = now
}

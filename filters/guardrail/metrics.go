package guardrail

import "github.com/inlet-proxy/inlet/shared/contract/filter"

type metrics struct {
	findings, checks, took, breakers, audits filter.Metric
}

func newMetrics(m filter.Metrics) metrics {
	return metrics{
		findings: m.Counter("inlet_guardrail_finding_total", "phase", "kind", "action"),
		checks:   m.Counter("inlet_guardrail_check_total", "provider", "phase", "outcome"),
		took:     m.Histogram("inlet_guardrail_check_ms", "provider", "phase"),
		breakers: m.Counter("inlet_guardrail_breaker_total", "provider", "state"),
		audits:   m.Counter("inlet_guardrail_audit_total", "phase", "state"),
	}
}

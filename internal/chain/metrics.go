package chain

import "github.com/inlet-proxy/inlet/shared/contract/filter"

// metrics are what the chain itself counts. Names follow what dashboards of
// this field use; Envoy's histograms hold integers, so that the unit of a
// duration, in its name, is as small as is of interest.
type metrics struct {
	requests, duration, ttft    filter.Metric
	inputTokens, outputTokens   filter.Metric
	refusals, failures, unsized filter.Metric
	unrestored                  filter.Metric
	scan, edit                  filter.Metric
}

// DefineMetrics defines the metrics of every chain, besides those of its filters.
func DefineMetrics(m filter.Metrics) { newMetrics(m) }

func newMetrics(m filter.Metrics) metrics {
	return metrics{
		requests:     m.Counter("inlet_request_total", "model_name", "pool", "outcome"),
		duration:     m.Histogram("inlet_request_duration_ms", "model_name", "pool"),
		ttft:         m.Histogram("inlet_request_ttft_ms", "model_name", "pool"),
		inputTokens:  m.Counter("inlet_input_tokens_total", "model_name", "pool"),
		outputTokens: m.Counter("inlet_output_tokens_total", "model_name", "pool"),
		refusals:     m.Counter("inlet_refusal_total", "reason"),
		failures:     m.Counter("inlet_filter_failure_total", "filter", "failure_mode"),
		unsized:      m.Counter("inlet_usage_unknown_total", "model_name", "pool"),
		unrestored:   m.Counter("inlet_model_not_restored_total", "model_name", "pool", "reason"),
		scan:         m.Histogram("inlet_body_scan_us"),
		edit:         m.Histogram("inlet_body_edit_us"),
	}
}

// record counts a finished exchange.
func (m *metrics) record(s *Stream, end filter.End) {
	s.timing.record(m)
	x := &s.x
	pool := poolOf(x)
	series := filter.Values{x.Route.Model, pool}
	m.requests.Record(1, filter.Values{x.Route.Model, pool, outcome(end)})
	if end.Answered || !end.Complete && !end.Ended || end.Status >= 400 {
		return
	}
	m.duration.Record(end.At.Sub(x.Start).Milliseconds(), series)
	if x.Response.FirstByte > 0 {
		m.ttft.Record(x.Response.FirstByte.Milliseconds(), series)
	}
	if !s.countsTokens() {
		return
	}
	if s.lacksUsage() {
		m.unsized.Record(1, series) // what it does tell counts all the same
	}
	if x.Usage.Prompt > 0 {
		m.inputTokens.Record(int64(x.Usage.Prompt), series)
	}
	if x.Usage.Completion > 0 {
		m.outputTokens.Record(int64(x.Usage.Completion), series)
	}
}

// poolOf returns the pool that bbr named, or of its fallbacks the one that the
// picker took. A pool that a route chose, of which the picker was only told, is
// not counted.
func poolOf(x *filter.Exchange) string {
	if x.Route.Pool != "" && x.Target.Pool != "" {
		return x.Target.Pool
	}
	return x.Route.Pool
}

// outcome is the label value for how an exchange ended.
func outcome(end filter.End) string {
	switch {
	case end.Refused:
		return "refused"
	case end.Answered:
		return "answered"
	case end.Ended:
		return "ended"
	case !end.Complete:
		return "aborted"
	case end.Status >= 500:
		return "server_error"
	case end.Status >= 400:
		return "client_error"
	}
	return "ok"
}

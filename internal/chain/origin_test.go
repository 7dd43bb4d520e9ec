package chain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Whose answer it is, by what Envoy reports about it. An address is there also when the
// replica was never asked.
func TestOrigin(t *testing.T) {
	const before = "upstream_reset_before_response_started{"
	for _, c := range []struct {
		status  string
		details string
		headers headers
		served  string
		want    filter.Origin
	}{
		{"200", "via_upstream", nil, "10.0.0.1:80", filter.OfReplica},
		{"503", "via_upstream", nil, "10.0.0.1:80", filter.OfReplica},
		{"429", "via_upstream", nil, "10.0.0.1:80", filter.OfReplica},
		{"503", before + "overflow}", nil, "10.0.0.1:80", filter.OfProxy},
		{"503", before + "overflow|x}", nil, "10.0.0.1:80", filter.OfProxy},
		{"503", before + "overload_manager_reset}", nil, "10.0.0.1:80", filter.OfProxy},
		{"503", before + "local_reset}", nil, "10.0.0.1:80", filter.OfProxy},
		{"503", before + "local_connection_failure}", nil, "10.0.0.1:80", filter.OfProxy},
		{"503", before + "connection_termination}", nil, "10.0.0.1:80", filter.OfFailure},
		{"503", before + "connection_timeout}", nil, "10.0.0.1:80", filter.OfFailure},
		{"503", before + "remote_connection_failure|delayed_connect_error:_Connection_refused}", nil, "10.0.0.1:80", filter.OfFailure},
		{"503", before + "remote_reset}", nil, "10.0.0.1:80", filter.OfFailure},
		{"503", before + "remote_refused_stream_reset}", nil, "10.0.0.1:80", filter.OfFailure},
		{"502", before + "protocol_error}", nil, "10.0.0.1:80", filter.OfFailure},
		{"504", "response_timeout", nil, "10.0.0.1:80", filter.OfFailure},
		{"504", "upstream_per_try_timeout", nil, "10.0.0.1:80", filter.OfFailure},
		{"504", "upstream_per_try_idle_timeout", nil, "10.0.0.1:80", filter.OfFailure},
		{"504", "stream_idle_timeout", nil, "10.0.0.1:80", filter.OfFailure},
		{"408", "stream_idle_timeout", nil, "10.0.0.1:80", filter.OfProxy}, // the client's silence
		{"504", "max_duration_timeout", nil, "10.0.0.1:80", filter.OfFailure},
		{"408", "max_duration_timeout", nil, "10.0.0.1:80", filter.OfProxy},
		{"408", "request_overall_timeout", nil, "10.0.0.1:80", filter.OfProxy},
		{"504", "upstream_max_stream_duration_reached", nil, "10.0.0.1:80", filter.OfFailure},
		{"503", "no_healthy_upstream", nil, "", filter.OfProxy},
		{"503", "no_healthy_upstream", nil, "10.0.0.1:80", filter.OfProxy},
		{"503", "cluster_not_found", nil, "", filter.OfProxy},
		{"404", "route_not_found", nil, "", filter.OfProxy},
		{"403", "ext_authz_denied", nil, "", filter.OfProxy},
		{"429", "request_rate_limited", nil, "", filter.OfProxy},
		{"503", "fault_filter_abort", nil, "", filter.OfProxy},
		{"413", "request_payload_too_large", nil, "10.0.0.1:80", filter.OfProxy},
		// Without details the headers tell, as far as they do.
		{"503", "", headers{"x-envoy-overloaded": "true"}, "10.0.0.1:80", filter.OfProxy},
		{"503", "", headers{"x-envoy-upstream-service-time": "3"}, "10.0.0.1:80", filter.OfReplica},
		{"503", "", headers{}, "10.0.0.1:80", filter.OfFailure},
		{"504", "", headers{}, "10.0.0.1:80", filter.OfFailure},
		{"500", "", headers{}, "10.0.0.1:80", filter.OfReplica},
		{"503", "", headers{}, "", filter.OfProxy},
	} {
		r, h := newRig(t, ""), post()
		got := filter.Origin(99)
		r.a.response = func(x *filter.Exchange) filter.Verdict { got = x.Response.Origin; return filter.Next }
		h.served, h.details = c.served, c.details
		h.response = headers{":status": c.status}
		for name, value := range c.headers {
			h.response[name] = value
		}
		var firstByte time.Duration
		r.a.done = func(x *filter.Exchange, _ filter.End) { firstByte = x.Response.FirstByte }
		answer(r, h)
		require.Equal(t, c.want, got, "%+v", c)
		require.Equal(t, c.want == filter.OfReplica, firstByte > 0, "%+v", c)
	}
}

// answer plays a request and its answer.
func answer(r *rig, h *host) {
	s, _ := r.send(h, body)
	s.ResponseHeaders(false)
	s.ResponseBody(nil, true)
	s.Done()
}

// Each question is a call to Envoy: what only a rare answer needs is not asked for others.
func TestFactsAreAskedWhereTheyMatter(t *testing.T) {
	for name, c := range map[string]struct {
		status, target, served string
		details, attempts      int
	}{
		"as picked":     {"200", "10.0.0.1:80", "10.0.0.1:80", 0, 0},
		"another":       {"200", "10.0.0.2:80", "10.0.0.1:80", 0, 1},
		"nobody picked": {"200", "", "10.0.0.1:80", 0, 0},
		"error":         {"500", "10.0.0.1:80", "10.0.0.1:80", 1, 0},
		"nobody served": {"503", "10.0.0.1:80", "", 0, 0},
	} {
		r, h := newRig(t, ""), post()
		h.served, h.attempts = c.served, 2
		h.response = headers{":status": c.status}
		r.a.request = func(x *filter.Exchange) filter.Verdict { x.Target.Address = c.target; return filter.Next }
		r.a.response = func(x *filter.Exchange) filter.Verdict {
			require.Equal(t, 2*c.attempts, x.Response.Attempts, name)
			require.Equal(t, c.attempts > 0, x.Response.Cluster == "c", name)
			return filter.Next
		}
		answer(r, h)
		require.Equal(t, c.details, h.told, name)
		require.Equal(t, c.attempts, h.asked, name)
	}
}

// An answer that ends too early was broken off by the replica, or by the client.
func TestBrokenAnswers(t *testing.T) {
	for details, want := range map[string]bool{
		"upstream_reset_after_response_started{connection_termination}": true,
		"upstream_reset_after_response_started{remote_reset}":           true,
		"upstream_reset_after_response_started{protocol_error}":         true,
		"upstream_reset_after_response_started{local_reset}":            false,
		"downstream_remote_disconnect":                                  false,
		"stream_idle_timeout":                                           false,
		"":                                                              false,
	} {
		r, h := newRig(t, ""), post()
		h.details = details
		var end filter.End
		r.a.done = func(_ *filter.Exchange, e filter.End) { end = e }
		s, _ := r.send(h, body)
		s.ResponseHeaders(false)
		s.Done()
		require.Equal(t, want, end.Broken, details)
	}
}

// Who ends without an answer waited for a replica in vain, unless Envoy follows its redirect.
func TestOriginWithoutAnAnswer(t *testing.T) {
	for details, want := range map[string]filter.Origin{
		"downstream_remote_disconnect": filter.OfReplica,
		"":                             filter.OfReplica,
		"internal_redirect":            filter.OfProxy,
	} {
		r, h := newRig(t, ""), post()
		h.served, h.details = "10.0.0.1:80", details
		var got filter.Response
		r.a.done = func(x *filter.Exchange, _ filter.End) { got = x.Response }
		s, _ := r.send(h, body)
		s.Done()
		require.Equal(t, want, got.Origin, details)
		require.Equal(t, "10.0.0.1:80", got.Served)
	}
}

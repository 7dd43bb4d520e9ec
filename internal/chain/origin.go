package chain

import (
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Envoy answers itself when it cannot or will not send a request on, and filters
// behind Inlet do. At the response headers that looks as if a replica had answered,
// and an address may be there too: of a replica that was chosen and never asked. So
// who answered is read from the response code details.

// readOrigin finds out whose answer it is. What only a rare answer needs is not
// asked for others: each question is a call to Envoy.
func (s *Stream) readOrigin() {
	r := &s.x.Response
	r.Served = s.host.Served()
	r.Origin, r.Attempts, r.Cluster = filter.OfReplica, 0, ""
	switch {
	case s.status >= 400:
		r.Origin = s.originOfError()
	case s.status == 0 && s.host.Details() == RedirectDetails:
		r.Origin = filter.OfProxy // the replica has answered, and Envoy sends a new request
	}
	if target := s.x.Target.Address; target != "" && r.Served != "" && target != r.Served {
		r.Attempts, r.Cluster = s.host.Attempts(), s.host.Cluster()
	}
}

// AskAgain asks the host once more who was asked: for a reply that could not be given when it was decided on, because the host was not
// told anything at that time, and that is given now.
func (s *Stream) AskAgain() {
	if s.state.in(setOf(refused, answered)) && s.x.Response.Served == "" {
		s.readOrigin()
	}
}

// isEnvoys reports whether Envoy has written the response itself. A failure that is only guessed may be the replica's.
func (s *Stream) isEnvoys() bool {
	origin := s.x.Response.Origin
	return origin == filter.OfProxy || origin == filter.OfFailure && s.host.Details() != ""
}

// Response headers by which Envoy shows who answered, unless it is told to leave them out
// (suppress_envoy_headers).
const (
	serviceTimeHeader = "x-envoy-upstream-service-time" // a replica did
	overloadedHeader  = "x-envoy-overloaded"            // nobody was asked
)

// originOfError is for an answer with an error status.
func (s *Stream) originOfError() filter.Origin {
	if s.x.Response.Served == "" {
		return filter.OfProxy
	}
	if details := s.host.Details(); details != "" {
		return originOf(details, s.status)
	}
	// A module in Envoy 1.38 is not told details.
	headers := s.x.Response.Headers
	if _, ok := headers.Get(overloadedHeader); ok {
		return filter.OfProxy
	}
	if _, ok := headers.Get(serviceTimeHeader); !ok && 502 <= s.status && s.status <= 504 {
		return filter.OfFailure
	}
	return filter.OfReplica
}

const (
	viaUpstream = "via_upstream"
	resetBefore = "upstream_reset_before_response_started{"
	resetAfter  = "upstream_reset_after_response_started{"
)

// originOf reads response code details.
func originOf(details string, status int) filter.Origin {
	if reason, ok := strings.CutPrefix(details, resetBefore); ok {
		if isReplicas(reason) {
			return filter.OfFailure
		}
		return filter.OfProxy
	}
	switch details {
	case viaUpstream:
		return filter.OfReplica
	case "response_timeout", "upstream_per_try_timeout", "upstream_per_try_idle_timeout", "upstream_max_stream_duration_reached":
		return filter.OfFailure // it had the request, and that time
	case "stream_idle_timeout", "max_duration_timeout":
		if status == 504 { // 408 while the client still sends
			return filter.OfFailure
		}
	}
	return filter.OfProxy
}

// isReplicas reports whether a reset is the doing of a replica, or of the way to it.
// What Envoy resets itself is not: its limits are reached, or a replica was taken out of
// the cluster.
func isReplicas(reason string) bool {
	for _, own := range []string{"overflow", "overload_manager", "local_reset", "local_refused_stream_reset", "local_connection_failure"} {
		if strings.HasPrefix(reason, own) {
			return false
		}
	}
	return true
}

// brokeOff reports, at the end, whether the replica broke off its answer.
func (s *Stream) brokeOff() bool {
	if s.complete || !s.state.in(sent) || s.state == ended || s.status == 0 {
		return false
	}
	reason, ok := strings.CutPrefix(s.host.Details(), resetAfter)
	return ok && isReplicas(reason)
}

package chain

import (
	"fmt"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// ReasonHeader carries the machine-readable reason of every refusal.
const ReasonHeader = "x-inlet-reason"

// refuse answers the client in the form of the API that it called.
func (s *Stream) refuse(r *filter.Refusal) Action {
	reason := r.Reason
	if reason == "" {
		reason = r.Code
	}
	s.state, s.status = refused, r.Status
	s.x.Explain("refused", reason)
	s.host.Explain(s.x.Why())
	s.c.metrics.refusals.Record(1, filter.Values{reason})
	headers := [][2]string{{"content-type", "application/json"}, {ReasonHeader, reason}}
	if after := retryAfter(r); after > 0 {
		headers = append(headers, [2]string{"retry-after", strconv.Itoa(after)})
	}
	s.host.Reply(&LocalReply{
		Status:  r.Status,
		Headers: headers,
		Body:    r.AppendJSON(nil, s.x.API),
		Detail:  "inlet_" + reason,
	})
	return Replied
}

// retryAfter returns whole seconds, at least one for 429 and 503: clients of
// this field do not retry without it.
func retryAfter(r *filter.Refusal) int {
	n := int((r.RetryAfter + time.Second - 1) / time.Second)
	if n == 0 && (r.Status == 429 || r.Status == 503) {
		return 1
	}
	return n
}

func badRequest(code, param, message string) *filter.Refusal {
	return &filter.Refusal{Refusal: llm.Refusal{
		Status: 400, Type: "invalid_request_error", Code: code, Param: param, Message: message,
	}}
}

func refuseBody(err error) *filter.Refusal {
	return badRequest("invalid_json", "", "The body is not accepted: "+err.Error()+".")
}

func refuseRepeated(key string) *filter.Refusal {
	return badRequest("duplicate_key", key, fmt.Sprintf("The key %q stands in the body twice.", key))
}

func refuseEncoding(encoding string) *filter.Refusal {
	r := badRequest("unsupported_content_encoding", "",
		fmt.Sprintf("A body with content-encoding %q is not accepted; send it uncompressed.", encoding))
	r.Status = 415
	return r
}

func refuseTooLarge(limit int64) *filter.Refusal {
	r := badRequest("request_too_large", "", fmt.Sprintf("The body is larger than %d bytes.", limit))
	r.Status = 413
	return r
}

func refuseUnknownPath(method string) *filter.Refusal {
	r := badRequest("unknown_path", "", "There is no such operation here: check the path, and that its method is right ("+method+").")
	r.Status = 404
	return r
}

func refuseInternal() *filter.Refusal {
	return &filter.Refusal{Refusal: llm.Refusal{
		Status: 500, Type: "server_error", Code: "internal_error", Message: "The gateway could not handle the request.",
	}}
}

func refuseUnable(name, why string) *filter.Refusal {
	return &filter.Refusal{Refusal: llm.Refusal{
		Status: 503, Type: "server_error", Code: "unavailable", Message: "The gateway cannot decide about the request now (" + name + ": " + why + ").",
	}, Reason: why}
}

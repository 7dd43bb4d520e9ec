package chain

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/internal/coding"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/formscan"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// refuse answers the client in the form of the path that it asked.
func (s *Stream) refuse(r *filter.Refusal) Action {
	reason := reasonOf(r)
	if s.state.in(setOf(bypassed, unmatched)) {
		s.to(unrouted)
	} else {
		s.to(refused)
	}
	s.calls.dropAll()
	s.status, s.body = r.Status, bodyPasses
	s.x.Explain("refused", reason)
	s.host.Explain(s.x.Why())
	s.c.metrics.refusals.Record(1, filter.Values{reason})
	s.host.Reply(localReply(r, llm.FormOf(s.x.Path, s.c.paths)))
	return Replied
}

// localReply is a refusal as the client gets it.
func localReply(r *filter.Refusal, form llm.Form) *LocalReply {
	reason := reasonOf(r)
	headers := [][2]string{{"content-type", "application/json"}, {filter.ReasonHeader, reason}}
	switch r.Code {
	case codeEncoding:
		headers = append(headers, [2]string{"accept-encoding", coding.Accepted}) // RFC 9110, section 15.5.16
	case codeUpgrade:
		headers = append(headers, [2]string{"upgrade", "HTTP/1.1"}, [2]string{"connection", "upgrade"}) // RFC 9110, section 15.5.22
	}
	if after := retryAfter(r); after > 0 {
		headers = append(headers, [2]string{"retry-after", strconv.Itoa(after)}, [2]string{filter.DroppedHeader, reason})
	}
	body := r.Body
	if body == nil {
		body = r.AppendJSON(nil, form)
	}
	return &LocalReply{Status: r.Status, Headers: append(headers, r.Headers...), Body: body, Detail: "inlet_" + reason}
}

// reasonOf is the machine-readable reason of a refusal.
func reasonOf(r *filter.Refusal) string {
	if r.Reason != "" {
		return r.Reason
	}
	return r.Code
}

// answer gives the client what a filter says, in place of a replica.
func (s *Stream) answer(a *filter.Answer) {
	s.to(answered)
	s.calls.dropAll()
	s.status, s.body = a.Status, bodyPasses
	s.host.Explain(s.x.Why())
	s.host.Reply(&LocalReply{Status: a.Status, Headers: a.Headers, Body: a.Body, Detail: "inlet_answered"})
}

// retryAfter returns whole seconds, at least one for 429 and 503: clients of
// this field do not retry without it. 0 is for no header.
func retryAfter(r *filter.Refusal) int {
	if r.RetryAfter < 0 {
		return 0
	}
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

// refuseBody says what is wrong with a body, and where.
func (s *Stream) refuseBody(err error) *filter.Refusal {
	where := s.request.Within()
	within := ""
	if where != "" {
		within = fmt.Sprintf(", in %q", where)
	}
	var form *formscan.Error
	if errors.As(err, &form) {
		return badRequest("invalid_multipart", where, "We could not parse the form data of your request: "+err.Error()+within+".")
	}
	var json *jsonscan.Error
	if errors.As(err, &json) {
		if limit := limitOf(json.Code); limit != "" && where != "model" { // whose length has a bound of its own
			what := fmt.Sprintf("%s at byte %d", json.Code, json.Offset)
			return badRequest("limit_exceeded", where, "The request body exceeds limits."+limit+" of this gateway: "+what+within+".")
		}
	}
	return badRequest("invalid_json", where, "We could not parse the JSON body of your request: "+err.Error()+within+".")
}

// limitOf returns the name of the limit that a body of this fault exceeds, as the document has it.
func limitOf(c jsonscan.Code) string {
	switch c {
	case jsonscan.Depth:
		return "depth"
	case jsonscan.KeyTooLong:
		return "keyLength"
	case jsonscan.StringTooLong:
		return "stringLength"
	case jsonscan.TooManyMembers:
		return "members"
	case jsonscan.TooManyItems:
		return "items"
	}
	return ""
}

func refuseRepeated(key string) *filter.Refusal {
	return badRequest("duplicate_key", key, fmt.Sprintf("Duplicate key %q in request body.", key))
}

const codeEncoding = "unsupported_content_encoding"

func refuseEncoding(encoding string) *filter.Refusal {
	r := badRequest(codeEncoding, "",
		fmt.Sprintf("Unsupported content encoding %q. Use one of %s, or send the body uncompressed.", encoding, coding.Accepted))
	r.Status = 415
	return r
}

func refuseMediaType() *filter.Refusal {
	r := badRequest("unsupported_media_type", "", "Unsupported content type. This API method only accepts multipart/form-data and application/json.")
	r.Status = 415
	return r
}

func refuseTooLarge(limit int64) *filter.Refusal {
	r := badRequest("request_too_large", "", fmt.Sprintf("Maximum content size limit (%d bytes) exceeded.", limit))
	r.Status = 413
	return r
}

func refuseUnknownPath(method string) *filter.Refusal {
	r := badRequest("unknown_path", "", "Invalid URL: unknown path, or the path does not accept "+method+".")
	r.Status = 404
	return r
}

// codeUpgrade is what a client that asks for WebSocket is told. Clients that know
// HTTP too (OpenAI's agents) go on with it at once.
const codeUpgrade = "upgrade_not_supported"

func refuseUpgrade() *filter.Refusal {
	r := badRequest(codeUpgrade, "", "This gateway does not support WebSocket or other protocol upgrades. Send a plain HTTP request without the Upgrade header.")
	r.Status = 426
	return r
}

func refuseInternal() *filter.Refusal {
	return &filter.Refusal{Refusal: llm.Refusal{
		Status: 500, Type: "server_error", Code: "internal_error", Message: "The server had an error while processing your request.",
	}}
}

func refuseUnable(name, why string) *filter.Refusal {
	return &filter.Refusal{Refusal: llm.Refusal{
		Status: 503, Type: "server_error", Code: "unavailable", Message: "The gateway cannot process your request right now (" + name + ": " + why + "). Please try again later.",
	}, Reason: why}
}

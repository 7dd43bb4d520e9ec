package sim

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// apiError is an error response in the form of vLLM's ErrorResponse: {"error":{"message","type","param","code"}}.
type apiError struct {
	status  int
	kind    string // vLLM's type: BadRequestError, NotFoundError, or the status text
	param   string // "" is null
	message string
	detail  bool // the web framework's own form: {"detail":"Not Found"}
}

func (e *apiError) Error() string { return e.message }

// badRequest is vLLM's response to a body that does not fit its schema. vLLM's own message is the output of a validation
// library; here it is a sentence that begins like it.
func badRequest(format string, args ...any) error {
	return statusError(http.StatusBadRequest, fmt.Sprintf(format, args...))
}

// badMember is badRequest about a member of the body.
func badMember(name, format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, kind: http.StatusText(http.StatusBadRequest), param: "body." + name, message: fmt.Sprintf(format, args...)}
}

func statusError(status int, message string) *apiError {
	kind := http.StatusText(status)
	if kind == "" {
		kind = "Error"
	}
	return &apiError{status: status, kind: kind, message: message}
}

func unknownModel(model string, served []string) error {
	return &apiError{status: http.StatusNotFound, kind: "NotFoundError", param: "model", message: fmt.Sprintf(
		"The model `%s` does not exist. Valid aliases: %s.", model, strings.Join(served, ", "))}
}

// refused is vLLM's message about a parameter that it does not accept.
func refused(param string, value any, format string, args ...any) error {
	return &apiError{
		status: http.StatusBadRequest, kind: "BadRequestError", param: param,
		message: fmt.Sprintf(format, args...) + fmt.Sprintf(" (parameter=%s, value=%v)", param, value),
	}
}

// fit checks prompt and output, in tokens, against the model's length, and returns how long the output can be: it is cut
// short silently. The messages are vLLM's, which counts a prompt that is too long only to one token over the limit.
func fit(prompt, answer, limit int) (int, error) {
	switch {
	case prompt > limit:
		return 0, refused("input_tokens", limit+1, "This model's maximum context length is %d tokens. However, your prompt contains at least %d input tokens, "+
			"which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.", limit, limit+1)
	case answer > limit:
		return 0, refused("max_tokens", answer, "max_tokens=%d cannot be greater than max_model_len=%d. Please request fewer output tokens.", answer, limit)
	case answer > 0 && prompt == limit:
		return 0, tooFew("max_tokens", 0)
	}
	return min(answer, limit-prompt), nil
}

func tooFew(param string, n int) error {
	return refused(param, n, "%s must be at least 1, got %d.", param, n)
}

// anthropicKinds are the error types of Anthropic's API by status (docs.anthropic.com, Errors).
var anthropicKinds = map[int]string{
	http.StatusBadRequest: "invalid_request_error", http.StatusUnauthorized: "authentication_error", http.StatusForbidden: "permission_error",
	http.StatusNotFound: "not_found_error", http.StatusRequestEntityTooLarge: "request_too_large", http.StatusTooManyRequests: "rate_limit_error",
	529: "overloaded_error",
}

// appendJSON appends the error in the form of the API.
func (e *apiError) appendJSON(dst []byte, api api) []byte {
	if e.detail {
		return append(gjson.AppendJSONString(append(dst, `{"detail":`...), e.message), '}')
	}
	if api == apiMessages {
		kind := e.kind // vLLM uses its own types here
		if kind == "" || kind == http.StatusText(e.status) {
			kind = cmp.Or(anthropicKinds[e.status], "api_error")
		}
		dst = append(dst, `{"type":"error","error":{"type":"`+kind+`","message":`...)
		dst = gjson.AppendJSONString(dst, e.message)
		return append(dst, "}}"...)
	}
	dst = append(dst, `{"error":{"message":`...)
	dst = gjson.AppendJSONString(dst, e.message)
	dst = append(dst, `,"type":`...)
	dst = gjson.AppendJSONString(dst, e.kind)
	dst = append(dst, `,"param":`...)
	if e.param == "" {
		dst = append(dst, "null"...)
	} else {
		dst = gjson.AppendJSONString(dst, e.param)
	}
	dst = append(dst, `,"code":`...)
	dst = strconv.AppendInt(dst, int64(e.status), 10)
	return append(dst, "}}"...)
}

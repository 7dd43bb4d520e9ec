package sim

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/tidwall/gjson"
)

// apiError is an error answer in the form of vLLM's ErrorResponse: {"error":{"message","type","param","code"}}.
type apiError struct {
	status  int
	kind    string // vLLM's type: BadRequestError, NotFoundError, or the status text
	param   string // "" is null
	message string
}

func (e *apiError) Error() string { return e.message }

// badRequest is what vLLM answers when the body does not fit its schema. vLLM's own message is the dump of a
// validation library; here it is a sentence with that library's first words.
func badRequest(format string, args ...any) error {
	return statusError(http.StatusBadRequest, fmt.Sprintf(format, args...))
}

func statusError(status int, message string) *apiError {
	kind := http.StatusText(status)
	if kind == "" {
		kind = "Error"
	}
	return &apiError{status: status, kind: kind, message: message}
}

func unknownModel(model string) error {
	return &apiError{status: http.StatusNotFound, kind: "NotFoundError", param: "model", message: fmt.Sprintf("The model `%s` does not exist.", model)}
}

func tooLong(prompt, answer, limit int) error {
	return &apiError{status: http.StatusBadRequest, kind: "BadRequestError", param: "max_tokens", message: fmt.Sprintf(
		"This model's maximum context length is %d tokens. However, you requested %d output tokens and your prompt contains %d input tokens.", limit, answer, prompt)}
}

// anthropicKinds are the error types of Anthropic's API by status (docs.anthropic.com, Errors).
var anthropicKinds = map[int]string{
	http.StatusBadRequest: "invalid_request_error", http.StatusUnauthorized: "authentication_error", http.StatusForbidden: "permission_error",
	http.StatusNotFound: "not_found_error", http.StatusRequestEntityTooLarge: "request_too_large", http.StatusTooManyRequests: "rate_limit_error",
	529: "overloaded_error",
}

// appendJSON appends the error in the form that the clients of an API understand.
func (e *apiError) appendJSON(dst []byte, api api) []byte {
	if api == apiMessages {
		kind := anthropicKinds[e.status]
		if kind == "" {
			kind = "api_error"
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

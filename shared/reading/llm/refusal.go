package llm

import (
	"strings"
	"unicode/utf8"
)

// Refusal is an answer that the gateway gives in the server's place.
type Refusal struct {
	Status  int    // HTTP status, from which Type follows if it is empty
	Type    string // class of the error in OpenAI's terms, such as "invalid_request_error"; "" for what the status says
	Code    string // machine-readable reason, such as "model_not_found"; "" for none
	Param   string // the member of the request at fault, such as "model"; "" for none
	Message string // for people
}

// Form is the form in which a client expects errors.
type Form uint8

// The forms that there are.
const (
	OpenAIForm Form = iota
	AnthropicForm
)

// Form returns the form in which clients of the API expect errors.
func (a API) Form() Form {
	if a == Messages || a == CountTokens {
		return AnthropicForm
	}
	return OpenAIForm
}

// FormOf returns the form in which the client of a :path expects errors. It does not depend on whether the operation is
// known: Anthropic's clients read one form only, also of what they should not have asked. among are further operations.
func FormOf(path string, among []Operation) Form {
	path, _, _ = strings.Cut(path, "?")
	if under(path, messagesPath) {
		return AnthropicForm
	}
	for i := range among {
		if among[i].API.Form() == AnthropicForm && under(path, among[i].Path) {
			return AnthropicForm
		}
	}
	return OpenAIForm
}

// messagesPath is where Anthropic's API is, and below.
const messagesPath = "/v1/messages"

// under reports whether a path is an operation's or below it, behind any prefix.
func under(path, operation string) bool {
	return strings.Contains(path+"/", strings.TrimSuffix(operation, "/")+"/")
}

// AppendJSON appends the body of the refusal as the client expects it, so that its SDK raises the right exception:
// OpenAI's error object (https://platform.openai.com/docs/guides/error-codes),
//
//	{"error":{"message":"...","type":"...","param":null,"code":"..."}}
//
// or Anthropic's (https://docs.anthropic.com/en/api/errors), whose types follow from the status alone:
//
//	{"type":"error","error":{"type":"...","message":"..."}}
func (r Refusal) AppendJSON(dst []byte, form Form) []byte {
	if form == AnthropicForm {
		dst = append(dst, `{"type":"error","error":{"type":`...)
		dst = AppendString(dst, anthropicType(r.Status))
		dst = append(dst, `,"message":`...)
		dst = AppendString(dst, r.Message)
		return append(dst, `}}`...)
	}
	errorType := r.Type
	if errorType == "" {
		errorType = openAIType(r.Status)
	}
	dst = append(dst, `{"error":{"message":`...)
	dst = AppendString(dst, r.Message)
	dst = append(dst, `,"type":`...)
	dst = AppendString(dst, errorType)
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, r.Param)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, r.Code)
	return append(dst, `}}`...)
}

// openAIType returns the class of errors that OpenAI sends with a status.
func openAIType(status int) string {
	switch {
	case status == 401:
		return "authentication_error"
	case status == 403:
		return "permission_error"
	case status == 429:
		return "rate_limit_error"
	case status >= 500:
		return "server_error"
	}
	return "invalid_request_error"
}

// anthropicType returns the type of errors that Anthropic sends with a status.
func anthropicType(status int) string {
	switch {
	case status == 401:
		return "authentication_error"
	case status == 403:
		return "permission_error"
	case status == 404:
		return "not_found_error"
	case status == 413:
		return "request_too_large"
	case status == 429:
		return "rate_limit_error"
	case status == 503, status == 529:
		return "overloaded_error"
	case status == 504:
		return "timeout_error"
	case status >= 500:
		return "api_error"
	}
	return "invalid_request_error"
}

func appendOrNull(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return AppendString(dst, s)
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8, which a message may quote from a request, become
// U+FFFD: the refusal itself must be valid.
func AppendString(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r < ' ':
			dst = append(dst, `\u00`...)
			dst = append(dst, digits[r>>4], digits[r&0xf])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

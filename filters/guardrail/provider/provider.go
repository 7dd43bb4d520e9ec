// Package provider speaks the protocols of services that judge text: it writes a service's request and reads its response.
// It calls nobody; package guardrail does.
package provider

// Question is a text to be judged.
type Question struct {
	// Text is valid UTF-8. It is not changed, and not kept.
	Text []byte
	// Response: the text is of a response. Else it is of a prompt.
	Response bool
	// Prompt is the prompt that a response's text answers, or its end. It may be empty.
	Prompt []byte
	// Role of a prompt's text: "user", "system", "assistant" or "tool"; empty for several.
	Role string
}

// Request is what is sent to the service.
type Request struct {
	Path    string
	Headers [][2]string // besides the content type, which is JSON
	Body    []byte
}

// Verdict is what the service says of a text.
type Verdict struct {
	Blocked bool
	// Redacted: Text is to take the place of the question's text.
	Redacted bool
	Text     string
	// Why names the categories, filters or rails that matched, for the access log and metrics. The words are the service's own,
	// where they are ones that its documentation lists; else "other". They never have any of the text.
	Why []string
}

// Provider is one service's protocol. It is immutable.
type Provider interface {
	// Limit is the most bytes that a question's text may have; 0 is no limit. Whoever asks splits a longer text.
	Limit() int
	// Ask writes the request.
	Ask(q *Question) Request
	// Read reads the response. An error says that the text was not judged, or not by all that should judge it: a failed check. It
	// names the cause in a few words, for the log, and has none of the text.
	Read(q *Question, status int, body []byte) (Verdict, error)
}

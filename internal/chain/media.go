package chain

import "strings"

// Media types compare without case, and whatever parameters follow them (RFC 9110, section 8.3.1).

// mediaType returns a Content-Type without its parameters.
func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(kind)
}

// isEventStream reports whether a Content-Type is that of server-sent events.
func isEventStream(contentType string) bool {
	return strings.EqualFold(mediaType(contentType), "text/event-stream")
}

// isJSON reports whether a Content-Type is that of one JSON document: application/json, or a type of somebody's own whose
// name says that it is one (RFC 6839, section 3.1).
func isJSON(contentType string) bool {
	const json, application, suffix = "application/json", "application/", "+json"
	kind := mediaType(contentType)
	if strings.EqualFold(kind, json) {
		return true
	}
	n := len(kind) - len(suffix)
	return n > len(application) && strings.EqualFold(kind[:len(application)], application) && strings.EqualFold(kind[n:], suffix)
}

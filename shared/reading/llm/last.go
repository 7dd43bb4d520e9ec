package llm

// kindMax is enough for the longest type of a last event.
const kindMax = len("response.incomplete")

// kind is the "type" of an event, as far as it is being read.
type kind struct {
	text [kindMax]byte
	n    int // its length; beyond kindMax the rest is not kept
}

func (k *kind) add(piece []byte) {
	copy(k.text[min(k.n, kindMax):], piece)
	k.n += len(piece)
}

// isLast reports whether nothing comes after an event of this type. Chat and completions end with "[DONE]" instead.
func (k *kind) isLast(api API) bool {
	if k.n > kindMax {
		return false
	}
	switch string(k.text[:k.n]) {
	case "message_stop":
		return api == Messages
	case "message-end":
		return api == CohereChat
	case "response.completed", "response.incomplete", "response.failed":
		return api == Responses
	}
	return false
}

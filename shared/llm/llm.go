// Package llm reads what a gateway needs to know from the requests and answers of model APIs: from a request the model,
// the prompt and the bounds of the answer, from an answer the tokens that were used. It also writes refusals in the form
// that each API's clients understand.
//
// It knows the APIs of OpenAI as vLLM, SGLang, TensorRT-LLM and others serve them, and the Messages API of Anthropic.
// Bodies are read once, in the chunks in which they arrive, and are not held; what is read does not depend on the chunks.
package llm

import "strings"

// API is one operation of a model server.
type API uint8

// The APIs whose requests are understood.
const (
	Unknown     API = iota
	Chat            // OpenAI: POST /v1/chat/completions
	Completions     // OpenAI: POST /v1/completions
	Responses       // OpenAI: POST /v1/responses
	Embeddings      // OpenAI: POST /v1/embeddings
	Images          // OpenAI: POST /v1/images/generations
	Audio           // OpenAI: POST /v1/audio/speech
	Messages        // Anthropic: POST /v1/messages
	Models          // GET /v1/models: no body
)

// paths by API.
var paths = [...]string{
	Chat:        "/v1/chat/completions",
	Completions: "/v1/completions",
	Responses:   "/v1/responses",
	Embeddings:  "/v1/embeddings",
	Images:      "/v1/images/generations",
	Audio:       "/v1/audio/speech",
	Messages:    "/v1/messages",
	Models:      "/v1/models",
}

var names = [...]string{"unknown", "chat", "completions", "responses", "embeddings", "images", "audio", "messages", "models"}

// String returns a short lower-case name for logs and metrics.
func (a API) String() string {
	if int(a) >= len(names) {
		a = Unknown
	}
	return names[a]
}

// Match returns the API that a request's :path addresses, or Unknown. Gateways put prefixes before the standard paths
// ("/openai/v1/chat/completions"), so the end of the path decides; the query does not count. Anything else must fit to
// the letter: the path is expected as Envoy normalises it.
func Match(path string) API {
	path, _, _ = strings.Cut(path, "?")
	for api := Chat; api <= Models; api++ {
		if strings.HasSuffix(path, paths[api]) {
			return api
		}
	}
	return Unknown
}

// Span is a piece of a body: byte offsets from the body's start. A negative Start means that there is none.
type Span struct{ Start, End int64 }

// Present reports whether the span stands for anything.
func (s Span) Present() bool { return s.Start >= 0 }

var absent = Span{Start: -1, End: -1}

// interner returns the same string for the same bytes: models are few, requests are many.
type interner map[string]string

// maxInterned bounds what clients who make up names can make a scanner remember.
const maxInterned = 256

func (in *interner) string(b []byte) string {
	if s, ok := (*in)[string(b)]; ok {
		return s
	}
	if *in == nil || len(*in) >= maxInterned {
		*in = make(interner)
	}
	s := string(b)
	(*in)[s] = s
	return s
}

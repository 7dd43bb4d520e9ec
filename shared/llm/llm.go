// Package llm reads what a gateway needs to know from the requests and answers of model APIs: from a request the model,
// the prompt and the bounds of the answer, from an answer the tokens that were used. It also writes refusals in the form
// that each API's clients understand.
//
// It knows the APIs of OpenAI as vLLM, SGLang, TensorRT-LLM and others serve them, vLLM's own, and the Messages API of Anthropic.
// Bodies are read once, in the chunks in which they arrive, and are not held; what is read does not depend on the chunks.
package llm

import (
	"strconv"
	"strings"
)

// API is one operation of a model server, or several that are asked in the same form.
type API uint8

// The APIs whose requests are understood.
const (
	Unknown        API = iota
	Chat               // OpenAI chat completions
	Completions        // OpenAI completions
	Responses          // OpenAI responses
	Embeddings         // OpenAI embeddings
	Images             // OpenAI image generations
	Audio              // OpenAI speech
	Messages           // Anthropic messages
	Models             // the list of models, or one of them: no body
	ImageEdits         // OpenAI image edits and variations: mostly a form with files
	Transcriptions     // OpenAI transcriptions and translations of audio: a form with a file
	CountTokens        // Anthropic: how many tokens a message has
	Rerank             // vLLM, as Jina and Cohere have it: documents by their relevance
	Score              // vLLM: how similar texts are
	Pooling            // vLLM: hidden states
	Classify           // vLLM: classes of texts
)

// operations are the paths by which servers offer an API (vLLM 0.11, SGLang 0.5, OpenAI, Anthropic).
var operations = []struct {
	path string
	api  API
}{
	{"/v1/chat/completions", Chat},
	{"/v1/completions", Completions},
	{"/v1/responses", Responses},
	{"/v1/embeddings", Embeddings},
	{"/v1/images/generations", Images},
	{"/v1/images/edits", ImageEdits},
	{"/v1/images/variations", ImageEdits},
	{"/v1/audio/speech", Audio},
	{"/v1/audio/transcriptions", Transcriptions},
	{"/v1/audio/translations", Transcriptions},
	{"/v1/messages", Messages},
	{"/v1/messages/count_tokens", CountTokens},
	{"/v1/models", Models},
	{"/v1/rerank", Rerank},
	{"/v2/rerank", Rerank},
	{"/rerank", Rerank},
	{"/v1/score", Score},
	{"/score", Score},
	{"/pooling", Pooling},
	{"/classify", Classify},
}

var names = [...]string{
	Unknown: "unknown", Chat: "chat", Completions: "completions", Responses: "responses", Embeddings: "embeddings", Images: "images",
	Audio: "audio", Messages: "messages", Models: "models", ImageEdits: "image_edits", Transcriptions: "transcriptions",
	CountTokens: "count_tokens", Rerank: "rerank", Score: "score", Pooling: "pooling", Classify: "classify",
}

// String returns a short lower-case name for logs and metrics.
func (a API) String() string {
	if int(a) >= len(names) {
		a = Unknown
	}
	return names[a]
}

// TakesForm reports whether requests to the API may be multipart/form-data.
func (a API) TakesForm() bool { return a == Transcriptions || a == ImageEdits }

// AnswersOtherwise reports whether answers of the API may be something other than JSON or events: sound, or a text by itself.
// Those name no model.
func (a API) AnswersOtherwise() bool { return a == Audio || a == Transcriptions }

// Match returns the API that a request's :path addresses, or Unknown: the path is one of the standard paths, by itself or
// behind one of the prefixes. The query does not count; anything else must fit to the letter: the path is expected as
// Envoy normalises it. An unknown prefix is no match, since what a replica serves there need not be the API that the end of
// the path promises.
func Match(path string, prefixes []string) API {
	path, _, _ = strings.Cut(path, "?")
	for i := range operations {
		before, ok := strings.CutSuffix(path, operations[i].path)
		if ok && (before == "" || allowed(before, prefixes)) {
			return operations[i].api
		}
	}
	if before, id, _ := strings.Cut(path, modelPath); id != "" && (before == "" || allowed(before, prefixes)) {
		return Models
	}
	return Unknown
}

// modelPath is followed by the name of the model that is asked about.
const modelPath = "/v1/models/"

// ModelID returns the name of the model that a :path of Models asks about, its escapes undone; "" for the list of all.
func ModelID(path string) string {
	path, _, _ = strings.Cut(path, "?")
	_, id, _ := strings.Cut(path, modelPath)
	name := make([]byte, 0, len(id))
	for i := 0; i < len(id); i++ {
		if id[i] == '%' && i+2 < len(id) {
			if c, err := strconv.ParseUint(id[i+1:i+3], 16, 8); err == nil {
				name = append(name, byte(c))
				i += 2
				continue
			}
		}
		name = append(name, id[i])
	}
	return string(name)
}

func allowed(before string, prefixes []string) bool {
	for _, p := range prefixes {
		if before == strings.TrimSuffix(p, "/") {
			return true
		}
	}
	return false
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

// Package llm reads what a gateway needs to know from the requests and answers of model APIs: from a request the model,
// the prompt and the bounds of the answer, from an answer the tokens that were used. It also writes refusals in the form
// that each API's clients understand.
//
// It knows the APIs of OpenAI as vLLM, SGLang, TensorRT-LLM and others serve them, vLLM's own, and the Messages API of Anthropic.
// Bodies are read once, in the chunks in which they arrive, and are not held; what is read does not depend on the chunks.
package llm

import (
	"slices"
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
	Tokenize           // what a prompt consists of, or how much: nothing is computed for it
	Detokenize         // vLLM: the text of tokens
	Generate           // vLLM: tokens for tokens
	Videos             // OpenAI videos: a form
	Moderations        // OpenAI moderations
	CohereChat         // Cohere's chat, as vLLM has it
	CohereEmbed        // Cohere's embeddings, as vLLM has them
	Other              // any JSON or form that names its model: all text in it is taken for prompt
)

// Operation is a path by which a server offers an API.
type Operation struct {
	Path string
	API  API
}

// operations are the standard paths (vLLM 0.32, SGLang 0.5, OpenAI, Anthropic) of all that names a model and is not
// about a server's inside.
var operations = []Operation{
	{"/v1/chat/completions", Chat},
	{"/v1/chat/completions/batch", Other}, // several conversations
	{"/v1/chat/completions/render", Tokenize},
	{"/v1/chat/completions/derender", Tokenize},
	{"/v1/chat/completions/input_tokens", Tokenize},
	{"/v1/completions", Completions},
	{"/v1/completions/render", Tokenize},
	{"/v1/completions/derender", Tokenize},
	{"/v1/responses", Responses},
	{"/v1/responses/compact", Responses},
	{"/v1/responses/input_tokens", Tokenize},
	{"/v1/responses/render", Tokenize},
	{"/v1/embeddings", Embeddings},
	{"/v1/images/generations", Images},
	{"/v1/images/edits", ImageEdits},
	{"/v1/images/variations", ImageEdits},
	{"/v1/audio/speech", Audio},
	{"/v1/audio/transcriptions", Transcriptions},
	{"/v1/audio/translations", Transcriptions},
	{"/v1/messages", Messages},
	{"/v1/messages/count_tokens", CountTokens},
	{"/v1/messages/render", Tokenize},
	{"/v1/models", Models},
	{"/v1/rerank", Rerank},
	{"/v2/rerank", Rerank},
	{"/rerank", Rerank},
	{"/v1/score", Score},
	{"/score", Score},
	{"/pooling", Pooling},
	{"/classify", Classify},
	{"/v1/classify", Classify},
	{"/tokenize", Tokenize},
	{"/v1/tokenize", Tokenize},
	{"/detokenize", Detokenize},
	{"/v1/detokenize", Detokenize},
	{"/inference/v1/generate", Generate},
	{"/v1/videos", Videos},
	{"/v1/moderations", Moderations},
	{"/v1/decisions", Other},
	{"/v1/systemone", Other},
	{"/generative_scoring", Other},
	{"/v2/embed", CohereEmbed},
	{"/cohere/v2/chat", CohereChat},
	{"/cohere/v2/chat/render", Tokenize},
}

var names = [...]string{
	Unknown: "unknown", Chat: "chat", Completions: "completions", Responses: "responses", Embeddings: "embeddings", Images: "images",
	Audio: "audio", Messages: "messages", Models: "models", ImageEdits: "image_edits", Transcriptions: "transcriptions",
	CountTokens: "count_tokens", Rerank: "rerank", Score: "score", Pooling: "pooling", Classify: "classify",
	Tokenize: "tokenize", Detokenize: "detokenize", Generate: "generate", Videos: "videos", Moderations: "moderations", CohereChat: "cohere_chat",
	CohereEmbed: "cohere_embed", Other: "other",
}

// Named returns the API of a name as String gives it, of those that are asked with a body; Unknown if there is none.
func Named(name string) API {
	for _, candidate := range Names() {
		if candidate == name {
			return API(slices.Index(names[:], name))
		}
	}
	return Unknown
}

// Names are the names of the APIs that are asked with a body.
func Names() []string {
	return slices.DeleteFunc(slices.Clone(names[:]), func(name string) bool {
		return name == names[Unknown] || name == names[Models]
	})
}

// String returns a short lower-case name for logs and metrics.
func (a API) String() string {
	if int(a) >= len(names) {
		a = Unknown
	}
	return names[a]
}

// TakesForm reports whether requests to the API may be multipart/form-data.
func (a API) TakesForm() bool {
	return a == Transcriptions || a == ImageEdits || a == Videos || a == Other
}

// likeCohere reports whether answers of the API may tell their tokens in Cohere's form.
func (a API) likeCohere() bool {
	return a == Rerank || a == CohereChat || a == CohereEmbed || a == Other
}

// AnswersOtherwise reports whether answers of the API may be something other than JSON or events: sound, or a text by itself.
// Those name no model.
func (a API) AnswersOtherwise() bool { return a == Audio || a == Transcriptions }

// Match returns the API that a request's :path addresses, or Unknown: the path is one of the standard paths, by itself or
// behind one of the prefixes. The query does not count; anything else must match exactly: the path is expected as
// Envoy normalises it. An unknown prefix is no match, since what a replica serves there need not be the API that the end of
// the path promises.
func Match(path string, prefixes []string) API {
	if api := MatchAmong(operations, path, prefixes); api != Unknown {
		return api
	}
	path, _, _ = strings.Cut(path, "?")
	if before, id, _ := strings.Cut(path, modelPath); id != "" && (before == "" || allowed(before, prefixes)) {
		return Models
	}
	return Unknown
}

// MatchAmong is Match with these operations in the place of the standard ones.
func MatchAmong(among []Operation, path string, prefixes []string) API {
	if len(among) == 0 {
		return Unknown
	}
	path, _, _ = strings.Cut(path, "?")
	for i := range among {
		before, ok := strings.CutSuffix(path, among[i].Path)
		if ok && (before == "" || allowed(before, prefixes)) {
			return among[i].API
		}
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

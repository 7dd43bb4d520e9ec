package llm

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestMatch(t *testing.T) {
	for path, want := range map[string]API{
		"/v1/chat/completions":                  Chat,
		"/v1/completions":                       Completions,
		"/v1/responses":                         Responses,
		"/v1/embeddings":                        Embeddings,
		"/v1/images/generations":                Images,
		"/v1/audio/speech":                      Audio,
		"/v1/messages":                          Messages,
		"/v1/models":                            Models,
		"/openai/v1/chat/completions":           Unknown,
		"/metrics/v1/completions?x=1":           Unknown,
		"/v1/messages?beta=true":                Messages,
		"/v1/chat/completions?a=/v1/embeddings": Chat,
		"/v1/models?":                           Models,
		"":                                      Unknown,
		"/":                                     Unknown,
		"/metrics":                              Unknown,
		"/v1/chat/completions/":                 Unknown,
		"/v1/chat/completions/x":                Unknown,
		"/v1/Chat/Completions":                  Unknown,
		"/v1/chat%2Fcompletions":                Unknown,
		"/chat/completions":                     Unknown,
		"/xv1/completions":                      Unknown,
		"/v1/responses/resp_1":                  Unknown,
		"/v1/models/":                           Unknown,
		"/v1/models/llama":                      Models,
		"/v1/models/a/b%2Fc?x":                  Models,
		"/team/v1/models/llama":                 Unknown,
		"/v1/models?/v1/models/x":               Models,
		"/v1/messages/count_tokens":             CountTokens,
		"/v1/audio/transcriptions":              Transcriptions,
		"/v1/audio/translations":                Transcriptions,
		"/v1/images/edits":                      ImageEdits,
		"/v1/images/variations":                 ImageEdits,
		"/rerank":                               Rerank,
		"/v1/rerank":                            Rerank,
		"/v2/rerank":                            Rerank,
		"/team/rerank":                          Unknown,
		"/score":                                Score,
		"/v1/score":                             Score,
		"/sports/score":                         Unknown,
		"/pooling":                              Pooling,
		"/classify":                             Classify,
		"/classify?x":                           Classify,
		"/v1/messages/batches":                  Unknown,
		"/tokenize":                             Tokenize,
		"/v1/tokenize?x":                        Tokenize,
		"/detokenize":                           Detokenize,
		"/v1/responses/compact":                 Responses,
		"/v1/responses/input_tokens":            Tokenize,
		"/v1/chat/completions/render":           Tokenize,
		"/v1/chat/completions/batch":            Other,
		"/inference/v1/generate":                Generate,
		"/v1/videos":                            Videos,
		"/v1/videos/video_1":                    Unknown,
		"/v1/moderations":                       Moderations,
		"/cohere/v2/chat":                       CohereChat,
		"/v2/embed":                             CohereEmbed,
		"/v2/chat":                              Unknown,
		"/v1/realtime":                          Unknown,
		"/x?/v1/chat/completions":               Unknown,
	} {
		require.Equal(t, want, Match(path, nil), path)
	}
}

func TestModelID(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/models":                       "",
		"/v1/models?a=/v1/models/b":        "",
		"/v1/models/llama?x":               "llama",
		"/team-a/v1/models/a/b":            "a/b",
		"/v1/models/meta%2fllama%3A8b":     "meta/llama:8b",
		"/v1/models/%e8%AA%9e%":            "語%",
		"/v1/models/%zz%+1%2":              "%zz%+1%2",
		"/v1/models/a/v1/models/b%253f%3f": "a/v1/models/b%3f?",
	} {
		require.Equal(t, want, ModelID(path), path)
	}
}

func TestMatchBehindPrefixes(t *testing.T) {
	prefixes := []string{"/team-a", "/team-a/v1/", "/v1"}
	for path, want := range map[string]API{
		"/v1/chat/completions":               Chat,
		"/team-a/v1/chat/completions?x":      Chat,
		"/team-a/v1/v1/completions":          Completions,
		"/team-a/score":                      Score,
		"/v1/score":                          Score,
		"/team-b/v1/chat/completions":        Unknown,
		"/team-a/x/v1/chat/completions":      Unknown,
		"/x/team-a/v1/chat/completions":      Unknown,
		"/team-av1/chat/completions":         Unknown,
		"/team-a/team-a/v1/chat/completions": Unknown,
		"/team-a//v1/chat/completions":       Unknown,
		"/TEAM-A/v1/chat/completions":        Unknown,
	} {
		require.Equal(t, want, Match(path, prefixes), path)
	}
}

func TestAPIString(t *testing.T) {
	require.Equal(t, "chat", Chat.String())
	require.Equal(t, "models", Models.String())
	require.Equal(t, "unknown", API(99).String())
	seen := map[string]bool{}
	for api := range names {
		require.NotEmpty(t, names[api])
		require.False(t, seen[names[api]], names[api])
		seen[names[api]] = true
		require.Less(t, api, len(members))
	}
}

func TestNamed(t *testing.T) {
	require.NotContains(t, Names(), "unknown")
	require.NotContains(t, Names(), "models")
	for _, name := range Names() {
		require.Equal(t, name, Named(name).String())
	}
	require.Len(t, Names(), len(names)-2)
	for _, none := range []string{"", "unknown", "models", "Chat"} {
		require.Equal(t, Unknown, Named(none), none)
	}
}

func TestMatchAmong(t *testing.T) {
	own := []Operation{{"/my/chat", Chat}, {"/score", Messages}}
	for path, want := range map[string]API{
		"/my/chat":             Chat,
		"/my/chat?x=/score":    Chat,
		"/team/score":          Messages,
		"/score":               Messages,
		"/other/score":         Unknown,
		"/my/chat/":            Unknown,
		"/v1/chat/completions": Unknown,
		"/v1/models/a":         Unknown,
	} {
		require.Equal(t, want, MatchAmong(own, path, []string{"/team/"}), path)
	}
}

// Requests whose responses report no tokens is not asked for them, and all others are.
func TestHasUsage(t *testing.T) {
	var without []string
	for api := range names {
		if !API(api).HasUsage() {
			without = append(without, names[api])
		}
	}
	require.Equal(t, []string{"unknown", "models", "count_tokens", "tokenize", "detokenize", "videos", "moderations"}, without)
}

func TestInterner(t *testing.T) {
	var in interner
	a := in.string([]byte("llama"))
	require.Equal(t, "llama", a)
	require.Same(t, unsafe.StringData(a), unsafe.StringData(in.string([]byte("llama"))))
	for i := range 10 * maxInterned {
		name := fmt.Sprint("made-up-", i)
		require.Equal(t, name, in.string([]byte(name)))
		require.LessOrEqual(t, len(in), maxInterned)
	}
	require.Equal(t, "llama", in.string([]byte("llama")))
	require.Empty(t, in.string(nil))
}

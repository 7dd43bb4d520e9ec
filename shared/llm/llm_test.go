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
		"/openai/v1/chat/completions":           Chat,
		"/tenant/a/v1/completions?x=1":          Completions,
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
		"/v1/models/llama":                      Unknown,
		"/v1/messages/count_tokens":             Unknown,
		"/v1/messages/batches":                  Unknown,
		"/x?/v1/chat/completions":               Unknown,
	} {
		require.Equal(t, want, Match(path), path)
	}
}

func TestAPIString(t *testing.T) {
	require.Equal(t, "chat", Chat.String())
	require.Equal(t, "models", Models.String())
	require.Equal(t, "unknown", API(99).String())
	require.Len(t, names, len(paths))
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

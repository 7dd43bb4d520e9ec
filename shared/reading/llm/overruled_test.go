package llm

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// A member with a value that says nothing is as none, and if it stands behind one that says something, it takes that back: the last one
// counts, and the member is told to stand twice.
func TestWhatIsOverruled(t *testing.T) {
	f := func(api API, member, good string, want facts, voids ...string) {
		t.Helper()
		for _, void := range append(voids, `null`, `{}`, `[]`, `[5]`, `[true]`, `{"a":5}`, `[{"include_usage":true}]`) {
			got, err := readWhole(api, `{"`+member+`":`+void+`}`)
			require.NoError(t, err)
			require.Equal(t, facts{HasModel: member == "model"}, got, void)
			got, err = readWhole(api, `{"`+member+`":`+good+`,"user":"u"}`)
			require.NoError(t, err)
			require.Equal(t, want, got)
			got, err = readWhole(api, `{"`+member+`":`+good+`,"`+member+`":`+void+`}`)
			require.NoError(t, err)
			require.Equal(t, facts{HasModel: member == "model", Repeated: member}, got, void)
			last := want
			last.Repeated = member
			got, err = readWhole(api, `{"`+member+`":`+void+`,"`+member+`":`+good+`}`)
			require.NoError(t, err)
			require.Equal(t, last, got, void)
		}
	}
	for _, api := range []API{Chat, Completions, Messages} {
		f(api, "model", `"m"`, facts{Model: "m", HasModel: true, ModelIsString: true, Raw: `"m"`})
		f(api, "stream", `true`, facts{Stream: true})
		f(api, "max_tokens", `5`, facts{MaxTokens: 5})
	}
	f(Chat, "stream_options", `{"include_usage":true}`, facts{IncludeUsage: true}, `true`, `1`, `"true"`, `{"include_usage":[true]}`, `{"include_usage":{"a":true}}`, `{"a":{"include_usage":true}}`)
	f(Chat, "max_completion_tokens", `7`, facts{MaxTokens: 7})
	f(Responses, "max_output_tokens", `9`, facts{MaxTokens: 9})
	f(Chat, "n", `3`, facts{Answers: 3})
	f(Completions, "best_of", `4`, facts{Answers: 4})
}

func readWhole(api API, body string) (facts, error) {
	return read(api, Want{}, jsonscan.Limits{}, []byte(body), []byte(body))
}

// The two names of a chat's bound overrule themselves, and not each other.
func TestEachNameOfTheBound(t *testing.T) {
	const old, new = "max_tokens", "max_completion_tokens"
	for _, void := range []string{`null`, `{}`, `[5]`} {
		for body, want := range map[string]int{
			fmt.Sprintf(`{%q:5,%q:%s}`, old, new, void):           5,
			fmt.Sprintf(`{%q:%s,%q:5}`, new, void, old):           5,
			fmt.Sprintf(`{%q:5,%q:7,%q:%s}`, old, new, old, void): 7,
			fmt.Sprintf(`{%q:5,%q:7,%q:%s}`, old, new, new, void): 5,
			fmt.Sprintf(`{%q:7,%q:%s}`, new, old, void):           7,
			fmt.Sprintf(`{%q:7,%q:5}`, new, old):                  7,
			fmt.Sprintf(`{%q:7,%q:5}`, old, new):                  7,
		} {
			got, err := readWhole(Chat, body)
			require.NoError(t, err)
			require.Equal(t, want, got.MaxTokens, body)
		}
	}
}

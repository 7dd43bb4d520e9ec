package llm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// asking returns the body as it goes on, and whether it was changed.
func asking(t require.TestingT, api API, body string, cuts ...int) (string, bool) {
	var r RequestScanner
	r.Reset(api, Want{}, jsonscan.DefaultLimits)
	at := 0
	for _, cut := range append(cuts, len(body)) {
		require.NoError(t, r.Feed([]byte(body[at:cut])))
		at = cut
	}
	require.NoError(t, r.End())
	span, with, ok := r.Request().AskUsage()
	if !ok {
		return body, false
	}
	return body[:span.Start] + string(with) + body[span.End:], true
}

func TestAskUsage(t *testing.T) {
	for body, want := range map[string]string{
		`{"stream":true}`:                      `{"stream_options":{"include_usage":true},"stream":true}`,
		" {\n\"model\":\"m\",\"stream\":true}": " {" + `"stream_options":{"include_usage":true},` + "\n\"model\":\"m\",\"stream\":true}",
		`{"stream":"yes"}`:                     `{"stream_options":{"include_usage":true},"stream":"yes"}`,
		`{"stream":1}`:                         `{"stream_options":{"include_usage":true},"stream":1}`,

		`{"stream":true,"stream_options":null}`:    `{"stream":true,"stream_options":{"include_usage":true}}`,
		`{"stream_options" : null ,"stream":true}`: `{"stream_options" : {"include_usage":true} ,"stream":true}`,
		`{"stream_options":{},"stream":true}`:      `{"stream_options":{"include_usage":true},"stream":true}`,
		`{"stream_options":{ },"stream":true}`:     `{"stream_options":{"include_usage":true },"stream":true}`,

		`{"stream_options":{"include_usage":false},"stream":true}`:                   `{"stream_options":{"include_usage":true},"stream":true}`,
		`{"stream_options":{"include_usage":null },"stream":true}`:                   `{"stream_options":{"include_usage":true },"stream":true}`,
		`{"stream_options":{"include_usage":0},"stream":true}`:                       `{"stream_options":{"include_usage":true},"stream":true}`,
		`{"stream_options":{"include_usage":"false"},"stream":true}`:                 `{"stream_options":{"include_usage":true},"stream":true}`,
		`{"stream_options":{"include\u005fusage":""},"stream":true}`:                 `{"stream_options":{"include\u005fusage":true},"stream":true}`,
		`{"stream_options":{"x":{"include_usage":1}},"stream":true}`:                 `{"stream_options":{"include_usage":true,"x":{"include_usage":1}},"stream":true}`,
		`{"stream_options":{"x":[1],"y":null,"z":""},"stream":true}`:                 `{"stream_options":{"include_usage":true,"x":[1],"y":null,"z":""},"stream":true}`,
		`{"stream_options":{"x":1,"include_usage":false},"stream":1}`:                `{"stream_options":{"x":1,"include_usage":true},"stream":1}`,
		`{"stream_options":{"include_usage":false,"x":1},"stream":1}`:                `{"stream_options":{"include_usage":true,"x":1},"stream":1}`,
		`{"stream_options":{"include_usage":1,"include_usage":false},"stream":true}`: `{"stream_options":{"include_usage":1,"include_usage":true},"stream":true}`,
		`{"stream_options":{"continuous_usage_stats":true},"stream":true}`:           `{"stream_options":{"include_usage":true,"continuous_usage_stats":true},"stream":true}`,
	} {
		for _, api := range []API{Chat, Completions} {
			for cut := range len(body) {
				got, ok := asking(t, api, body, cut)
				require.True(t, ok, body)
				require.Equal(t, want, got, "%s cut at %d", body, cut)
			}
			again, ok := asking(t, api, want)
			require.False(t, ok, "it asks now: %s", again)
		}
	}
}

func TestAskUsageNot(t *testing.T) {
	for _, body := range []string{
		`{}`, `[]`, `"x"`, `{"model":"m"}`, `{"stream":false}`, `{"stream":null}`, `{"stream":[true]}`, `{"stream":"no"}`,
		`{"stream":true,"stream_options":{"include_usage":true}}`, `{"stream":true,"stream_options":{"include_usage":"true"}}`, `{"stream":true,"stream_options":{"include_usage":1}}`,
		// What servers refuse is theirs to refuse.
		`{"stream":true,"stream_options":true}`, `{"stream":true,"stream_options":"x"}`, `{"stream":true,"stream_options":[]}`, `{"stream":true,"stream_options":[{"include_usage":false}]}`,
		`{"stream":true,"stream_options":{"include_usage":{}}}`, `{"stream":true,"stream_options":{"include_usage":false,"include_usage":[true]}}`,
		// stream_options without a stream are refused by vLLM.
		`{"stream_options":null}`, `{"stream":false,"stream_options":{"include_usage":false}}`,
	} {
		_, ok := asking(t, Chat, body)
		require.False(t, ok, body)
	}
	for api := Unknown; api <= Other; api++ {
		_, ok := asking(t, api, `{"stream":true}`)
		require.Equal(t, api == Chat || api == Completions, ok, "%v", api)
	}
}

// A member that stands twice is refused, whatever the two say.
func TestStreamOptionsTwice(t *testing.T) {
	var r RequestScanner
	r.Reset(Chat, Want{}, jsonscan.DefaultLimits)
	require.NoError(t, r.Feed([]byte(`{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}`)))
	require.NoError(t, r.End())
	require.Equal(t, "stream_options", r.Request().Repeated)
}

// Whatever stands in the body, only that member changes.
func TestAskUsageChangesNothingElse(t *testing.T) {
	value := rapid.SampledFrom([]string{`1`, `"x"`, `null`, `true`, `[]`, `{"stream_options":null,"stream":true}`, `[{"include_usage":false}]`, `{}`, `"}"`, `"\""`})
	options := rapid.SampledFrom([]string{
		`null`, `{}`, `{"include_usage":false}`, `{"x":{"y":[]},"include_usage":null}`, `{"x":"{","y":1}`, ` { "include_usage" : "off" , "x" : 2 } `,
	})
	rapid.Check(t, func(t *rapid.T) {
		members := []string{`"stream":true`}
		if rapid.Bool().Draw(t, "options") {
			members = append(members, `"stream_options":`+options.Draw(t, "with"))
		}
		for i, n := 0, rapid.IntRange(0, 3).Draw(t, "others"); i < n; i++ {
			members = append(members, `"`+string(rune('a'+i))+`" : `+value.Draw(t, "value"))
		}
		body := "{" + strings.Join(rapid.Permutation(members).Draw(t, "order"), rapid.SampledFrom([]string{",", ", ", ",\n"}).Draw(t, "comma")) + "}"
		got, ok := asking(t, Chat, body, rapid.IntRange(0, len(body)).Draw(t, "cut"))
		require.True(t, ok, body)
		var before, after map[string]any
		require.NoError(t, json.Unmarshal([]byte(body), &before))
		require.NoError(t, json.Unmarshal([]byte(got), &after), got)
		told, _ := before["stream_options"].(map[string]any)
		if told == nil {
			told = map[string]any{}
		}
		told["include_usage"] = true
		before["stream_options"] = told
		require.Equal(t, before, after)
	})
}

package guardrail_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/filters/guardrail/valid"
)

// TestValidatedStreams: however texts are cut into events, and those into bytes, a stream is blocked exactly if one of its texts is
// not what it must be, and else goes on unchanged. With block nothing of the text has gone on before; with report all of it has.
func TestValidatedStreams(t *testing.T) {
	const config = `{providers: [{name: p, validate: {json: true, required: [a], maxBytes: 40}}], policies: [{on: response, use: [p], action: `
	blocks, reports := guard(t, config+"block}]}"), guard(t, config+"report}]}")
	rules := valid.Rules{JSON: true, Required: []string{"a"}, MaxBytes: 40}
	rapid.Check(t, func(r *rapid.T) {
		texts := rapid.SliceOfN(rapid.SampledFrom([]string{
			`{"a":1}`, "\n{\"a\": \"é 語 🦙\"} ", `{"b":{"a":1}}`, `{"a":1`, `Here: {"a":1}`, `[]`, `{"a":"` + strings.Repeat("x", 40) + `"}`, `{"a":2,"a":[{"b":null}]}`,
		}), 1, 3).Draw(r, "texts")
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "n") }
		body := eventsOf(texts, draw)
		wrong := 0
		for _, text := range texts {
			var d valid.Document
			if rules.Check(&d, []byte(text)) != valid.Nothing {
				wrong++
			}
		}
		size := rapid.IntRange(1, 60).Draw(r, "size")

		s := blocks.chain.NewStream()
		got, e := blocks.stream(s, body, func() int { return size })
		switch {
		case wrong == 0:
			require.Nil(r, e.refused)
			require.Equal(r, body, got)
		case e.refused != nil:
			require.Empty(r, got)
			require.Equal(r, 400, e.refused.Status)
		default:
			require.Contains(r, got, "content_policy_violation", "a text that is right has gone on before")
		}
		s = reports.chain.NewStream()
		got, e = reports.stream(s, body, func() int { return size })
		require.Nil(r, e.refused)
		require.Equal(r, body, got)
		require.Equal(r, wrong > 0, strings.Contains(e.why, "guardrail=p/invalid_"), e.why)
	})
	require.Empty(t, blocks.logs.String()+reports.logs.String())
}

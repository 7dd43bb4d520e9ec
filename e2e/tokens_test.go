package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// testMessageTokens: a stream in Anthropic's form reports the whole prompt when it begins, and at its end the same again,
// or its cached part. Either way it counts once.
func testMessageTokens(t *testing.T, s *stack.Stack) {
	body := `{"model":"gemma","max_tokens":4,"stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("once upon a time ", 100) + `"}]}`
	before, err := s.Metrics(t.Context())
	require.NoError(t, err)
	input, output, cached := 0.0, 0.0, 0.0
	for _, headers := range [][]string{nil, nil, {"x-modelsim-fault", "no-cached"}} {
		a := post(t.Context(), s, "/v1/messages", body, headers...)
		require.NoError(t, a.err)
		require.Equal(t, http.StatusOK, a.status, "%s", a.body)
		for line := range strings.Lines(string(a.body)) {
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				continue
			}
			input += gjson.Get(data, "message.usage.input_tokens").Num
			output += gjson.Get(data, "usage.output_tokens").Num
			cached += gjson.Get(data, "usage.cache_read_input_tokens").Num + gjson.Get(data, "usage.cache_creation_input_tokens").Num
		}
	}
	require.Greater(t, cached, input/2, "most of two prompts is reported as cached")
	growth := func(m stack.Metrics, name string) float64 {
		return m.Sum(name, "model_name", "gemma") - before.Sum(name, "model_name", "gemma")
	}
	eventually(t, "the tokens are counted", func() (bool, error) {
		m, err := s.Metrics(t.Context())
		return growth(m, "inlet_output_tokens_total") == output, err
	})
	m, err := s.Metrics(t.Context())
	require.NoError(t, err)
	require.InDelta(t, input, growth(m, "inlet_input_tokens_total"), 0)
	require.Zero(t, growth(m, "inlet_usage_unknown_total"))
}

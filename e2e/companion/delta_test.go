package companion_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// answers counts the companion's responses to proxies.
func answers(t *testing.T, s *stack.Stack) map[string]float64 {
	t.Helper()
	resp, err := http.Get(s.Companion.URL() + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	require.NoError(t, err)
	counts := map[string]float64{}
	for _, m := range families["inlet_companion_calls_total"].GetMetric() {
		counts[m.Label[0].GetValue()] = m.Counter.GetValue()
	}
	return counts
}

// Both builds accept deltas: once they have a whole snapshot and the models are known, they get no other whole one.
func TestInletFollowsByDeltas(t *testing.T) {
	for _, abi := range []string{stack.Wasm, stack.Module} {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{ABI: abi})
			require.NoError(t, s.WaitForSnapshot(t.Context()))
			more := func(than float64) func() bool {
				return func() bool { return answers(t, s)["delta"] >= than }
			}
			require.Eventually(t, more(2), 30*time.Second, 50*time.Millisecond)
			before := answers(t, s)
			require.Eventually(t, more(before["delta"]+4), 30*time.Second, 50*time.Millisecond)
			require.Equal(t, before["snapshot"], answers(t, s)["snapshot"])
			require.NoError(t, s.WaitForSnapshot(t.Context()), "what came by delta is what the companion has")
			require.NotContains(t, s.Logs(), "no snapshot from")
		})
	}
}

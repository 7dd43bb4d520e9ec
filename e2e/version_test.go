package e2e_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// testVersion: the log and a metric say which version Envoy has loaded.
func testVersion(t *testing.T, s *stack.Stack) {
	metrics, err := s.Metrics(t.Context())
	require.NoError(t, err)
	var found []stack.Sample
	for _, sample := range metrics {
		if sample.Name == "inlet_build_info" {
			found = append(found, sample)
		}
	}
	require.Len(t, found, 1)
	require.Equal(t, 1.0, found[0].Value, "one, however many workers there are")
	version := found[0].Labels["version"]
	require.NotEmpty(t, version)
	log, err := os.ReadFile(s.EnvoyLog())
	require.NoError(t, err)
	require.Contains(t, string(log), "version "+version+", chain: bbr(FailClosed)")
}

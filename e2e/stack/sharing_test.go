package stack_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Sharing(m)) }

// TestSharing: one stack after the other has the same Envoy, and finds nothing of the one before.
func TestSharing(t *testing.T) {
	o := stack.Options{
		ABI: stack.Wasm, Workers: 1, NoCompanion: true, Chain: "filters: [{bbr: {models: [{name: llama, targets: [{pool: llama}]}]}}]",
		Pools: []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--speed", "0"}}}, Updatable: true,
	}
	var envoys []int
	for range 2 {
		t.Run("in turn", func(t *testing.T) {
			s := stack.ForTest(t, o)
			envoys = append(envoys, s.EnvoyPID())
			served := func() float64 {
				m, err := s.Metrics(t.Context())
				require.NoError(t, err)
				return m.Sum("inlet_request_total", "pool", "llama")
			}
			require.Zero(t, served())
			require.Empty(t, s.EnvoyErrors())
			resp, err := client.Post(s.URL()+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"llama","messages":[]}`))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, 200, resp.StatusCode)
			a, err := s.Access(t.Context(), resp.Header.Get("x-request-id"))
			require.NoError(t, err)
			require.Equal(t, s.Replicas[0].Address(), a.Replica)
			require.InDelta(t, 1, served(), 0)

			// Envoy logs an error, which is not the next one's.
			require.Error(t, s.Update(t.Context(), func(o *stack.Options) { o.Chain = "filters: [{bar: {}}]" }))
			require.NotEmpty(t, s.EnvoyErrors())
		})
	}
	require.Equal(t, envoys[0], envoys[1])
}

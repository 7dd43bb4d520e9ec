// Package quota_test runs quotas in a real Envoy, in both builds: with four workers, two Envoys on one companion, and two
// companions on one Redis.
package quota_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

var (
	soak  = flag.Duration("soak", 3*time.Second, "how long requests of all kinds are sent and counted")
	burst = flag.Duration("burst", 4*time.Second, "how long streams are cut")
)

var abis = []string{stack.Wasm, stack.Module}

// TestQuota shares one stack for all that a test can do with keys of its own: two Envoys, one companion, two pools of
// simulated replicas, and one replica that remembers what it got.
func TestQuota(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			seen := newRecorder(t)
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Workers: 4, Chain: sharedChain(), Progress: os.Stderr,
				Pools: []stack.Pool{
					{Name: "llama", Replicas: 2, Args: []string{"--model", "llama-3-8b", "--speed", "0"}},
					{Name: "seen", Addresses: []string{seen.address()}},
				},
				Quota: map[string]any{"store": map[string]any{"dir": t.TempDir()}}, Admin: true,
			})
			second, err := s.StartEnvoy(t.Context())
			require.NoError(t, err)
			t.Run("the 101st request", func(t *testing.T) { testExact(t, "one Envoy", s.URL()) })
			t.Run("the 101st request of two Envoys", func(t *testing.T) { testExact(t, "two Envoys", s.URL(), second.URL()) })
			t.Run("who may call", func(t *testing.T) { testKeys(t, s, seen) })
			t.Run("what may be called", func(t *testing.T) { testProducts(t, s, seen) })
			t.Run("usage is asked for", func(t *testing.T) { testUsage(t, s, seen) })
			t.Run("soak", func(t *testing.T) { testSoak(t, s, s.URL(), second.URL()) })
			t.Run("streams are cut", func(t *testing.T) { testCut(t, s, s.URL(), second.URL()) })
			t.Run("keys and products change", func(t *testing.T) { testChanges(t, s) })
			require.Empty(t, s.EnvoyErrors())
			require.Empty(t, second.EnvoyErrors())
		})
	}
}

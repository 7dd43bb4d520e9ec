package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestGateway runs what is shipped: Envoy with four workers, the companion, six
// replicas, and the configuration that `make run` uses.
func TestGateway(t *testing.T) {
	scraped := map[string][]string{} // series by build
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{ABI: abi, Workers: 4, Pools: quickPools(), Edit: mergeOnScrape, Alone: true})
			waitForPicks(t, s)
			t.Run("the same few requests for every build", func(t *testing.T) { scraped[abi] = testSameRequests(t, s) })
			t.Run("the version", func(t *testing.T) { testVersion(t, s) })
			t.Run("README's example", func(t *testing.T) { testReadmeExample(t, s) })
			t.Run("responses have the requested name", func(t *testing.T) { testRestored(t, s) })
			t.Run("tokens of streams in Anthropic's form", func(t *testing.T) { testMessageTokens(t, s) })
			t.Run("forged control headers", func(t *testing.T) { testForged(t, s) })
			t.Run("ten thousand mixed requests", func(t *testing.T) { testMixed(t, s) })
			t.Run("some of them were measured", func(t *testing.T) { testTimed(t, s) })
			t.Run("the companion dies and comes back", func(t *testing.T) { testCompanionDies(t, s) })
			t.Run("a replica dies and comes back", func(t *testing.T) { testReplicaDies(t, s) })
			require.Empty(t, s.EnvoyErrors())
		})
	}
	t.Run("both builds expose the same metrics", func(t *testing.T) {
		require.NotEmpty(t, scraped[stack.Wasm])
		require.Equal(t, scraped[stack.Wasm], scraped[stack.Module])
	})
}

// quickPools are the pools of the shipped configuration, with replicas that respond
// without delay.
func quickPools() []stack.Pool {
	pools := stack.DefaultPools()
	for i := range pools {
		pools[i].Args = append(pools[i].Args, "--speed", "0")
	}
	return pools
}

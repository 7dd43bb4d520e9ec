package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const fewKey, manyKey = "few-key", "many-key"

// embeddedChain has one key with three requests a day, and one without a limit.
var embeddedChain = fmt.Sprintf(`
filters:
  - bbr:
      models:
        - {name: llama, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: gemma, targets: [{pool: gemma}]}
  - quota:
      keys: {list: [{name: few, sha256: %s, products: [few]}, {name: many, sha256: %s, products: [many]}]}
      products: [{name: few, requests: 3/day}, {name: many}]
  - picker: {profile: sticky, endpoints: 3, slowStart: 0s}
companion: {cluster: inlet-companion}
`, digestOf(fewKey), digestOf(manyKey))

func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// TestEmbedded: one Envoy and one .so are the whole installation.
func TestEmbedded(t *testing.T) {
	s := stack.ForTest(t, stack.Options{ABI: stack.Module, Embedded: true, Chain: embeddedChain, Updatable: true})
	require.Nil(t, s.Companion)
	require.NoError(t, s.WaitForSnapshot(t.Context()))
	e := embedded{s}
	t.Run("requests follow prefixes and replicas", e.testReplicas)
	t.Run("limits hold", e.testLimits)
	t.Run("an update keeps what is known", e.testUpdate)
	t.Run("its metrics are Envoy's", e.testMetrics)
	for _, line := range s.EnvoyErrors() {
		require.Contains(t, line, "inlet: configuration: companion.embedded.pools[0]", "the one that is refused on purpose")
	}
}

type embedded struct{ s *stack.Stack }

// post sends a request on a connection of its own: an update closes those of the listener before.
func (e embedded) post(t *testing.T, key, body string) answer {
	t.Helper()
	a := post(t.Context(), e.s, chatPath, body, "x-api-key", key, "connection", "close")
	require.NoError(t, a.err)
	return a
}

// picked is the ranked list of one more request.
func (e embedded) picked(t *testing.T) string {
	t.Helper()
	access, err := e.s.Access(t.Context(), e.post(t, manyKey, smallChat).header.Get("x-request-id"))
	require.NoError(t, err)
	return access.Picked
}

// chat sends a prompt to the pool llama, and returns the replica that responded.
func (e embedded) chat(t *testing.T, prompt string) string {
	t.Helper()
	a := e.post(t, manyKey, fmt.Sprintf(`{"model":"llama","messages":[{"role":"user","content":%q}],"max_tokens":4}`, prompt))
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	return a.header.Get("x-modelsim-replica")
}

// all sends prompts that have nothing in common until exactly these replicas respond.
func (e embedded) all(t *testing.T, want ...string) {
	t.Helper()
	n := 0
	eventually(t, fmt.Sprint("the replicas are ", want), func() (bool, error) {
		seen := map[string]bool{}
		for range 30 {
			n++
			seen[e.chat(t, fmt.Sprintf("%d %d ", n, n*n)+strings.Repeat("Why is the sky blue? ", 20))] = true
		}
		for _, name := range want {
			if !seen[name] {
				return false, nil
			}
		}
		return len(seen) == len(want), nil
	})
}

func (e embedded) testReplicas(t *testing.T) {
	long := strings.Repeat("A long story about a very long road. ", 60)
	first := e.chat(t, long)
	for range 10 {
		require.Equal(t, first, e.chat(t, long), "the replica that has computed the prompt")
	}
	e.all(t, "llama-1", "llama-2", "llama-3")

	llama := e.s.PoolReplicas("llama")
	llama[1].Stop()
	e.all(t, "llama-1", "llama-3")
	hosts := []string{llama[0].Address(), llama[2].Address()}
	require.NoError(t, e.s.SetEndpoints("llama", hosts...))
	e.all(t, "llama-1", "llama-3")
	require.NoError(t, e.s.SetEndpoints("llama", hosts[0]))
	e.all(t, "llama-1")
	require.NoError(t, llama[1].Start(context.WithoutCancel(t.Context())))
	require.NoError(t, e.s.SetEndpoints("llama", append(hosts, llama[1].Address())...))
	e.all(t, "llama-1", "llama-2", "llama-3")
}

func (e embedded) testLimits(t *testing.T) {
	statuses := map[int]int{}
	for range 10 {
		statuses[e.post(t, fewKey, smallChat).status]++
	}
	require.Equal(t, map[int]int{http.StatusOK: 3, http.StatusTooManyRequests: 7}, statuses)
}

// snapshots is how often Envoy's log says that the companion begins.
func (e embedded) snapshots(t *testing.T) int {
	log, err := os.ReadFile(e.s.EnvoyLog())
	require.NoError(t, err)
	return strings.Count(string(log), "every endpoint was tried; publishing snapshots")
}

func (e embedded) testUpdate(t *testing.T) {
	require.Equal(t, 1, e.snapshots(t))
	require.NoError(t, e.s.Update(t.Context(), func(o *stack.Options) {
		o.Chain = strings.Replace(o.Chain, "endpoints: 3", "endpoints: 2", 1)
	}))
	require.Equal(t, http.StatusTooManyRequests, e.post(t, fewKey, smallChat).status, "what was used is known")
	require.Len(t, strings.Split(e.picked(t), ","), 2, "the first request of the new configuration knows the replicas")
	require.Equal(t, 1, e.snapshots(t), "the companion runs on")

	var refused *stack.Refused
	require.ErrorAs(t, e.s.Update(t.Context(), func(o *stack.Options) {
		o.Chain = strings.Replace(o.Chain, "companion: {cluster: inlet-companion}", "companion: {embedded: {pools: [{name: llama}]}}", 1)
	}), &refused)
	require.Contains(t, refused.Details, "companion.embedded.pools[0]")
	require.Contains(t, refused.Details, "want exactly one of eds, static and dns")

	// Another section is another companion, and there is no request without a snapshot in between.
	require.NoError(t, e.s.Update(t.Context(), func(o *stack.Options) { o.Scrape *= 2 }))
	for e.snapshots(t) < 2 {
		require.NotEmpty(t, e.picked(t))
	}
	e.all(t, "llama-1", "llama-2", "llama-3")
}

func (e embedded) testMetrics(t *testing.T) {
	eventually(t, "the metrics are there", func() (bool, error) {
		e.chat(t, "hello") // metrics are recorded with a request
		m, err := e.s.Metrics(t.Context())
		return m.Sum("inlet_companion_endpoints", "pool", "llama") == 3 && m.Sum("inference_pool_ready_pods", "name", "gemma") == 3 &&
			m.Sum("inlet_companion_pollers") == 6 && m.Sum("inlet_companion_scrapes_total", "pool", "llama", "result", "ok") > 0, err
	})
}

package quota_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// managedChain takes keys, applications and products from the companion.
const managedChain = models + `  - quota: {source: companion, onStoreFailure: FailClosed} # of a share of the limit nobody knows how many requests it is
companion: {cluster: inlet-companion}
`

// testChanges: what the admin API changes reaches a running gateway, and no counter is lost: not by a change of a product, not
// by another key.
func testChanges(t *testing.T, s *stack.Stack) {
	managed := stack.ForTest(t, stack.Options{
		ABI: s.ABI(), Workers: 1, Chain: managedChain, NoCompanion: true, CompanionAddress: s.Companion.Address(),
		Pools: []stack.Pool{{Name: "llama", Addresses: []string{s.Replicas[0].Address()}}},
	})
	status := func(key string) int {
		for until := time.Now().Add(patience); ; {
			got, err := post(t.Context(), fresh, managed.URL()+chatPath, chat, "x-api-key", key)
			require.NoError(t, err)
			if got.status != http.StatusServiceUnavailable || time.Now().After(until) { // the companion was late
				return got.status
			}
		}
	}
	becomes := func(key string, want int) {
		t.Helper()
		eventually(t, http.StatusText(want), func() (bool, error) { return status(key) == want, nil })
	}
	becomes("sk-nobody", http.StatusUnauthorized) // before that nobody knows whether there is such a key
	small := map[string]any{"name": "small", "requests": "5/hour", "start": "flexi"}
	administer(t, s, http.MethodPost, "/v1/developers", map[string]any{"name": "ann"})
	administer(t, s, http.MethodPost, "/v1/products", small)
	administer(t, s, http.MethodPost, "/v1/apps", map[string]any{"name": "shop", "developer": "ann", "products": []string{"small"}})
	key := administer(t, s, http.MethodPost, "/v1/keys", map[string]any{"name": "one", "app": "shop"}).Get("key").Str
	require.NotEmpty(t, key)
	becomes(key, http.StatusOK)
	for range 4 {
		require.Equal(t, http.StatusOK, status(key))
	}
	require.Equal(t, http.StatusTooManyRequests, status(key))

	// Another key of the same application has nothing left either; a larger limit has what was not used yet.
	other := administer(t, s, http.MethodPost, "/v1/keys", map[string]any{"name": "two", "app": "shop"}).Get("key").Str
	becomes(other, http.StatusTooManyRequests)
	small["requests"] = "8/hour"
	administer(t, s, http.MethodPut, "/v1/products/small", small)
	becomes(other, http.StatusOK)
	for _, k := range []string{key, other} {
		require.Equal(t, http.StatusOK, status(k))
	}
	require.Equal(t, http.StatusTooManyRequests, status(key))

	administer(t, s, http.MethodPost, "/v1/keys/one/revoke", nil)
	becomes(key, http.StatusUnauthorized)
	rotated := administer(t, s, http.MethodPost, "/v1/keys/two/rotate", nil).Get("key").Str
	becomes(other, http.StatusUnauthorized)
	becomes(rotated, http.StatusTooManyRequests)

	// The directory and the counters are in the journal.
	s.Companion.Kill()
	require.NoError(t, s.Companion.Start(context.WithoutCancel(t.Context())))
	eventually(t, "the admin API is back", func() (bool, error) {
		_, _, err := s.AskAdmin(t.Context(), http.MethodGet, "/v1/products", nil)
		return err == nil, err
	})
	small["requests"] = "9/hour"
	administer(t, s, http.MethodPut, "/v1/products/small", small)
	becomes(rotated, http.StatusOK)
	require.Equal(t, http.StatusTooManyRequests, status(rotated))
	require.Empty(t, managed.EnvoyErrors())
}

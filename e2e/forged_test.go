package e2e_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// forged are control headers that a client might send to reach another pool or
// replica.
func forged(replica string) []string {
	var headers []string
	for _, name := range filter.ControlHeaders {
		value := "gemma"
		if strings.Contains(name, "endpoint") {
			value = replica
		}
		headers = append(headers, name, value)
	}
	return headers
}

// onlyInlets fails if the replica got a control header that Inlet does not set itself
// for this model.
func onlyInlets(t *testing.T, a *answer) {
	t.Helper()
	arrived := strings.Split(a.header.Get("x-modelsim-headers"), ",")
	for _, name := range filter.ControlHeaders {
		switch name {
		case "x-gateway-model-name", "x-gateway-model-name-rewrite", "x-gateway-inference-pool", "x-gateway-destination-endpoint":
			require.Contains(t, arrived, name)
		default:
			require.NotContains(t, arrived, name)
		}
	}
}

// testForged: a client's control headers are ignored.
func testForged(t *testing.T, s *stack.Stack) {
	wanted := forged(s.PoolReplicas("gemma")[0].Address())
	for range 20 {
		a := post(t.Context(), s, chatPath, smallChat, wanted...)
		require.True(t, a.ok(), "%+v", a)
		require.True(t, strings.HasPrefix(a.header.Get("x-modelsim-replica"), "llama-"), a.header)
		onlyInlets(t, &a)
	}
	testForgedNowhere(t, s)
}

// testForgedNowhere sends forged headers if no filter of the chain chooses a pool:
// they must not choose one either.
func testForgedNowhere(t *testing.T, s *stack.Stack) {
	t.Helper()
	for _, path := range []string{"/", "/v1/unknown", "/v1/chat/completions/x", "//v1//unknown"} {
		a := post(t.Context(), s, path, smallChat, forged(s.PoolReplicas("gemma")[0].Address())...)
		require.NoError(t, a.err)
		require.Equal(t, http.StatusNotFound, a.status, path)
		require.Regexp(t, `"(no_pool|unknown_path)"`, string(a.body), "Envoy's, where Inlet sees nothing")
		require.Empty(t, a.header.Get("x-modelsim-replica"))
		entry, err := s.Access(context.WithoutCancel(t.Context()), a.header.Get("x-request-id"))
		require.NoError(t, err)
		require.Empty(t, entry.Pool, "the route saw a pool")
		require.Empty(t, entry.Picked, "the route saw a replica")
	}
}

package e2e_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// keyedChain requires the key inlet-demo-key, and refuses requests if all replicas are saturated.
const keyedChain = `
filters:
  - bbr:
      models:
        - {name: llama, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: full, targets: [{pool: gemma}]}
  - quota:
      keys: {header: x-api-key, list: [{name: demo, sha256: 17afd2eaffa523333987ea15d0c26ee723a414001020c1ace0c9db035660b79f}]}
  - picker: {shed: true, saturation: {inFlight: 1}}
companion: {cluster: inlet-companion}
`

// corsOrigin is the origin of the shipped recipe.
const corsOrigin = "https://chat.example.com"

// TestCORS runs the shipped bootstrap with its recipe for browsers, with API keys.
func TestCORS(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			pools := quickPools()
			pools[1].Replicas = 1
			limit := examples(t)[0]
			require.Equal(t, "local_ratelimit", limit.name)
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Pools: pools, Chain: keyedChain, Recipes: []string{"cors"},
				Edit: func(b *bootstrapv3.Bootstrap) {
					addListener(b, "limited", func(_ *listenerv3.Listener, m *hcmv3.HttpConnectionManager) {
						cors := m.GetHttpFilters()[0]
						limit.apply(m)
						m.HttpFilters = append([]*hcmv3.HttpFilter{cors}, m.GetHttpFilters()...)
					})
				},
			})
			require.NoError(t, s.WaitForSnapshot(t.Context()))
			k := asker{t, s.URL()}
			t.Run("preflight", func(t *testing.T) { testPreflight(t, s, k) })
			t.Run("answers", func(t *testing.T) { testCORSAnswers(t, s, k) })
			t.Run("Envoy's refusals", func(t *testing.T) {
				url, err := s.ListenerURL(t.Context(), "limited")
				require.NoError(t, err)
				limited := asker{t, url}
				for range 2 {
					mayBeRead(t, limited.chat("origin", corsOrigin, "x-api-key", "inlet-demo-key", "x-tenant", "trial"))
				}
				a := limited.chat("origin", corsOrigin, "x-api-key", "inlet-demo-key", "x-tenant", "trial")
				refusedAs(t, a, 429, "rate_limit_error", "rate_limit_exceeded")
				mayBeRead(t, a)
			})
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// mayBeRead checks that a browser shows the response to the page.
func mayBeRead(t *testing.T, a answer) {
	t.Helper()
	require.Equal(t, corsOrigin, a.header.Get("access-control-allow-origin"), "%d %v", a.status, a.header)
	require.Equal(t, "*", a.header.Get("access-control-expose-headers"))
}

func testPreflight(t *testing.T, s *stack.Stack, k asker) {
	for _, path := range []string{chatPath, "/v1/messages", "/v1/models", "/v1/responses", "/nothing"} {
		preflight := func(origin string, more ...string) answer {
			return asker{t, k.url}.send("OPTIONS", path, "", append([]string{
				"origin", origin, "access-control-request-method", "POST",
				"access-control-request-headers", "authorization,content-type,x-api-key,x-stainless-lang",
			}, more...)...)
		}
		a := preflight(corsOrigin)
		require.Equal(t, 200, a.status, path)
		require.Empty(t, a.body)
		require.Equal(t, corsOrigin, a.header.Get("access-control-allow-origin"))
		require.Equal(t, "*, authorization", a.header.Get("access-control-allow-headers"))
		require.Contains(t, a.header.Get("access-control-allow-methods"), "POST")
		require.Equal(t, "600", a.header.Get("access-control-max-age"))

		for _, a := range []answer{preflight("https://evil.example.com"), preflight(corsOrigin+".example.com", forged(s.PoolReplicas("gemma")[0].Address())...)} {
			require.NotEqual(t, 200, a.status, "another origin")
			require.Empty(t, a.header.Get("access-control-allow-origin"))
			require.Empty(t, a.header.Get("x-modelsim-replica"))
		}
	}
}

func testCORSAnswers(t *testing.T, s *stack.Stack, k asker) {
	key := []string{"origin", corsOrigin, "x-api-key", "inlet-demo-key"}
	a := k.chat(key...)
	served(t, "llama", a)
	mayBeRead(t, a)
	a = k.send("POST", chatPath, strings.Replace(smallChat, "{", `{"stream":true,`, 1), key...)
	served(t, "llama", a)
	mayBeRead(t, a)

	a = k.chat("origin", corsOrigin)
	inlets(t, a, 401, "missing_api_key")
	mayBeRead(t, a)
	a = k.send("POST", chatPath, nobody, key...)
	inlets(t, a, 404, "model_not_found")
	mayBeRead(t, a)
	a = k.send("GET", "/nothing", "", key...)
	inlets(t, a, 404, "unknown_path") // with API keys, no path passes
	mayBeRead(t, a)

	full := strings.Replace(smallChat, "llama", "full", 1)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+chatPath, strings.NewReader(full))
	require.NoError(t, err)
	for name, value := range map[string]string{"content-type": "application/json", "x-api-key": "inlet-demo-key", "x-modelsim-fault": "hang"} {
		req.Header.Set(name, value)
	}
	gone := make(chan struct{})
	go func() { // occupies the pool's only slot until this test ends
		defer close(gone)
		_ = do(req)
	}()
	defer func() { leave(); <-gone }()
	eventually(t, "the replica has it", func() (bool, error) {
		hosts, err := s.Hosts(ctx, "gemma")
		for _, h := range hosts {
			return h["rq_active"] == 1, err
		}
		return false, err
	})
	eventually(t, "every worker knows", func() (bool, error) {
		brief, stop := context.WithTimeout(ctx, time.Second) // another worker lets it wait behind the first
		defer stop()
		req := req.Clone(brief)
		req.Body = io.NopCloser(strings.NewReader(full))
		req.Header.Del("x-modelsim-fault")
		req.Header.Set("origin", corsOrigin)
		a = do(req)
		return a.status == 429, nil
	})
	inlets(t, a, 429, "rejected-saturated")
	require.NotEmpty(t, a.header.Get("retry-after"))
	require.Contains(t, string(a.body), `"overloaded"`)
	mayBeRead(t, a)

	a = k.chat("x-api-key", "inlet-demo-key")
	served(t, "llama", a)
	require.Empty(t, a.header.Get("access-control-allow-origin"), "nobody asked")
}

package e2e_test

import (
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// openChain has no companion: Envoy decides what the picker does not know.
const openChain = `
filters:
  - bbr:
      models:
        - {name: llama, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: empty, targets: [{pool: empty}]}
        - {name: dead, targets: [{pool: dead}]}
        - {name: unrouted, targets: [{pool: unrouted}]}
        - {name: lost, targets: [{pool: lost}]}
  - picker: {}
limits: {body: 1MiB}
`

// TestEnvoysOwnRefusals: Envoy's own refusals have the form of the API that was called, and Inlet's refusals stay
// unchanged.
func TestEnvoysOwnRefusals(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Chain: openChain, NoCompanion: true,
				Pools: []stack.Pool{
					{Name: "llama", Replicas: 1, Args: []string{"--speed", "0"}},
					{Name: "empty"},
					{Name: "dead", Addresses: []string{"127.0.0.1:1"}},
					{Name: "lost"},
				},
				Edit: func(b *bootstrapv3.Bootstrap) {
					dropCluster(b, "lost")
					addListener(b, "small", func(l *listenerv3.Listener, _ *hcmv3.HttpConnectionManager) {
						l.PerConnectionBufferLimitBytes = wrapperspb.UInt32(64 << 10)
					})
					addListener(b, "short", func(_ *listenerv3.Listener, m *hcmv3.HttpConnectionManager) {
						for _, r := range m.GetRouteConfig().GetVirtualHosts()[0].GetRoutes() {
							r.GetRoute().Timeout = durationpb.New(300 * time.Millisecond)
						}
					})
					addListener(b, "idle", func(_ *listenerv3.Listener, m *hcmv3.HttpConnectionManager) {
						for _, r := range m.GetRouteConfig().GetVirtualHosts()[0].GetRoutes() {
							r.GetRoute().IdleTimeout = durationpb.New(300 * time.Millisecond)
						}
					})
				},
			})
			at := func(listener string) asker {
				url := s.URL()
				if listener != "" {
					var err error
					url, err = s.ListenerURL(t.Context(), listener)
					require.NoError(t, err)
				}
				return asker{t, url}
			}
			body := strings.Replace(smallChat, "{", `{"input":"hello",`, 1) // valid for each path
			model := func(name string) string { return strings.Replace(body, "llama", name, 1) }
			for _, c := range []struct {
				name, listener, body string
				headers              []string
				status               int
				openAI, code         string
				anthropic            string
			}{
				{"no pool", "", model("unrouted"), nil, 404, "invalid_request_error", "no_pool", "not_found_error"},
				{"over the buffer's limit", "small", largeChat, nil, 413, "invalid_request_error", "request_too_large", "request_too_large"},
				{"no replica", "", model("empty"), nil, 503, "server_error", "unavailable", "overloaded_error"},
				{"nobody listens", "", model("dead"), nil, 503, "server_error", "unavailable", "overloaded_error"},
				{"a pool without its cluster", "", model("lost"), nil, 503, "server_error", "unavailable", "overloaded_error"},
				{"cut before the answer", "", body, []string{"x-modelsim-fault", "reset-before-headers"}, 503, "server_error", "unavailable", "overloaded_error"},
				{"over the route's time", "short", body, []string{"x-modelsim-fault", "hang"}, 504, "server_error", "timeout", "timeout_error"},
				{"silent for too long", "idle", body, []string{"x-modelsim-fault", "hang"}, 504, "server_error", "timeout", "timeout_error"},
			} {
				t.Run(c.name, func(t *testing.T) {
					k := at(c.listener)
					k.t = t
					for _, path := range []string{chatPath, "/v1/embeddings"} {
						refusedAs(t, k.send("POST", path, c.body, c.headers...), c.status, c.openAI, c.code)
					}
					refusedAs(t, k.send("POST", "/v1/messages?beta=true", c.body, c.headers...), c.status, c.anthropic, "anthropic")
				})
			}
			t.Run("Inlet's stay as they are", func(t *testing.T) {
				k := at("")
				k.t = t
				inlets(t, k.send("POST", chatPath, nobody), 404, "model_not_found")
				inlets(t, k.send("POST", chatPath, `{"model":`), 400, "invalid_json")
				a := k.send("POST", chatPath, strings.Repeat(" ", 1<<20)+smallChat)
				inlets(t, a, 413, "request_too_large")
				require.JSONEq(t, `{"error":{"message":"Maximum content size limit (1048576 bytes) exceeded.","type":"invalid_request_error","param":null,"code":"request_too_large"}}`, string(a.body))
				a = k.send("POST", "/v1/messages", nobody)
				inlets(t, a, 404, "model_not_found")
				require.Contains(t, string(a.body), `"not_found_error"`)
			})
			t.Run("a replica's stay as they are", func(t *testing.T) {
				k := at("")
				k.t = t
				for _, status := range []string{"429", "503", "404", "413"} {
					a := k.chat("x-modelsim-fault", "status="+status)
					require.NotEmpty(t, a.header.Get("x-modelsim-replica"), status)
					require.NotContains(t, string(a.body), "The server is overloaded or not ready yet.")
				}
			})
			t.Run("no path at all", func(t *testing.T) {
				k := at("")
				k.t = t
				inlets(t, k.send("GET", "/", ""), 404, "unknown_path")
				require.Empty(t, k.send("HEAD", "/nothing", "").body)
			})
		})
	}
}

// dropCluster removes a cluster, like a mistake in a control plane.
func dropCluster(b *bootstrapv3.Bootstrap, name string) {
	kept := b.GetStaticResources().GetClusters()[:0]
	for _, c := range b.GetStaticResources().GetClusters() {
		if c.GetName() != name {
			kept = append(kept, c)
		}
	}
	b.StaticResources.Clusters = kept
}

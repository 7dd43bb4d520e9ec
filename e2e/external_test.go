package e2e_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	// The types that the provider's cluster uses only by name.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// external is a configuration with an external pool.
const external = `filters:
  - bbr:
      pools: [{name: provider, external: true}]
      models:
        - {name: llama, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: gpt, targets: [{model: gpt-4o-mini, pool: provider}]}
  - quota: {keys: {header: authorization, list: [{name: demo, sha256: 17afd2eaffa523333987ea15d0c26ee723a414001020c1ace0c9db035660b79f}]}}
  - picker: {}
companion: {cluster: inlet-companion}
`

const (
	providerHost  = "api.provider.test"
	providerRoute = `{"match":{"prefix":"/","headers":[{"name":"x-gateway-inference-pool","stringMatch":{"exact":"provider"}}]},
		"route":{"cluster":"provider","hostRewriteLiteral":%q,"timeout":"0s",
			"regexRewrite":{"pattern":{"regex":"^/v1/"},"substitution":"/openai/v1/"}}}`
	providerCluster = `{"name":"provider","type":"STATIC","connectTimeout":"5s",
		"loadAssignment":{"clusterName":"provider","endpoints":[{"lbEndpoints":[{"endpoint":{"address":{"socketAddress":{"address":"127.0.0.1","portValue":%d}}}}]}]},
		"transportSocket":{"name":"envoy.transport_sockets.tls","typedConfig":{
			"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext","sni":%q,
			"commonTlsContext":{"validationContext":{"trustedCa":{"filename":%q},
				"matchTypedSubjectAltNames":[{"sanType":"DNS","matcher":{"exact":"example.com"}}]}}}},
		"typedExtensionProtocolOptions":{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{
			"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions","explicitHttpConfig":{"httpProtocolOptions":{}},
			"httpFilters":[
				{"name":"credential","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
					"overwrite":true,"credential":{"name":"envoy.http.injected_credentials.generic","typedConfig":{
						"@type":"type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
						"credential":{"name":"provider-key","sdsConfig":{"pathConfigSource":{"path":%q}}}}}}},
				{"name":"codec","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"}}]}}}`
	providerSecret = `{"resources":[{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret","name":"provider-key",
		"genericSecret":{"secret":{"inlineString":"Bearer provider-key"}}}]}`
)

// TestExternalPool: a provider's service over TLS, with its own host, path and
// credential, all set by its route and cluster in Envoy. The client's key is not
// forwarded.
func TestExternalPool(t *testing.T) {
	type arrived struct{ host, path, sni, key, endpoint, body string }
	got := make(chan arrived, 1)
	provider := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- arrived{r.Host, r.URL.Path, r.TLS.ServerName, r.Header.Get("authorization"), r.Header.Get("x-gateway-destination-endpoint"), string(body)}
		w.Header().Set("content-type", "application/json")
		_, _ = io.WriteString(w, `{"id":"chatcmpl-1","model":"gpt-4o-mini-2024-07-18"}`)
	}))
	t.Cleanup(provider.Close)
	dir := t.TempDir()
	authority, secret := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "secret.json")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: provider.Certificate().Raw})
	require.NoError(t, os.WriteFile(authority, certificate, 0o600))
	require.NoError(t, os.WriteFile(secret, []byte(providerSecret), 0o600))

	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Chain: external, NoCompanion: true, Pools: []stack.Pool{{Name: "llama"}, {Name: "provider"}},
				Edit: func(b *bootstrapv3.Bootstrap) {
					cluster := b.GetStaticResources().GetClusters()[1]
					proto.Reset(cluster)
					port := provider.Listener.Addr().(*net.TCPAddr).Port
					mustUnmarshal(fmt.Sprintf(providerCluster, port, providerHost, authority, secret), cluster)
					editManager(b, func(m *hcmv3.HttpConnectionManager) {
						route := m.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[1]
						proto.Reset(route)
						mustUnmarshal(fmt.Sprintf(providerRoute, providerHost), route)
					})
				},
			})
			a := post(t.Context(), s, chatPath, `{"messages":[],"model":"gpt","seed":9007199254740993}`, "authorization", "Bearer inlet-demo-key")
			require.True(t, a.ok(), "%d %s %v", a.status, a.body, a.err)
			require.Equal(t, arrived{
				host: providerHost, path: "/openai/v1/chat/completions", sni: providerHost, key: "Bearer provider-key",
				body: `{"messages":[],"model":"gpt-4o-mini","seed":9007199254740993}`,
			}, <-got)
			require.JSONEq(t, `{"id":"chatcmpl-1","model":"gpt"}`, string(a.body))

			a = post(t.Context(), s, chatPath, `{"messages":[],"model":"gpt"}`, "authorization", "Bearer guessed")
			require.Equal(t, http.StatusUnauthorized, a.status)
			require.Empty(t, got)
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// mustUnmarshal reads a message of Envoy's API as JSON.
func mustUnmarshal(text string, into proto.Message) {
	if err := protojson.Unmarshal([]byte(text), into); err != nil {
		panic(err)
	}
}

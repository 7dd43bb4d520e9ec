package native_test

import (
	"net/http"
	"os"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

func readFile(name string) ([]byte, error) { return os.ReadFile(name) }

// The documents of the filters alone. The key is "demo-key".
const (
	bbrDocument       = `filters: [{bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}, {name: gemma, targets: [{pool: gemma}]}]}}]`
	quotaDocument     = `filters: [{quota: {keys: {from: [x-api-key], list: [{name: demo, app: demo, sha256: cb6e94e8d7fe0b4fd2b2b7e5bbeb7c1a48b3e9f3c1c9cd4d0dd5dd4c05fb6f09}]}, apps: [{name: demo, products: [demo]}], products: [{name: demo, requests: 3/min}]}}]`
	guardrailDocument = `filters: [{guardrail: {providers: [{name: local, local: {patterns: ['(?i)launch code']}}], policies: [{on: request, use: [local], action: block}]}}]`
	pickerDocument    = `{filters: [{picker: {pool: llama}}], companion: {cluster: inlet-companion}}`
)

// TestAlone: each filter in a listener of its own, and all four in one chain of Envoy's.
func TestAlone(t *testing.T) {
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, Updatable: true, Pools: []stack.Pool{{Name: "llama", Replicas: 2, Args: []string{"--speed", "0"}}, {Name: "gemma", Replicas: 1, Args: []string{"--speed", "0"}}},
		Edit: func(b *bootstrapv3.Bootstrap) {
			for name, document := range map[string]string{"bbr": bbrDocument, "quota": quotaDocument, "guardrail": guardrailDocument, "picker": pickerDocument} {
				addListener(b, name, func(m *hcmv3.HttpConnectionManager) { entries(m, [2]string{name, document}) })
			}
			addListener(b, "four", func(m *hcmv3.HttpConnectionManager) {
				entries(m, [2]string{"bbr", bbrDocument}, [2]string{"quota", quotaDocument}, [2]string{"guardrail", guardrailDocument}, [2]string{"picker", pickerDocument})
			})
		},
	})
	url := func(name string) string {
		u, err := s.ListenerURL(t.Context(), name)
		require.NoError(t, err)
		return u + chatPath
	}
	for _, name := range []string{"bbr", "quota", "guardrail", "picker", "four"} {
		a := ask(t, url(name), chat("llama"), "x-api-key", "demo-key")
		t.Log(name, a)
	}
	require.Equal(t, 1, http.StatusOK)
}

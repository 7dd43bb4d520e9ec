//go:build !race

// The plugin runs in one thread, and compiling it takes minutes under the race detector.

package scenarios_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// TestWazero plays the scenarios on what is shipped, except those that need the probe.
func TestWazero(t *testing.T) {
	play(t, wazeroHost(t, "../../cmd/bundle-wasm"), func(s *hosttest.Scenario) bool { return !s.NeedsProbe() })
}

func TestWazeroWithProbe(t *testing.T) {
	h := wazeroHost(t, "./bundle-wasm")
	play(t, h, (*hosttest.Scenario).NeedsProbe)
	t.Run("an unexpected death is told with its reason", func(t *testing.T) {
		err := hosttest.Play(h, parse(t, `
name: trap
config: 'filters: [{probe: {}}]'
steps:
  - {request: {headers: {x-probe-trap: request}, body: '{}'}, expect: {status: 503}}
`))
		require.ErrorContains(t, err, "want a trap: false")
		require.ErrorContains(t, err, "fatal error: sync: unlock of unlocked mutex")
	})
}

// TestHostCalls checks the host calls of a request, and of an event of a streamed
// response: in Envoy each call costs 0.1 µs, one that returns memory 0.8 µs and more.
// It fails when a call is added, and when one is removed.
func TestHostCalls(t *testing.T) {
	const document = `
name: calls
config: |
  filters:
    - bbr: {models: [{name: llama, targets: [{pool: p}]}]}
    - quota: {keys: {list: [{name: demo, sha256: 2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea}]}}
    - guardrail: {providers: [{name: local, local: {patterns: ['launch code']}}], policies: [{on: request, use: [local], action: block}]}
    - picker: {}
  companion: {cluster: inlet-companion}
pools: {p: [{name: a}, {name: b}]}
steps:
  - request: {headers: {x-api-key: demo}, body: '{"model":"llama","messages":[{"role":"user","content":"$repeat"}]}', bodyRepeat: {text: word, times: 200}}
    upstream: {headers: {content-type: application/json}, body: '{"model":"llama","usage":{"prompt_tokens":9,"completion_tokens":1}}'}
    expect: {status: 200}
  - request: {headers: {x-api-key: demo}, body: '{"model":"llama","stream":true,"messages":[]}'}
    upstream: {headers: {content-type: text/event-stream}, events: ['{"model":"llama"}']}
    expect: {status: 200}
  - request: {headers: {x-api-key: demo}, body: '{"model":"llama","stream":true,"messages":[]}'}
    upstream: {headers: {content-type: text/event-stream}, events: ['{"model":"llama"}', '{"model":"llama"}']}
    expect: {status: 200}
`
	s := parse(t, document)
	g, err := wazeroHost(t, "../../cmd/bundle-wasm").Start(s)
	require.NoError(t, err)
	defer func() { require.NoError(t, g.Close()) }()
	// The time of some requests, drawn at random, is measured, and the first ones create
	// series of metrics: so take the minimum of several.
	asked := func(step int) map[string]int {
		least := map[string]int{}
		for i := range 8 {
			o, err := g.Do(&s.Steps[step])
			require.NoError(t, err)
			require.Equal(t, 200, o.Status)
			for name, n := range o.HostCalls {
				if i == 0 || n < least[name] {
					least[name] = n
				}
			}
			maps.DeleteFunc(least, func(name string, _ int) bool { return o.HostCalls[name] == 0 })
		}
		return least
	}
	require.Equal(t, map[string]int{
		"clock_time_get":                4,
		"proxy_get_header_map_pairs":    2,
		"proxy_get_buffer_bytes":        2,
		"proxy_get_property":            2,
		"proxy_set_property":            1,
		"proxy_add_header_map_value":    3,
		"proxy_remove_header_map_value": 1,
		"proxy_increment_metric":        9,
		"proxy_record_metric":           2,
	}, asked(0))
	one, two := asked(1), asked(2)
	for name := range two {
		two[name] -= one[name]
	}
	maps.DeleteFunc(two, func(_ string, n int) bool { return n == 0 })
	require.Equal(t, map[string]int{"proxy_get_buffer_bytes": 1}, two)
}

// wazeroHost builds a bundle and makes a host of it.
func wazeroHost(t *testing.T, bundle string) *hosttest.WazeroHost {
	dependOn(t, "../../shared/adapters/wasm/*.go", bundle+"/*.go")
	plugin, err := hosttest.BuildWasm(bundle)
	require.NoError(t, err)
	h, err := hosttest.Wazero(t.Context(), plugin)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

// dependOn reads files: go test reuses an earlier result unless a file that the test
// reads has changed, and it does not see what the build of the plugin reads.
func dependOn(t *testing.T, patterns ...string) {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, f := range files {
			_, err := os.ReadFile(f)
			require.NoError(t, err)
		}
	}
}

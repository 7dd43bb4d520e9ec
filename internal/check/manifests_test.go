package check_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/check"
)

// shippedManifests are the files of a folder of envoy/gateway, with those of the base.
func shippedManifests(t *testing.T, folder string) []check.ManifestFile {
	t.Helper()
	var files []check.ManifestFile
	for _, dir := range []string{"base", folder} {
		names, err := filepath.Glob(filepath.Join("../../envoy/gateway", dir, "*.yaml"))
		require.NoError(t, err)
		for _, name := range names {
			if filepath.Base(name) == "kustomization.yaml" || filepath.Base(name) == "companion-config.yaml" {
				continue
			}
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			files = append(files, check.ManifestFile{Name: dir + "/" + filepath.Base(name), Text: text})
		}
	}
	return files
}

func TestShippedManifestsPass(t *testing.T) {
	for folder, want := range map[string][]string{"module": nil, "wasm-file": nil, "wasm": {"wasm-digest"}} {
		var got []string
		found := check.Manifests(shippedManifests(t, folder))
		for i := range found {
			got = append(got, found[i].Check)
		}
		require.Equal(t, want, got, "%s: %v", folder, found)
	}
}

// brokenManifests are shipped manifests with one thing changed.
var brokenManifests = []struct {
	name, folder, file string
	edits              []string // old, new, …
	check              string
	severity           check.Severity
	at                 string // what the line of the finding has
	says               string
}{
	{"not YAML", "module", "base/pools.yaml", []string{"spec:\n", "spec: [\n"}, "yaml", check.Error, "", "malformed YAML"},
	{"a slip in the configuration", "module", "module/extension.yaml", []string{"endpoints: 3", "endpoint: 3"}, "configuration", check.Error, "endpoint: 3", `did you mean "endpoints"?`},
	{"the same in a patch", "wasm-file", "wasm-file/patches.yaml", []string{"endpoints: 3", "endpoint: 3"}, "configuration", check.Error, "endpoint: 3", `did you mean "endpoints"?`},
	{"no Inlet", "module", "module/extension.yaml", []string{"kind: Gateway, name: inlet", "kind: Gateway, name: other"}, "no-inlet", check.Error, "", "no Gateway has Inlet"},
	{"only on a route", "module", "module/extension.yaml", []string{"kind: Gateway, name: inlet", "kind: HTTPRoute, name: llama"}, "no-inlet", check.Error, "", "no Gateway has Inlet"},
	{"a route without", "module", "base/pools.yaml", []string{"---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: HTTPRouteFilter", "---\nkind: EnvoyExtensionPolicy\nspec: {targetRefs: [{kind: HTTPRoute, name: llama}]}\n---\nkind: HTTPRouteFilter"}, "policy-attachment", check.Error, "kind: HTTPRoute, name: llama", "replaces the one of the Gateway"},
	{"a second policy", "module", "module/extension.yaml", []string{"# Inlet, on", "kind: EnvoyExtensionPolicy\nmetadata: {name: lua}\nspec: {targetRefs: [{kind: Gateway, name: inlet}]}\n---\n# Inlet, on"}, "policy-attachment", check.Error, "", "a second EnvoyExtensionPolicy"},
	{"open", "wasm", "wasm/extension.yaml", []string{"    - name: inlet\n", "    - name: inlet\n      failOpen: true\n"}, "fail-open", check.Error, "failOpen: true", "requests pass"},
	{"a module that is not allowed", "module", "module/envoyproxy.yaml", []string{"    - name: inlet\n", "    - name: other\n"}, "module-allowed", check.Error, "name: other", "no EnvoyProxy"},
	{"no EnvoyProxy", "module", "base/gateway.yaml", []string{"kind: EnvoyProxy, name: inlet", "kind: EnvoyProxy, name: other"}, "module-allowed", check.Error, "", "no EnvoyProxy"},
	{"no path", "module", "module/envoyproxy.yaml", []string{"path: /usr/local/lib/inlet/libinlet.so", "path: libinlet.so"}, "module-allowed", check.Error, "name: inlet", "no path"},
	{"closed", "module", "module/envoyproxy.yaml", []string{"doNotClose: true", "doNotClose: false"}, "module-do-not-close", check.Error, "doNotClose: false", ""},
	{"filter name", "module", "module/extension.yaml", []string{"filterName: inlet", "filterName: other"}, "module-filter-name", check.Error, "filterName: other", ""},
	{"no body is seen", "wasm", "wasm/patches.yaml", []string{"path: allow_on_headers_stop_iteration", "path: other"}, "wasm-stop-iteration", check.Error, "- name: inlet", "waits for a body"},
	{"a patch by the filter's name", "wasm", "wasm/patches.yaml", []string{"@.typed_config.config.name=='inlet'", "@.name=='envoy.filters.http.wasm/envoyextensionpolicy/inlet/inlet/wasm/0'"}, "wasm-stop-iteration", check.Error, "- name: inlet", "waits for a body"},
	{"the same in one patch", "wasm-file", "wasm-file/patches.yaml", []string{"allow_on_headers_stop_iteration: true", "allow_on_headers_stop_iteration: false"}, "wasm-stop-iteration", check.Error, "name: inlet", "waits for a body"},
	{"no reload", "wasm", "wasm/patches.yaml", []string{"value: FAIL_RELOAD", "value: FAIL_CLOSED"}, "wasm-failure-policy", check.Error, "- name: inlet", "503"},
	{"a tag", "wasm", "wasm/extension.yaml", nil, "wasm-digest", check.Warning, "inlet-wasm:dev", "tag"},
	{"no client policy", "module", "base/gateway.yaml", []string{"kind: ClientTrafficPolicy", "kind: Other"}, "control-headers", check.Error, "name: inlet", "no ClientTrafficPolicy"},
	{"a header is left", "module", "base/gateway.yaml", []string{"        - x-gateway-inference-pool\n", ""}, "control-headers", check.Error, "- x-gateway-model-name", "x-gateway-inference-pool"},
	{"small buffers", "module", "base/gateway.yaml", []string{"bufferLimit: 17Mi", "bufferLimit: 1Mi"}, "buffer-limit", check.Error, "bufferLimit: 1Mi", "413"},
	{"no buffers", "module", "base/gateway.yaml", []string{"bufferLimit: 17Mi", "other: 1"}, "buffer-limit", check.Error, "", "32 KiB"},
	{"one listener", "module", "base/gateway.yaml", []string{"kind: Gateway, name: inlet}", "kind: Gateway, name: inlet, sectionName: http}"}, "client-policy", check.Warning, "sectionName", "one listener"},
	{"slashes", "module", "base/gateway.yaml", []string{"UnescapeAndForward", "KeepUnchanged"}, "path-normalization", check.Error, "KeepUnchanged", ""},
	{"plain errors", "module", "base/patches.yaml", []string{"path: local_reply_config", "path: other"}, "local-replies", check.Warning, "", "plain text"},
	{"no override", "module", "base/pools.yaml", []string{"    endpointOverride:", "    other:"}, "override-host", check.Error, "type: LeastRequest", "ignored"},
	{"an empty header", "module", "base/pools.yaml", []string{"{header: x-gateway-destination-endpoint}", "{header: x-gateway-destination-endpoint}, {}"}, "override-host", check.Error, "extractFrom", "Envoy refuses"},
	{"ClusterIPs", "module", "base/pools.yaml", []string{"routingType: Endpoint", "routingType: Service"}, "override-host", check.Error, "routingType: Service", "ClusterIPs"},
	{"a timeout", "module", "base/pools.yaml", []string{"requestTimeout: 0s", "requestTimeout: 60s"}, "route-timeout", check.Warning, "requestTimeout: 60s", "streaming"},
	{"Envoy's timeout", "module", "base/pools.yaml", []string{"requestTimeout: 0s, ", ""}, "route-timeout", check.Error, "", "15 s"},
	{"no retry", "module", "base/pools.yaml", []string{"connect-failure, ", ""}, "route-retry", check.Warning, "", "first is ever used"},
	{"a pool without route", "module", "base/pools.yaml", []string{"value: llama}", "value: other}"}, "pool-route", check.Error, "", `"llama"`},
	{"no route for all", "module", "base/pools.yaml", []string{"    - filters:\n", "    - matches: [{path: {value: /v2}}]\n      filters:\n"}, "last-route", check.Error, "", "catches all"},
	{"no companion", "module", "base/patches.yaml", []string{"          name: inlet-companion\n", "          name: other\n"}, "companion-cluster", check.Error, "", "no snapshot"},
	{"no provider", "module", "module/extension.yaml", []string{"          - picker:", "          - guardrail: {providers: [{name: m, moderations: {cluster: moderation}}], policies: [{\"on\": request, use: [m], action: block}]}\n          - picker:"}, "guardrail-cluster", check.Error, "cluster: moderation", `"moderation"`},
	{"no drain time", "module", "module/envoyproxy.yaml", []string{"drainTimeout: 600s, ", ""}, "drain", check.Warning, "", "60s"},
	{"variables", "module", "base/companion.yaml", []string{"enableServiceLinks: false", "enableServiceLinks: true"}, "service-links", check.Warning, "enableServiceLinks", "VLLM_PORT"},
	{"a name", "module", "base/pools.yaml", []string{"  name: gemma\n", "  name: vllm\n"}, "service-links", check.Error, "name: vllm", "VLLM_PORT"},
	{"eviction", "module", "base/companion.yaml", []string{"maxUnavailable: 1", "minAvailable: 1"}, "eviction", check.Warning, "minAvailable: 1", "drained"},
}

func TestBrokenManifests(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range brokenManifests {
		t.Run(b.name, func(t *testing.T) {
			seen[b.check] = true
			files := shippedManifests(t, b.folder)
			f := &files[slices.IndexFunc(files, func(f check.ManifestFile) bool { return f.Name == b.file })]
			text := string(f.Text)
			for i := 0; i < len(b.edits); i += 2 {
				require.Contains(t, text, b.edits[i])
				text = strings.Replace(text, b.edits[i], b.edits[i+1], 1)
			}
			f.Text = []byte(text)
			found := check.Manifests(files)
			i := slices.IndexFunc(found, func(f check.Finding) bool { return f.Check == b.check && strings.Contains(f.Message, b.says) })
			require.NotEqual(t, -1, i, "%v", found)
			require.Equal(t, b.severity, found[i].Severity)
			j := slices.IndexFunc(files, func(f check.ManifestFile) bool { return f.Name == found[i].File })
			require.NotEqual(t, -1, j)
			lines := strings.Split(string(files[j].Text), "\n")
			require.LessOrEqual(t, found[i].Line, len(lines))
			require.Contains(t, lines[found[i].Line-1], b.at, "line %d of %s", found[i].Line, found[i].File)
		})
	}
	for _, c := range check.ManifestChecks {
		require.True(t, seen[c.Name], "no broken manifest for the check %s", c.Name)
	}
}

// TestManifestLists: `kubectl get -o yaml` prints a list.
func TestManifestLists(t *testing.T) {
	var list strings.Builder
	list.WriteString("apiVersion: v1\nkind: List\nitems:\n")
	for _, f := range shippedManifests(t, "module") {
		for _, document := range strings.Split(string(f.Text), "\n---\n") {
			first := true
			for line := range strings.Lines(document) {
				if strings.HasPrefix(line, "#") {
					continue
				}
				if first {
					list.WriteString("- " + line)
				} else {
					list.WriteString("  " + line)
				}
				first = false
			}
			list.WriteString("\n")
		}
	}
	require.Empty(t, check.Manifests([]check.ManifestFile{{Name: "list.yaml", Text: []byte(list.String())}}))
}

package gateway

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/kubebin"
	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/internal/check"
)

var update = flag.Bool("update", false, "write testdata/*.yaml")

// folders are those of envoy/gateway that egctl can translate. It has no cache for plugins from a registry, so folder wasm is not among them: see image_test.go.
var folders = []string{"module", "wasm-file"}

// documentation are the addresses of Services in the golden files, reserved for documentation.
var documentation = map[string][]string{
	"llama": {"192.0.2.1:8000", "192.0.2.2:8000"}, "gemma": {"192.0.2.3:8000"}, "inlet-companion": {"192.0.2.9:9002"},
}

// TestGolden shows what Envoy Gateway makes of the manifests, less what is the same for every Gateway. Write it again with -update.
func TestGolden(t *testing.T) {
	for _, folder := range folders {
		t.Run(folder, func(t *testing.T) {
			got := marshal(t, []object{translate(t, folder, nil).golden(t)})
			file := filepath.Join("testdata", folder+".yaml")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s has changed; look at the difference after `go test ./e2e/gateway -run TestGolden -update`:\n%s", file, got)
			}
		})
	}
}

// TestTranslated has Envoy look at what Envoy Gateway makes of the manifests.
func TestTranslated(t *testing.T) {
	repository := build(t, stack.NativeModule, stack.WasmPlugin)
	envoy, err := envoybin.Find(t.Context(), envoybin.Options{Version: envoybin.DefaultVersion, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		t.Run(folder, func(t *testing.T) {
			x := translate(t, folder, &host{module: stack.NativeModule.Path(repository), plugin: stack.WasmPlugin.Path(repository)})
			text, err := json.MarshalIndent(x.bootstrap(t), "", " ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "envoy.json")
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "-c", file).CombinedOutput(); err != nil {
				t.Errorf("Envoy: %v\n%s", err, out)
			}
		})
	}
}

// TestChecked has `inletctl check` look at what Envoy Gateway makes of the manifests.
func TestChecked(t *testing.T) {
	for _, folder := range folders {
		text, err := json.MarshalIndent(translate(t, folder, nil).bootstrap(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range check.Bootstrap(folder, text) {
			if f.Check == "last-route" { // its direct_response: docs/envoy-gateway.md says what it means for other filters
				continue
			}
			t.Errorf("%s", f.String())
		}
	}
}

// TestSame compares what the manifests repeat of the bootstraps in envoy/static.
func TestSame(t *testing.T) {
	static := func(file string) any {
		text, err := os.ReadFile(filepath.Join(root(t), "envoy", "static", file))
		if err != nil {
			t.Fatal(err)
		}
		return documents(t, text)[0]
	}
	for _, folder := range folders {
		x := translate(t, folder, nil)
		patches := list(at(find(t, kustomized(t, folder), "EnvoyPatchPolicy", "inlet"), "spec", "jsonPatches"))
		replies := at(patches[len(patches)-1], "operation", "value")
		file := map[string]string{"module": "module.yaml", "wasm-file": "wasm.yaml"}[folder]
		manager := at(static(file), "static_resources", "listeners", 0, "filter_chains", 0, "filters", 0, "typed_config")
		for name, pair := range map[string][2]any{
			"local_reply_config": {replies, at(manager, "local_reply_config")},
			"removed headers": {
				at(x.manager(), "early_header_mutation_extensions", 0, "typed_config", "mutations"),
				at(manager, "early_header_mutation_extensions", 0, "typed_config", "mutations"),
			},
		} {
			if got, want := canonical(t, pair[0]), canonical(t, pair[1]); got != want {
				t.Errorf("%s: %s differs from envoy/static/%s:\n%s\n%s", folder, name, file, got, want)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(root(t), "envoy", "gateway", "providers", "patches.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var clusters []any
	for _, p := range list(at(documents(t, text)[0], "spec", "jsonPatches")) {
		clusters = append(clusters, at(p, "operation", "value"))
	}
	if got, want := canonical(t, clusters), canonical(t, at(static("guardrail-providers.yaml"), "static_resources", "clusters")); got != want {
		t.Errorf("providers differ from envoy/static/guardrail-providers.yaml:\n%s\n%s", got, want)
	}
	if got, want := canonical(t, parsed(t, translate(t, "module", nil).chain())), canonical(t, static("inlet.yaml")); got != want {
		t.Errorf("module: the configuration differs from envoy/static/inlet.yaml:\n%s\n%s", got, want)
	}
	if got, want := canonical(t, parsed(t, translate(t, "wasm-file", nil).chain())), canonical(t, static("inlet.yaml")); got != want {
		t.Errorf("wasm-file: the configuration differs from envoy/static/inlet.yaml:\n%s\n%s", got, want)
	}
}

func parsed(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// canonical is a value as JSON, with the names of Envoy's API in one spelling, and without what is the default.
func canonical(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(snake(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// translated is what Envoy Gateway hands to Envoy.
type translated struct {
	listener, routes    object
	clusters, endpoints []any
}

// translate has egctl translate a folder of envoy/gateway. With files, modules and plugins are at those places.
func translate(t *testing.T, folder string, files *host) *translated {
	t.Helper()
	h := &host{port: 10080, services: documentation, module: "/usr/local/lib/inlet/libinlet.so", plugin: "/usr/local/lib/inlet/inlet.wasm", envoy: envoybin.DefaultVersion, log: "/dev/stdout"}
	if files != nil {
		h.module, h.plugin = files.module, files.plugin
	}
	file := filepath.Join(t.TempDir(), folder+".yaml")
	if err := os.WriteFile(file, marshal(t, hostForm(t, kustomized(t, folder), h)), 0o644); err != nil {
		t.Fatal(err)
	}
	text, err := run(t.Context(), program(t, kubebin.Egctl), "x", "translate", "--from", "gateway-api", "--to", "xds", "-o", "yaml", "-f", file)
	if err != nil {
		t.Fatal(err)
	}
	dump := snake(documents(t, text)[0])
	x := &translated{}
	for _, c := range at(dump, "xds", "inlet/inlet", "configs").([]any) {
		for _, l := range list(at(c, "dynamic_listeners")) {
			if l := at(l, "active_state", "listener").(object); l["name"] == "inlet/inlet/http" {
				x.listener = l
			}
		}
		for _, r := range list(at(c, "dynamic_route_configs")) {
			x.routes = at(r, "route_config").(object)
		}
		for _, e := range list(at(c, "dynamic_active_clusters")) {
			x.clusters = append(x.clusters, at(e, "cluster"))
		}
		for _, e := range list(at(c, "dynamic_endpoint_configs")) {
			x.endpoints = append(x.endpoints, at(e, "endpoint_config"))
		}
	}
	if x.listener == nil || x.routes == nil || len(x.clusters) == 0 {
		t.Fatalf("egctl made no listener, routes or clusters of folder %s:\n%s", folder, text)
	}
	return x
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// manager is the HTTP connection manager.
func (x *translated) manager() object {
	return at(x.listener, "default_filter_chain", "filters", 0, "typed_config").(object)
}

// chain is the text of Inlet's configuration.
func (x *translated) chain() string {
	for _, f := range list(x.manager()["http_filters"]) {
		for _, place := range [][]any{{"typed_config", "filter_config", "value"}, {"typed_config", "config", "configuration", "value"}} {
			if text, ok := at(f, place...).(string); ok {
				return text
			}
		}
	}
	return ""
}

// bootstrap is an Envoy bootstrap with the same listener, routes and clusters.
func (x *translated) bootstrap(t *testing.T) object {
	t.Helper()
	delete(x.manager(), "rds")
	x.routes["validate_clusters"] = false
	x.manager()["route_config"] = x.routes
	for _, c := range x.clusters {
		cluster := c.(object)
		if cluster["type"] != "EDS" {
			continue
		}
		cluster["type"] = "STATIC"
		delete(cluster, "eds_cluster_config")
		for _, e := range x.endpoints {
			if at(e, "cluster_name") == cluster["name"] {
				cluster["load_assignment"] = e
			}
		}
	}
	for _, e := range x.endpoints {
		delete(e.(object), "@type")
	}
	for _, c := range x.clusters {
		delete(c.(object), "@type")
	}
	delete(x.listener, "@type")
	delete(x.routes, "@type")
	return object{
		"node":             object{"id": "test", "cluster": "test"},
		"static_resources": object{"listeners": []any{x.listener}, "clusters": x.clusters},
	}
}

// golden is what a golden file shows: without access logs and local replies, which are long, and without what Envoy Gateway notes for itself.
func (x *translated) golden(t *testing.T) object {
	t.Helper()
	for _, e := range list(x.manager()["http_filters"]) {
		if config := at(e, "typed_config", "filter_config"); config != nil {
			config.(object)["value"] = parsed(t, x.chain())
		}
	}
	if n := len(list(at(x.manager(), "local_reply_config", "mappers"))); n > 0 {
		x.manager()["local_reply_config"] = "as in envoy/static/module.yaml"
	}
	delete(x.listener, "access_log")
	delete(x.manager(), "access_log")
	all := object{"listener": x.listener, "routes": x.routes, "clusters": x.clusters, "endpoints": x.endpoints}
	return without(all, "@type", "metadata").(object)
}

// without removes keys at every depth, but the @type of extensions.
func without(v any, keys ...string) any {
	switch v := v.(type) {
	case object:
		for k, value := range v {
			if slices.Contains(keys, k) && (k != "@type" || strings.Contains(value.(string), "envoy.config.")) {
				delete(v, k)
				continue
			}
			without(value, keys...)
		}
	case []any:
		for _, e := range v {
			without(e, keys...)
		}
	}
	return v
}

// snake writes names of Envoy's API as_here instead of asHere, at every depth.
func snake(v any) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for k, value := range v {
			var b strings.Builder
			for i, r := range k {
				if r >= 'A' && r <= 'Z' && i > 0 && !strings.ContainsAny(k, "/.-@:") {
					b.WriteByte('_')
					r += 'a' - 'A'
				}
				b.WriteRune(r)
			}
			out[b.String()] = snake(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = snake(e)
		}
		return out
	}
	return v
}

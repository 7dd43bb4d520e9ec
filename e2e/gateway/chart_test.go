package gateway

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const chartFolder = "envoy/charts/inlet"

// values writes a file of values for the chart.
func values(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestChartIsKustomize holds the chart, with the values that it comes with, to the folders of envoy/gateway.
func TestChartIsKustomize(t *testing.T) {
	for _, folder := range []string{"module", "wasm", "wasm-file"} {
		chart := byName(t, rendered(t, "chart", chartFolder, "inlet", values(t, "build: "+folder)))
		manifests := byName(t, kustomized(t, folder))
		delete(manifests, "Namespace inlet") // helm install --create-namespace
		for _, name := range slices.Sorted(maps.Keys(manifests)) {
			if got, want := chart[name], manifests[name]; got != want {
				t.Errorf("%s: %s\n of the chart %s\nof the folder %s", folder, name, got, want)
			}
			delete(chart, name)
		}
		for name := range chart {
			t.Errorf("%s: only the chart has %s", folder, name)
		}
	}
}

// byName is each object as JSON, by kind and name, without what starts new pods and with YAML inside of it in one form.
func byName(t *testing.T, all []object) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, o := range all {
		name := at(o, "metadata", "name").(string)
		switch o["kind"] {
		case "ConfigMap":
			name, _, _ = strings.Cut(name, "companion-")
			name = strings.TrimSuffix(name, "companion") + "companion"
			o["metadata"].(object)["name"] = name
			at(o, "data").(object)["companion.yaml"] = parsed(t, at(o, "data", "companion.yaml").(string))
		case "Deployment":
			pod := at(o, "spec", "template").(object)
			delete(pod["metadata"].(object), "annotations")
			at(pod, "spec", "volumes", 0, "configMap").(object)["name"] = "inlet-companion"
		case "EnvoyPatchPolicy":
			for _, p := range list(at(o, "spec", "jsonPatches")) {
				if c, ok := at(p, "operation", "value", "typed_config", "config", "configuration").(object); ok {
					c["value"] = parsed(t, c["value"].(string))
				}
			}
		}
		found[o["kind"].(string)+" "+name] = canonical(t, o)
	}
	return found
}

// TestChartElsewhere installs the chart in another namespace, with other pools.
func TestChartElsewhere(t *testing.T) {
	all := rendered(t, "chart", chartFolder, "models", values(t, `
build: wasm
gateway: {className: shared, createClass: false}
clusterDomain: example.internal
pools: [{name: qwen, selector: {app: qwen}, port: 9000}]
clusters: [{name: screening, type: STRICT_DNS}]
`))
	if n := len(ofKind(all, "GatewayClass")); n != 0 {
		t.Errorf("%d GatewayClasses", n)
	}
	text := string(marshal(t, all))
	for _, want := range []string{
		"gatewayClassName: shared", "name: httproute/models/qwen/rule/0", "name: models/inlet/http",
		"inlet-companion.models.svc.example.internal", "host: qwen.models.svc.example.internal, port: 9000", "name: screening",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the chart has no %q", want)
		}
	}
	for _, not := range []string{"inlet/inlet", "svc.cluster.local", "llama,", "namespace: inlet"} {
		if strings.Contains(strings.ReplaceAll(text, "{name: llama, targets", ""), not) {
			t.Errorf("the chart has %q", not)
		}
	}
}

// TestChartRollout: what the companion reads at its start makes new pods when it changes, and nothing else does.
func TestChartRollout(t *testing.T) {
	sum := func(text string) string {
		all := rendered(t, "chart", chartFolder, "inlet", values(t, text))
		return at(find(t, all, "Deployment", "inlet-companion"), "spec", "template", "metadata", "annotations", "checksum/config").(string)
	}
	before := sum("build: module")
	if sum("companion: {config: {scrape: {interval: 200ms}}}") == before || sum("pools: [{name: llama, selector: {app: other}, port: 8001}]") == before {
		t.Error("another configuration of the companion starts no new pods")
	}
	if sum("chain: {filters: [{picker: {profile: sticky}}]}") != before {
		t.Error("another chain starts new pods of the companion")
	}
}

// TestChartRefuses has values that the schema refuses.
func TestChartRefuses(t *testing.T) {
	path, err := builtRenderer()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"build: lua":               "build",
		"proxy: {drainSeconds: 0}": "drainSeconds",
		"pools: [{name: vllm, selector: {app: a}, port: 8000}]":        "pools", // Kubernetes would set VLLM_PORT in every pod
		"pools: [{name: llama, selector: {}, port: 8000}]":             "pools", // would be the pods of the whole namespace
		"pools: [{name: llama, selector: {app: a}, port: 8000, x: 1}]": "pools",
		"companion: {config: {pools: []}}":                             "companion",
		"companion: {replicas: 0}":                                     "replicas",
		"replicas: 3":                                                  "replicas",
		"chain: {filters: []}":                                         "filters",
		"clusters: [{type: STRICT_DNS}]":                               "clusters",
	} {
		_, err := run(t.Context(), path, "chart", filepath.Join(root(t), chartFolder), "inlet", values(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about %s", text, err, want)
		}
	}
}

package gateway

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/kubebin"
	"github.com/inlet-proxy/inlet/internal/check"
)

// TestStatuses has Envoy Gateway accept everything that is shipped, and apply every patch. Nor does `inletctl install --check` find anything in it.
func TestStatuses(t *testing.T) {
	sets := map[string][]object{}
	for _, folder := range folders {
		sets[folder] = kustomized(t, folder)
	}
	providers, err := os.ReadFile(filepath.Join(root(t), "envoy", "gateway", "providers", "patches.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sets["providers"] = append(kustomized(t, "module"), documents(t, providers)...)
	recipes, err := os.ReadDir(filepath.Join(root(t), "envoy", "gateway", "recipes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recipes {
		sets["recipe "+r.Name()] = recipeObjects(t, r.Name())
	}
	for name, all := range sets {
		t.Run(name, func(t *testing.T) {
			for _, f := range check.Manifests([]check.ManifestFile{{Name: name, Text: marshal(t, all)}}) {
				t.Errorf("%s", f.String())
			}
			services := map[string][]string{}
			for _, o := range all {
				if kind := o["kind"]; kind == "Service" || kind == "Backend" {
					services[at(o, "metadata", "name").(string)] = []string{"192.0.2.1:8000"}
				}
			}
			for _, name := range []string{"gemma-serve-svc", "mistral-serve-svc"} { // made by KubeRay
				services[name] = []string{"192.0.2.1:8000"}
			}
			h := &host{port: 10080, services: services, module: "/usr/local/lib/inlet/libinlet.so", plugin: "/usr/local/lib/inlet/inlet.wasm", envoy: envoybin.DefaultVersion, log: "/dev/stdout"}
			h.certificate(t)
			file := filepath.Join(t.TempDir(), "objects.yaml")
			if err := os.WriteFile(file, marshal(t, hostForm(t, all, h)), 0o644); err != nil {
				t.Fatal(err)
			}
			text, err := run(t.Context(), program(t, kubebin.Egctl), "x", "translate", "--from", "gateway-api", "--to", "gateway-api", "-o", "yaml", "-f", file)
			if err != nil {
				t.Fatal(err)
			}
			conditions := 0
			for kind, list := range documents(t, text)[0] {
				each(list, func(name, condition, status, message string) {
					conditions++
					if status != "True" {
						t.Errorf("%s %s is not %s: %s", kind, name, condition, message)
					}
				}, "")
			}
			if conditions < 10 {
				t.Errorf("only %d conditions in\n%s", conditions, text)
			}
		})
	}
}

// each visits the conditions of objects, at every depth.
func each(v any, visit func(name, condition, status, message string), name string) {
	switch v := v.(type) {
	case object:
		if n, ok := at(v, "metadata", "name").(string); ok {
			name = n
		}
		status, isCondition := v["status"].(string)
		condition, typed := v["type"].(string)
		if isCondition && typed {
			message, _ := v["message"].(string)
			visit(name, condition, status, message)
			return
		}
		for _, e := range v {
			each(e, visit, name)
		}
	case []any:
		for _, e := range v {
			each(e, visit, name)
		}
	}
}

package gateway

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestModule(t *testing.T) {
	r := start(t, kustomized(t, "module"), standard)
	r.behaves(t)
}

func TestWasmFile(t *testing.T) {
	r := start(t, kustomized(t, "wasm-file"), standard)
	r.behaves(t)
}

// behaves checks what holds for both builds.
func (r *running) behaves(t *testing.T) {
	t.Helper()
	r.knows(t, "llama")
	r.knows(t, "gemma")
	t.Run("picked", func(t *testing.T) {
		for i := range 8 {
			prompt := fmt.Sprintf("Conversation %d. %s", i%4, strings.Repeat("The same beginning. ", 200))
			for _, model := range []string{"llama", "gemma", "gemma-support"} {
				got := r.chat(t, model, prompt)
				pool, _, _ := strings.Cut(model, "-")
				if replica := r.picked(t, got); got.status != http.StatusOK || !strings.HasPrefix(replica, pool+"-") {
					t.Errorf("%s: %d from %q, want 200 from pool %s", model, got.status, replica, pool)
				}
			}
		}
		if got := r.chat(t, "llama", "Hello").header.Get("x-modelsim-model"); got != "llama-3-8b" {
			t.Errorf("the replica was asked for %q", got)
		}
	})
	t.Run("sticky", func(t *testing.T) {
		prompt := strings.Repeat("A conversation with a long beginning. ", 300)
		first := r.picked(t, r.chat(t, "llama", prompt))
		for range 3 {
			if again := r.picked(t, r.chat(t, "llama", prompt)); again != first {
				t.Errorf("the same prompt went to %s, and then to %s", first, again)
			}
		}
	})
	t.Run("large bodies", func(t *testing.T) {
		for _, size := range []int{33 << 10, 2 << 20, 15 << 20} {
			body := chat("llama", strings.Repeat("x", size))
			got := r.send(t, http.MethodPost, "/v1/chat/completions", body)
			if n := got.header.Get("x-modelsim-body-bytes"); got.status != http.StatusOK || n != fmt.Sprint(len(body)+len("-3-8b")) {
				t.Errorf("%d bytes: %d, and the replica got %s bytes", len(body), got.status, n)
			}
		}
		if got := r.chat(t, "llama", strings.Repeat("x", 16<<20)); got.status != http.StatusRequestEntityTooLarge || got.code() == "" {
			t.Errorf("over limits.body: %d %s", got.status, got.body)
		}
	})
	t.Run("forged", func(t *testing.T) { r.forged(t) })
	t.Run("errors", func(t *testing.T) { r.errors(t) })
	t.Run("edited", func(t *testing.T) { r.edited(t) })
	t.Run("filters of a pool's route", func(t *testing.T) { r.routeFilters(t) })
	t.Run("no replica", func(t *testing.T) {
		for _, s := range r.replicas["gemma"] {
			s.Kill()
		}
		got := r.chat(t, "jemma", "Hello", "x-api-key", demoKey)
		if got.status != http.StatusServiceUnavailable || got.header.Get("retry-after") == "" || !strings.Contains(got.body, `"error"`) {
			t.Errorf("%d %v %s", got.status, got.header, got.body)
		}
	})
}

// demoKey is the key of envoy/static/inlet-keys.yaml.
const demoKey = "inlet-demo-key"

// edited changes the chain's configuration in the manifests, as an operator would: to one with keys, to one that is wrong, and to a third.
func (r *running) edited(t *testing.T) {
	withKeys, err := os.ReadFile(filepath.Join(root(t), "envoy", "static", "inlet-keys.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r.configure(t, string(withKeys))
	r.until(t, "asking for keys", func() bool { return r.get(t, "llama").status == http.StatusUnauthorized })
	r.serves(t, "llama", "x-api-key", demoKey) // from every worker
	if got := r.chat(t, "llama", "Hello"); got.code() != "missing_api_key" {
		t.Errorf("without a key: %d %s", got.status, got.body)
	}
	if got := r.chat(t, "llama", "Hello", "x-api-key", demoKey); got.status != http.StatusOK || strings.Contains(got.header.Get("x-modelsim-headers"), "x-api-key") {
		t.Errorf("with a key: %d, and the replica got %s", got.status, got.header.Get("x-modelsim-headers"))
	}
	if got := r.chat(t, "llama", "About project aurora", "x-api-key", demoKey); got.status != http.StatusBadRequest || got.code() != "content_policy_violation" {
		t.Errorf("a prompt that is refused: %d %s", got.status, got.body)
	}

	const rejected = "listener_manager.lds.update_rejected"
	before := r.stat(t, rejected)
	r.configure(t, strings.Replace(string(withKeys), "models:", "modles:", 1))
	r.until(t, "refused by Envoy", func() bool { return r.stat(t, rejected) > before })
	r.until(t, "shown in Envoy Gateway's metric", func() bool { return r.nacks(t) > 0 })
	if got := r.chat(t, "llama", "Hello", "x-api-key", demoKey); got.status != http.StatusOK {
		t.Errorf("after a configuration that Envoy refused: %d %s", got.status, got.body)
	}

	r.configure(t, strings.Replace(string(withKeys), "name: gemma,", "name: jemma,", 1))
	r.until(t, "serving the third configuration", func() bool { return r.get(t, "jemma", "x-api-key", demoKey).status == http.StatusOK })
}

// routeFilters: what a pool's route itself does is done, but filters that are turned on at it are not run. Which ones run was decided at no-pool.
func (r *running) routeFilters(t *testing.T) {
	route := find(t, r.objects, "HTTPRoute", "gemma")
	at(route, "spec", "rules", 0).(object)["filters"] = []any{
		object{"type": "RequestHeaderModifier", "requestHeaderModifier": object{"set": []any{object{"name": "x-of-route", "value": "1"}}}},
		object{"type": "ExtensionRef", "extensionRef": object{"group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": "credential"}},
	}
	r.objects = append(r.objects, object{
		"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "HTTPRouteFilter", "metadata": object{"name": "credential", "namespace": "inlet"},
		"spec": object{"credentialInjection": object{"header": "x-credential", "credential": object{"valueRef": object{"name": "credential"}}}},
	}, object{
		"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "credential", "namespace": "inlet"}, "data": object{"credential": base64.StdEncoding.EncodeToString([]byte("placeholder"))},
	})
	r.apply(t)
	var names string
	r.until(t, "setting the header of the route", func() bool {
		got := r.get(t, "jemma", "x-api-key", demoKey)
		names = got.header.Get("x-modelsim-headers")
		return strings.Contains(names, "x-of-route")
	})
	// The listener has the filter by now, or comes right after the routes.
	r.until(t, "handing Envoy the filter", func() bool { return strings.Contains(r.admin(t, "/config_dump"), "credential_injector") })
	names = r.chat(t, "jemma", "Hello", "x-api-key", demoKey).header.Get("x-modelsim-headers")
	if !strings.Contains(names, "x-of-route") || strings.Contains(names, "x-credential") {
		t.Errorf("the replica got %s: docs/envoy-gateway.md says that a filter of a pool's route does nothing", names)
	}
}

// configure gives the chain another configuration and applies the manifests.
func (r *running) configure(t *testing.T, text string) {
	t.Helper()
	for _, o := range r.objects {
		if module, ok := at(o, "spec", "dynamicModule", 0).(object); ok {
			module["config"] = parsed(t, text)
		}
		for _, p := range list(at(o, "spec", "jsonPatches")) {
			if c, ok := at(p, "operation", "value", "typed_config", "config", "configuration").(object); ok {
				c["value"] = text
			}
		}
	}
	r.apply(t)
}

// admin is what Envoy's admin interface says.
func (r *running) admin(t *testing.T, path string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "home", "run", "*", "admin-address.txt"))
	if err != nil || len(files) != 1 {
		return "" // not there yet
	}
	address, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return fetch(t, "http://"+strings.TrimSpace(string(address))+path)
}

// fetch is the body of a page, "" if there is none.
func fetch(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// stat is a counter of Envoy.
func (r *running) stat(t *testing.T, name string) int {
	t.Helper()
	_, value, ok := strings.Cut(strings.TrimSpace(r.admin(t, "/stats?filter=^"+name+"$")), ": ")
	n, err := strconv.Atoi(value)
	if !ok || err != nil {
		t.Fatalf("Envoy has no counter %s", name)
	}
	return n
}

var nackLine = regexp.MustCompile(`(?m)^xds_nack_total\{?.* ([0-9.e+]+)$`)

// nacks is how many updates Envoy has refused, by Envoy Gateway's metrics.
func (r *running) nacks(t *testing.T) float64 {
	t.Helper()
	sum := 0.0
	for _, m := range nackLine.FindAllStringSubmatch(fetch(t, "http://127.0.0.1:19001/metrics"), -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func (r *running) forged(t *testing.T) {
	gemma := r.services["gemma"][0]
	forged := []string{
		"x-gateway-inference-pool", "gemma", "x-gateway-model-name", "gemma", "x-gateway-model-name-rewrite", "other", "x-gateway-base-model-name", "other",
		"x-gateway-destination-endpoint", gemma, "x-gateway-destination-endpoint-subset", gemma, "x-llm-d-inference-pool", "gemma", "x-llm-d-destination-endpoint", gemma,
	}
	got := r.chat(t, "llama", "Hello", forged...)
	if replica := r.picked(t, got); !strings.HasPrefix(replica, "llama-") || got.header.Get("x-modelsim-model") != "llama-3-8b" {
		t.Errorf("forged headers led to %s with model %s", replica, got.header.Get("x-modelsim-model"))
	}
	for _, name := range []string{"x-gateway-destination-endpoint-subset", "x-llm-d-inference-pool"} {
		if strings.Contains(got.header.Get("x-modelsim-headers"), name) {
			t.Errorf("the replica got a client's %s", name)
		}
	}
	for _, path := range []string{"/", "/health", "/metrics", "/admin/fault", "/v1/snapshot.json"} { // no API of a model server: neither a replica nor the companion
		got := r.send(t, http.MethodGet, path, "", forged...)
		if got.status != http.StatusNotFound || got.header.Get("x-modelsim-replica") != "" {
			t.Errorf("GET %s with forged headers: %d %s", path, got.status, got.body)
		}
	}
}

func (r *running) errors(t *testing.T) {
	for _, c := range []struct {
		method, path, body, code string
		status                   int
		headers                  []string
	}{
		{http.MethodPost, "/v1/chat/completions", chat("unknown", "Hello"), "model_not_found", http.StatusNotFound, nil},
		{http.MethodGet, "/nowhere", "", "unknown_path", http.StatusNotFound, nil},
		{http.MethodGet, "/v1/responses", "", "upgrade_not_supported", http.StatusUpgradeRequired, []string{"connection", "Upgrade", "upgrade", "websocket"}},
	} {
		got := r.send(t, c.method, c.path, c.body, c.headers...)
		if got.status != c.status || got.code() != c.code || !strings.Contains(got.body, `"error"`) {
			t.Errorf("%s %s: %d %s, want %d with code %q", c.method, c.path, got.status, got.body, c.status, c.code)
		}
		if !strings.HasPrefix(got.header.Get("content-type"), "application/json") {
			t.Errorf("%s %s: content type %q", c.method, c.path, got.header.Get("content-type"))
		}
	}
}

package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestWasmImage has Envoy Gateway fetch the plugin's image from a registry, and hand Envoy the filter with what the patches add. Envoy gets no further in Host
// mode: it would have to fetch the plugin from the name of Envoy Gateway's Service, with a certificate in /certs. TestWasmFile serves requests.
func TestWasmImage(t *testing.T) {
	r := start(t, kustomized(t, "wasm"), standard)
	plugin, err := os.ReadFile(r.plugin)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(plugin)
	var filter object
	r.until(t, "given the wasm plugin", func() bool {
		filter = r.wasmFilter(t)
		return filter != nil
	})
	config := at(filter, "typed_config", "config")
	if got := at(config, "vm_config", "code", "remote", "sha256"); got != hex.EncodeToString(sum[:]) {
		t.Errorf("the plugin has the checksum %v, want %x", got, sum)
	}
	if at(config, "allow_on_headers_stop_iteration") != true || at(config, "failure_policy") != "FAIL_RELOAD" || at(config, "reload_config") == nil {
		t.Errorf("the patches are not all there: %v", config)
	}
	if at(filter, "disabled") != true {
		t.Error("the filter is not one that routes enable")
	}
}

// wasmFilter is the wasm filter of what Envoy was given, in use or not; nil if there is none yet.
func (r *running) wasmFilter(t *testing.T) object {
	t.Helper()
	var dump any
	if json.Unmarshal([]byte(r.admin(t, "/config_dump")), &dump) != nil {
		return nil
	}
	return findFilter(dump, "envoy.filters.http.wasm/")
}

// findFilter looks at every depth for an object whose name begins so.
func findFilter(v any, prefix string) object {
	switch v := v.(type) {
	case object:
		if name, _ := v["name"].(string); strings.HasPrefix(name, prefix) {
			return v
		}
		for _, e := range v {
			if found := findFilter(e, prefix); found != nil {
				return found
			}
		}
	case []any:
		for _, e := range v {
			if found := findFilter(e, prefix); found != nil {
				return found
			}
		}
	}
	return nil
}

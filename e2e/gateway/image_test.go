package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
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

// TestImageLayout: the image is one manifest with one layer, in the form of OCI, and the same plugin gives the same digest.
func TestImageLayout(t *testing.T) {
	path, err := builtRenderer()
	if err != nil {
		t.Fatal(err)
	}
	plugin := filepath.Join(t.TempDir(), "plugin.wasm")
	if err := os.WriteFile(plugin, []byte("\x00asm\x01\x00\x00\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	var digests []string
	dir := filepath.Join(t.TempDir(), "image")
	for range 2 {
		out, err := run(t.Context(), path, "image", plugin, dir)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, strings.TrimSpace(string(out)))
	}
	if digests[0] != digests[1] {
		t.Errorf("the same plugin gave %s, and then %s", digests[0], digests[1])
	}
	read := func(name string) (v object) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	manifests := list(read("index.json")["manifests"])
	if len(manifests) != 1 || at(manifests[0], "digest") != digests[0] || at(manifests[0], "mediaType") != "application/vnd.oci.image.manifest.v1+json" {
		t.Fatalf("the layout has %v, want one manifest with digest %s", manifests, digests[0])
	}
	manifest := read(filepath.Join("blobs", strings.Replace(digests[0], ":", "/", 1)))
	layers := list(manifest["layers"])
	if len(layers) != 1 || at(layers[0], "mediaType") != "application/vnd.oci.image.layer.v1.tar+gzip" {
		t.Errorf("the image has the layers %v", layers)
	}
}

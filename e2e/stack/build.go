package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Target is one file of dist/. The Makefile builds the same files with the same
// commands; a test compares the two.
type Target struct {
	File    string   // in dist/
	Module  string   // folder of its go.mod under the root; "" is the root
	Package string   // main package, under that folder
	Flags   []string // of go build
	Env     []string
}

// The builds that the stack needs.
var (
	WasmPlugin = Target{
		File: "inlet.wasm", Package: "./cmd/bundle-wasm",
		Flags: []string{"-buildmode=c-shared", "-trimpath", "-ldflags=-s -w"},
		Env:   []string{"GOOS=wasip1", "GOARCH=wasm"},
	}
	NativeModule = Target{
		File: "libinlet.so", Package: "./cmd/bundle-module",
		// The SDK returns Go pointers to Envoy, for which Go 1.26 would abort Envoy. The memory is pinned by other means,
		// and the check is turned off in this one library.
		Flags: []string{"-buildmode=c-shared", "-trimpath", "-ldflags=-s -w -X runtime.godebugDefault=cgocheck=0"},
		Env:   []string{"CGO_ENABLED=1"},
	}
	GolangPlugin = Target{
		File: "inlet-golang.so", Package: "./cmd/bundle-golang",
		Flags: []string{"-buildmode=c-shared", "-trimpath", "-ldflags=-s -w"},
		Env:   []string{"CGO_ENABLED=1"},
	}
	CompanionProgram = Target{File: "companion", Package: "./cmd/companion", Flags: []string{"-trimpath"}}
	ModelSim         = Target{File: "modelsim", Package: "./cmd/modelsim", Flags: []string{"-trimpath"}}
)

// Path is the target's file under the root of the repository.
func (t Target) Path(root string) string { return filepath.Join(root, "dist", t.File) }

// Build brings the targets up to date. Go rebuilds only what changed, so it costs
// little if nothing did. Processes take turns.
func Build(ctx context.Context, root string, progress io.Writer, targets ...Target) error {
	if err := os.MkdirAll(filepath.Join(root, "dist"), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(root, "dist", ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // which unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("dist/.lock: %w", err)
	}
	for _, t := range targets {
		if _, err := os.Stat(t.Path(root)); err != nil && progress != nil {
			_, _ = fmt.Fprintf(progress, "building dist/%s (the first time takes a minute)\n", t.File)
		}
		args := append([]string{"build"}, t.Flags...)
		args = append(args, "-o", t.Path(root), t.Package)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = filepath.Join(root, t.Module)
		cmd.Env = append(os.Environ(), t.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building dist/%s: %w\n%s", t.File, err, out)
		}
	}
	return nil
}

// Root is the root of the repository that the working directory is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/inlet-proxy/inlet\n") {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("not in a checkout of github.com/inlet-proxy/inlet: no go.mod of it in this folder or above")
		}
		dir = filepath.Dir(dir)
	}
}

// Command release is `make release`: it builds all that a release has into dist/release, with checksums and a software bill of
// materials. The same commit and the same tools give the same bytes, in whatever folder: no path, time or user is in them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
)

// goVersion is the Go that builds: of this program, and so of all that it has built.
var goVersion = runtime.Version()

func main() {
	if len(os.Args) > 2 && os.Args[1] == "cc" {
		fmt.Fprintln(os.Stderr, runCompiler(os.Args[2:]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	version := flag.String("version", "", "the release, such as v0.1.0 (default: what git describes)")
	root := flag.String("root", ".", "root of the repository")
	twice := flag.Bool("twice", false, "build the last commit twice, in two folders and with two build caches, and compare the bytes")
	only := flag.String("only", "", "only the files whose name contains this")
	flag.Parse()
	if *version == "" {
		described, err := describe(ctx, *root)
		if err != nil {
			return err
		}
		*version = described
	}
	if *twice {
		return compare(ctx, *root, *version, *only)
	}
	dir := filepath.Join(*root, "dist", "release")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := release(ctx, *root, dir, *version, *only, nil); err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}

// describe names the version of a checkout: its tag, or its commit.
func describe(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", "-C", root, "describe", "--tags", "--match", "v[0-9]*", "--always", "--abbrev=12", "--dirty")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git cannot tell the version: give it with -version (%w)", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// release builds into a folder.
func release(ctx context.Context, root, dir, version, only string, env []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	built := 0
	for _, a := range artifacts(root) {
		if !strings.Contains(a.file, only) {
			continue
		}
		if err := a.findCompiler(ctx); err != nil {
			fmt.Printf("left out %s: %v\n", a.file, err)
			continue
		}
		fmt.Printf("building %s\n", a.file)
		if err := a.build(ctx, root, dir, version, env); err != nil {
			return err
		}
		if err := a.examine(dir); err != nil {
			return err
		}
		built++
	}
	if built == 0 {
		return fmt.Errorf("no file of a release is called %q", only)
	}
	if only == "" {
		if err := writeSchema(ctx, root, dir, env); err != nil {
			return err
		}
	}
	if err := writeBill(dir, version); err != nil {
		return err
	}
	return writeSums(dir)
}

const module = "github.com/inlet-proxy/inlet"

// artifact is one file of a release.
type artifact struct {
	file    string
	pkg     string
	env     []string
	flags   []string
	ldflags string
	arch    string // of a library that needs a C compiler
}

// libraries are the native builds, by their folder in cmd.
var libraries = map[string]struct{ file, ldflags string }{
	"bundle-module": {"libinlet", " -X runtime.godebugDefault=cgocheck=0"}, // see e2e/stack
	"bundle-golang": {"inlet-golang", ""},
}

// artifacts are all files that are built of a checkout.
func artifacts(root string) []artifact {
	wasm := func(file, pkg string) artifact {
		return artifact{file: file, pkg: pkg, env: []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, flags: []string{"-buildmode=c-shared"}}
	}
	all := []artifact{wasm("inlet.wasm", "./cmd/bundle-wasm")}
	mains, _ := filepath.Glob(filepath.Join(root, "filters/*/wasm")) // it fails for malformed patterns only
	for _, m := range mains {
		f := filepath.Base(filepath.Dir(m))
		all = append(all, wasm(f+".wasm", "./filters/"+f+"/wasm"))
	}
	bundles, _ := filepath.Glob(filepath.Join(root, "cmd/bundle-*"))
	for _, b := range bundles {
		l, ok := libraries[filepath.Base(b)]
		if !ok {
			continue // wasm
		}
		for _, arch := range []string{"amd64", "arm64"} {
			all = append(all, artifact{
				file: l.file + "-linux-" + arch + ".so", pkg: "./cmd/" + filepath.Base(b), arch: arch,
				env:     []string{"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=1"},
				flags:   []string{"-buildmode=c-shared"},
				ldflags: l.ldflags,
			})
		}
	}
	for _, platform := range []string{"linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"} {
		goos, arch, _ := strings.Cut(platform, "-")
		for _, program := range []string{"companion", "inletctl", "modelsim"} {
			all = append(all, artifact{file: program + "-" + platform, pkg: "./cmd/" + program, env: []string{"GOOS=" + goos, "GOARCH=" + arch, "CGO_ENABLED=0"}})
		}
	}
	return all
}

// findCompiler completes the environment of a library.
func (a *artifact) findCompiler(ctx context.Context) error {
	if a.arch == "" {
		return nil
	}
	env, err := compiler(ctx, a.arch)
	a.env = append(a.env, env...)
	return err
}

// examine looks at a library that was built, and says which glibc it needs.
func (a *artifact) examine(dir string) error {
	if a.arch == "" {
		return nil
	}
	needs, err := readLibrary(filepath.Join(dir, a.file), a.arch)
	if err == nil && usesZig(a.env) {
		err = low(a.file, needs)
	}
	if err == nil {
		fmt.Printf("         %s needs glibc %s or newer\n", a.file, needs)
	}
	return err
}

// build builds the artifact. Nothing of this machine gets in: no path (-trimpath), no build id, no state of the working tree.
func (a *artifact) build(ctx context.Context, root, dir, version string, env []string) error {
	out, err := filepath.Abs(filepath.Join(dir, a.file))
	if err != nil {
		return err
	}
	args := append([]string{"build"}, a.flags...)
	args = append(args, "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= -X "+module+"/internal/version.release="+version+a.ldflags, "-o", out, a.pkg)
	if err := goTool(ctx, root, append(a.env, env...), args...); err != nil {
		return fmt.Errorf("%s: %w", a.file, err)
	}
	if header := strings.TrimSuffix(out, filepath.Ext(out)) + ".h"; header != out {
		if err := os.Remove(header); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // c-shared leaves a C header beside a library
		}
	}
	return os.Chmod(out, 0o755)
}

// goTool runs go in the repository. Settings of this machine that change what is built do not count.
func goTool(ctx context.Context, root string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "GOAMD64=v1", "GOARM64=v8.0", "CGO_CFLAGS=-O2 -g0", "CGO_LDFLAGS="), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// writeSchema has inletctl, as built for this machine, write the JSON Schema.
func writeSchema(ctx context.Context, root, dir string, env []string) error {
	cmd := exec.CommandContext(ctx, "go", "run", "-trimpath", "./cmd/inletctl", "schema")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("inletctl schema: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "inlet.schema.json"), out, 0o644)
}

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func names() []string {
	var all []string
	for _, a := range artifacts("../..") {
		all = append(all, a.file)
	}
	return all
}

// TestEverythingIsInARelease: each filter's module, and each program, for each platform.
func TestEverythingIsInARelease(t *testing.T) {
	mains, err := filepath.Glob("../../filters/*/wasm")
	if err != nil || len(mains) < 4 {
		t.Fatal(mains, err)
	}
	want := []string{"inlet.wasm"}
	for folder, l := range libraries {
		if _, err := os.Stat("../../cmd/" + folder); err == nil {
			want = append(want, l.file+"-linux-amd64.so", l.file+"-linux-arm64.so")
		}
	}
	if !slices.Contains(want, "libinlet-linux-arm64.so") {
		t.Error(want)
	}
	for _, m := range mains {
		want = append(want, filepath.Base(filepath.Dir(m))+".wasm")
	}
	programs, err := filepath.Glob("../../cmd/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		name := filepath.Base(filepath.Dir(p))
		if strings.HasPrefix(name, "bundle-") {
			continue
		}
		for _, platform := range []string{"linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"} {
			want = append(want, name+"-"+platform)
		}
	}
	got := names()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Fatalf("got %v\nwant %v", got, want)
	}
}

// TestCompiler: a machine without pip builds all but the libraries, and a compiler may be named.
func TestCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("INLET_CACHE", t.TempDir())
	for _, a := range artifacts("../..") {
		err := a.findCompiler(t.Context())
		if library := strings.HasSuffix(a.file, ".so"); library != (err != nil) {
			t.Errorf("%s: %v", a.file, err)
		}
		if err != nil && !strings.Contains(err.Error(), "in the variable CC_"+a.arch+", or Python 3 with pip") {
			t.Error(err)
		}
	}
	t.Setenv("CC_arm64", os.Args[0]+" -x") // something that can be run
	if env, err := compiler(t.Context(), "arm64"); err != nil || !slices.Equal(env, []string{"CC=" + os.Args[0] + " -x"}) {
		t.Error(env, err)
	}
	t.Setenv("CC_arm64", "./nowhere")
	if _, err := compiler(t.Context(), "arm64"); err == nil {
		t.Error("a compiler that is not there")
	}
}

// TestZig: it is called for the architecture and the glibc, without an option that it does not have.
func TestZig(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("INLET_CACHE", cache)
	version, _, _ := strings.Cut(strings.TrimPrefix(zigWheel, "ziglang=="), " ")
	program := filepath.Join(cache, "zig", version, "ziglang", "zig")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	env, err := compiler(t.Context(), "arm64")
	want := []string{"CC='" + os.Args[0] + "' cc arm64", "INLET_ZIG=" + program, "ZIG_GLOBAL_CACHE_DIR=" + cache + "/zig/cache", "ZIG_LOCAL_CACHE_DIR=" + cache + "/zig/cache"}
	if err != nil || !slices.Equal(env, want) {
		t.Errorf("%v %v", env, err)
	}
	args := zigArguments("arm64", []string{"-shared", "-Wl,--unresolved-symbols=ignore-all", "-Wl,-unresolved-symbols=ignore-all", "-o", "a.so"})
	if want := "cc -target aarch64-linux-gnu.2.28 -shared -o a.so"; strings.Join(args, " ") != want {
		t.Error(args)
	}
}

// TestReadLibrary reads this test, which is no library, and libraries that call a function of Envoy, and one of nobody.
func TestReadLibrary(t *testing.T) {
	if _, err := readLibrary(os.Args[0], runtime.GOARCH); err == nil {
		t.Error("a program is no library")
	}
	dir := t.TempDir()
	for name, reason := range map[string]string{"envoy_dynamic_module_callback_log": "", "inlet_log": "needs inlet_log, which neither glibc nor Envoy has"} {
		source, library := filepath.Join(dir, name+".c"), filepath.Join(dir, name+".so")
		if err := os.WriteFile(source, []byte("#include <stdlib.h>\nvoid "+name+"(void *);\nvoid f(void) { "+name+"(malloc(1)); }\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		needs, err := readLibrary(library, runtime.GOARCH)
		if reason == "" && (err != nil || !strings.HasPrefix(needs, "2.")) || reason != "" && (err == nil || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: %q, %v", name, needs, err)
		}
		if _, err := readLibrary(library, "riscv64"); err == nil {
			t.Error("of another processor")
		}
	}
	if err := low("a.so", "2.34"); err == nil || err.Error() != "a.so needs glibc 2.34, which is newer than 2.28" {
		t.Error(err)
	}
	for _, old := range []string{"", "2.2.5", "2.17", "2.28"} {
		if err := low("a.so", old); err != nil {
			t.Error(err)
		}
	}
	if err := low("a.so", "2.28.1"); err == nil {
		t.Error("2.28.1 is newer than 2.28")
	}
}

// TestBuildInfo reads this test's own modules, and those of a wasm module.
func TestBuildInfo(t *testing.T) {
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildInfo(text)
	if err != nil || !strings.HasPrefix(info.Path, "github.com/inlet-proxy/inlet/tools") {
		t.Fatal(info, err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/plugin\n", "main.go": "package main\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := artifact{file: "plugin.wasm", pkg: ".", env: []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}}
	if err := a.build(t.Context(), dir, dir, "v1.2.3", nil); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(filepath.Join(dir, "plugin.wasm")); err != nil {
		t.Fatal(err)
	}
	if info, err = buildInfo(text); err != nil || info.Path != "example.com/plugin" || info.GoVersion != runtime.Version() {
		t.Fatal(info, err)
	}
	if strings.Contains(string(text), dir) {
		t.Error("the module has the path of the folder")
	}
	if _, err := buildInfo([]byte("{}")); !errors.Is(err, errNotGo) {
		t.Error(err)
	}
}

func TestBill(t *testing.T) {
	yaml := &debug.Module{Path: "go.yaml.in/yaml/v3", Version: "v3.0.6", Sum: "h1:AAEC"}
	other := &debug.Module{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/new", Version: "v2.0.0"}}
	b := newBill("v0.1.0")
	b.add("a.wasm", "aa", &debug.BuildInfo{GoVersion: "go1.26.8", Deps: []*debug.Module{yaml, other}})
	b.add("b", "bb", &debug.BuildInfo{GoVersion: "go1.26.8", Deps: []*debug.Module{yaml}})
	b.finish()
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"$schema":"http://cyclonedx.org/schema/bom-1.6.schema.json","bomFormat":"CycloneDX","specVersion":"1.6","version":1,` +
		`"metadata":{"component":{"bom-ref":"pkg:golang/github.com/inlet-proxy/inlet@v0.1.0","type":"application","name":"github.com/inlet-proxy/inlet","version":"v0.1.0","purl":"pkg:golang/github.com/inlet-proxy/inlet@v0.1.0"}},` +
		`"components":[{"bom-ref":"file:a.wasm","type":"file","name":"a.wasm","version":"v0.1.0","hashes":[{"alg":"SHA-256","content":"aa"}]},` +
		`{"bom-ref":"file:b","type":"file","name":"b","version":"v0.1.0","hashes":[{"alg":"SHA-256","content":"bb"}]},` +
		`{"bom-ref":"pkg:golang/example.com/new@v2.0.0","type":"library","name":"example.com/new","version":"v2.0.0","purl":"pkg:golang/example.com/new@v2.0.0"},` +
		`{"bom-ref":"pkg:golang/go.yaml.in/yaml/v3@v3.0.6","type":"library","name":"go.yaml.in/yaml/v3","version":"v3.0.6","purl":"pkg:golang/go.yaml.in/yaml/v3@v3.0.6","hashes":[{"alg":"SHA-256","content":"000102"}]},` +
		`{"bom-ref":"pkg:golang/std@1.26.8","type":"library","name":"std","version":"1.26.8","purl":"pkg:golang/std@1.26.8"}],` +
		`"dependencies":[{"ref":"pkg:golang/github.com/inlet-proxy/inlet@v0.1.0","dependsOn":["file:a.wasm","file:b"]},` +
		`{"ref":"file:a.wasm","dependsOn":["pkg:golang/example.com/new@v2.0.0","pkg:golang/go.yaml.in/yaml/v3@v3.0.6","pkg:golang/std@1.26.8"]},` +
		`{"ref":"file:b","dependsOn":["pkg:golang/go.yaml.in/yaml/v3@v3.0.6","pkg:golang/std@1.26.8"]}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

// TestSums: the checksums are those that sha256sum reads, and a difference is told.
func TestSums(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the file is no part of itself
		if err := writeSums(dir); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	const want = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a\n3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  b\n"
	if string(text) != want {
		t.Errorf("%s", text)
	}
	if program, err := exec.LookPath("sha256sum"); err == nil {
		cmd := exec.Command(program, "--check", sumsFile)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	err = same(map[string]string{"a": "1", "b": "2"}, map[string]string{"a": "1", "b": "3", "c": "4"})
	if err == nil || err.Error() != "these files differ: [b c]" {
		t.Error(err)
	}
	if err := same(map[string]string{"a": "1"}, map[string]string{"a": "1"}); err != nil {
		t.Error(err)
	}
}

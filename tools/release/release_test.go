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
	want := []string{"inlet.wasm", "libinlet-linux-amd64.so", "libinlet-linux-arm64.so"}
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

func TestCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, a := range artifacts("../..") {
		if library := strings.HasSuffix(a.file, ".so"); library != (a.missing != "") {
			t.Errorf("%s: missing %q", a.file, a.missing)
		}
	}
	t.Setenv("CC_arm64", os.Args[0]) // something that can be run
	if cc, missing := compiler("arm64"); cc != os.Args[0] || missing != "" {
		t.Error(cc, missing)
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

package doctor

import (
	"bytes"
	"context"
	"debug/elf"
	"debug/macho"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func callbacks(names ...string) (all []string) {
	for _, name := range names {
		all = append(all, "envoy_dynamic_module_callback_"+name)
	}
	return all
}

// The files of a module that fits, and of an Envoy that does.
var (
	fitting  = made{exports: []string{"envoy_dynamic_module_on_program_init"}, wants: append(callbacks("log", "get", "set", "send", "end"), "malloc"), glibc: "2.34", text: cure}
	complete = made{exports: callbacks("new", "log", "get", "set", "send", "end"), wants: []string{"malloc"}, glibc: "2.31", text: strings.Repeat(" ", 3<<20) + inV8}
)

// wasmPlugin is the file of a plugin.
var wasmPlugin = sections("malloc", "proxy_abi_version_0_2_0", "proxy_on_configure")

func with(m made, change func(*made)) made {
	change(&m)
	return m
}

// TestCompare compares files that are made up.
func TestCompare(t *testing.T) {
	arm := func(m *made) { m.machine = elf.EM_AARCH64 }
	mac := func(m *made) { m.cpu, m.glibc = macho.CpuArm64, "" }
	for _, c := range []struct {
		name          string
		module, envoy any    // made, or the text of a file
		version       string // of Envoy
		glibc         string // of this machine
		says          []string
	}{
		{"1.38", fitting, complete, "1.38.3", "2.36", []string{"ok       envoy      ENVOY: 1.38.3, linux/amd64", "ok       module     MODULE: linux/amd64, needs glibc 2.34 or newer", "ok       symbols    Envoy has all 5 functions", "ok       sdk        of Envoy 1.38, which Envoy promises to support in 1.38 and 1.39", "ok       go         built by go1.26.8"}},
		{"1.39", fitting, complete, "1.39.0", "2.34", []string{"ok       sdk        of Envoy 1.38, which Envoy promises to support in 1.38 and 1.39"}},
		{"1.40 warns", fitting, complete, "1.40.0", "2.34", []string{"ok       sdk        of Envoy 1.38: Envoy 1.40.0 logs at start that this ABI version is deprecated, and loads it"}},
		{"a later one", fitting, complete, "1.41.0", "2.34", []string{"ok       sdk        of Envoy 1.38: Inlet is not tested with Envoy 1.41.0"}},
		{"a version that is not known", fitting, complete, "", "2.34", []string{"UNKNOWN  envoy      ENVOY: it does not say its version, linux/amd64", "UNKNOWN  sdk        of Envoy 1.38, which works in 1.38, 1.39 and 1.40; this Envoy's version is unknown"}},
		{"1.37 refuses", fitting, complete, "1.37.0", "2.34", []string{"WRONG    sdk        Envoy 1.37.0 loads only modules with the SDK of its own version, and this one has that of Envoy 1.38; take Envoy 1.38, 1.39 or 1.40"}},
		{"1.36 refuses, and lacks functions", fitting, with(complete, func(m *made) { m.exports = callbacks("log") }), "1.36.4", "2.34", []string{
			"WRONG    symbols    this Envoy (1.36.4) lacks 4 of the 5 functions that the module calls, and cannot load it: envoy_dynamic_module_callback_end, envoy_dynamic_module_callback_get, envoy_dynamic_module_callback_send and 1 more; take Envoy 1.38",
			"WRONG    sdk        Envoy 1.36.4 loads only",
		}},
		{"one function is missing", fitting, with(complete, func(m *made) { m.exports = callbacks("log", "get", "set", "send") }), "1.40.0", "", []string{"WRONG    symbols    this Envoy (1.40.0) lacks 1 of the 5 functions that the module calls, and cannot load it: envoy_dynamic_module_callback_end; take"}},
		{"no functions for modules", fitting, with(complete, func(m *made) { m.exports = []string{"main"} }), "1.30.1", "", []string{"WRONG    symbols    this Envoy offers no functions for dynamic modules: it is too old, was built without them, or its symbols were removed; take Envoy 1.38"}},
		{"a stripped Envoy", fitting, with(complete, func(m *made) { m.stripped = true }), "1.40.0", "", []string{"WRONG    symbols    this Envoy offers no functions for dynamic modules"}},
		{"a stripped module", with(fitting, func(m *made) { m.stripped = true }), complete, "1.40.0", "", []string{"WRONG    module     MODULE is not a module for Envoy: it has no function envoy_dynamic_module_on_program_init"}},
		{"another library", made{exports: []string{"deflate"}}, complete, "1.40.0", "", []string{"WRONG    module     MODULE is not a module for Envoy"}},
		{"the module in place of Envoy", fitting, fitting, "", "", []string{"WRONG    envoy      ENVOY is not a program"}},
		{"another processor", with(fitting, arm), complete, "1.40.0", "2.31", []string{"ok       module     MODULE: linux/arm64", "WRONG    platform   the module is for linux/arm64 and Envoy for linux/amd64: build the module for linux/amd64"}},
		{"both of another processor", with(fitting, arm), with(complete, arm), "not asked", "2.31", []string{"ok       envoy      ENVOY: version unknown, linux/arm64", "ok       symbols"}},
		{"a processor that has no Envoy", with(fitting, func(m *made) { m.machine = elf.EM_RISCV }), complete, "1.40.0", "", []string{"WRONG    platform   the module is for linux/EM_RISCV"}},
		{"macOS", with(fitting, mac), with(complete, mac), "", "", []string{"ok       module     MODULE: darwin/arm64\n", "ok       symbols    Envoy has all 5 functions"}},
		{"macOS, one function is missing", with(fitting, mac), with(complete, func(m *made) { mac(m); m.exports = callbacks("log", "get", "set", "send") }), "", "", []string{"WRONG    symbols    this Envoy (unknown version) lacks 1 of the 5"}},
		{"macOS, stripped", with(fitting, mac), with(complete, func(m *made) { mac(m); m.stripped = true }), "", "", []string{"WRONG    symbols    this Envoy offers no functions"}},
		{"macOS and linux", with(fitting, mac), complete, "1.40.0", "", []string{"WRONG    platform   the module is for darwin/arm64 and Envoy for linux/amd64"}},
		{"a file for several processors", "\xca\xfe\xba\xbe....", complete, "1.40.0", "", []string{"WRONG    module     MODULE is a file for several processors: take one of them out with lipo -thin"}},
		{"a glibc that is too old", fitting, complete, "1.40.0", "2.31", []string{"WRONG    glibc      this machine has glibc 2.31, and the module needs 2.34"}},
		{"without the setting for Go", with(fitting, func(m *made) { m.text = "" }), complete, "1.40.0", "", []string{"WRONG    go         MODULE was built by go1.26.8 without -ldflags '-X runtime.godebugDefault=cgocheck=0': Go would end Envoy"}},
		{"text", "Not a library\n", complete, "1.40.0", "", []string{"WRONG    module     MODULE is neither a program nor a library"}},
		{"nothing", "", complete, "1.40.0", "", []string{"WRONG    module     MODULE is too short"}},
		{"cut off", elf.ELFMAG + "\x02\x01\x01", complete, "1.40.0", "", []string{"WRONG    module     MODULE cannot be read: "}},
		{"macOS, cut off", "\xcf\xfa\xed\xfe", complete, "1.40.0", "", []string{"WRONG    module     MODULE cannot be read: "}},
		{"an Envoy that a script starts", fitting, "#!/bin/sh\nexec envoy\n", "", "", []string{"UNKNOWN  envoy      ENVOY is a script: name the program that it starts", "ok       module     MODULE"}},
		{"wasm", wasmPlugin, complete, "1.36.4", "", []string{"ok       wasm       this Envoy has V8 and can run MODULE"}},
		{"wasm, 8 bytes", wasmHeader, complete, "1.38.2", "", []string{"WRONG    module     MODULE is not a plugin for Envoy: it has no functions proxy_on_configure and proxy_abi_version_*"}},
		{"wasm, not a plugin", sections("_start", "malloc"), complete, "1.38.2", "", []string{"WRONG    module     MODULE is not a plugin"}},
		{"wasm, no version", sections(pluginEntry), complete, "1.38.2", "", []string{"WRONG    module     MODULE is not a plugin"}},
		{"wasm, cut off", wasmPlugin[:len(wasmPlugin)-1], complete, "1.38.2", "", []string{"WRONG    module     MODULE cannot be read: it is cut off or damaged"}},
		{"wasm, another version", "\x00asm\x0d\x00\x01\x00", complete, "1.38.2", "", []string{"WRONG    module     MODULE cannot be read"}},
		{"wasm, old", wasmPlugin, complete, "1.35.1", "", []string{"WRONG    wasm       Envoy 1.35.1 is older than Inlet is tested with; take a build of Envoy 1.36 to 1.40 with V8"}},
		{"wasm without V8", wasmPlugin, with(complete, func(m *made) { m.text = inV8[:len(inV8)-1] }), "1.38.3", "", []string{"WRONG    wasm       this Envoy (1.38.3) was built without V8 and cannot run MODULE; take a build of Envoy 1.36 to 1.40 with V8, or the native module (ABI=module)"}},
		{"wasm in place of Envoy", fitting, wasmPlugin, "", "", []string{"WRONG    envoy      ENVOY is not a program"}},
		{"a Go plugin", made{exports: []string{"envoyGoFilterNewHttpPluginConfig"}, wants: []string{"envoyGoFilterLog"}}, complete, "1.40.0", "", []string{"WRONG    symbols    this Envoy offers no functions for Go plugins (the golang filter of Envoy's contrib build): it is too old, was built without them, or its symbols were removed; take an Envoy of the contrib build"}},
		{"a Go plugin and contrib", made{exports: []string{"envoyGoFilterNewHttpPluginConfig"}, wants: []string{"envoyGoFilterLog"}}, made{exports: []string{"envoyGoFilterLog"}}, "1.40.0", "", []string{"ok       symbols    Envoy has all 1 functions"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			module, envoy := file(t, c.module, "module"), file(t, c.envoy, "envoy")
			e := examiner{
				platform: "linux/amd64",
				version:  func(context.Context, string) string { return c.version },
				glibc:    func(context.Context) string { return c.glibc },
				info:     func(string) (*debug.BuildInfo, error) { return built(sdkVersion), nil },
			}
			fit := e.compare(t.Context(), module, envoy)
			var out bytes.Buffer
			ok := fit.Print(&out)
			said := strings.NewReplacer(module, "MODULE", envoy, "ENVOY").Replace(out.String())
			for _, text := range c.says {
				require.Contains(t, said, text)
			}
			wrong := strings.Contains(strings.Join(c.says, ""), "WRONG")
			require.Equal(t, wrong, strings.Contains(said, "WRONG"), said)
			require.Equal(t, wrong, fit.Err() != nil)
			require.Equal(t, ok, !wrong && !strings.Contains(said, "UNKNOWN"))
		})
	}
}

// file writes what is made, or a text.
func file(t *testing.T, content any, name string) string {
	t.Helper()
	if m, ok := content.(made); ok {
		return m.write(t, name)
	}
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content.(string)), 0o755))
	return path
}

func built(sdk string) *debug.BuildInfo {
	return &debug.BuildInfo{GoVersion: "go1.26.8", Deps: []*debug.Module{{Path: "example.com/other", Version: "v1.0.0"}, {Path: sdkPath, Version: sdk}}}
}

// TestWhatGoSays: the SDK and the Go of the build count.
func TestWhatGoSays(t *testing.T) {
	for _, c := range []struct {
		name string
		info *debug.BuildInfo
		err  error
		says string
	}{
		{"another SDK", built("v0.0.0-20260129014508-e8c1dc7dcbcd"), nil, "WRONG    sdk        the module was not built with the SDK of Envoy 1.38"},
		{"no SDK", &debug.BuildInfo{GoVersion: "go1.26.8"}, nil, "WRONG    sdk        the module was not built with the SDK"},
		{"not Go", nil, errors.New("not a Go executable"), "does not say how it was built: not a Go executable"},
		{"a Go without the check", &debug.BuildInfo{GoVersion: "go1.25.3", Deps: built(sdkVersion).Deps}, nil, "ok       go         built by go1.25.3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := examiner{
				platform: "linux/amd64",
				version:  func(context.Context, string) string { return "1.39.3" },
				glibc:    func(context.Context) string { return "" },
				info:     func(string) (*debug.BuildInfo, error) { return c.info, c.err },
			}
			var out bytes.Buffer
			e.compare(t.Context(), with(fitting, func(m *made) { m.text = "" }).write(t, "m.so"), complete.write(t, "envoy")).Print(&out)
			require.Contains(t, out.String(), c.says)
		})
	}
}

// TestWasmIsReadToItsEnd: whatever is cut off, or claims to be longer than the file, is found.
func TestWasmIsReadToItsEnd(t *testing.T) {
	l, err := readWasm(strings.NewReader(wasmPlugin))
	require.NoError(t, err)
	require.Equal(t, []string{"malloc", "proxy_abi_version_0_2_0", "proxy_on_configure"}, l.exports)
	whole := map[int]bool{len(wasmHeader): true, len(wasmHeader) + 4: true, len(wasmPlugin) - 5: true} // between two sections
	for n := range len(wasmPlugin) {
		_, err := readWasm(strings.NewReader(wasmPlugin[:n]))
		require.Equal(t, whole[n], err == nil, "%d bytes", n)
	}
	for _, section := range []string{"\x07\x01\x05", "\x07\x03\x01\x7fa", "\x00\xff\xff\xff\xff\x0f", "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		_, err := readWasm(strings.NewReader(wasmHeader + section))
		require.ErrorIs(t, err, errCutOff, "%q", section)
	}
}

// TestEnvoyThatCannotBeExecuted: a file that was copied or unpacked without its mode.
func TestEnvoyThatCannotBeExecuted(t *testing.T) {
	envoy := complete.write(t, "envoy")
	require.NoError(t, os.Chmod(envoy, 0o644))
	e := examiner{
		platform: "linux/amd64",
		version:  func(context.Context, string) string { return "" },
		glibc:    func(context.Context) string { return "" },
		info:     func(string) (*debug.BuildInfo, error) { return built(sdkVersion), nil },
	}
	module := fitting.write(t, "m.so")
	require.ErrorContains(t, e.compare(t.Context(), module, envoy).Err(), "envoy: "+envoy+" is not executable: chmod +x "+envoy)
	e.platform = "linux/arm64" // it runs elsewhere
	require.NoError(t, e.compare(t.Context(), module, envoy).Err())
}

// TestFilesThatAreNotThere: the errors name them.
func TestFilesThatAreNotThere(t *testing.T) {
	dir := t.TempDir()
	fit := Compare(t.Context(), filepath.Join(dir, "none.so"), dir)
	require.ErrorContains(t, fit.Err(), "module: open "+filepath.Join(dir, "none.so")+": no such file")
	require.ErrorContains(t, fit.Err(), "envoy: "+dir+" is a folder")
}

// TestSDKIsTheOneOfThisTree: a new SDK needs a new promise.
func TestSDKIsTheOneOfThisTree(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	require.Contains(t, string(text), fmt.Sprintf("\t%s %s\n", sdkPath, sdkVersion))
}

// TestContains finds a text wherever it lies in the blocks that are read.
func TestContains(t *testing.T) {
	const block = 1 << 20
	path := filepath.Join(t.TempDir(), "file")
	for _, at := range []int{0, 1, block - len(inV8) - 1, block - len(inV8), block - len(inV8) + 1, block - 1, block, 2*block - len(inV8), 3*block - 5, 3*block + 7} {
		text := append(bytes.Repeat([]byte("W"), at), inV8...)
		for cut, want := range map[int]bool{0: true, 1: false} {
			require.NoError(t, os.WriteFile(path, text[:len(text)-cut], 0o644))
			got, err := contains(path, inV8)
			require.NoError(t, err)
			require.Equal(t, want, got, "at %d, without %d", at, cut)
		}
	}
}

// TestMachineWithoutV8: what a machine lacks includes an Envoy that cannot run the wasm plugin.
func TestMachineWithoutV8(t *testing.T) {
	for text, want := range map[string]string{inV8: "1.38 is the oldest)\n", "": "1.38 is the oldest); built without V8: it runs the native module only (ABI=module)\n"} {
		envoy := made{text: text}.write(t, "envoy")
		var out bytes.Buffer
		Examine(t.Context(), &out, envoy, "1.40.0")
		require.Contains(t, out.String(), "ok       envoy      "+envoy+": unknown version (tested with 1.40.0; "+want)
	}
}

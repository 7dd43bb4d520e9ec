package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/internal/doctor"
)

const (
	moduleFilter = `{name: inlet, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter, filter_name: inlet, ` +
		`dynamic_module_config: {name: inlet, do_not_close: true}, filter_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: '%s'}}}`
	wasmFilter = `{name: inlet, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: '%s'}, ` +
		`vm_config: {runtime: envoy.wasm.runtime.v8, code: {local: {filename: "%s"}}}}}}`
	oneFilter = `static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: hcm, typed_config: {` +
		`"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: p, route_config: {}, http_filters: [%s, ` +
		`{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}`
	oneChain = `{"filters": [{"bbr": {}}]}`
)

// loads reports whether an Envoy loads a build of Inlet, and what it says. Nothing in its environment helps Go.
func loads(t *testing.T, envoy, build string) (bool, string) {
	t.Helper()
	filter := fmt.Sprintf(wasmFilter, oneChain, build)
	if filepath.Ext(build) == ".so" {
		filter = fmt.Sprintf(moduleFilter, oneChain)
	}
	cmd := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "-l", "info", "--config-yaml", fmt.Sprintf(oneFilter, filter))
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GODEBUG=") })
	cmd.Env = append(cmd.Env, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+filepath.Dir(build))
	out, err := cmd.CombinedOutput()
	return err == nil, string(out)
}

// TestDoctor: what doctor says of a build and an Envoy is what happens when this Envoy loads it.
func TestDoctor(t *testing.T) {
	module, plugin := plugins[stack.Module].shipped, plugins[stack.Wasm].shipped
	uncured := stack.NativeModule
	uncured.Flags = []string{"-buildmode=c-shared", "-trimpath", "-ldflags=-s -w"}
	uncured.File = filepath.Join("uncured", "libinlet.so")
	require.NoError(t, stack.Build(t.Context(), root(t), nil, uncured))
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(uncured.Path(root(t)))) })
	for _, c := range []struct {
		envoy, build string
		fits         bool
		doctor       []string
		says         string // Envoy
	}{
		{"1.37.0", module, false, []string{"functions that the module calls, and cannot load it: envoy_dynamic_module_callback_", "Envoy 1.37.0 loads only modules with the SDK of its own version"}, ""},
		{"1.38.3", module, true, []string{"1.38.3, ", "of Envoy 1.38, which Envoy promises to support in 1.38 and 1.39"}, "ABI version v0.1.0 matched"},
		{"1.39.3", module, true, []string{"1.39.3, ", "of Envoy 1.38, which Envoy promises to support in 1.38 and 1.39"}, "ABI version v0.1.0 matched"},
		{"1.40.0", module, true, []string{"Envoy 1.40.0 logs at start that this ABI version is deprecated, and loads it"}, "ABI version v0.1.0 is deprecated"},
		{"1.40.0", uncured.Path(root(t)), false, []string{"without -ldflags '-X runtime.godebugDefault=cgocheck=0'"}, "unpinned Go"},
		{"1.38.3", plugin, false, []string{"built without V8 and cannot run"}, "compiled without support for it"},
	} {
		t.Run(c.envoy+" "+filepath.Base(filepath.Dir(c.build))+" "+filepath.Base(c.build), func(t *testing.T) {
			envoy, err := envoybin.Find(t.Context(), envoybin.Options{Version: c.envoy, Progress: os.Stderr})
			require.NoError(t, err)
			var out bytes.Buffer
			require.Equal(t, c.fits, doctor.Compare(t.Context(), c.build, envoy).Print(&out), out.String())
			for _, text := range c.doctor {
				require.Contains(t, out.String(), text)
			}
			loaded, said := loads(t, envoy, c.build)
			require.Equal(t, c.fits, loaded, said)
			require.Contains(t, said, c.says)
		})
	}
}

// TestRunInAnEnvoyThatDoesNotFit: the user reads why, and no Envoy crashes.
func TestRunInAnEnvoyThatDoesNotFit(t *testing.T) {
	program := buildProgram(t, "./cmd/inletctl")
	for _, c := range []struct{ abi, envoy, says string }{
		{stack.Module, "1.37.0", "Envoy 1.37.0 loads only modules with the SDK of its own version, and this one has that of Envoy 1.38; take Envoy 1.38, 1.39 or 1.40"},
		{stack.Wasm, "1.38.3", "this Envoy (1.38.3) was built without V8"},
	} {
		envoy, err := envoybin.Find(t.Context(), envoybin.Options{Version: c.envoy})
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), program, "run", "--abi", c.abi, "--envoy", envoy, "--port", fmt.Sprint(freePort(t)))
		cmd.Dir = root(t)
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "this Envoy cannot run Inlet ("+envoy+")\n")
		require.Contains(t, string(out), c.says)
	}
}

package balancer

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHeaderIsEnvoys compiles the declarations that the policy uses together with those of the SDK: a difference in a
// name, a type or the order of parameters is an error of the compiler.
func TestHeaderIsEnvoys(t *testing.T) {
	sdk, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/envoy/source/extensions/dynamic_modules").Output()
	require.NoError(t, err)
	compiler, err := exec.Command("go", "env", "CC").Output()
	require.NoError(t, err)
	header, err := filepath.Abs("../export/balancer.h")
	require.NoError(t, err)
	compile := func(source string) (string, error) {
		cmd := exec.Command(strings.TrimSpace(string(compiler)), "-std=c11", "-fsyntax-only", "-Wall", "-Werror", "-Wno-unused-function", "-x", "c", "-")
		cmd.Stdin = strings.NewReader(source)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	both := `
#define INLET_ABI_HEADER
#include "` + filepath.Join(strings.TrimSpace(string(sdk)), "abi", "abi.h") + `"
#include "` + header + `"
`
	own := `
#include "` + header + `"
`
	// Numbers are no part of a declaration.
	const numbers = `
_Static_assert(envoy_dynamic_module_type_host_health_Healthy == 2, "");
_Static_assert(envoy_dynamic_module_type_host_stat_RqActive == 7, "");
_Static_assert(envoy_dynamic_module_type_log_level_Error == 4, "");
_Static_assert(sizeof(envoy_dynamic_module_type_envoy_buffer) == 2 * sizeof(void *), "");
_Static_assert(sizeof(envoy_dynamic_module_type_lb_module_ptr) == sizeof(void *), "");
`
	for _, source := range []string{both + numbers, own + numbers} {
		out, err := compile(source)
		require.NoError(t, err, out)
	}
	_, err = compile(both + "bool envoy_dynamic_module_on_lb_choose_host(int x);")
	require.Error(t, err, "a difference is found")
}

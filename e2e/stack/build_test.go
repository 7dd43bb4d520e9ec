package stack

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMakeBuildsTheSame compares the stack's builds with those of `make build`: the tests use what is shipped.
func TestMakeBuildsTheSame(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	cmd := exec.Command("make", "--dry-run", "--no-print-directory", "build")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	for _, target := range []Target{WasmPlugin, NativeModule, GolangPlugin, CompanionProgram, ModelSim} {
		words := append(append([]string{}, target.Env...), "go", "build")
		for _, flag := range target.Flags {
			if name, value, ok := strings.Cut(flag, "="); ok && strings.Contains(value, " ") {
				flag = name + "='" + value + "'"
			}
			words = append(words, flag)
		}
		words = append(words, "-o", "dist/"+target.File, target.Package)
		require.Contains(t, string(out), strings.Join(words, " ")+"\n")
	}
}

package module_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Threads of Go may nap for longer, the one of Envoy that loads the module may not.
func TestNaps(t *testing.T) {
	library, loader := filepath.Join(t.TempDir(), "naps.so"), filepath.Join(t.TempDir(), "load")
	run(t, "go", "build", "-buildmode=c-shared", "-ldflags=-extldflags=-Wl,-z,lazy", "-o", library, "./testdata/naps")
	cc := strings.Fields(run(t, "go", "env", "CC"))
	run(t, cc[0], append(cc[1:], "-o", loader, "testdata/naps/load/load.c", "-ldl")...)

	slack := strings.Fields(run(t, loader, library))
	require.Len(t, slack, 3, "before, after, and in Go")
	require.Equal(t, slack[0], slack[1])
	require.Equal(t, "5000000", slack[2])
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var said strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	require.NoError(t, err, said.String())
	return string(out)
}

package peers

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSourcesArePinned checks every source against the version of its module, and the sums of what is built.
func TestSourcesArePinned(t *testing.T) {
	for _, s := range append(sources, ratelimit) {
		mod, err := os.ReadFile(filepath.Join(s.folder, "go.mod"))
		require.NoError(t, err)
		require.Regexp(t, `(?m)^(require )?\s*`+regexp.QuoteMeta(s.module)+` v\d+\.\d+\.\d+\S*$`, string(mod))
		sums, err := os.ReadFile(filepath.Join(s.folder, "go.sum"))
		require.NoError(t, err)
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(s.module)+` v\S+ h1:`, string(sums))
		for _, p := range s.packages {
			require.Contains(t, string(mod), p)
		}
	}
	require.Equal(t, "etcd", program("go.etcd.io/etcd/server/v3"))
	require.Equal(t, "epp", program(sources[0].packages[0]))
}

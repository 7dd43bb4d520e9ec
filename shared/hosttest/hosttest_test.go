package hosttest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/hosttest"
	"github.com/inlet-proxy/inlet/shared/hosttest/probe"
)

func TestNative(t *testing.T) {
	h := hosttest.Native(append(append([]filter.Factory(nil), filters.All...), probe.Factory)...)
	play(t, h, func(*hosttest.Scenario) bool { return true })
}

// TestWazero plays the scenarios on what is shipped, but those that need the
// probe.
func TestWazero(t *testing.T) {
	play(t, wazeroHost(t, "../../cmd/bundle-wasm"), func(s *hosttest.Scenario) bool { return !s.NeedsProbe() })
}

func TestWazeroWithProbe(t *testing.T) {
	h := wazeroHost(t, "./bundle-wasm")
	play(t, h, (*hosttest.Scenario).NeedsProbe)
	t.Run("an unexpected death is told with its reason", func(t *testing.T) {
		err := hosttest.Play(h, parse(t, `
name: trap
config: 'filters: [{probe: {}}]'
steps:
  - {request: {headers: {x-probe-trap: request}, body: '{}'}, expect: {status: 503}}
`))
		require.ErrorContains(t, err, "want a trap: false")
		require.ErrorContains(t, err, "fatal error: sync: unlock of unlocked mutex")
	})
}

// wazeroHost builds a bundle and makes a host of it.
func wazeroHost(t *testing.T, bundle string) *hosttest.WazeroHost {
	dependOn(t, "../abi/wasm/*.go", bundle+"/*.go")
	plugin, err := hosttest.BuildWasm(bundle)
	require.NoError(t, err)
	h, err := hosttest.Wazero(t.Context(), plugin)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

// dependOn reads files: go test takes an earlier result for granted unless
// something that it knows the test to use has changed, and it does not see what
// the build of the plugin reads.
func dependOn(t *testing.T, patterns ...string) {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, f := range files {
			_, err := os.ReadFile(f)
			require.NoError(t, err)
		}
	}
}

// play plays those scenarios of the tree that are chosen and that the host can
// play.
func play(t *testing.T, h hosttest.Host, chosen func(*hosttest.Scenario) bool) {
	played := 0
	for _, s := range scenarios(t) {
		if !s.Plays(h.Name()) || !chosen(s) {
			continue
		}
		played++
		t.Run(filepath.Base(s.File)+"/"+s.Name, func(t *testing.T) {
			require.NoError(t, hosttest.Play(h, s))
		})
	}
	require.NotZero(t, played)
}

// scenarios reads those of this package and those of the filters.
func scenarios(t *testing.T) []*hosttest.Scenario {
	patterns := []string{"scenarios/*.yaml"}
	const ofFilters = "../../filters/*/testdata/scenarios/*.yaml"
	files, err := filepath.Glob(ofFilters)
	require.NoError(t, err)
	if len(files) > 0 {
		patterns = append(patterns, ofFilters)
	}
	all, err := hosttest.Load(patterns...)
	require.NoError(t, err)
	return all
}

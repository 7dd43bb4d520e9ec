package hosttest_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/hosttest"
	"github.com/inlet-proxy/inlet/shared/hosttest/probe"
)

// all are the filters of the test bundles.
var all = append(append([]filter.Factory(nil), filters.All...), probe.Factory)

func TestNative(t *testing.T) { playAll(t, hosttest.Native(all...)) }

// playAll plays every scenario of the tree that the host can play.
func playAll(t *testing.T, h hosttest.Host) {
	scenarios, err := hosttest.Load("scenarios/*.yaml")
	require.NoError(t, err)
	for _, s := range scenarios {
		if !s.Plays(h.Name()) {
			continue
		}
		t.Run(filepath.Base(s.File)+"/"+s.Name, func(t *testing.T) {
			require.NoError(t, hosttest.Play(h, s))
		})
	}
}

func TestWazero(t *testing.T) {
	plugin, err := hosttest.BuildWasm("./bundle-wasm")
	require.NoError(t, err)
	h, err := hosttest.Wazero(t.Context(), plugin)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	playAll(t, h)
}

package scenarios_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/scenarios/probe"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/hosttest"
)

func TestNative(t *testing.T) {
	h := hosttest.Native(append(append([]filter.Factory(nil), filters.All...), probe.Factory)...)
	play(t, h, func(*hosttest.Scenario) bool { return true })
}

// play plays the selected scenarios of the tree that the host can play.
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
	patterns := []string{"testdata/*.yaml"}
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

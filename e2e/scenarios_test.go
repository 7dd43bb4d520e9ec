package e2e_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// TestScenarios plays every scenario of the repository in a real Envoy, with the wasm plugin, with the native module, and
// with that and its own load-balancing policy: several at once, since mostly they wait.
func TestScenarios(t *testing.T) {
	ofOneWorker, others := inHalves(loadScenarios(t))
	for _, v := range []struct { // the longest first
		name string
		o    stack.Options
	}{
		{stack.Wasm, stack.Options{ABI: stack.Wasm}},
		{stack.Module, stack.Options{ABI: stack.Module}},
		{"module-native-lb", stack.Options{ABI: stack.Module, NativeLB: true}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			var halves sync.WaitGroup
			for _, half := range [][]*hosttest.Scenario{ofOneWorker, others} {
				halves.Go(func() { playAll(t, newEnvoyHost(t, v.o), half) })
			}
			halves.Wait()
		})
	}
}

// inHalves divides the scenarios so that no kind of Envoy is in both halves, and neither takes much longer.
func inHalves(scenarios []*hosttest.Scenario) (ofOneWorker, others []*hosttest.Scenario) {
	for _, s := range scenarios {
		if kindOf(s) == (envoyKind{workers: 1}) {
			ofOneWorker = append(ofOneWorker, s)
		} else {
			others = append(others, s)
		}
	}
	return ofOneWorker, others
}

// playAll plays those of the scenarios that the host can play.
func playAll(t *testing.T, host *envoyHost, scenarios []*hosttest.Scenario) {
	for _, s := range scenarios {
		if !s.Plays(host.Name()) {
			continue
		}
		t.Run(filepath.Base(s.File)+"/"+s.Name, func(t *testing.T) {
			require.NoError(t, host.play(s))
		})
	}
}

// TestScenariosLeftOut counts the scenarios that no real Envoy plays, or that the
// native module does not: they should stay the exception. One is about an error that a
// real Envoy cannot be made to produce.
func TestScenariosLeftOut(t *testing.T) {
	const wasm, module = 1, 2
	leftOut := map[string][]string{}
	for _, s := range loadScenarios(t) {
		for _, host := range []string{"envoy-wasm", "envoy-module"} {
			if !s.Plays(host) {
				leftOut[host] = append(leftOut[host], s.Name+": "+s.Because)
			}
		}
	}
	require.LessOrEqual(t, len(leftOut["envoy-wasm"]), wasm, "%q", leftOut)
	require.LessOrEqual(t, len(leftOut["envoy-module"]), module, "%q", leftOut)
}

func loadScenarios(t *testing.T) []*hosttest.Scenario {
	t.Helper()
	patterns := []string{"../internal/scenarios/testdata/*.yaml"}
	// A filter need not have its own scenarios, and Load refuses a pattern without a file.
	own, err := filepath.Glob("../filters/*/testdata/scenarios/*.yaml")
	require.NoError(t, err)
	scenarios, err := hosttest.Load(append(patterns, own...)...)
	require.NoError(t, err)
	return scenarios
}

// abis are the builds of Inlet.
var abis = []string{stack.Wasm, stack.Module}

package docs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// TestFilterGuide does what writing-a-filter.md says: it adds the files and the line, and runs the tests that are there for every filter, and the
// scenario on the native host and in the compiled wasm.
func TestFilterGuide(t *testing.T) {
	const scenario = "filters/redact/testdata/scenarios/redact.yaml"
	g := readGuide(t, "writing-a-filter.md", "filters/redact/config.go", "filters/redact/redact.go", "filters/redact/README.md",
		"filters/redact/wasm/main.go", "filters/redact/testdata/good/redact.yaml", "filters/redact/testdata/bad/redact.yaml",
		"filters/redact/testdata/bad/redact.err", scenario)
	const registry = "filters/filters.go"
	g.addLine(t, "Add one line to the list in `"+registry+"`:", registry, "\tpicker.Factory,\n")
	g.addLine(t, "Your editor adds the import. If it does not, it is:", registry, "\t\"github.com/inlet-proxy/inlet/shared/contract/filter\"\n")
	overlay := g.lay(t)
	g.test(t, overlay, "filters", "TestBadDocuments/redact/testdata/bad/redact.yaml", "Test")
	g.test(t, overlay, "docs", "TestKeyTables")
	g.test(t, overlay, "internal/scenarios", "TestNative/redact.yaml")
	g.formatted(t)

	_, err := hosttest.BuildWasm("../filters/redact/wasm", "-overlay", overlay)
	require.NoError(t, err)
	plugin, err := hosttest.BuildWasm("../cmd/bundle-wasm", "-overlay", overlay)
	require.NoError(t, err)
	h, err := hosttest.Wazero(t.Context(), plugin)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	scenarios, err := hosttest.Parse(scenario, []byte(g.files[scenario]))
	require.NoError(t, err)
	require.NotEmpty(t, scenarios)
	for _, s := range scenarios {
		require.NoError(t, hosttest.Play(h, s))
	}
}

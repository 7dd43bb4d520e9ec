package filters_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

var update = flag.Bool("update", false, "rewrite the expected error texts")

type nowhere struct{}

func (nowhere) Counter(string, ...string) filter.Metric   { return nowhere{} }
func (nowhere) Gauge(string, ...string) filter.Metric     { return nowhere{} }
func (nowhere) Histogram(string, ...string) filter.Metric { return nowhere{} }
func (nowhere) Record(int64, filter.Values)               {}

func deps() *filter.Deps {
	return &filter.Deps{
		Now:      time.Now,
		Rand:     func() uint64 { return 1 },
		Store:    mem.NewStore(),
		Counters: mem.NewCounters(),
		Snapshot: func() *endpoint.Snapshot { return nil },
		Metrics:  nowhere{},
		Log:      func(filter.Level, string) {},
	}
}

// Every filter has a README with the same headings, a valid configuration, an invalid
// one for each rule that it checks, and a module of its own.
func TestEveryFilterIsComplete(t *testing.T) {
	heads := []string{"## Does", "## Reads and writes", "## On failure", "## Metrics", "## Configuration"}
	for _, f := range filters.All {
		readme, err := os.ReadFile(filepath.Join(f.Name, "README.md"))
		require.NoError(t, err)
		for _, head := range heads {
			require.Contains(t, string(readme), head+"\n", "%s/README.md", f.Name)
		}
		for _, kind := range []string{"good", "bad"} {
			files, _ := filepath.Glob(filepath.Join(f.Name, "testdata", kind, "*.yaml"))
			require.NotEmpty(t, files, "%s has no %s document", f.Name, kind)
		}
		require.FileExists(t, filepath.Join(f.Name, "wasm", "main.go"), "the module with %s alone", f.Name)
	}
}

func TestGoodDocuments(t *testing.T) {
	for _, path := range glob(t, "*/testdata/good/*.yaml") {
		doc, err := os.ReadFile(path)
		require.NoError(t, err)
		_, err = chain.New(doc, filters.All, deps())
		require.NoError(t, err, path)
	}
}

// One invalid configuration per rule; the error text must match exactly.
func TestBadDocuments(t *testing.T) {
	for _, path := range glob(t, "*/testdata/bad/*.yaml") {
		t.Run(path, func(t *testing.T) {
			doc, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = chain.New(doc, filters.All, deps())
			require.Error(t, err)
			want := strings.TrimSuffix(path, ".yaml") + ".err"
			if *update {
				require.NoError(t, os.WriteFile(want, []byte(err.Error()+"\n"), 0o644))
			}
			text, readErr := os.ReadFile(want)
			require.NoError(t, readErr)
			require.Equal(t, string(text), err.Error()+"\n", "if the new text is right: go test ./filters -run TestBadDocuments -update")
		})
	}
}

// The configuration examples in each README are valid.
func TestReadmeExamples(t *testing.T) {
	for _, f := range filters.All {
		readme, err := os.ReadFile(filepath.Join(f.Name, "README.md"))
		require.NoError(t, err)
		parts := strings.Split(string(readme), "```yaml\n")
		require.Greater(t, len(parts), 1, "%s/README.md has no example", f.Name)
		for _, part := range parts[1:] {
			doc, _, _ := strings.Cut(part, "```")
			_, err := chain.New([]byte(doc), filters.All, deps())
			require.NoError(t, err, "%s/README.md", f.Name)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	return paths
}

// A document with an old name of a key works, and Envoy's log says where it stands.
func TestOldNamesAreLogged(t *testing.T) {
	doc, err := os.ReadFile("picker/testdata/good/old-names.yaml")
	require.NoError(t, err)
	d := deps()
	var logs []string
	d.Log = func(level filter.Level, message string) {
		require.Equal(t, filter.Warn, level)
		logs = append(logs, message)
	}
	_, err = chain.New(doc, filters.All, d)
	require.NoError(t, err)
	require.Equal(t, []string{
		`configuration: filters[0].picker.prefix: 1:29: "saturation" is now called "maxTokens"; the old name will stop working with the next release`,
		`configuration: filters[0].picker: 1:50: "room" is now called "saturation"; the old name will stop working with the next release`,
		`configuration: filters[0].picker.health: 1:101: "silence" is now called "firstByte"; the old name will stop working with the next release`,
	}, logs)
}

// A policy for a model that bbr does not list is one for an adapter, where those are learned; where they are not, it is a mistake.
func TestPoliciesForModelsThatAreLearned(t *testing.T) {
	const doc = `
filters:
  - bbr: {models: [{name: llama, targets: [{pool: llama}]}], learnAdapters: %t}
  - guardrail: {providers: [{name: a, local: {detect: all}}], policies: [{on: request, use: [a], action: block, models: [lama]}]}
companion: {cluster: inlet-companion}
`
	d := deps()
	var logs []string
	d.Log = func(_ filter.Level, message string) { logs = append(logs, message) }
	_, err := chain.New(fmt.Appendf(nil, doc, true), filters.All, d)
	require.NoError(t, err)
	require.Len(t, logs, 1)
	require.Contains(t, logs[0], `bbr lists no model "lama" (did you mean "llama"?), so this is only for an adapter of that name`)
	_, err = chain.New(fmt.Appendf(nil, doc, false), filters.All, d)
	require.ErrorContains(t, err, `there is no model "lama" (did you mean "llama"?)`)
	require.Nil(t, d.Routes, "nothing is left for the next configuration")
}

package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// playGuide is a test that plays the guide's scenario.
const playGuide = `package scenarios_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/hosttest"
)

func TestGuide(t *testing.T) {
	path := os.Getenv("INLET_GUIDE")
	doc, err := os.ReadFile(path)
	require.NoError(t, err)
	scenarios, err := hosttest.Parse(path, doc)
	require.NoError(t, err)
	require.NotEmpty(t, scenarios)
	for _, s := range scenarios {
		require.NoError(t, hosttest.Play(hosttest.Native(filters.All...), s))
	}
}
`

// TestScorerGuide does what writing-a-scorer.md says: it adds the files and the line, and runs the tests for every
// scorer, the guide's own test, and the scenario. The files are an overlay for the Go command only: nothing is written
// into the tree.
func TestScorerGuide(t *testing.T) {
	page, err := os.ReadFile("writing-a-scorer.md")
	require.NoError(t, err)
	files := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^`([a-z/_.]+)`:\n\n```[a-z]+\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		files[m[1]] = m[2]
	}
	const scenario = "filters/picker/testdata/scenarios/running.yaml"
	for _, name := range []string{"filters/picker/scorer/running.go", "filters/picker/scorer/running_test.go", scenario} {
		require.Contains(t, files, name)
		require.NoFileExists(t, filepath.Join(root, name), "the example is no scorer of Inlet's")
	}

	const registry = "filters/picker/scorer/all.go"
	line := regexp.MustCompile("(?s)`" + registry + "`, in alphabetical order:\n\n```go\n(.*?)```").FindStringSubmatch(string(page))
	require.NotNil(t, line, "the guide does not say which line to add")
	require.Equal(t, 1, strings.Count(line[1], "\n"), "one line")
	all, err := os.ReadFile(filepath.Join(root, registry))
	require.NoError(t, err)
	const before = "\tRoundRobin{},\n"
	require.Contains(t, string(all), before)
	files[registry] = strings.Replace(string(all), before, before+line[1], 1)
	files["internal/scenarios/guide_test.go"] = playGuide

	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range files {
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		over, err := filepath.Abs(filepath.Join(root, name))
		require.NoError(t, err)
		overlay.Replace[over] = path
	}
	list, err := json.Marshal(overlay)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600))

	cmd := exec.Command("go", "test", "-overlay", filepath.Join(dir, "overlay.json"), "-v",
		"-run", "^(TestLaws|TestUnknownIsNeutral|TestScoresAllocateNothing|TestRegistry|TestNeeds|TestRunning|TestScorersCanBeConfigured|TestGuide)$",
		"./filters/picker/scorer", "./filters/picker", "./internal/scenarios")
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "INLET_GUIDE="+filepath.Join(dir, strings.ReplaceAll(scenario, "/", "_")))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, test := range []string{"TestLaws/running", "TestRunning", "TestScorersCanBeConfigured", "TestGuide"} {
		require.Regexp(t, `(?m)^ *--- PASS: `+test+` `, string(out))
	}
	formatted, err := exec.Command("gofmt", "-l", filepath.Join(dir, "filters_picker_scorer_running.go"),
		filepath.Join(dir, "filters_picker_scorer_running_test.go"), filepath.Join(dir, "filters_picker_scorer_all.go")).CombinedOutput()
	require.NoError(t, err, "%s", formatted)
	require.Empty(t, string(formatted), "the code of the guide is not formatted")
}

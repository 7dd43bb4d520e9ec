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

// guideFile is a file that a guide shows: its name, then the whole of it. What has code blocks itself stands between four backticks.
var guideFile = regexp.MustCompile("(?ms)^`([a-z/_.A-Z]+)`:\n\n(?:```[a-z]+\n(.*?)^```$|````[a-z]+\n(.*?)^````$)")

// guide is a page that adds something to the tree, file by file. Nothing is written into the tree: the Go command gets the files as an
// overlay, and the tests that are built run in a copy of what they read.
type guide struct {
	text  string
	files map[string]string
	dir   string // the copy
}

// readGuide reads a page, which must show some files. They may be in the tree already: somebody follows the guide.
func readGuide(t *testing.T, page string, shown ...string) *guide {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	g := &guide{text: string(text), files: map[string]string{}, dir: t.TempDir()}
	for _, m := range guideFile.FindAllStringSubmatch(g.text, -1) {
		g.files[m[1]] = m[2] + m[3]
	}
	for _, name := range shown {
		require.Contains(t, g.files, name)
	}
	return g
}

// addLine adds the line that the page shows after some words to a file of the tree, before another, unless it is there.
func (g *guide) addLine(t *testing.T, words, file, before string) {
	t.Helper()
	line := regexp.MustCompile(regexp.QuoteMeta(words) + "\n\n```go\n(.*\n)```\n").FindStringSubmatch(g.text)
	require.NotNil(t, line, "the guide does not say which line to add")
	text, ok := g.files[file]
	if !ok {
		was, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		text = string(was)
	}
	if !strings.Contains(text, line[1]) {
		require.Equal(t, 1, strings.Count(text, before))
		text = strings.Replace(text, before, line[1]+before, 1)
	}
	g.files[file] = text
}

// lay makes the copy and the overlay, of which it returns the file's name. The adapter and the bundle are copied for go test alone, which runs
// a test again only if something has changed that it has seen the test read.
func (g *guide) lay(t *testing.T) string {
	t.Helper()
	for _, part := range []string{"docs", "filters", "internal/scenarios", "shared/adapters/wasm", "cmd/bundle-wasm"} {
		require.NoError(t, os.CopyFS(filepath.Join(g.dir, part), os.DirFS(filepath.Join(root, part))))
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, "README.md"), readme, 0o600))
	for name, text := range g.files {
		path := filepath.Join(g.dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		over, err := filepath.Abs(filepath.Join(root, name))
		require.NoError(t, err)
		overlay.Replace[over] = path
	}
	list, err := json.Marshal(overlay)
	require.NoError(t, err)
	file := filepath.Join(g.dir, "overlay.json")
	require.NoError(t, os.WriteFile(file, list, 0o600))
	return file
}

// test runs tests of a package, as "go test ./pkg -run" would in a tree with the files of the page. Each must be there. " -update" after its
// name has it write what it holds to the code.
func (g *guide) test(t *testing.T, overlay, pkg string, tests ...string) {
	t.Helper()
	binary := filepath.Join(g.dir, pkg, "guide.test")
	build := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-c", "-o", binary, "./"+pkg)
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range tests {
		name, flags, _ := strings.Cut(name, " ")
		run := exec.Command(binary, append([]string{"-test.v", "-test.run", name}, strings.Fields(flags)...)...)
		run.Dir = filepath.Join(g.dir, pkg)
		out, err := run.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Regexp(t, `(?m)^ *--- PASS: `+name, string(out))
	}
}

// formatted holds the code of the page to gofmt.
func (g *guide) formatted(t *testing.T) {
	t.Helper()
	args := []string{"-l"}
	for name := range g.files {
		if filepath.Ext(name) == ".go" {
			args = append(args, filepath.Join(g.dir, name))
		}
	}
	out, err := exec.Command("gofmt", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out), "the code of the guide is not formatted")
}

// TestScorerGuide does what writing-a-scorer.md says: it adds the files and the line, and runs the tests that are there for every scorer, the
// guide's own, and the scenario.
func TestScorerGuide(t *testing.T) {
	g := readGuide(t, "writing-a-scorer.md",
		"filters/picker/scorer/running.go", "filters/picker/scorer/running_test.go", "filters/picker/testdata/scenarios/running.yaml")
	g.addLine(t, "in alphabetical order:", "filters/picker/scorer/all.go", "\tSession{},\n")
	overlay := g.lay(t)
	g.test(t, overlay, "filters/picker/scorer",
		"TestLaws/running", "TestUnknownIsNeutral", "TestScoresAllocateNothing", "TestRegistry", "TestNeeds", "TestRunning")
	g.test(t, overlay, "filters/picker", "TestScorersCanBeConfigured")
	g.test(t, overlay, "docs", "TestKeyTables -update", "TestKeyTables")
	g.test(t, overlay, "filters", "TestBadDocuments -update", "Test")
	g.test(t, overlay, "internal/scenarios", "TestNative/running.yaml")
	g.formatted(t)
}

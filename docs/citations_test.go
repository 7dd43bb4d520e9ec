package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	citedFile = regexp.MustCompile(`([\w./-]*_test\.go)(?:: ((?:Test|Fuzz)\w+(?:/\w+)?(?:, (?:Test|Fuzz)\w+(?:/\w+)?)*))?`)
	citedTest = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)
	testNames = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// tests are the names of the tests in each file of the repository.
func tests(t *testing.T) map[string]map[string]bool {
	t.Helper()
	found := map[string]map[string]bool{}
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		found[path] = map[string]bool{}
		for _, name := range testNames.FindAllSubmatch(text, -1) {
			found[path][string(name[1])] = true
		}
		return err
	}))
	return found
}

// TestCitedTests: the tests that the field reports name exist, in the files that they name. A file whose folder is not written is that of
// any folder.
func TestCitedTests(t *testing.T) {
	have := tests(t)
	all := map[string]bool{}
	for _, names := range have {
		for name := range names {
			all[name] = true
		}
	}
	text := pages(t)["../docs/field-reports.md"]
	cited := citedFile.FindAllStringSubmatch(text, -1)
	require.NotEmpty(t, cited)
	for _, c := range cited {
		named := map[string]bool{}
		exists := false
		for path, names := range have {
			if path == c[1] || strings.HasSuffix(path, "/"+c[1]) {
				exists = true
				for name := range names {
					named[name] = true
				}
			}
		}
		require.True(t, exists, "no file %s", c[1])
		for _, name := range citedTest.FindAllString(c[2], -1) {
			require.True(t, named[name], "%s has no %s", c[1], name)
		}
	}
	for _, name := range citedTest.FindAllString(text, -1) {
		require.True(t, all[name], "no test %s", name)
	}
}

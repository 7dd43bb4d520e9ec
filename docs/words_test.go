package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	quoted    = regexp.MustCompile("`([^`]+)`")
	codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
)

// notUsed reads the last table of the glossary: a pattern for its phrases in backticks, and what to write instead of each.
func notUsed(t *testing.T) (phrases *regexp.Regexp, instead map[string]string) {
	t.Helper()
	text, err := os.ReadFile("glossary.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "| instead of | write |\n")
	require.True(t, ok, "the glossary has no table of phrases that are not used")
	instead = map[string]string{}
	var patterns []string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		if len(cells) != 2 {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
			instead[strings.ToLower(m[1])] = strings.TrimSuffix(strings.TrimSpace(cells[1]), " |")
			patterns = append(patterns, strings.ReplaceAll(regexp.QuoteMeta(m[1]), " ", `\s+`))
		}
	}
	require.Greater(t, len(patterns), 20)
	return regexp.MustCompile(`(?i)\b(?:` + strings.Join(patterns, "|") + `)\b`), instead
}

// plain returns what people read of a text: code is left out, and each line break is a space.
func plain(text string) string {
	text = quoted.ReplaceAllString(codeBlock.ReplaceAllString(text, ""), "")
	return strings.Join(strings.Fields(text), " ")
}

// goTexts returns the comments and the strings of a Go file.
func goTexts(t *testing.T, path string) (texts []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	require.NoError(t, err)
	for _, group := range file.Comments {
		texts = append(texts, group.Text())
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			texts = append(texts, literal.Value)
		}
		return true
	})
	return texts
}

// goFiles returns the Go files of the repository, without testdata.
func goFiles(t *testing.T) (paths []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "dist" || d.Name() == ".cache" || d.Name() == "testdata"):
			return filepath.SkipDir
		case filepath.Ext(path) == ".go":
			paths = append(paths, path)
		}
		return nil
	}))
	require.Contains(t, paths, "../docs/docs_test.go")
	return paths
}

// TestWords finds phrases of the glossary's last table in the pages, and in comments and strings of the Go code.
func TestWords(t *testing.T) {
	phrases, instead := notUsed(t)
	check := func(path, text string) {
		for _, m := range phrases.FindAllString(plain(text), -1) {
			t.Errorf("%s: %q; write: %s\n\t%s", path, m, instead[strings.ToLower(m)], around(plain(text), m))
		}
	}
	for page, text := range pages(t) {
		if page != "../docs/glossary.md" {
			check(page, text)
		}
	}
	for _, path := range goFiles(t) {
		if path == "../docs/words_test.go" {
			continue
		}
		for _, text := range goTexts(t, path) {
			check(path, text)
		}
	}
}

// around returns what stands near a phrase in a text.
func around(text, phrase string) string {
	at := strings.Index(text, phrase)
	return text[max(0, at-40):min(len(text), at+len(phrase)+40)]
}

// TestWordsAreFound shows that a phrase is found over a line break, and not in code.
func TestWordsAreFound(t *testing.T) {
	phrases, _ := notUsed(t)
	require.Equal(t, "by lot", phrases.FindString(plain("chosen by\n  lot")))
	require.Equal(t, "Anew", phrases.FindString("Anew"))
	require.Empty(t, phrases.FindString(plain("`by lot`, renewed, mendable\n```sh\nby lot\n```\n")))
}

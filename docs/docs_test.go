// Package docs_test checks the documentation against the repository: links lead to
// files, commands exist, configurations load.
package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/check"
)

const root = ".."

// pages are all Markdown files of the repository, with their text. What a guide shows of files that it adds is held by the guide's own test.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "dist" || d.Name() == ".cache" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			text, err := os.ReadFile(path)
			found[path] = guideFile.ReplaceAllString(string(text), "")
			return err
		}
		return nil
	}))
	require.Contains(t, found, "../README.md")
	return found
}

var block = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// blocks are the code blocks of a language.
func blocks(text, language string) []string {
	var found []string
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for page, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			require.FileExists(t, filepath.Join(filepath.Dir(page), m[1]), "%s links to %s", page, m[1])
		}
	}
}

// TestMakeTargets: the Makefile has every `make something` of the pages.
func TestMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):.*## `).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	require.True(t, targets["test"])
	use := regexp.MustCompile("(?m)(?:^|`)make ([a-z0-9-]+)")
	used := 0
	for page, text := range pages(t) {
		for _, m := range use.FindAllStringSubmatch(text, -1) {
			used++
			require.True(t, targets[m[1]], "%s names `make %s`", page, m[1])
		}
	}
	require.Positive(t, used)
}

// TestHelpListsEveryTarget: nobody finds a target without a help text.
func TestHelpListsEveryTarget(t *testing.T) {
	cmd := exec.Command("make", "--no-print-directory", "help")
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^\.PHONY: (\S+)$`).FindAllStringSubmatch(string(makefile), -1) {
		require.Contains(t, string(out), "make "+m[1]+" ")
	}
}

// TestFilesInCommands: the paths of the shell blocks are in the repository, or `make build` makes them.
func TestFilesInCommands(t *testing.T) {
	path := regexp.MustCompile(`(?:envoy|cmd|e2e|shared|internal|filters|tools)/[a-z0-9_./-]+`)
	for page, text := range pages(t) {
		for _, b := range blocks(text, "sh") {
			for _, p := range path.FindAllString(b, -1) {
				_, err := os.Stat(filepath.Join(root, strings.TrimSuffix(p, "/...")))
				require.NoError(t, err, "%s: %s", page, b)
			}
		}
	}
}

// TestNoConflictMarkers: no file of the repository has what a merge leaves where it could not decide.
func TestNoConflictMarkers(t *testing.T) {
	marker := regexp.MustCompile(`(?m)^(<{7}|>{7}|\|{7}) `)
	seen := 0
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "dist" || d.Name() == ".cache") {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		seen++
		text, err := os.ReadFile(path)
		require.Empty(t, string(marker.Find(text)), "a conflict in %s", path)
		return err
	}))
	require.Greater(t, seen, 1000)
}

// load makes a chain of a document, as the adapters do.
func load(document string) error {
	_, err := check.Load([]byte(document))
	return err
}

// TestDocumentsLoad loads every chain document of the pages: a YAML block whose first key is `filters`.
func TestDocumentsLoad(t *testing.T) {
	documents := 0
	for page, text := range pages(t) {
		for _, b := range blocks(text, "yaml") {
			if strings.HasPrefix(b, "filters:\n") {
				documents++
				require.NoError(t, load(b), "%s:\n%s", page, b)
			}
		}
	}
	require.Positive(t, documents)
}

// TestShippedDocumentsLoad loads the documents beside the bootstraps.
func TestShippedDocumentsLoad(t *testing.T) {
	for _, name := range []string{"inlet.yaml", "inlet-keys.yaml", "inlet-quota.yaml", "inlet-apigee.yaml", "inlet-guardrail.yaml"} {
		text, err := os.ReadFile(filepath.Join(root, "envoy/static", name))
		require.NoError(t, err)
		require.NoError(t, load(string(text)), name)
	}
	require.Error(t, load("filters: [{nobody: {}}]"))
}

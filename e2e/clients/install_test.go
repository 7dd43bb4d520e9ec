package clients

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestManyInstallAtOnceAndOneStays(t *testing.T) {
	in := &Installer{CacheDir: t.TempDir()}
	fill := func(dir string) error { return os.WriteFile(filepath.Join(dir, "filled"), nil, 0o644) }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := in.Install("some", "1", []string{"node.txt"}, "something", fill)
			if _, missing := os.Stat(filepath.Join(dir, "filled")); err != nil || missing != nil {
				t.Error(err, missing)
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(in.CacheDir)
	require.NoError(t, err)
	require.Len(t, left, 1, "temporary folders are removed")

	_, err = in.Install("some", "1", []string{"node.txt"}, "something", func(string) error { return errors.New("filled again") })
	require.NoError(t, err, "what is there is not installed again")
	other, err := in.Install("some", "2", []string{"node.txt"}, "something", fill)
	require.NoError(t, err)
	require.NotEqual(t, filepath.Join(in.CacheDir, left[0].Name()), other, "another version has another folder")
}

func TestWhatFailedIsNotKept(t *testing.T) {
	in := &Installer{CacheDir: t.TempDir()}
	_, err := in.Install("some", "1", []string{"node.txt"}, "something", func(string) error { return errors.New("no route to the index") })
	require.EqualError(t, err, "could not install something:\nno route to the index")
	left, err := os.ReadDir(in.CacheDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// onlyPython leaves only a python3 in PATH that runs body.
func onlyPython(t *testing.T, body string) {
	t.Helper()
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if body != "" {
		require.NoError(t, os.WriteFile(filepath.Join(bin, "python3"), []byte("#!/bin/sh\n"+body+"\n"), 0o755))
	}
}

// answers is a python3 of a version, whose pip runs body.
func answers(version, body string) string {
	return `if [ "$1" = -c ]; then echo "$0"; echo ` + version + `; exit 0; fi
[ "$3" = --version ] && exit 0
` + body
}

func TestErrorsHaveTheFix(t *testing.T) {
	for _, c := range []struct {
		name, python string
		install      func(*Installer, context.Context) (*Runtime, error)
		want         []string
	}{
		{"no Python", "", (*Installer).Python, []string{"need Python 3.11 or newer (there is none in PATH)"}},
		{"old Python", answers("3.9", ""), (*Installer).Python, []string{"need Python 3.11 or newer (", "python3 is 3.9)"}},
		{"no pip", `[ "$1" = -c ] || exit 1; echo "$0"; echo 3.12`, (*Installer).Python, []string{"has no pip and there is no uv: install one of them"}},
		{"no index", answers("3.12", "echo no route to the index; exit 1"), (*Installer).Python, []string{"no route to the index"}},
		{"neither Node nor Python", "", (*Installer).Node, []string{"no Node.js 22 or newer with npm in PATH", "put one into PATH as python3"}},
		{"no Node in the index", answers("3.12", "echo no such package; exit 1"), (*Installer).Node, []string{"no such package", "or install Node.js 22"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onlyPython(t, c.python)
			_, err := c.install(&Installer{CacheDir: t.TempDir()}, t.Context())
			require.Error(t, err)
			for _, part := range c.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

func TestCacheThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a-file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := (&Installer{CacheDir: filepath.Join(file, "clients")}).Install("some", "", []string{"node.txt"}, "something", nil)
	require.ErrorContains(t, err, "set INLET_CACHE to a folder that can be written")
}

func TestOldNodeIsNotTaken(t *testing.T) {
	for version, taken := range map[string]bool{"v20.20.2": false, "v22.0.0": true, "v100.1.0": true, "no version": false} {
		onlyPython(t, "")
		for _, name := range []string{"node", "npm"} {
			script := "#!/bin/sh\necho " + version + "\n"
			require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("PATH"), name), []byte(script), 0o755))
		}
		node, _ := ownNode(t.Context())
		require.Equal(t, taken, node != "", version)
	}
}

// TestPins: every package has an exact version and a hash, and no address to download it from.
func TestPins(t *testing.T) {
	for _, name := range []string{"requirements.txt", "node.txt"} {
		text, err := clientPins.ReadFile(name)
		require.NoError(t, err)
		require.NotContains(t, string(text), "://")
		packages := 0
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "#") {
				continue
			}
			packages++
			require.Regexp(t, `^[a-z0-9-]+==[0-9.]+ .*\\$`, line)
		}
		require.NotZero(t, packages)
		require.GreaterOrEqual(t, strings.Count(string(text), "--hash=sha256:"), packages)
	}
	lock, err := clientPins.ReadFile("package-lock.json")
	require.NoError(t, err)
	require.Contains(t, string(lock), `"integrity": "sha512-`)
	require.NotContains(t, string(lock), `"resolved"`)
}

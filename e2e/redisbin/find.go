// Package redisbin finds a real redis-server for tests, fetches it from Debian if this machine has none, and runs it: alone or as a
// cluster.
package redisbin

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/inlet-proxy/inlet/e2e/debian"
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
	if err := debian.Fetch(ctx, dir, packages...); err != nil {
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

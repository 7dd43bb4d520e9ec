// Package debian gets programs for tests out of Debian's packages, without root: apt-get downloads them and dpkg-deb unpacks them.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Fetch unpacks packages into dir. Several processes may do so concurrently: each works in its own folder, and the first rename wins.
func Fetch(ctx context.Context, dir string, packages ...string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("%w; set INLET_CACHE to a folder that can be written", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
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

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const sumsFile = "SHA256SUMS"

// sums are the SHA-256 of all files of a folder, by name.
func sums(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, e := range entries {
		if e.Name() == sumsFile {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(text))
	}
	return all, nil
}

// writeSums writes the checksums in the form that sha256sum --check reads.
func writeSums(dir string) error {
	all, err := sums(dir)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s  %s\n", all[name], name)
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), b.Bytes(), 0o644)
}

// compare builds the last commit in two folders and says which files differ.
func compare(ctx context.Context, root, version, only string) error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer func() { _ = removeAll(work) }()
	var found []map[string]string
	for _, name := range []string{"one", "another-folder/with-a-longer-path"} {
		clone := filepath.Join(work, name)
		if out, err := exec.CommandContext(ctx, "git", "clone", "--quiet", "--no-hardlinks", root, clone).CombinedOutput(); err != nil {
			return fmt.Errorf("git clone: %w\n%s", err, out)
		}
		dir := filepath.Join(clone, "dist", "release")
		var env []string
		if len(found) > 0 { // a cache of its own, so that nothing is taken from the first build
			env = []string{"GOCACHE=" + filepath.Join(work, "cache"), "ZIG_GLOBAL_CACHE_DIR=" + filepath.Join(work, "zig"), "ZIG_LOCAL_CACHE_DIR=" + filepath.Join(work, "zig")}
		}
		if err := release(ctx, clone, dir, version, only, env); err != nil {
			return err
		}
		built, err := sums(dir)
		if err != nil {
			return err
		}
		found = append(found, built)
	}
	return same(found[0], found[1])
}

// same reports the files that differ between two releases.
func same(a, b map[string]string) error {
	var differ []string
	for name := range a {
		if a[name] != b[name] {
			differ = append(differ, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			differ = append(differ, name)
		}
	}
	if len(differ) > 0 {
		slices.Sort(differ)
		return fmt.Errorf("these files differ: %v", differ)
	}
	fmt.Printf("%d files are the same in both folders\n", len(a))
	return nil
}

// removeAll removes a folder with files that may be read only, as those of Go's caches are.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// zigWheel pins the C compiler: one for every architecture, with the headers and link libraries of each glibc, so that a module does not need
// the one of the machine that builds it.
//
//go:embed zig.txt
var zigWheel string

const (
	zigVariable = "INLET_ZIG" // tells the compiler that cgo calls where zig is
	glibc       = "2.28"      // of Debian 10, RHEL 8 and Ubuntu 20.04; Envoy's own builds need as much or more
)

// compiler returns the environment in which go finds a C compiler for linux on an architecture: the variable CC_<arch>, else zig, which it
// fetches if it must. An error says what this machine lacks.
func compiler(ctx context.Context, arch string) ([]string, error) {
	if cc := os.Getenv("CC_" + arch); cc != "" {
		if _, err := exec.LookPath(strings.Fields(cc)[0]); err != nil {
			return nil, fmt.Errorf("CC_%s=%s is not a program", arch, cc)
		}
		return []string{"CC=" + cc}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program, err := zig(ctx)
	if err != nil {
		return nil, fmt.Errorf("it needs a C compiler for linux/%s, in the variable CC_%s, or Python 3 with pip, to fetch one: %w", arch, arch, err)
	}
	cache := filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(program))), "cache")
	return []string{"CC='" + self + "' cc " + arch, zigVariable + "=" + program, "ZIG_GLOBAL_CACHE_DIR=" + cache, "ZIG_LOCAL_CACHE_DIR=" + cache}, nil
}

// zig returns the path of the pinned zig, in Inlet's cache.
func zig(ctx context.Context) (string, error) {
	base, err := os.UserCacheDir()
	if dir := os.Getenv("INLET_CACHE"); dir != "" {
		base, err = dir, nil
	} else {
		base = filepath.Join(base, "inlet")
	}
	if err != nil {
		return "", err
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(zigWheel, "ziglang=="), " ")
	dir := filepath.Join(base, "zig", version)
	program := filepath.Join(dir, "ziglang", "zig")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	list := filepath.Join(work, "zig.txt")
	if err := os.WriteFile(list, []byte(zigWheel), 0o644); err != nil {
		return "", err
	}
	fmt.Printf("downloading zig %s, the C compiler (100 MB), into %s\n", version, dir)
	unpacked := filepath.Join(work, "unpacked")
	if err := pip(ctx, "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target", unpacked, "-r", list); err != nil {
		return "", err
	}
	if err := os.Rename(unpacked, dir); err != nil && !errors.Is(err, os.ErrExist) { // another process was sooner
		return "", err
	}
	return program, nil
}

// pip runs pip, as Python has it or as uv fetches it.
func pip(ctx context.Context, args ...string) error {
	command := []string{"python3", "-m", "pip"}
	if exec.CommandContext(ctx, "python3", "-m", "pip", "--version").Run() != nil {
		command = []string{"uv", "tool", "run", "--quiet", "pip"}
	}
	out, err := exec.CommandContext(ctx, command[0], append(command[1:], args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	return nil
}

// runCompiler is this program as cgo's C compiler: it becomes zig.
func runCompiler(args []string) error {
	program := os.Getenv(zigVariable)
	return fmt.Errorf("zig: %w", syscall.Exec(program, append([]string{program}, zigArguments(args[0], args[1:])...), os.Environ()))
}

// zigArguments are the arguments of zig for those of gcc.
func zigArguments(arch string, args []string) []string {
	target := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	// Functions of Envoy have no definition in a module. zig has no such option, and needs none: a library may have such functions.
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasSuffix(a, "-unresolved-symbols=ignore-all") })
	return append([]string{"cc", "-target", cmp.Or(target, arch) + "-linux-gnu." + glibc}, args...)
}

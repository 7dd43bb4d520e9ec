package main

import (
	"debug/elf"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// readLibrary reads a native module that was built, and returns the oldest glibc that it runs with. A module that Envoy could not load is an error.
func readLibrary(file, arch string) (needs string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want || f.Type != elf.ET_DYN {
		return "", fmt.Errorf("%s is a file of type %s for %s, not a library for %s", file, f.Type, f.Machine, want)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			continue
		}
		version, ok := strings.CutPrefix(s.Version, "GLIBC_")
		if !ok && elf.ST_BIND(s.Info) == elf.STB_GLOBAL && !strings.HasPrefix(s.Name, "envoy") {
			return "", fmt.Errorf("%s needs %s, which neither glibc nor Envoy has", file, s.Name)
		}
		if ok && slices.Compare(numbers(version), numbers(needs)) > 0 {
			needs = version
		}
	}
	return needs, nil
}

// low reports a library that needs a newer glibc than zig was asked for.
func low(file, needs string) error {
	if slices.Compare(numbers(needs), numbers(glibc)) > 0 {
		return fmt.Errorf("%s needs glibc %s, which is newer than %s", file, needs, glibc)
	}
	return nil
}

// numbers are those of a version.
func numbers(version string) (all []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return all
		}
		all = append(all, n)
	}
	return all
}

// usesZig reports whether an environment of compiler has the pinned compiler.
func usesZig(env []string) bool {
	return slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, zigVariable+"=") })
}

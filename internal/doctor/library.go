package doctor

import (
	"bytes"
	"cmp"
	"debug/elf"
	"debug/macho"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// wasm is the platform of wasm plugins.
const wasm = "wasm"

// library is what the file of a program or of a library says about itself.
type library struct {
	platform string   // GOOS/GOARCH, or wasm
	exports  []string // functions that it offers to libraries that it loads, or to the program that loads it; sorted
	wants    []string // functions that the program must have that loads it; sorted
	glibc    string   // the oldest glibc that it runs with, "" for any
}

// readLibrary reads a program or library. Its errors are for people.
func readLibrary(file string) (*library, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	start := make([]byte, 4)
	if _, err := io.ReadFull(f, start); err != nil {
		if info, statErr := f.Stat(); statErr == nil && info.IsDir() {
			return nil, fmt.Errorf("%s is a folder", file)
		}
		return nil, fmt.Errorf("%s is too short for a program or library", file)
	}
	var l *library
	switch {
	case string(start) == elf.ELFMAG:
		l, err = readELF(f)
	case bytes.Equal(start, []byte{0xcf, 0xfa, 0xed, 0xfe}): // 64 bits, little-endian
		l, err = readMachO(f)
	case bytes.Equal(start, []byte{0xca, 0xfe, 0xba, 0xbe}):
		return nil, fmt.Errorf("%s is a file for several processors: take one of them out with lipo -thin", file)
	case string(start) == wasmHeader[:len(start)]:
		l, err = readWasm(f)
	case string(start[:2]) == "#!":
		return nil, fmt.Errorf("%s is %w: name the program that it starts", file, errScript)
	default:
		return nil, fmt.Errorf("%s is neither a program nor a library (ELF, Mach-O or wasm)", file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", file, err)
	}
	slices.Sort(l.exports)
	slices.Sort(l.wants)
	return l, nil
}

// errScript: an Envoy may well be started by a script, but nothing can be read from that.
var errScript = errors.New("a script")

func readELF(r io.ReaderAt) (*library, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	arch := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	l := &library{platform: "linux/" + cmp.Or(arch, f.Machine.String())}
	symbols, err := f.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	for _, s := range symbols {
		switch bind := elf.ST_BIND(s.Info); {
		case s.Section == elf.SHN_UNDEF && bind == elf.STB_GLOBAL:
			l.wants = append(l.wants, s.Name)
		case s.Section != elf.SHN_UNDEF && bind != elf.STB_LOCAL:
			l.exports = append(l.exports, s.Name)
		}
		if version, ok := strings.CutPrefix(s.Version, "GLIBC_"); ok && s.Section == elf.SHN_UNDEF && newer(version, l.glibc) {
			l.glibc = version
		}
	}
	return l, nil
}

func readMachO(r io.ReaderAt) (*library, error) {
	f, err := macho.NewFile(r)
	if err != nil {
		return nil, err
	}
	arch := map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[f.Cpu]
	l := &library{platform: "darwin/" + cmp.Or(arch, f.Cpu.String())}
	if f.Symtab == nil {
		return l, nil
	}
	const external, kind, stab = 0x01, 0x0e, 0xe0 // N_EXT, N_TYPE, N_STAB
	for _, s := range f.Symtab.Syms {
		name := strings.TrimPrefix(s.Name, "_") // all names in C have it
		switch {
		case s.Type&stab != 0 || s.Type&external == 0:
		case s.Type&kind == 0:
			l.wants = append(l.wants, name)
		default:
			l.exports = append(l.exports, name)
		}
	}
	return l, nil
}

// has reports whether it offers a function.
func (l *library) has(name string) bool {
	_, found := slices.BinarySearch(l.exports, name)
	return found
}

// contains reports whether a file contains a text, which has at most as many bytes as a block.
func contains(file, text string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	kept := 0 // bytes of the block before, in which the text may begin
	for {
		n, err := io.ReadFull(f, block[kept:])
		if bytes.Contains(block[:kept+n], []byte(text)) {
			return true, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		kept = copy(block, block[len(block)-len(text)+1:])
	}
}

package doctor

import (
	"bytes"
	"debug/elf"
	"debug/macho"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// made is a small file in the form of a program or library, with symbols and nothing else.
type made struct {
	machine        elf.Machine // 0 is x86-64
	cpu            macho.Cpu   // of a file for macOS
	exports, wants []string
	glibc          string // that it needs
	stripped       bool   // no table of symbols at all
	text           string // at its end
}

// sections are the bytes of a wasm file: something, the exports, something.
func sections(exports ...string) string {
	b := []byte{byte(len(exports))}
	for _, name := range exports {
		b = append(append(append(b, byte(len(name))), name...), wasmFuncs, 200, 1)
	}
	b = append(binary.AppendUvarint([]byte{wasmExports}, uint64(len(b))), b...)
	return wasmHeader + "\x01\x02ab" + string(b) + "\x00\x03abc"
}

// write writes the file, and returns its path.
func (m made) write(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	b := m.elf()
	if m.cpu != 0 {
		b = m.macho()
	}
	require.NoError(t, os.WriteFile(file, append(b, m.text...), 0o755))
	return file
}

// put appends a structure as it is in a file.
func put(b *bytes.Buffer, v any) { _ = binary.Write(b, binary.LittleEndian, v) }

// table is a table of strings.
type table struct{ bytes.Buffer }

func (s *table) add(text string) uint32 {
	at := s.Len()
	s.WriteString(text + "\x00")
	return uint32(at)
}

func (m made) elf() []byte {
	var names, dynamic table
	var symbols, versions, needs bytes.Buffer
	names.add("")
	dynamic.add("")
	put(&symbols, elf.Sym64{})
	put(&versions, uint16(0))
	symbol := func(name string, section elf.SectionIndex, version uint16) {
		put(&symbols, elf.Sym64{Name: dynamic.add(name), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: uint16(section)})
		put(&versions, version)
	}
	for _, name := range m.exports {
		symbol(name, 1, 1)
	}
	for _, name := range m.wants {
		symbol(name, elf.SHN_UNDEF, 1)
	}
	if m.glibc != "" {
		symbol("malloc", elf.SHN_UNDEF, 2)
		put(&needs, struct {
			Version, Count  uint16
			File, Aux, Next uint32
		}{1, 1, dynamic.add("libc.so.6"), 16, 0})
		put(&needs, struct {
			Hash         uint32
			Flags, Other uint16
			Name, Next   uint32
		}{0, 0, 2, dynamic.add("GLIBC_" + m.glibc), 0})
	}
	var body, sections bytes.Buffer
	const headers = 64
	section := func(name string, kind elf.SectionType, link, info uint32, entry uint64, data []byte) {
		put(&sections, elf.Section64{Name: names.add(name), Type: uint32(kind), Off: uint64(headers + body.Len()), Size: uint64(len(data)), Link: link, Info: info, Entsize: entry, Addralign: 1})
		body.Write(data)
	}
	put(&sections, elf.Section64{})
	if !m.stripped {
		section(".dynstr", elf.SHT_STRTAB, 0, 0, 0, dynamic.Bytes())
		section(".dynsym", elf.SHT_DYNSYM, 1, 1, elf.Sym64Size, symbols.Bytes())
		section(".gnu.version", elf.SHT_GNU_VERSYM, 2, 0, 2, versions.Bytes())
		section(".gnu.version_r", elf.SHT_GNU_VERNEED, 1, 1, 0, needs.Bytes())
	}
	at := names.add(".shstrtab")
	put(&sections, elf.Section64{Name: at, Type: uint32(elf.SHT_STRTAB), Off: uint64(headers + body.Len()), Size: uint64(names.Len()), Addralign: 1})
	body.Write(names.Bytes())
	count := sections.Len() / 64
	machine := m.machine
	if machine == 0 {
		machine = elf.EM_X86_64
	}
	var file bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Shoff: uint64(headers + body.Len()), Ehsize: headers, Phentsize: 56, Shentsize: 64, Shnum: uint16(count), Shstrndx: uint16(count - 1)}
	copy(header.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1}))
	put(&file, header)
	file.Write(body.Bytes())
	file.Write(sections.Bytes())
	return file.Bytes()
}

func (m made) macho() []byte {
	var names table
	var symbols, file bytes.Buffer
	names.add("")
	for _, name := range m.exports {
		put(&symbols, macho.Nlist64{Name: names.add("_" + name), Type: 0x0f, Sect: 1})
	}
	for _, name := range m.wants {
		put(&symbols, macho.Nlist64{Name: names.add("_" + name), Type: 0x01})
	}
	put(&symbols, macho.Nlist64{Name: names.add("_hidden"), Type: 0x0e, Sect: 1}) // of the file itself
	commands := uint32(0)
	if !m.stripped {
		commands = 1
	}
	const start = 32 + 24 // header and one command
	put(&file, macho.FileHeader{Magic: macho.Magic64, Cpu: m.cpu, Type: macho.TypeDylib, Ncmd: commands, Cmdsz: commands * 24})
	put(&file, uint32(0))
	put(&file, macho.SymtabCmd{Cmd: macho.LoadCmdSymtab, Len: 24, Symoff: start, Nsyms: uint32(symbols.Len() / 16), Stroff: start + uint32(symbols.Len()), Strsize: uint32(names.Len())})
	file.Write(symbols.Bytes())
	file.Write(names.Bytes())
	return file.Bytes()
}

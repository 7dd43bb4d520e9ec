package doctor

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
)

const (
	wasmHeader  = "\x00asm\x01\x00\x00\x00" // of version 1, the only one
	wasmExports = 7                         // the section
	wasmFuncs   = 0                         // kind of export
)

var errCutOff = errors.New("it is cut off or damaged")

// readWasm reads all sections of a wasm file, to its end, and the names in that of the exports.
func readWasm(r io.ReaderAt) (*library, error) {
	b, err := io.ReadAll(io.NewSectionReader(r, 0, math.MaxInt64))
	if err != nil {
		return nil, err
	}
	if len(b) < len(wasmHeader) || string(b[:len(wasmHeader)]) != wasmHeader {
		return nil, errCutOff
	}
	l := &library{platform: wasm}
	for rest := (wasmBytes{b: b[len(wasmHeader):]}); len(rest.b) > 0; {
		id := rest.take(1)
		section := wasmBytes{b: rest.take(rest.number())}
		if !rest.cut && id[0] == wasmExports {
			l.exports = section.exports()
		}
		if rest.cut || section.cut {
			return nil, errCutOff
		}
	}
	return l, nil
}

// wasmBytes are the bytes that are still to be read.
type wasmBytes struct {
	b   []byte
	cut bool // there were too few
}

func (w *wasmBytes) take(n uint64) []byte {
	if n > uint64(len(w.b)) {
		w.b, w.cut = nil, true
		return nil
	}
	taken := w.b[:n]
	w.b = w.b[n:]
	return taken
}

func (w *wasmBytes) number() uint64 {
	v, n := binary.Uvarint(w.b)
	if n <= 0 {
		w.b, w.cut = nil, true
		return 0
	}
	w.b = w.b[n:]
	return v
}

// exports returns the names of exported functions.
func (w *wasmBytes) exports() (names []string) {
	for n := w.number(); n > 0 && !w.cut; n-- {
		name, kind := w.take(w.number()), w.take(1)
		if w.number(); !w.cut && kind[0] == wasmFuncs {
			names = append(names, string(name))
		}
	}
	return names
}

package module

import (
	"unsafe"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
)

// headers is a copy of one header map, made when the first header is asked for.
//
// All at once, since each look-up in Envoy costs a call through cgo: for the
// dozen headers that a chain asks for, one copy is cheaper. It shows the headers
// as they came; what Inlet edits is not seen in it.
type headers struct {
	source shared.HeaderMap
	arena  *arena
	fields []field
	loaded bool
}

type field struct{ name, value string }

func (h *headers) reset(source shared.HeaderMap) {
	clear(h.fields) // the arena may have dropped what they point to
	h.source, h.fields, h.loaded = source, h.fields[:0], false
}

// Get returns the first value of a header.
func (h *headers) Get(name string) (string, bool) { return h.At(name, 0) }

// At returns the nth value of a header, from 0.
func (h *headers) At(name string, n int) (string, bool) {
	h.load()
	for i := range h.fields {
		if h.fields[i].name != name {
			continue
		}
		if n == 0 {
			return h.fields[i].value, true
		}
		n--
	}
	return "", false
}

// Line returns the nth line, from 0.
func (h *headers) Line(n int) (name, value string, ok bool) {
	h.load()
	if n >= len(h.fields) {
		return "", "", false
	}
	return h.fields[n].name, h.fields[n].value, true
}

func (h *headers) load() {
	if h.loaded {
		return
	}
	h.loaded = true
	for _, f := range h.source.GetAll() {
		h.fields = append(h.fields, field{h.arena.copy(f[0]), h.arena.copy(f[1])})
	}
}

// arena holds copies of Envoy's strings for the time of one exchange.
type arena struct{ block []byte }

const (
	arenaBlock = 4 << 10
	arenaKept  = 64 << 10 // a block that one exchange made larger is not kept for the next
)

// copy returns the bytes as a string that is valid until the next reset. A full
// block is left to its strings and a larger one begun, so nothing ever moves.
func (a *arena) copy(b shared.UnsafeEnvoyBuffer) string {
	if b.Ptr == nil || b.Len == 0 {
		return ""
	}
	n := int(b.Len)
	if n > cap(a.block)-len(a.block) {
		a.block = make([]byte, 0, max(arenaBlock, 2*cap(a.block), n))
	}
	at := len(a.block)
	a.block = append(a.block, b.ToUnsafeBytes()...)
	return unsafe.String(&a.block[at], n)
}

// reset makes the block free for the next exchange.
func (a *arena) reset() {
	if cap(a.block) > arenaKept {
		a.block = nil
	}
	a.block = a.block[:0]
}

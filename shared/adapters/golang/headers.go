package golang

import (
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
)

// headers is a copy of one header map, made when the first header is asked for. It
// shows the headers as they came; what Inlet edits is not seen in it. Lines with the same
// name stand together in their order, names in any order: the API tells no other.
type headers struct {
	source api.HeaderMap
	fields []field
	loaded bool
}

type field struct{ name, value string }

func (h *headers) reset(source api.HeaderMap) {
	clear(h.fields) // they hold memory
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

// load copies all at once: a look-up in Envoy costs a call through cgo.
func (h *headers) load() {
	if h.loaded || h.source == nil {
		return
	}
	h.loaded = true
	h.source.Range(func(name, value string) bool {
		h.fields = append(h.fields, field{name, value})
		return true
	})
}

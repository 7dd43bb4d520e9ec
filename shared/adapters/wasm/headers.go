package wasm

import (
	"slices"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// headerMap is a header map of the host.
type headerMap struct {
	all     func(list [][2]string, memory *[]byte) ([][2]string, error) // appended to list, with its text in memory
	add     func(name, value string) error
	replace func(name, value string) error // the first one only
	remove  func(name string) error        // all of that name
}

var (
	requestMap = headerMap{
		headersOf(requestHeaders), proxywasm.AddHttpRequestHeader,
		proxywasm.ReplaceHttpRequestHeader, proxywasm.RemoveHttpRequestHeader,
	}
	responseMap = headerMap{
		headersOf(responseHeaders), proxywasm.AddHttpResponseHeader,
		proxywasm.ReplaceHttpResponseHeader, proxywasm.RemoveHttpResponseHeader,
	}
)

func headersOf(kind mapKind) func([][2]string, *[]byte) ([][2]string, error) {
	return func(list [][2]string, memory *[]byte) ([][2]string, error) { return headerPairs(kind, list, memory) }
}

// headers is a local copy of a header map: fetched by one call at the first
// look, then kept in step with the edits.
type headers struct {
	of      *headerMap
	list    [][2]string
	text    []byte // what the strings of list alias until the next fetch
	fetched bool
}

// Get returns the first value of a header and whether it is there.
func (h *headers) Get(name string) (string, bool) { return h.At(name, 0) }

// At returns the nth value of a header, from 0, and whether it is there.
func (h *headers) At(name string, n int) (string, bool) {
	h.fetch()
	for i := range h.list {
		if h.list[i][0] != name {
			continue
		}
		if n == 0 {
			return h.list[i][1], true
		}
		n--
	}
	return "", false
}

// Line returns the nth line, from 0, and whether it is there.
func (h *headers) Line(n int) (name, value string, ok bool) {
	h.fetch()
	if n >= len(h.list) {
		return "", "", false
	}
	return h.list[n][0], h.list[n][1], true
}

func (h *headers) fetch() {
	if h.fetched {
		return
	}
	h.fetched = true
	var err error
	if h.list, err = h.of.all(h.list[:0], &h.text); err != nil {
		proxywasm.LogError("headers cannot be read: " + err.Error())
	}
}

// forget makes the next Get look again.
func (h *headers) forget() { h.fetched = false }

// clear ends the use for an exchange. It keeps no memory that only long headers need,
// and no string, since that would keep what it points to.
func (h *headers) clear() {
	h.forget()
	clear(h.list)
	if h.list = h.list[:0]; cap(h.text) > maxHeaders {
		h.list, h.text = nil, nil
	}
}

// apply makes the edits in order. What a later edit of the same header makes
// void, and what would change nothing, costs no call.
func (h *headers) apply(edits []filter.HeaderEdit) error {
	h.fetch()
	for i := range edits {
		if isEdited(edits[i+1:], edits[i].Name) {
			continue
		}
		if err := h.edit(&edits[i]); err != nil {
			return err
		}
	}
	return nil
}

func isEdited(edits []filter.HeaderEdit, name string) bool {
	return slices.ContainsFunc(edits, func(e filter.HeaderEdit) bool { return e.Name == name })
}

func (h *headers) edit(e *filter.HeaderEdit) error {
	at, n := h.find(e.Name)
	switch {
	case e.Remove && n == 0, !e.Remove && n == 1 && h.list[at][1] == e.Value:
		return nil
	case !e.Remove && n == 1:
		h.list[at][1] = e.Value
		return h.of.replace(e.Name, e.Value)
	case n > 0:
		if err := h.of.remove(e.Name); err != nil {
			return err
		}
		h.list = slices.DeleteFunc(h.list, func(p [2]string) bool { return p[0] == e.Name })
		if e.Remove {
			return nil
		}
	}
	h.list = append(h.list, [2]string{e.Name, e.Value})
	return h.of.add(e.Name, e.Value)
}

// find returns where a header stands first and how often it is there.
func (h *headers) find(name string) (at, n int) {
	for i := range h.list {
		if h.list[i][0] == name {
			if n == 0 {
				at = i
			}
			n++
		}
	}
	return at, n
}

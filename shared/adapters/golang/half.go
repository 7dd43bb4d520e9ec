package golang

import (
	"bytes"
	"slices"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// phase is what of a request or a response Envoy has shown last.
type phase uint8

const (
	inHeaders phase = iota
	inData
	inTrailers
)

// half is the request or the response of an exchange.
//
// What is held stays here and not in Envoy, which would lose it when trailers come: see the
// package's documentation. Only the chunk that Envoy has shown last stays in its memory.
type half struct {
	envoy   api.FilterProcessCallbacks
	headers headers

	phase phase
	ended bool   // its end was shown
	kept  pieces // what was held before the chunk
	chunk api.BufferInstance
	bytes []byte // of the chunk, if they were read
	drop  int    // bytes of the chunk that go on no more: they are in kept, edited

	spliced []byte            // the piece that was edited
	moved   []filter.BodyEdit // memory for splice

	waits bool // Envoy waits for Continue: it shows nothing more until then
}

// show begins a callback.
func (h *half) show(p phase, chunk api.BufferInstance, end bool) {
	h.phase, h.chunk, h.ended = p, chunk, end
	h.bytes, h.drop = nil, 0
}

// read returns the bytes of the chunk, of which it makes one copy: the API gives no other access.
func (h *half) read() []byte {
	if h.bytes == nil && h.chunk != nil && h.chunk.Len() > 0 {
		h.bytes = h.chunk.Bytes()
	}
	return h.bytes
}

// hold is what to tell Envoy about what it has shown and is not to go on. If it is held
// for a reply, or nothing more comes, Envoy waits, since it takes Continue only then.
func (h *half) hold(forReply bool) api.StatusType {
	if forReply || h.ended {
		h.waits = true
		return api.Running
	}
	return h.more()
}

// more keeps what Envoy has shown, and has it show what comes next.
func (h *half) more() api.StatusType {
	if h.phase == inHeaders {
		return api.StopAndBufferWatermark
	}
	h.keep()
	return api.StopNoBuffer
}

// keep takes over what of the chunk is to go on.
func (h *half) keep() {
	if b := h.read(); len(b) > h.drop {
		h.kept = append(h.kept, b[h.drop:])
	}
	h.chunk, h.bytes, h.drop = nil, nil, 0
}

// goOn puts what was kept before what Envoy has. It returns what has no place there, since there is no chunk.
func (h *half) goOn() (rest []byte) {
	if h.chunk == nil {
		rest = bytes.Join(h.kept, nil)
	} else {
		if h.drop > 0 {
			h.chunk.Drain(h.drop)
		}
		for i := len(h.kept) - 1; i >= 0; i-- {
			_ = h.chunk.Prepend(h.kept[i])
		}
	}
	h.kept.reset()
	h.chunk, h.bytes, h.drop = nil, nil, 0
	return rest
}

// resume lets go what Envoy waits with.
func (h *half) resume() {
	h.waits = false
	if rest := h.goOn(); len(rest) > 0 {
		h.envoy.AddData(rest, true)
	}
	h.envoy.Continue(api.Continue)
}

// reset keeps the memory for another exchange.
func (h *half) reset() {
	h.headers.reset(nil)
	h.kept.reset()
	clear(h.moved)
	if cap(h.spliced) > splicedKept {
		h.spliced = nil
	}
	*h = half{headers: h.headers, kept: h.kept, spliced: h.spliced, moved: h.moved[:0]}
}

// splicedKept is the size up to which the memory of an edited body is kept.
const splicedKept = 64 << 10

// pieces are bytes in several places.
type pieces [][]byte

func (p *pieces) reset() {
	clear(*p)
	*p = (*p)[:0]
}

func (p pieces) size() (n int64) {
	for _, b := range p {
		n += int64(len(b))
	}
	return n
}

// edit edits what is kept and the chunk. The part of the chunk that an edit reaches into moves to what is kept.
func (h *half) edit(edits []filter.BodyEdit) error {
	before := h.kept.size()
	reach := edits[len(edits)-1].Span.End
	if reach > before {
		n := int(reach - before)
		b := h.read()
		if n > len(b) {
			return errShortBody
		}
		h.kept, h.drop = append(h.kept, b[:n]), n
	}
	h.splice(edits)
	return nil
}

// splice edits what is kept. Those pieces from the first edit on to the last become one, the others stay as they are.
func (h *half) splice(edits []filter.BodyEdit) {
	p := h.kept
	from, to := edits[0].Span.Start, edits[len(edits)-1].Span.End
	var at int64
	first := 0
	for first < len(p)-1 && at+int64(len(p[first])) <= from {
		at += int64(len(p[first]))
		first++
	}
	last, end := first, at
	for last < len(p) && (end < to || last == first) {
		end += int64(len(p[last]))
		last++
	}
	var old []byte
	switch last - first {
	case 0:
	case 1:
		old = p[first]
	default:
		old = bytes.Join(p[first:last], nil)
	}
	h.moved = h.moved[:0]
	for _, e := range edits {
		e.Span.Start, e.Span.End = e.Span.Start-at, e.Span.End-at
		h.moved = append(h.moved, e)
	}
	h.spliced = filter.Splice(h.spliced[:0], old, h.moved)
	h.kept = slices.Replace(p, first, last, h.spliced)
}

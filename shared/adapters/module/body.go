package module

import (
	"errors"
	"sync"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// requestBody is where the bytes of a held request body are.
type requestBody struct {
	fed int64 // bytes of it that the chain has seen

	// arrived is the argument of the OnRequestBody that runs now, nil outside
	// one. It is not part of what is buffered, unless whole is set.
	arrived shared.BodyBuffer
	whole   bool
}

var (
	errMoved     = errors.New("the held body is not the one that was read")
	errShortBody = errors.New("an edit lies beyond the body")
)

// edit replaces spans of the held body. Its bytes are copied once, by Envoy, if
// they may all be put into the buffer that arrived; else through a small piece
// of memory of ours.
func (b *requestBody) edit(buffered shared.BodyBuffer, edits []filter.BodyEdit) error {
	if last := edits[len(edits)-1]; last.Span.End > b.fed {
		return errShortBody
	}
	if b.size(buffered) != b.fed {
		return errMoved
	}
	switch {
	case b.arrived == nil:
		rotate(buffered, edits)
	case b.whole:
		rotate(b.arrived, edits)
	default:
		join(buffered, b.arrived, edits)
	}
	return nil
}

func (b *requestBody) size(buffered shared.BodyBuffer) int64 {
	switch {
	case b.arrived == nil:
		return int64(buffered.GetSize())
	case b.whole:
		return int64(b.arrived.GetSize())
	}
	return int64(buffered.GetSize() + b.arrived.GetSize())
}

// join writes the edited body behind the bytes that arrived, which have no limit
// of their own, then drops the old bytes. Envoy joins what is buffered (nothing
// now) and what arrived when the filter lets the request go on.
func join(buffered, arrived shared.BodyBuffer, edits []filter.BodyEdit) {
	earlier, latest := buffered.GetSize(), arrived.GetSize()
	w := splicer{to: arrived, edits: edits}
	if first := edits[0].Span.Start; uint64(first) >= earlier {
		w.at, earlier = int64(earlier), 0 // what is buffered stays as it is
	}
	old := arrived.GetChunks() // before anything is added
	if earlier > 0 {
		for _, c := range buffered.GetChunks() {
			w.write(c.ToUnsafeBytes())
		}
	}
	for _, c := range old {
		w.write(c.ToUnsafeBytes())
	}
	w.finish()
	arrived.Drain(latest)
	if earlier > 0 {
		buffered.Drain(earlier)
	}
}

// pieces are where rotate keeps bytes between draining and adding them.
var pieces = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// rotate edits a body that lies in one buffer with a limit: piece by piece it is
// taken off the front and added to the end, so that the buffer never holds
// more than the longer of old and new.
func rotate(body shared.BodyBuffer, edits []filter.BodyEdit) {
	piece := pieces.Get().(*[16 << 10]byte)
	defer pieces.Put(piece)
	w := splicer{to: body, edits: edits}
	for _, c := range body.GetChunks() {
		for rest := c.ToUnsafeBytes(); len(rest) > 0; {
			n := copy(piece[:], rest)
			rest = rest[n:]
			body.Drain(uint64(n))
			w.write(piece[:n])
		}
	}
	w.finish()
}

// splicer writes an edited body, given the old one in pieces.
type splicer struct {
	to    shared.BodyBuffer
	edits []filter.BodyEdit // those that are not done
	at    int64             // offset of the next old byte
	begun bool              // the first edit's new bytes are written, its old ones not all skipped
}

func (w *splicer) write(piece []byte) {
	end := w.at + int64(len(piece))
	for len(w.edits) > 0 && (w.begun || w.edits[0].Span.Start < end) {
		e := &w.edits[0]
		if !w.begun {
			piece = w.keep(piece, e.Span.Start)
			w.begin(e)
		}
		if e.Span.End > end {
			w.at = end
			return
		}
		piece, w.at = piece[e.Span.End-w.at:], e.Span.End
		w.edits, w.begun = w.edits[1:], false
	}
	w.keep(piece, end)
}

// keep writes the old bytes up to an offset and returns those behind it.
func (w *splicer) keep(piece []byte, until int64) []byte {
	n := until - w.at
	w.add(piece[:n])
	w.at = until
	return piece[n:]
}

func (w *splicer) begin(e *filter.BodyEdit) {
	w.add(e.With)
	w.begun = true
}

func (w *splicer) add(b []byte) {
	if len(b) > 0 {
		w.to.Append(b)
	}
}

// finish writes what is inserted at the very end.
func (w *splicer) finish() {
	for i := range w.edits {
		if i > 0 || !w.begun {
			w.add(w.edits[i].With)
		}
	}
}

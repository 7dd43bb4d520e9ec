package golang

import (
	"bytes"
	"testing"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// However a body is cut and edited, what goes on is the edited body: kept pieces and chunk together.
func TestEditsOfAnyBody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := []byte(rapid.StringMatching(`[a-z]{0,60}`).Draw(t, "body"))
		var edits []filter.BodyEdit
		for at := 0; at <= len(body); {
			start := rapid.IntRange(at, len(body)).Draw(t, "start")
			end := rapid.IntRange(start, len(body)).Draw(t, "end")
			with := []byte(rapid.StringMatching(`[A-Z]{0,9}`).Draw(t, "with"))
			edits = append(edits, filter.BodyEdit{Span: llm.Span{Start: int64(start), End: int64(end)}, With: with})
			if at = end + 1; rapid.Bool().Draw(t, "enough") {
				break
			}
		}
		var h half
		rest := body
		for len(rest) > 0 && rapid.Bool().Draw(t, "piece") {
			n := rapid.IntRange(1, len(rest)).Draw(t, "size")
			h.show(inData, &buffer{b: rest[:n:n]}, false)
			h.keep()
			rest = rest[n:]
		}
		last := &buffer{b: bytes.Clone(rest)}
		trailers := rapid.Bool().Draw(t, "trailers")
		if trailers { // all of it was kept, and there is no chunk
			h.show(inData, last, false)
			h.keep()
			h.show(inTrailers, nil, true)
		} else {
			h.show(inData, last, true)
		}
		want := filter.Splice(nil, body, edits)
		require.NoError(t, h.edit(edits))
		got := h.goOn()
		if !trailers {
			require.Empty(t, got)
			got = last.b
			require.LessOrEqual(t, last.reads, 1, "a chunk is read once")
		}
		require.Equal(t, string(want), string(got))
		require.Empty(t, h.kept)
	})
}

func TestEditBeyondTheBody(t *testing.T) {
	h := half{chunk: &buffer{b: []byte("short")}}
	require.ErrorIs(t, h.edit([]filter.BodyEdit{{Span: llm.Span{Start: 2, End: 6}}}), errShortBody)
}

// What nobody edits and reads is not read from Envoy.
func TestAChunkThatPassesIsNotRead(t *testing.T) {
	b := &buffer{b: []byte("x")}
	h := half{}
	h.show(inData, b, true)
	require.Empty(t, h.goOn())
	require.Zero(t, b.reads)
}

// still is a chunk that allocates nothing.
type still struct {
	api.BufferInstance
	b []byte
}

func (s *still) Len() int             { return len(s.b) }
func (s *still) Bytes() []byte        { return s.b }
func (s *still) Drain(int)            {}
func (s *still) Prepend([]byte) error { return nil }

// Holding and editing a body costs no memory beyond what the API's own copies take.
func TestEditingAllocatesNothing(t *testing.T) {
	first, last := &still{b: []byte(chat[:30])}, &still{b: []byte(chat[30:])}
	edits := []filter.BodyEdit{{Span: llm.Span{Start: 10, End: 15}, With: []byte("llama-3-8b")}}
	var h half
	play := func() {
		h.show(inData, first, false)
		h.keep()
		h.show(inData, last, true)
		if h.edit(edits) != nil {
			panic("the body is too short")
		}
		h.goOn()
		h.reset()
	}
	play()
	require.Zero(t, testing.AllocsPerRun(100, play))
}

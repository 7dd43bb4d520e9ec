package module

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// edited is what the edits should make of a body.
func edited(body string, edits []filter.BodyEdit) string {
	var b strings.Builder
	at := int64(0)
	for _, e := range edits {
		b.WriteString(body[at:e.Span.Start])
		b.Write(e.With)
		at = e.Span.End
	}
	b.WriteString(body[at:])
	return b.String()
}

// drawEdits draws edits that do not overlap, sorted; empty spans insert.
func drawEdits(t *rapid.T, size int) []filter.BodyEdit {
	cuts := rapid.SliceOfN(rapid.IntRange(0, size), 2, 8).Draw(t, "cuts")
	slices.Sort(cuts)
	var edits []filter.BodyEdit
	for i := 0; i+1 < len(cuts); i += 2 {
		with := rapid.StringOfN(rapid.RuneFrom([]rune("ABC")), 0, 40, -1).Draw(t, "with")
		edits = append(edits, filter.BodyEdit{
			Span: llm.Span{Start: int64(cuts[i]), End: int64(cuts[i+1])}, With: []byte(with),
		})
	}
	return edits
}

// pieces cuts a body anywhere.
func cut(t *rapid.T, s string) (pieces []string) {
	for len(s) > 0 {
		n := rapid.IntRange(1, len(s)).Draw(t, "piece")
		pieces = append(pieces, s[:n])
		s = s[n:]
	}
	return pieces
}

// Wherever the bytes lie when the chain decides, the body that goes on is the
// edited one, and a buffer with a limit never holds more than it must.
func TestEdit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.StringOfN(rapid.RuneFrom([]rune("abcdef")), 0, 300, -1).Draw(t, "body")
		edits := drawEdits(t, len(body))
		want := edited(body, edits)
		split := rapid.IntRange(0, len(body)).Draw(t, "split")
		buffered, arrived := newBuffer(cut(t, body[:split])...), newBuffer(cut(t, body[split:])...)
		b := &requestBody{fed: int64(len(body))}
		limited := buffered
		switch rapid.SampledFrom([]string{"arrived", "whole", "held"}).Draw(t, "where") {
		case "arrived":
			b.arrived = arrived
			require.NoError(t, b.edit(buffered, edits))
			require.LessOrEqual(t, buffered.most, uint64(split), "the limited buffer never grows")
			buffered.move(arrived)
		case "whole":
			arrived = newBuffer(cut(t, body)...)
			b.arrived, b.whole = arrived, true
			require.NoError(t, b.edit(arrived, edits))
			buffered, limited = arrived, arrived
		case "held":
			buffered = newBuffer(cut(t, body)...)
			limited = buffered
			require.NoError(t, b.edit(buffered, edits))
		}
		require.Equal(t, want, buffered.String())
		require.LessOrEqual(t, limited.most, uint64(max(len(body), len(want))+longest(edits)))
	})
}

// longest is what may be there for a moment too much: the new bytes of an edit
// are written before all of its old ones are gone.
func longest(edits []filter.BodyEdit) (n int) {
	for _, e := range edits {
		n += len(e.With)
	}
	return n
}

// Most edits are of the model's name near the front of a long body.
func TestEditLongBody(t *testing.T) {
	body := `{"model":"llama","messages":[{"role":"user","content":"` + strings.Repeat("x", 200<<10) + `"}]}`
	edits := []filter.BodyEdit{{Span: llm.Span{Start: 9, End: 16}, With: []byte(`"llama-3-8b"`)}}
	buffered := newBuffer(body[:100<<10], body[100<<10:])
	b := &requestBody{fed: int64(len(body))}
	require.NoError(t, b.edit(buffered, edits))
	require.Equal(t, edited(body, edits), buffered.String())
	require.LessOrEqual(t, buffered.most, uint64(len(body)+len(edits[0].With)))
}

// An edit behind what is buffered leaves those bytes where they are.
func TestEditLeavesEarlierBytes(t *testing.T) {
	buffered, arrived := newBuffer("abc"), newBuffer("def")
	kept := &buffered.pieces[0][0]
	b := &requestBody{fed: 6, arrived: arrived}
	require.NoError(t, b.edit(buffered, []filter.BodyEdit{{Span: llm.Span{Start: 3, End: 4}, With: []byte("DD")}}))
	require.Same(t, kept, &buffered.pieces[0][0])
	require.Equal(t, "abc", buffered.String())
	require.Equal(t, "DDef", arrived.String())
}

func TestEditRefusesWhatDoesNotFit(t *testing.T) {
	b := &requestBody{fed: 3, arrived: newBuffer("abc")}
	require.ErrorIs(t, b.edit(newBuffer(), []filter.BodyEdit{{Span: llm.Span{Start: 2, End: 4}}}), errShortBody)
	b.fed = 5
	require.ErrorIs(t, b.edit(newBuffer("a"), []filter.BodyEdit{{Span: llm.Span{Start: 2, End: 4}}}), errMoved)
	require.Equal(t, "abc", b.arrived.(*buffer).String(), "nothing was touched")
}

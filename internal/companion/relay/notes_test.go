package relay

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Whatever is told, the notes keep to their bound, count what they hold, and have no more places than twice what they hold.
func TestNotesKeepToTheirBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(0, 20*noteBytes).Draw(t, "limit")
		s := newNotes(limit)
		told, forgotten := 0, 0
		for number := range uint64(rapid.IntRange(1, 200).Draw(t, "notes")) {
			// A conversation's blocks, so that most notes go on from another one.
			chain := make([]uint64, rapid.IntRange(1, 6).Draw(t, "turns"))
			talk := rapid.Uint64Range(1, 4).Draw(t, "conversation")
			for i := range chain {
				chain[i] = talk<<8 | uint64(i)
			}
			raw := endpoint.AppendNote(nil, rapid.Uint64Range(1, 2).Draw(t, "replica"), chain)
			n, _, ok := endpoint.CutNote(raw)
			require.True(t, ok)
			told++
			forgotten += s.add("p", number, n, raw)

			s.check(t)
		}
		require.LessOrEqual(t, forgotten, told)
	})
}

// TestNotesThatDoNotFit: where not one note fits, it is forgotten at once.
func TestNotesThatDoNotFit(t *testing.T) {
	for _, limit := range []int64{0, 1, noteBytes} {
		s := newNotes(limit)
		raw := endpoint.AppendNote(nil, 1, []uint64{1 << 8})
		n, _, ok := endpoint.CutNote(raw)
		require.True(t, ok)
		require.Equal(t, 1, s.add("p", 0, n, raw))
		s.check(t)
		require.Empty(t, s.ends)
	}
}

// check holds the notes to what they say of themselves.
func (s *notes) check(t require.TestingT) {
	live, bytes := 0, int64(0)
	for _, n := range s.list {
		if n.raw != nil {
			live++
			bytes += int64(len(n.raw)) + noteBytes
			require.Same(t, n, s.ends[n.end])
		}
	}
	require.Len(t, s.ends, live)
	require.Equal(t, bytes, s.bytes)
	require.LessOrEqual(t, bytes, s.limit)
	require.Equal(t, len(s.list)-live, s.out)
	require.LessOrEqual(t, len(s.list), 2*live+1)
}

package filter_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

func edit(start, end int64, with string) filter.BodyEdit {
	return filter.BodyEdit{Span: llm.Span{Start: start, End: end}, With: []byte(with)}
}

func TestSplice(t *testing.T) {
	for _, c := range []struct {
		prefix string
		edits  []filter.BodyEdit
		want   string
	}{
		{"abcdef", []filter.BodyEdit{edit(4, 6, "EF")}, "abcdEF"},
		{"abcdef", []filter.BodyEdit{edit(0, 1, "longer"), edit(3, 6, "")}, "longerbc"},
		{"abcdef", []filter.BodyEdit{edit(2, 2, "+"), edit(6, 6, "!")}, "ab+cdef!"},
		{"", []filter.BodyEdit{edit(0, 0, "x")}, "x"},
	} {
		require.Equal(t, c.want, string(filter.Splice(nil, []byte(c.prefix), c.edits)))
	}
}

// Replacing the prefix that ends with the last edit is replacing in the body.
func TestAReplacedPrefixIsAReplacedBody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOfN(rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 0, 5, -1), 1, 9).Draw(t, "pieces")
		var body, want strings.Builder
		var edits []filter.BodyEdit
		for i, piece := range pieces {
			start := int64(body.Len())
			body.WriteString(piece)
			if i%2 == 0 {
				want.WriteString(piece)
				continue
			}
			with := rapid.StringOfN(rapid.RuneFrom([]rune("XY")), 0, 5, -1).Draw(t, "with")
			want.WriteString(with)
			edits = append(edits, edit(start, int64(body.Len()), with))
		}
		if len(edits) == 0 {
			return
		}
		end := edits[len(edits)-1].Span.End
		got := filter.Splice(nil, []byte(body.String()[:end]), edits)
		require.Equal(t, want.String(), string(got)+body.String()[end:])
	})
}

func TestAmend(t *testing.T) {
	x := &filter.Exchange{}
	x.Reset(1)
	x.Amend("b", "1")
	x.Explain("a", "b=1")
	x.Amend("b", "2")
	require.Equal(t, "a=b_1 b=2", string(x.Why()))
	x.Explain("bb", "1")
	x.Amend("b", "3")
	require.Equal(t, "a=b_1 bb=1 b=3", string(x.Why()))
	x.Amend("b", "4")
	require.Equal(t, "a=b_1 bb=1 b=4", string(x.Why()))
}

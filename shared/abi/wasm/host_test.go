package wasm

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
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
		require.Equal(t, c.want, string(splice(nil, []byte(c.prefix), c.edits)))
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
		got := splice(nil, []byte(body.String()[:end]), edits)
		require.Equal(t, want.String(), string(got)+body.String()[end:])
	})
}

// A list as Envoy writes it, and what else may stand there, is read without harm.
func TestAppendAddresses(t *testing.T) {
	list := "\x02\x00\x00\x00" + "\x0b\x00\x00\x00" + "\x00\x00\x00\x00" + "\x08\x00\x00\x00" + "\x00\x00\x00\x00" +
		"10.0.0.1:80\x00\x00" + "[::1]:80\x00\x00"
	for value, want := range map[string][]string{
		list:                       {"10.0.0.1:80", "[::1]:80"},
		list[:len(list)-1]:         {"10.0.0.1:80"},
		"\x00\x00\x00\x00":         nil,
		"\xff\xff\xff\x00":         nil,
		"":                         nil,
		"10.0.0.1:80":              {"10.0.0.1:80"},
		" 10.0.0.1:80 ,,[::1]:80 ": {"10.0.0.1:80", "[::1]:80"},
	} {
		require.Equal(t, want, appendAddresses(nil, []byte(value)), "%q", value)
	}
}

func FuzzAppendAddresses(f *testing.F) {
	f.Add([]byte("10.0.0.1:80"))
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(_ *testing.T, value []byte) { appendAddresses(nil, value) })
}

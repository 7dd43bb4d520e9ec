package guardrail

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		before, after string
		want          []edit
	}{
		{"mail jane@example.com, ok", "mail [EMAIL], ok", []edit{{5, 21, "[EMAIL]"}}},
		{"a b c", "a b c", nil},
		{"", "x", []edit{{0, 0, "x"}}},
		{"secret", "", []edit{{0, 6, ""}}},
		{"Jane and John met Jane in Rome", "[N] and [N] met [N] in Rome", []edit{{0, 4, "[N]"}, {9, 13, "[N]"}, {18, 22, "[N]"}}},
		{"one\ntwo", "all is new here", []edit{{0, 7, "all is new here"}}},
		{"grüße an jörg", "grüße an X", []edit{{len("grüße an "), len("grüße an jörg"), "X"}}},
	} {
		require.Equal(t, c.want, diff(c.before, c.after), c.before)
	}
}

// someText draws texts of few words, so that they repeat.
func someText(t *rapid.T, name string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", " ", "\n", "ä", "[X]", "jane", "@", "\U0001F600"}), 0, 40).Draw(t, name), "")
}

// TestDiffIsExact: whatever the texts, the edits make the one of the other.
func TestDiffIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := someText(t, "before"), someText(t, "after")
		require.Equal(t, b, string(applied(nil, []byte(a), diff(a, b))))
	})
}

// TestThen: edits one after the other are the edits of both.
func TestThen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := someText(t, "a"), someText(t, "b"), someText(t, "c")
		both := then(diff(a, b), diff(b, c), []byte(b))
		require.Equal(t, c, string(applied(nil, []byte(a), both)))
		for i := 1; i < len(both); i++ {
			require.Less(t, both[i-1].to, both[i].from)
		}
	})
}

func FuzzDiff(f *testing.F) {
	f.Add("mail jane@example.com", "mail [EMAIL]", "mail [X]")
	f.Add("a\nb\n", "a\n", "\n\n")
	f.Add("", "x", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) || !utf8.ValidString(c) {
			return
		}
		for _, e := range diff(a, b) {
			if !utf8.ValidString(a[e.from:e.to]) || !utf8.ValidString(e.with) {
				t.Fatalf("%v cuts a character of %q", e, a)
			}
		}
		if got := string(applied(nil, []byte(a), then(diff(a, b), diff(b, c), []byte(b)))); got != c {
			t.Fatalf("%q", got)
		}
	})
}

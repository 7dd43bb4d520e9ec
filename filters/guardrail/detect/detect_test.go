package detect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFinds(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range positives {
		for _, text := range []string{c.text, "\n" + c.text, c.text + "\n", "– " + c.text + " …"} {
			found := d.Find(&s, []byte(text))
			if len(found) != 1 || found[0].Kind != c.kind || text[found[0].From:found[0].To] != c.want {
				t.Errorf("in %q: %v, want %s %q", text, found, c.kind, c.want)
			}
		}
	}
}

func TestFindsNothing(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, text := range append(negatives, strings.Join(negatives, "\n")) {
		for _, f := range d.Find(&s, []byte(text)) {
			t.Errorf("%s %q in %q", f.Kind, text[f.From:f.To], text)
		}
	}
}

// Each label is no finding, so that a text that was masked stays as it is.
func TestLabelsAreNoFindings(t *testing.T) {
	d := everything(t)
	var s Scanner
	for k := range kinds {
		require.Empty(t, d.Find(&s, []byte("card "+k.Label()+"@x "+k.Label())))
		require.NotContains(t, k.Label(), `"`)
	}
}

func TestTextInPieces(t *testing.T) {
	d := everything(t)
	var all []string
	for _, c := range positives {
		all = append(all, c.text)
	}
	all = append(all, negatives...)
	for i, text := range all {
		for _, text := range []string{text, all[(i*7+3)%len(all)] + " " + text, all[(i*5+1)%len(all)] + "\n" + text + "\n"} {
			for _, sizes := range [][]byte{nil, {2}, {3, 1}, {7}, {5, 9, 1}} {
				checkStream(t, d, text, sizes)
			}
		}
	}
}

// What is held is only what may begin something: of prose the last word.
func TestLittleIsHeld(t *testing.T) {
	d := everything(t)
	var s Scanner
	_, most := stream(d, &s, strings.Repeat("It was the best of times, it was the worst of times. ", 20), func() int { return 4 })
	require.LessOrEqual(t, most, len("times. it"))
}

// A key that never ends is held whole, and so is seen to be too long.
func TestOpenEnd(t *testing.T) {
	d := everything(t)
	var s Scanner
	text := "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat(pemLine+"\n", 1000)
	require.Equal(t, len(text), d.Scan(&s, nil, []byte(text), false))
	require.Greater(t, len(text), MaxBytes)
	// So is what a pattern begins that does not end, however small the pieces; one that ends is found whole.
	d, err := New(Config{Patterns: []string{`token: \S+`}})
	require.Nil(t, err)
	text = "a token: " + strings.Repeat("x1", 350) + " b"
	got, most := stream(d, &s, text, func() int { return 5 })
	require.Equal(t, "a [REDACTED] b", got)
	require.GreaterOrEqual(t, most, 700)
	d = everything(t)
	// A token of any length is one finding.
	require.Len(t, d.Find(&s, []byte("token: "+strings.Repeat("x", 700)+" "+jwtText)), 1)
}

func TestPatternErrors(t *testing.T) {
	for _, c := range []struct {
		pattern string
		why     string
	}{
		{"a(", "not an RE2 expression: missing closing ): `a(`"},
		{"x*", "matches the empty string, and so every text"},
		{`(?<n>a)\1`, "not an RE2 expression: invalid escape sequence: `\\1`"},
		{"(?<x)y", "not an RE2 expression: invalid named capture: `(?<x)y`"},
		{"(?<=x)y", "not an RE2 expression: invalid named capture: `(?<=x)y` (RE2 has no lookaround)"},
		{"(?<!x)y", "not an RE2 expression: invalid named capture: `(?<!x)y` (RE2 has no lookaround)"},
		{"y(?=x)", "not an RE2 expression: invalid or unsupported Perl syntax: `(?=` (RE2 has no lookaround)"},
		{"y(?!x)", "not an RE2 expression: invalid or unsupported Perl syntax: `(?!` (RE2 has no lookaround)"},
	} {
		_, err := New(Config{Patterns: []string{"fine", c.pattern}})
		require.NotNil(t, err)
		require.Equal(t, 1, err.Index)
		require.Equal(t, c.why, err.Why)
	}
}

// cleanTraffic is traffic of models in which there is nothing of anybody: the lines of files of code, logs, data and prose.
func cleanTraffic(t *testing.T) (files [][]string) {
	names, err := filepath.Glob("testdata/clean/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		files = append(files, strings.Split(string(text), "\n"))
	}
	return files
}

func TestFindsNothingInTraffic(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, lines := range cleanTraffic(t) {
		for _, text := range append(lines, strings.Join(lines, "\n"), strings.Join(lines, "\r\n"), strings.Join(lines, `\n`), strings.Join(lines, " ")) {
			for _, f := range d.Find(&s, []byte(text)) {
				t.Errorf("%s %q near %q", f.Kind, text[f.From:f.To], text[max(0, f.From-40):min(len(text), f.To+20)])
			}
		}
	}
}

// A word of the deny list is found wherever it stands, also within another finding: that one may only be redacted, the word blocked.
func TestDeniedWithinFindings(t *testing.T) {
	d, err := New(Config{Kinds: Of(Email, Card, Phone, PrivateKey), Deny: []string{"nightfall", "1111"}})
	require.Nil(t, err)
	var s Scanner
	for _, text := range []string{
		"jane@nightfall.example.com", "4111 1111 2222 3337 or 4111-1111-1111-1111", "+1 212 555 1111", "-----BEGIN PRIVATE KEY-----\n" + pemLine + "\n-----END nightfall PRIVATE KEY-----",
	} {
		kinds := Set(0)
		for _, f := range d.Find(&s, []byte(text)) {
			kinds |= Of(f.Kind)
		}
		require.True(t, kinds.Has(Denied), text)
		require.NotEqual(t, Of(Denied), kinds, text)
		for size := range byte(7) {
			checkStream(t, d, text, []byte{size + 1})
		}
	}
}

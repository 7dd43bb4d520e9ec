package detect

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// everything finds all that there is.
func everything(t require.TestingT) *Detector {
	d, err := New(Config{
		Kinds: 1<<Denied - 1,
		Deny:  []string{"Project Nightfall", "übung", "b@d", "007"}, Patterns: []string{`(?i)launch\s+code`, `\b\d{3}x\d+\b`, `[αβ]{2,3}`, `(?m)^secret:.*$`},
	})
	require.Nil(t, err)
	return d
}

// FuzzStream holds that what is found does not depend on how a text is cut, and stands in it.
func FuzzStream(f *testing.F) {
	for _, c := range positives {
		f.Add(c.text, []byte{1})
		f.Add("x "+c.text+" y", []byte{3, 7})
	}
	for _, text := range negatives {
		f.Add(text, []byte{5})
	}
	d := everything(f)
	f.Fuzz(func(t *testing.T, text string, sizes []byte) {
		if !utf8.ValidString(text) || len(text) > 4096 {
			return
		}
		var s Scanner
		at := 0
		for _, found := range d.Find(&s, []byte(text)) {
			require.LessOrEqual(t, at, found.From)
			require.Less(t, found.From, found.To)
			require.True(t, utf8.ValidString(text[:found.From]) && utf8.ValidString(text[found.From:found.To]), "%q", text)
			at = found.From
		}
		require.LessOrEqual(t, at, len(text))
		checkStream(t, d, text, sizes)
	})
}

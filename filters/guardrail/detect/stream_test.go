package detect

import (
	"strings"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// mask puts labels in the place of findings.
func mask(text string, found []Finding) string {
	var b strings.Builder
	at := 0
	for _, f := range found {
		if f.From >= at {
			b.WriteString(text[at:f.From])
			b.WriteString(f.Kind.Label())
		}
		at = max(at, f.To)
	}
	return b.String() + text[at:]
}

// stream masks a text that comes in pieces, of which next says how long they are. It releases all but what Scan has it hold.
func stream(d *Detector, s *Scanner, text string, next func() int) (masked string, most int) {
	var before, held string
	var out strings.Builder
	for at := 0; ; {
		end := min(len(text), at+max(1, next()))
		for end < len(text) && !utf8.RuneStart(text[end]) {
			end++
		}
		now := held + text[at:end]
		at = end
		hold := d.Scan(s, []byte(before), []byte(now), at == len(text))
		released := now[:len(now)-hold]
		out.WriteString(mask(released, s.Found()))
		before, held = before+released, now[len(released):]
		most = max(most, hold)
		if at == len(text) {
			return out.String(), most
		}
	}
}

// checkStream requires that a text is masked the same way however it is cut.
func checkStream(t require.TestingT, d *Detector, text string, sizes []byte) {
	var s Scanner
	want := mask(text, d.Find(&s, []byte(text)))
	n := 0
	got, _ := stream(d, &s, text, func() int {
		if len(sizes) == 0 {
			return 1
		}
		n++
		return int(sizes[n%len(sizes)])
	})
	require.Equal(t, want, got, "%q", text)
}

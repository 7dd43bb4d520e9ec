package jsonscan

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The fast path reads UTF-8 by ranges of bytes. It must say the same as encoding/json and as the slow path, which reads
// byte by byte with unicode/utf8, for every lead byte and what may follow it: above all, a sequence that is cut short must not
// take the quote behind it for its own.
func TestEveryLeadByte(t *testing.T) {
	second := []byte{'"', '\\', 'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff}
	third := []byte{'"', 'a', 0x7f, 0x80, 0xbf, 0xc0}
	fourth := []byte{'"', 0x80, 0xbf, 0xc0}
	frames := [][2]string{{`["`, `"]`}, {`{"`, `":1}`}}
	check := func(sequence ...byte) {
		for _, f := range frames {
			doc := []byte(f[0] + string(sequence) + f[1])
			differential(t, doc, doc)
			want, wantErr := scan(t, Limits{}, nil, singles(doc)...)
			got, err := scan(t, Limits{}, nil, doc)
			require.Equal(t, wantErr, err, "%q", doc)
			require.Equal(t, want, got, "%q", doc)
		}
	}
	for c := 0x80; c <= 0xff; c++ {
		lead := byte(c)
		check(lead)
		for _, b := range second {
			check(lead, b)
			if c < 0xc0 {
				continue // the first byte is wrong
			}
			for _, c := range third {
				check(lead, b, c)
				for _, d := range fourth {
					check(lead, b, c, d)
				}
			}
		}
	}
}

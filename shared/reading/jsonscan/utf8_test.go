package jsonscan

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The fast path reads UTF-8 by ranges of bytes. It must say the same as encoding/json and as the slow path, which reads
// byte by byte with unicode/utf8, for every lead byte and what may follow it: above all, a sequence that is cut short must not
// take the quote behind it for its own.
func TestEveryLeadByte(t *testing.T) {
	second := []byte{'"', '\\', 'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff}
	third := []byte{'"', 'a', 0x7f, 0x80, 0xbd, 0xbf, 0xc0} // with 0xbd, U+FFFD is well-formed
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

// Well-formed text without escapes is reported in one piece, whatever it is written in: the fast path leaves none of it to the slow one.
func TestWellFormedTextIsOnePiece(t *testing.T) {
	var all []rune
	for _, edge := range []rune{0x80, 0x800, 0xd7ff, 0xe000, 0x10000, 0x10ffff} {
		for r := edge - 0x1100; r <= edge+0x1100; r++ {
			if utf8.ValidRune(r) && r > '\\' {
				all = append(all, r)
			}
		}
	}
	for plane := rune(0); plane <= 0x100000; plane += 0x1000 {
		if utf8.ValidRune(plane + 0xfff) {
			all = append(all, plane+0xfff)
		}
	}
	texts := []string{string(all), "a" + string(all) + "b"}
	for n := 1; n < 100; n++ { // the words and blocks in which ASCII is read
		texts = append(texts, strings.Repeat("a", n))
	}
	for c := ' '; c <= 0x7f; c++ {
		if c != '"' && c != '\\' {
			texts = append(texts, string(c), strings.Repeat(string(c), 20), strings.Repeat("a", 19)+string(c)+strings.Repeat("a", 50))
		}
	}
	for _, text := range texts {
		s := new(Scanner)
		p := &pieces{recorder: recorder{t: t, s: s}}
		s.Reset(p, Limits{})
		require.NoError(t, s.Feed([]byte(`["`+text+`"]`)))
		require.NoError(t, s.End())
		require.Equal(t, []string{fmt.Sprint(text, " ", 2+len(text))}, p.got)
	}
	// A sequence that ends where the chunk ends is whole.
	for _, r := range []rune{'é', '€', '😀'} {
		s := new(Scanner)
		p := &pieces{recorder: recorder{t: t, s: s}}
		s.Reset(p, Limits{})
		text := "ab" + string(r)
		require.NoError(t, s.Feed([]byte(`["`+text)))
		require.NoError(t, s.Feed([]byte(`"]`)))
		require.Equal(t, []string{fmt.Sprint(text, " ", 2+len(text))}, p.got)
	}
}

// Behind an escape, text is decoded many bytes at a time. What stops that is no escape, even where a letter follows that could be one.
func TestStopsBehindAnEscape(t *testing.T) {
	tail := strings.Repeat("a", 64) + `"]`
	for _, stop := range []string{"\x00", "\x01", "\n", "\x1f", "\x80", "\xc3", "\xe4", "\xf0", "\xff", `"`, `\`, "é"} {
		for _, next := range []byte(`"\/bfnrtu0,]`) {
			doc := []byte(`["\n` + stop + string(next) + "0041" + tail)
			differential(t, doc, doc)
			want, wantErr := scan(t, Limits{}, nil, singles(doc)...)
			got, err := scan(t, Limits{}, nil, doc)
			require.Equal(t, wantErr, err, "%q", doc)
			require.Equal(t, want, got, "%q", doc)
		}
	}
}

// Each of the four digits of an escape has to be one, in a string that ends soon and in one that goes on.
func TestDigitsOfEscapes(t *testing.T) {
	for _, behind := range []string{"", strings.Repeat("b", 100)} {
		for place := range 4 {
			for c := range 256 {
				digits := []byte("0041")
				digits[place] = byte(c)
				doc := []byte(`["a\u` + string(digits) + behind + `"]`)
				tokens, err := scan(t, Limits{}, nil, doc)
				unit, bad := strconv.ParseUint(string(digits), 16, 16)
				switch {
				case bad != nil:
					require.Equal(t, &Error{Syntax, int64(5 + place)}, err, "%q", doc)
				case unit&0xf800 == 0xd800:
					require.Equal(t, Surrogate, err.(*Error).Code, "%q", doc)
				default:
					require.NoError(t, err, "%q", doc)
					require.Equal(t, []string{"[", "text a" + string(rune(unit)) + behind, "]"}, bare(tokens), "%q", doc)
				}
			}
		}
	}
}

package guardrail

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSplit: the pieces of a text have all of it, none is too long or cuts a character, and each short part is whole in one of them.
func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]int{0, 16, 100, 2000}).Draw(t, "limit")
		var groups []group
		for range rapid.IntRange(0, 3).Draw(t, "groups") {
			groups = append(groups, group{text: []byte(strings.Repeat(someText(t, "text"), rapid.IntRange(1, 30).Draw(t, "times")))})
		}
		at := map[int]int{}
		for _, p := range split(groups, limit) {
			text := groups[p.group].text
			require.True(t, utf8.Valid(text[p.from:p.to]))
			require.Less(t, p.from, p.to)
			if limit > 0 {
				require.LessOrEqual(t, p.to-p.from, limit)
			} else {
				require.Equal(t, len(text), p.to-p.from)
			}
			if at[p.group] == 0 {
				require.Zero(t, p.from)
			} else {
				require.LessOrEqual(t, p.from, at[p.group]-min(overlapMost, limit/4)+4, "they overlap, but for a character")
			}
			require.LessOrEqual(t, p.from, at[p.group])
			require.Greater(t, p.to, at[p.group])
			at[p.group] = p.to
		}
		for i, g := range groups {
			require.Equal(t, len(g.text), at[i])
		}
	})
}

// TestWordAtEnd: what may go on in the next event.
func TestWordAtEnd(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "one": "one", "one ": "", "one two": "two", "a\u00a0b": "b", "one\nt\u00e4": "t\u00e4", "長い": "", "長x": "x", "mail jane@exam": "jane@exam",
		"나는 김민수": "김민수", "x ４１１１": "４１１１", "x ＡＢｃ": "ＡＢｃ", "x４、": "", "。": "",
	} {
		require.Equal(t, len(want), wordAtEnd([]byte(text)), text)
	}
	require.LessOrEqual(t, wordAtEnd([]byte(strings.Repeat("\u00e4", 3000))), wordMost+3)
}

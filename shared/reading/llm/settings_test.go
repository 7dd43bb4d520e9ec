package llm

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// TestCountText holds the reading of numbers in text to pydantic 2.14.4's, of which each line was asked.
func TestCountText(t *testing.T) {
	for text, want := range map[string]int{
		"100": 100, "007": 7, "+5": 5, "-0": 0, " 100 ": 100, "\t5\n": 5, "1_000": 1000, "0_1": 1, "100.0": 100, "100.00": 100, "1_0.0": 10,
		"99999999999999999999": 1<<31 - 1,
		// Refused there.
		"": 0, "-5": 0, "++1": 0, "1e3": 0, "1.0e0": 0, "10.5": 0, "10.": 0, ".0": 0, ".": 0, "_1": 0, "1_": 0, "1__0": 0, "1.0_0": 0, "1 0": 0, "0x10": 0, "\u0663": 0,
	} {
		require.Equal(t, want, countText([]byte(text)), "%q", text)
	}
}

// TestSettingsOfForms: a form's settings are read as text in JSON is.
func TestSettingsOfForms(t *testing.T) {
	for text, want := range map[string]int{
		"12": 12, " 12 ": 12, "1_2": 12, "+12": 12, "12.0": 12, "1e3": 0, "12.": 0, "12.5": 0, "-1": 0, "true": 0, "": 0,
		strings.Repeat(" ", maxSetting-1) + "7": 7, strings.Repeat(" ", maxSetting) + "7": 0, strings.Repeat("1", 10_000): 0,
	} {
		q, err := readForm(t, Transcriptions, Want{}, form(t, "max_completion_tokens", text, "stream", "On", "stream_include_usage", "y"))
		require.NoError(t, err)
		require.Equal(t, want, q.MaxTokens, "%q", text)
		require.True(t, q.Stream && q.IncludeUsage)
	}
	q, err := readForm(t, Other, Want{}, form(t, "max_tokens", "12"))
	require.NoError(t, err)
	require.Equal(t, 12, q.MaxTokens)
}

// TestSettingsInPieces: a setting may come in any pieces, and one that broke off leaves nothing behind.
func TestSettingsInPieces(t *testing.T) {
	const body = `{"stream":"yes","max_tokens":"1_2\u0030","stream_options":{"include_usage":"on"}}`
	var r RequestScanner
	for size := 1; size <= len(body); size++ {
		r.Reset(Chat, Want{}, jsonscan.Limits{})
		require.NoError(t, r.Feed([]byte(`{"max_tokens":"99`)))

		r.Reset(Chat, Want{}, jsonscan.Limits{})
		for rest := body; rest != ""; {
			n := min(size, len(rest))
			require.NoError(t, r.Feed([]byte(rest[:n])))
			rest = rest[n:]
		}
		require.NoError(t, r.End())
		facts := r.Request()
		require.True(t, facts.Stream && facts.IncludeUsage, "in pieces of %d", size)
		require.Equal(t, 120, facts.MaxTokens, "in pieces of %d", size)
	}
}

// TestLongSetting: what is too long for a setting is none, and the next one is read.
func TestLongSetting(t *testing.T) {
	for _, n := range []int{maxSetting, maxSetting + 1, 10_000} {
		var r RequestScanner
		r.Reset(Chat, Want{}, jsonscan.Limits{})
		text := strings.Repeat(" ", n-1) + "7"
		require.NoError(t, r.Feed([]byte(`{"max_tokens":`+strconv.Quote(text)+`,"stream":"on"}`)))
		require.NoError(t, r.End())
		want := 0
		if n <= maxSetting {
			want = 7
		}
		require.Equal(t, want, r.Request().MaxTokens, "%d bytes", n)
		require.True(t, r.Request().Stream)
	}
}

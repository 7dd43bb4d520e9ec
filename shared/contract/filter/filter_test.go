package filter_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

func TestExplanationsCannotPoseAsOthers(t *testing.T) {
	x := &filter.Exchange{}
	x.Reset(1)
	x.Explain("bbr", "a quota=admin\n")
	x.Explain("picker", "p")
	require.Equal(t, "bbr=a_quota_admin_ picker=p", string(x.Why()))
}

func TestLabelValue(t *testing.T) {
	for in, want := range map[string]string{
		"llama-3 8b/ä": "llama-3 8b/ä", "a;b=c": "a_b=c", "a\nb\x7f": "a_b_", "a\xffb": "a_b", "": "",
		strings.Repeat("x", 200):         strings.Repeat("x", 128),
		strings.Repeat("ä", 63) + "xäää": strings.Repeat("ä", 63) + "x",
	} {
		require.Equal(t, want, filter.LabelValue(in))
	}
}

func TestLabelValuesCannotBreakOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		got := filter.LabelValue(string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")))
		require.LessOrEqual(t, len(got), 128)
		require.True(t, utf8.ValidString(got))
		require.NotContains(t, got, ";")
		require.False(t, strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }))
	})
}

package bbr

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFitsHeader(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "a": true, " ": false, " a": false, "a ": false, "a b": true, "é": true, "\x80": true,
		strings.Repeat("a", 255): true, strings.Repeat("a", 256): true, strings.Repeat("a", 257): false,
	} {
		require.Equal(t, want, fitsHeader(text), "%q", text)
	}
	for c := range byte(0x80) {
		for _, text := range []string{"a" + string(rune(c)) + "b", "ab" + string(rune(c)) + "c"} {
			require.Equal(t, c >= 0x20 && c != 0x7f, fitsHeader(text), "%q", text)
		}
		require.Equal(t, c > 0x20 && c != 0x7f, fitsHeader(string(rune(c))), "%q", c)
	}
}

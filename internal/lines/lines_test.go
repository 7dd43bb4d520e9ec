package lines

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGenerate(t *testing.T) {
	all := Generate(7)
	require.Equal(t, all, Generate(7), "a seed always makes the same")
	require.NotEqual(t, all, Generate(8))
	seen := map[string][2]int{}
	for _, l := range all {
		n := seen[l.Kind]
		if l.Real {
			n[0]++
		} else {
			n[1]++
		}
		seen[l.Kind] = n
		require.NotContains(t, l.Text, "{}")
	}
	for _, kind := range Kinds {
		require.GreaterOrEqual(t, seen[kind][0], 10, kind)
		require.GreaterOrEqual(t, seen[kind][1], 8, kind)
	}
}

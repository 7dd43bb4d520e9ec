package wasm

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPairsAreReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.SliceOf(rapid.Custom(func(t *rapid.T) [2]string {
			return [2]string{rapid.String().Draw(t, "name"), rapid.String().Draw(t, "value")}
		})).Draw(t, "pairs")
		before := [2]string{":method", "POST"}
		require.Equal(t, append([][2]string{before}, pairs...), appendPairs([][2]string{before}, marshalPairs(pairs)))
	})
}

func TestNoPairsAreReadFromNothing(t *testing.T) {
	require.Empty(t, appendPairs(nil, nil))
}

package endpoint_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// The longest note is part of the form: proxies and companions of other builds must agree on it.
func TestTheLongestNote(t *testing.T) {
	require.Equal(t, 4000, endpoint.MaxNote)
	for blocks, fits := range map[int]bool{0: false, 1: true, 4000: true, 4001: false} {
		chain := make([]uint64, blocks)
		n, rest, ok := endpoint.CutNote(append(endpoint.AppendNote(nil, 7, chain), "rest"...))
		require.Equal(t, fits, ok, blocks)
		if ok {
			require.EqualValues(t, 7, n.Replica)
			require.Equal(t, chain, n.AppendChain(nil))
			require.Equal(t, "rest", string(rest))
		}
	}
}

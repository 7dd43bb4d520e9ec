package mem

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// After four thousand million writes the numbers start again, and none of them is 0, which means "whatever is there".
func TestCasIsNeverZero(t *testing.T) {
	s := NewStore().(*store)
	s.last = math.MaxUint32 - 1
	seen := map[uint32]bool{}
	for range 4 {
		require.NoError(t, s.Set("k", nil, 0))
		_, cas, err := s.Get("k")
		require.NoError(t, err)
		require.NotZero(t, cas)
		require.False(t, seen[cas])
		seen[cas] = true
	}
}

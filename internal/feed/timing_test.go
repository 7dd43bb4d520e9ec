package feed

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The times that docs/architecture.md documents and the companion relies on.
func TestTimes(t *testing.T) {
	require.Equal(t, []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond}, []time.Duration{Period, Round, Renewal})
	require.Equal(t, []time.Duration{5 * time.Second, 2 * time.Second, 100 * time.Millisecond, 5 * time.Second}, []time.Duration{slack, reportTimeout, firstPause, lastPause})
}

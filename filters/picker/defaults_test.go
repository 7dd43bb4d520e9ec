package picker

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the README's table says of a document that does not say it.
func TestDefaults(t *testing.T) {
	r := newRig(t, "{}")
	s := r.f.settings
	require.Equal(t, "sticky", r.f.profile.name())
	require.Equal(t, 3, s.endpoints)
	require.Empty(t, s.pool)
	require.Equal(t, 2*time.Second, s.stale)
	require.False(t, s.shed)
	require.Equal(t, 10*time.Second, s.slowStart)
	require.Equal(t, []any{0.8, 32.0, int64(262144), int64(64 << 20)}, []any{s.hit, s.weight, s.saturation, s.memory})
	require.Equal(t, "x-session-token", s.session)
	require.Empty(t, s.explainWith)
	require.Equal(t, []any{5, 0.8, 100}, []any{s.room.queue, s.room.kv, s.room.inFlight})
	require.Equal(t, []any{3, 5 * time.Second, 5 * time.Minute, 0.5, 3 * time.Second}, []any{s.health.failures, s.health.eject, s.health.maxEject, s.health.share, s.health.silence})
	require.Empty(t, s.objectives)

	r.deps.Worker = "w"
	require.EqualValues(t, 32<<20, r.filter(t, "{}").memory, "in each wasm VM")
}

// An empty session header is no session: the load decides.
func TestAnEmptySessionIsNone(t *testing.T) {
	r := newRig(t, "profile: session")
	r.serve(ready(4)...)
	hits := map[string]int{}
	for range 40 {
		x := request(0, 0)
		x.RequestHeaders = headers{"x-session-token": ""}
		hits[r.send(t, x)]++
	}
	for i := range 4 {
		require.Equal(t, 10, hits[fmt.Sprintf("10.0.0.%03d:80", i)], "%v", hits)
	}
}

package picker

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// What the README's table says of a document that does not say it.
func TestDefaults(t *testing.T) {
	r := newRig(t, "{}")
	s := r.f.settings
	require.Equal(t, "sticky", r.f.profile.name)
	require.Equal(t, 3, s.endpoints)
	require.Empty(t, s.pool)
	require.Equal(t, 2*time.Second, s.stale)
	require.False(t, s.shed)
	require.Equal(t, 10*time.Second, s.slowStart)
	require.Equal(t, []any{0.8, 32.0, int64(262144), int64(64 << 20)}, []any{s.minHit, s.cachedWeight, s.maxTokens, s.memory})
	require.Equal(t, "x-session-token", s.session)
	require.Empty(t, s.explainWith)
	require.Equal(t, []any{5, 0.8, 100}, []any{s.saturation.queue, s.saturation.kv, s.saturation.inFlight})
	require.Equal(t, []any{3, 5 * time.Second, 5 * time.Minute, 0.5, 3 * time.Second}, []any{s.health.failures, s.health.eject, s.health.maxEject, s.health.share, s.health.firstByte})
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

// The bounds that the document's settings have, each with the settings that it needs beside it.
func TestBoundsOfSettings(t *testing.T) {
	for _, c := range []struct{ doc, below, least, most, above string }{
		{"{endpoints: %s}", "0", "1", "16", "17"},
		{"{stale: %s}", "49ms", "50ms", "1h", "3601s"},
		{"{slowStart: %s}", "-1s", "0s", "1h", "3601s"},
		{"{prefix: {memory: %s}}", "511", "512", "4GiB", "4294967297"},
		{"{prefix: {hit: %s}}", "0", "0.01", "1", "1.1"},
		{"{prefix: {weight: %s}}", "0.9", "1", "1000", "1001"},
		{"{prefix: {maxTokens: %s}}", "0", "1", "1073741824", "1073741825"},
		{"{saturation: {queue: %s}}", "0", "1", "1073741824", "1073741825"},
		{"{saturation: {kv: %s}}", "0", "0.01", "1", "1.1"},
		{"{saturation: {inFlight: %s}}", "0", "1", "1073741824", "1073741825"},
		{"{health: {failures: %s}}", "0", "1", "1000", "1001"},
		{"{health: {maxEject: 24h, eject: %s}}", "99ms", "100ms", "1h", "3601s"},
		{"{health: {eject: 100ms, maxEject: %s}}", "99ms", "100ms", "24h", "86401s"},
		{"{health: {share: %s}}", "-0.1", "0", "1", "1.1"},
		{"{health: {firstByte: %s}}", "99ms", "100ms", "1h", "3601s"},
	} {
		try := func(value string) error {
			r := newRig(t, "{}")
			return conf.Decode([]byte(fmt.Sprintf(c.doc, value)), func(o *conf.Object) { newFilter(o, r.deps) })
		}
		require.NoError(t, try(c.least), c.doc)
		require.NoError(t, try(c.most), c.doc)
		require.ErrorContains(t, try(c.below), "is out of range", c.doc)
		require.ErrorContains(t, try(c.above), "is out of range", c.doc)
	}
}

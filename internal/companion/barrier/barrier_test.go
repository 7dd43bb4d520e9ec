package barrier_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/barrier"
)

func TestAPanicIsLoggedAndFollowedByAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		began := time.Now()
		var at []time.Duration
		barrier.Run(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), "the scraper", func() {
			if at = append(at, time.Since(began)); len(at) < 9 {
				panic("no such thing")
			}
		})
		ms := time.Millisecond
		require.Equal(t, []time.Duration{0, 100 * ms, 300 * ms, 700 * ms, 1500 * ms, 3100 * ms, 6300 * ms, 11300 * ms, 16300 * ms}, at)
		require.Contains(t, log.String(), `in="the scraper" panic="no such thing"`)
		require.Contains(t, log.String(), "barrier_test.go")
	})
}

func TestItEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	barrier.Run(ctx, slog.New(slog.DiscardHandler), "", func() {
		runs++
		cancel()
		panic(1)
	})
	require.Equal(t, 1, runs)
}

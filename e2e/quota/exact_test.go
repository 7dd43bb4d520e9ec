package quota_test

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// ask sends a request until there is an answer: on a busy machine the companion may be too slow for one that fails closed.
func ask(ctx context.Context, url, caller string) (*answer, error) {
	for {
		a, err := post(ctx, fresh, url+chatPath, chat, "x-api-key", keyOf(caller))
		if err != nil || a.status != http.StatusServiceUnavailable {
			return a, err
		}
	}
}

// testExact: of many requests at once, in all workers and all Envoys, exactly 100 pass in one window.
func testExact(t *testing.T, caller string, urls ...string) {
	const sent, clients = 180, 12
	var (
		mu       sync.Mutex
		statuses = map[int]int{}
		refusals []*answer
		all      sync.WaitGroup
	)
	for n := range clients {
		all.Go(func() {
			for i := range sent / clients {
				a, err := ask(t.Context(), urls[(n+i)%len(urls)], caller)
				mu.Lock()
				if err == nil {
					statuses[a.status]++
					if a.status == http.StatusTooManyRequests {
						refusals = append(refusals, a)
					}
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Equal(t, map[int]int{http.StatusOK: 100, http.StatusTooManyRequests: sent - 100}, statuses)
	for _, a := range refusals {
		wait, err := strconv.Atoi(a.header.Get("retry-after"))
		require.NoError(t, err)
		require.LessOrEqual(t, wait, 30)
		require.Positive(t, wait)
		require.Equal(t, "100", a.header.Get("x-ratelimit-limit-requests"))
		require.Equal(t, "0", a.header.Get("x-ratelimit-remaining-requests"))
		require.Equal(t, "no-store", a.header.Get("cache-control"))
		require.Contains(t, a.body, `"rate_limit_exceeded"`)
	}
}

package quota_test

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/redisbin"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestRedis runs two Envoys, each with a companion of its own; what the companions share is a Redis. The first Envoy
// admits its share while nobody can be asked, the second one refuses.
func TestRedis(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			redis, err := redisbin.Start(context.WithoutCancel(t.Context()), t.TempDir(), "--appendonly", "yes", "--appendfsync", "always")
			require.NoError(t, err)
			t.Cleanup(func() { redis.Stop() })
			shared := map[string]any{"redis": map[string]any{"addresses": []string{redis.Address()}}}
			open := stack.ForTest(t, stack.Options{
				ABI: abi, Chain: outageChain("FailOpen"), Pools: quick(),
				Quota: map[string]any{"store": shared}, Admin: true,
			})
			closed := stack.ForTest(t, stack.Options{
				ABI: abi, Chain: outageChain("FailClosed"), Pools: []stack.Pool{{Name: "llama", Addresses: []string{open.Replicas[0].Address()}}},
				Quota: map[string]any{"store": shared},
			})
			// A companion that starts grants nothing before what another one may have granted has run out.
			eventually(t, "both Envoys have something to give", func() (bool, error) {
				got, err := post(t.Context(), fresh, closed.URL()+chatPath, chat, "x-api-key", keyOf("Redis"))
				return err == nil && got.status == http.StatusOK, err
			})
			t.Run("the 101st request", func(t *testing.T) { testExact(t, "two companions", open.URL(), closed.URL()) })
			t.Run("Redis dies", func(t *testing.T) {
				testOutage(t, "Redis", open, closed, redis.Kill, func() error { return redis.Restart(context.WithoutCancel(t.Context())) })
			})
			t.Run("the companions die", func(t *testing.T) {
				testOutage(t, "companions", open, closed, func() { open.Companion.Kill(); closed.Companion.Kill() }, func() error {
					ctx := context.WithoutCancel(t.Context())
					if err := open.Companion.Start(ctx); err != nil {
						return err
					}
					return closed.Companion.Start(ctx)
				})
			})
			require.Empty(t, open.EnvoyErrors())
			require.Empty(t, closed.EnvoyErrors())
		})
	}
}

func quick() []stack.Pool {
	return []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--model", "llama-3-8b", "--speed", "0"}}}
}

// outageChain has a product whose limit is never reached, so that nothing but the outage refuses.
func outageChain(onFailure string) string {
	return models + `  - quota:
      keys: {list: [` + listed("two companions", "exact") + ", " + listed("Redis", "free") + ", " + listed("companions", "free") + `]}
      products:
        - {name: exact, start: flexi, requests: 100/30s}
        - {name: free, requests: 1000M/day, tokens: {total: 1000M/day}}
      onStoreFailure: ` + onFailure + `
companion: {cluster: inlet-companion}
`
}

// load is what clients of one gateway got so far.
type load struct {
	mu      sync.Mutex
	answers map[int]int
	refusal string // the last one's body
	wrong   []string
}

// run sends requests until ctx ends.
func (l *load) run(ctx context.Context, url, caller string) {
	for ctx.Err() == nil {
		got, err := post(context.WithoutCancel(ctx), kept, url+chatPath, chat, "x-api-key", keyOf(caller))
		l.mu.Lock()
		switch {
		case err != nil:
			l.wrong = append(l.wrong, err.Error())
		case got.status == http.StatusServiceUnavailable:
			if wait, err := strconv.Atoi(got.header.Get("retry-after")); err != nil || wait < 1 || wait > 5 {
				l.wrong = append(l.wrong, "retry-after: "+got.header.Get("retry-after"))
			}
			l.answers[got.status]++
			l.refusal = got.body
		default:
			l.answers[got.status]++
		}
		l.mu.Unlock()
	}
}

func (l *load) count(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[status]
}

// testOutage: while the store of the counters is away, FailOpen serves, and FailClosed responds with 503 when what it was
// granted is used up. Afterwards both serve again, and the counter is the number of requests that were served.
func testOutage(t *testing.T, caller string, open, closed *stack.Stack, kill func(), restart func() error) {
	before, err := open.Used(t.Context(), "free/requests", "app="+caller)
	require.NoError(t, err)
	before = max(before, 0) // there is no such account yet
	ctx, stop := context.WithCancel(t.Context())
	loads := map[*stack.Stack]*load{open: {answers: map[int]int{}}, closed: {answers: map[int]int{}}}
	var all sync.WaitGroup
	for s, l := range loads {
		for range 4 {
			all.Go(func() { l.run(ctx, s.URL(), caller) })
		}
	}
	defer all.Wait()
	defer stop()
	more := func(s *stack.Stack, status, n int) {
		t.Helper()
		until := loads[s].count(status) + n
		eventually(t, strconv.Itoa(n)+" responses with "+strconv.Itoa(status), func() (bool, error) { return loads[s].count(status) >= until, nil })
	}
	more(open, http.StatusOK, 200)
	more(closed, http.StatusOK, 200)
	kill()
	more(closed, http.StatusServiceUnavailable, 20)
	more(open, http.StatusOK, 500)
	require.NoError(t, restart())
	more(closed, http.StatusOK, 200)
	more(open, http.StatusOK, 200)
	stop()
	all.Wait()
	for s, l := range loads {
		require.Empty(t, l.wrong)
		require.Zero(t, l.answers[http.StatusTooManyRequests], "the limit is not reached")
		for status := range l.answers {
			require.Contains(t, []int{http.StatusOK, http.StatusServiceUnavailable}, status)
		}
		if s == open {
			require.Zero(t, l.answers[http.StatusServiceUnavailable], "it fails open: %s", l.refusal)
		}
	}
	settled(t, open, before+int64(loads[open].count(http.StatusOK)+loads[closed].count(http.StatusOK)), "free/requests", "app="+caller)
}

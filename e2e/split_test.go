package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	splitRequests = 10_000
	splitClients  = 32 // enough connections to reach each of four workers
	splitUsers    = 200
)

// splits sends 90 of 100 requests for a model to one pool, at random; of two more
// models the same client always goes to the same pool.
const splits = `filters:
  - bbr:
      models:
        - {name: lot, targets: [{pool: one, weight: 90}, {pool: two, weight: 10}]}
        - {name: user, targets: [{pool: one, weight: 90}, {pool: two, weight: 10}], stickyBy: {field: user}}
        - {name: session, targets: [{pool: one, weight: 50}, {pool: two, weight: 50}], stickyBy: {header: x-session-id}}
countTokens: false
`

// TestSplits: four workers, each with its own random numbers, split as configured and
// agree on a client's pool; so do the two builds.
func TestSplits(t *testing.T) {
	stays := map[string]map[string]string{} // where clients go, by build
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			args := []string{"--speed", "0"}
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Workers: 4, Chain: splits, NoCompanion: true,
				Pools: []stack.Pool{{Name: "one", Replicas: 1, Args: args}, {Name: "two", Replicas: 1, Args: args}},
			})
			t.Run("at random", func(t *testing.T) { testSplitAtRandom(t, s) })
			t.Run("sticky", func(t *testing.T) { stays[abi] = testSticky(t, s) })
			require.Empty(t, s.EnvoyErrors())
		})
	}
	require.NotEmpty(t, stays[stack.Wasm])
	require.Equal(t, stays[stack.Wasm], stays[stack.Module])
}

// testSplitAtRandom expects the share within three standard deviations over ten thousand
// requests. One correct sample in 370 lies outside, so it may be followed by a second
// one, which must not: both fail once in 137,000. A share that is wrong by two
// hundredths fails both.
func testSplitAtRandom(t *testing.T, s *stack.Stack) {
	const p = 0.9
	sigma := math.Sqrt(splitRequests * p * (1 - p))
	for sample := 1; ; sample++ {
		var first atomic.Int64
		inParallel(t, splitRequests, func(int) error {
			pool, err := poolFor(t, s, `{"model":"lot"}`, "")
			if pool == "one" {
				first.Add(1)
			}
			return err
		})
		off := (float64(first.Load()) - splitRequests*p) / sigma
		t.Logf("sample %d: %d of %d, %+.2f standard deviations", sample, first.Load(), splitRequests, off)
		if math.Abs(off) <= 3 {
			return
		}
		require.Less(t, sample, 2, "two samples beyond three standard deviations")
	}
}

// testSticky sends several requests for each client, over many connections, and
// returns where they went.
func testSticky(t *testing.T, s *stack.Stack) map[string]string {
	const times = 10
	var mu sync.Mutex
	stays := map[string]string{}
	inParallel(t, splitUsers*times, func(n int) error {
		user := fmt.Sprintf("user %d", n%splitUsers)
		body, session := `{"user":"`+user+`","model":"user"}`, ""
		if n%2 == 1 {
			body, session = `{"model":"session"}`, user
		}
		pool, err := poolFor(t, s, body, session)
		mu.Lock()
		defer mu.Unlock()
		if before, known := stays[user]; known && before != pool && err == nil {
			return fmt.Errorf("%s: first %s, then %s", user, before, pool)
		}
		stays[user] = pool
		return err
	})
	pools := map[string]int{}
	for _, pool := range stays {
		pools[pool]++
	}
	require.Len(t, pools, 2, "both pools have clients")
	return stays
}

// poolFor sends a request and returns the pool of the replica that served it.
func poolFor(t *testing.T, s *stack.Stack, body, session string) (string, error) {
	a := post(t.Context(), s, "/v1/embeddings", strings.Replace(body, "{", `{"input":"a",`, 1), "x-session-id", session)
	if a.err == nil && a.status != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", a.status, a.body)
	}
	pool, _, _ := strings.Cut(a.header.Get("x-modelsim-replica"), "-")
	return pool, a.err
}

// inParallel calls f for each number below n, from many concurrent clients.
func inParallel(t *testing.T, n int, f func(int) error) {
	t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, splitClients)
	for range splitClients {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := f(int(i)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

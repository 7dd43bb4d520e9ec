package fleet

import (
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/bench/replay/workload"
	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

func mooncake(t *testing.T) *workload.Workload {
	t.Helper()
	w, err := workload.Shipped(workload.Mooncake)
	require.NoError(t, err)
	require.NoError(t, w.Scan())
	return w
}

// Replicas that take no time, picked in turn, find what a plain LRU model of their caches finds: these limits were
// computed by others.
func TestRoundRobinFindsWhatItMust(t *testing.T) {
	w := mooncake(t).Over(time.Minute) // that uses only the order
	for blocks, want := range map[int]float64{10_000: 0.126, 3_000: 0.089, 1_000: 0.061} {
		c := Config{Replicas: 8, Proxies: 1, Workers: 1, Engine: engine.Config{Blocks: blocks, BlockTokens: 512, Timing: engine.Instant}}
		r, err := Run(c, w, Picker("{profile: round-robin}"))
		require.NoError(t, err)
		require.InDelta(t, want, r.HitRatio(), 0.0015, "%d blocks", blocks)
		require.Equal(t, len(w.Requests), r.Requests)
	}
}

// slice is some minutes of the trace on four replicas that computing prompts keeps busy for 80 % of the time, if they had
// one cache.
func slice(t *testing.T) (Config, *workload.Workload, float64) {
	w := mooncake(t).Head(2500)
	timing := engine.Default
	timing.ContextTime = 6 * time.Microsecond
	c := Config{Replicas: 4, Proxies: 1, Workers: 2, Engine: engine.Config{Blocks: 10_000, BlockTokens: 512, MaxNumBatchedTokens: 2048, Timing: timing}}
	b := w.Bound()
	return c, w.Over(time.Duration(float64(b.Uncached) / timing.PrefillRate / 4 / 0.8 * 1e9)), b.HitRatio()
}

// What the picker is for, in numbers: it finds nearly all that one infinite cache would, and all replicas work.
func TestConversationsStayAndWorkIsShared(t *testing.T) {
	c, w, possible := slice(t)
	play := func(proxies int, begin func(Config, *workload.Workload, Gauges) (Router, error)) *Result {
		c.Proxies = proxies
		r, err := Run(c, w, begin)
		require.NoError(t, err)
		return r
	}
	for proxies, share := range map[int]float64{1: 0.97, 4: 0.93} {
		sticky := play(proxies, Picker("{profile: sticky}"))
		require.Greater(t, sticky.HitRatio(), share*possible, "%d proxies", proxies)
		require.Less(t, sticky.Imbalance(), 1.1)
		blind := play(proxies, Picker("{profile: round-robin}"))
		require.Less(t, blind.HitRatio(), 0.7*possible)
		require.Less(t, 2*sticky.TTFT(0.95), blind.TTFT(0.95))
	}
	require.Greater(t, play(1, EPP).HitRatio(), 0.8*possible)
	require.Less(t, play(1, Random).HitRatio(), 0.7*possible)
}

// chosen sends each request to a given worker, and keeps why the picker picked its replica.
type chosen struct {
	Router
	workers []int
	why     []string
}

func (c *chosen) Pick(now time.Duration, _ int, f *Flight) (int, error) {
	f.Worker = c.workers[len(c.why)]
	replica, err := c.Router.Pick(now, f.Worker, f)
	c.why = append(c.why, string(f.state.(*filter.Exchange).Why()))
	return replica, err
}

// What one worker knows, the others of its proxy know within two ticks. Other proxies know it only through the companion:
// not yet then, but within the 200 ms of a round.
func TestProxiesHearOfEachOther(t *testing.T) {
	c, w, _ := slice(t)
	c.Proxies = 3
	sent := []struct {
		at     time.Duration
		worker int
		known  bool
	}{{0, 1, false}, {45 * time.Millisecond, 0, true}, {45 * time.Millisecond, 2, false}, {300 * time.Millisecond, 5, true}}
	w = w.Head(len(sent))
	var workers []int
	for i, s := range sent {
		w.Requests[i] = w.Requests[0]
		w.Requests[i].At = s.at
		workers = append(workers, s.worker)
	}
	var router *chosen
	_, err := Run(c, w, func(c Config, w *workload.Workload, g Gauges) (Router, error) {
		inlet, err := Picker("{profile: sticky}")(c, w, g)
		router = &chosen{Router: inlet, workers: workers}
		return router, err
	})
	require.NoError(t, err)
	for i, s := range sent {
		hit := regexp.MustCompile(`hit=(\d+)/(\d+)`).FindStringSubmatch(router.why[i])
		require.NotNil(t, hit, router.why[i])
		want := "0"
		if s.known {
			want = hit[2]
		}
		require.Equal(t, want, hit[1], "request %d: %s", i, router.why[i])
	}
}

// The same run gives the same figures, another seed gives others.
func TestRunsRepeat(t *testing.T) {
	c, w, _ := slice(t)
	w = w.Head(600)
	c.Proxies = 4
	for _, begin := range []func(Config, *workload.Workload, Gauges) (Router, error){Picker("{profile: sticky}"), EPP} {
		c.Seed = 1
		first, err := Run(c, w, begin)
		require.NoError(t, err)
		again, err := Run(c, w, begin)
		require.NoError(t, err)
		require.Equal(t, first, again)
		c.Seed = 2
		other, err := Run(c, w, begin)
		require.NoError(t, err)
		require.NotEqual(t, first, other)
	}
}

// Requests are distributed over all workers, and a request that does not fit a replica is an error.
func TestRunRefuses(t *testing.T) {
	c, w, _ := slice(t)
	c.Engine.Blocks = 10
	_, err := Run(c, w, Random)
	require.ErrorIs(t, err, engine.ErrTooLong)
	_, err = Run(c, w, Picker("{profile: x}"))
	require.ErrorContains(t, err, "is not one of")
}

// The index keeps the blocks of each replica that were used last.
func TestEPPIndex(t *testing.T) {
	x := eppIndex{capacity: 3, of: make([]lru, 2), holders: map[uint64][]int32{}}
	counts := make([]int, 2)
	x.add(0, []uint64{1, 2, 3})
	x.add(1, []uint64{1, 2})
	require.Equal(t, 4, x.match([]uint64{1, 2, 3, 4}, counts))
	require.Equal(t, []int{3, 2}, counts)
	x.add(0, []uint64{1, 5})
	x.match([]uint64{1, 2, 3}, counts)
	require.Equal(t, []int{2, 2}, counts, "the end of a prompt is forgotten first")
	x.add(0, []uint64{6, 7, 8})
	x.match([]uint64{1, 2, 3}, counts)
	require.Equal(t, []int{0, 2}, counts)
	require.Len(t, x.holders, 5)
}

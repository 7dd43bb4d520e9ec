package scorer_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// load is a counter that stands still.
type load int64

func (l load) Add(int64)    {}
func (l load) Value() int64 { return int64(l) }

func drawEndpoints(t *rapid.T) []*endpoint.Endpoint {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *endpoint.Endpoint {
		return &endpoint.Endpoint{
			Address: rapid.StringMatching(`10\.0\.0\.[0-9]{1,3}:80`).Draw(t, "address"),
			Ready:   true,
			Load:    load(rapid.Int64Range(-3, 1000).Draw(t, "load")),
			Gauges: endpoint.Gauges{
				Known:   rapid.Bool().Draw(t, "known"),
				Age:     time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "age")),
				Waiting: rapid.IntRange(0, 10000).Draw(t, "waiting"),
				Running: rapid.IntRange(0, 10000).Draw(t, "running"),
				KVUse:   rapid.Float64Range(0, 1).Draw(t, "kv"),
			},
		}
	}), 0, 20).Draw(t, "endpoints")
}

func score(s scorer.Scorer, eps []*endpoint.Endpoint) []float64 {
	out := make([]float64, len(eps))
	for i := range out {
		out[i] = math.NaN() // must be overwritten
	}
	s.Score(scorer.Input{SinceReceived: 100 * time.Millisecond, Stale: 2 * time.Second}, eps, out)
	return out
}

// The laws of Scorer, for every one in All.
func TestLaws(t *testing.T) {
	for _, s := range scorer.All {
		t.Run(s.Name(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				eps := drawEndpoints(t)
				out := score(s, eps)
				for i, v := range out {
					if !(v >= 0 && v <= 1) {
						t.Fatalf("score %d is %v, want 0..1", i, v)
					}
				}
				if again := score(s, eps); !near(out, again) {
					t.Fatalf("equal inputs, other scores: %v and %v", out, again)
				}
				order := rapid.Permutation(indices(len(eps))).Draw(t, "order")
				shuffled := make([]*endpoint.Endpoint, len(eps))
				for i, j := range order {
					shuffled[i] = eps[j]
				}
				for i, v := range score(s, shuffled) {
					if math.Abs(v-out[order[i]]) > 1e-9 {
						t.Fatalf("the score of %d depends on its place: %v and %v", order[i], out[order[i]], v)
					}
				}
			})
		})
	}
}

func TestScoresAllocateNothing(t *testing.T) {
	eps := make([]*endpoint.Endpoint, 100)
	for i := range eps {
		eps[i] = &endpoint.Endpoint{Load: load(i), Gauges: endpoint.Gauges{Known: true, Waiting: i}}
	}
	out := make([]float64, len(eps))
	for _, s := range scorer.All {
		allocs := testing.AllocsPerRun(100, func() { s.Score(scorer.Input{Stale: time.Second}, eps, out) })
		require.Zero(t, allocs, s.Name())
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scorer.All {
		require.False(t, seen[s.Name()], s.Name())
		seen[s.Name()] = true
	}
}

func TestInFlightPrefersFewer(t *testing.T) {
	out := score(scorer.InFlight{}, []*endpoint.Endpoint{{Load: load(0)}, {Load: load(1)}, {Load: load(50)}, {}})
	require.Greater(t, out[0], out[1])
	require.Greater(t, out[1], out[2])
	require.Equal(t, out[0], out[3], "nothing was sent there yet")
}

func TestQueueTrustsFreshGauges(t *testing.T) {
	known := func(waiting int, age time.Duration) *endpoint.Endpoint {
		return &endpoint.Endpoint{Gauges: endpoint.Gauges{Known: true, Waiting: waiting, Age: age}}
	}
	out := score(scorer.Queue{}, []*endpoint.Endpoint{known(0, 0), known(5, 0), known(100, 0)})
	require.Greater(t, out[0], out[1])
	require.Greater(t, out[1], out[2])

	// A stale idle replica is not preferred to a fresh idle one, and a stale
	// saturated one is not shunned like a fresh saturated one.
	out = score(scorer.Queue{}, []*endpoint.Endpoint{known(0, 0), known(0, time.Hour), known(100, 0), known(100, time.Hour)})
	require.Greater(t, out[0], out[1])
	require.Greater(t, out[3], out[2])
	require.InDelta(t, out[1], out[3], 1e-9, "stale gauges say the same: nothing")

	// With no gauge at all, nobody is preferred.
	out = score(scorer.Queue{}, []*endpoint.Endpoint{{}, {}})
	require.Equal(t, []float64{0.5, 0.5}, out)
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func near(a, b []float64) bool {
	for i := range a {
		if math.Abs(a[i]-b[i]) > 1e-12 {
			return false
		}
	}
	return len(a) == len(b)
}

package scorer_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

func drawReplicas(t *rapid.T) []scorer.Replica {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) scorer.Replica {
		r := scorer.Replica{
			WarmUp:   rapid.Float64Range(0.1, 1).Draw(t, "warm-up"),
			Work:     rapid.Float64Range(0, 1e6).Draw(t, "work"),
			Found:    scorer.Found{Affinity: rapid.SampledFrom([]scorer.Affinity{scorer.NoAffinity, scorer.Stays, scorer.Attracts}).Draw(t, "affinity")},
			ID:       rapid.Uint64().Draw(t, "id"),
			InFlight: rapid.Int64Range(-3, 1000).Draw(t, "in flight"),
			Tokens:   rapid.Int64Range(-3, 1_000_000).Draw(t, "tokens"),
			Hit:      rapid.Float64Range(0, 1).Draw(t, "hit"),
			Trust:    rapid.Float64Range(0, 1).Draw(t, "trust"),
			Endpoint: &endpoint.Endpoint{
				Address: rapid.StringMatching(`10\.0\.0\.[0-9]{1,3}:80`).Draw(t, "address"),
				Ready:   true,
				LoRA:    drawLoRA(t),
				Gauges: endpoint.Gauges{
					Known:   true,
					Waiting: rapid.IntRange(0, 10000).Draw(t, "waiting"),
					Running: rapid.IntRange(0, 10000).Draw(t, "running"),
					KVUse:   rapid.Float64Range(0, 1).Draw(t, "kv"),
				},
			},
		}
		switch rapid.IntRange(0, 4).Draw(t, "what is known") {
		case 0: // never scraped, or without the metrics
			r.Trust, r.Endpoint = 0, &endpoint.Endpoint{Address: r.Address, Ready: true}
		case 1: // stale
			r.Trust = 0
		}
		return r
	}), 0, 20).Draw(t, "replicas")
}

func drawLoRA(t *rapid.T) *endpoint.LoRA {
	if rapid.Bool().Draw(t, "LoRA") {
		return nil
	}
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"lora-1", "lora-2", "lora-3"}), 0, 3, rapid.ID[string])
	l := &endpoint.LoRA{Running: names.Draw(t, "running"), Waiting: names.Draw(t, "waiting"), Max: rapid.IntRange(0, 5).Draw(t, "max")}
	slices.Sort(l.Running)
	slices.Sort(l.Waiting)
	return l
}

func drawInput(t *rapid.T) *scorer.Input {
	return &scorer.Input{
		Model:   rapid.SampledFrom([]string{"", "llama", "lora-1"}).Draw(t, "model"),
		Adapter: rapid.Bool().Draw(t, "adapter"),
		Session: rapid.SampledFrom([]uint64{0, 1, 1 << 63}).Draw(t, "session"),
		Turn:    rapid.Uint64().Draw(t, "turn"),
		Tokens:  rapid.Int64Range(0, 1_000_000).Draw(t, "tokens"),

		CachedWeight: rapid.Float64Range(1, 1000).Draw(t, "cached weight"),
	}
}

func score(s scorer.Scorer, in *scorer.Input, rs []scorer.Replica) []float64 {
	out := make([]float64, len(rs)+1)
	for i := range out {
		out[i] = math.NaN() // must be overwritten, but for the last one
	}
	before := slices.Clone(rs)
	s.Score(in, rs, out[:len(rs)])
	if !math.IsNaN(out[len(rs)]) || !slices.Equal(before, rs) {
		panic(s.Name() + " writes where it must not")
	}
	return out[:len(rs)]
}

// plain is a request of which nothing is special.
var plain = &scorer.Input{}

// The laws of Scorer, for every one in All.
func TestLaws(t *testing.T) {
	for _, s := range scorer.All {
		t.Run(s.Name(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				in, rs := drawInput(t), drawReplicas(t)
				out := score(s, in, rs)
				_, standalone := s.(scorer.Standalone)
				for i, v := range out {
					if math.IsNaN(v) || !standalone && (v < 0 || v > 1) {
						t.Fatalf("score %d is %v, want 0..1", i, v)
					}
				}
				if again := score(s, in, rs); !near(out, again) {
					t.Fatalf("equal inputs, other scores: %v and %v", out, again)
				}
				if s.Needs().Has(scorer.NeedTurn) {
					return // whose turn it is does depend on the order
				}
				order := rapid.Permutation(indices(len(rs))).Draw(t, "order")
				shuffled := make([]scorer.Replica, len(rs))
				for i, j := range order {
					shuffled[i] = rs[j]
				}
				for i, v := range score(s, in, shuffled) {
					if math.Abs(v-out[order[i]]) > 1e-9 {
						t.Fatalf("the score of %d depends on its place: %v and %v", order[i], out[order[i]], v)
					}
				}
			})
		})
	}
}

// What is not known of a replica neither favours it nor counts against it: if
// nothing is known of any, all score the same.
func TestUnknownIsNeutral(t *testing.T) {
	for _, s := range scorer.All {
		if s.Needs().Has(scorer.NeedTurn) {
			continue // somebody's turn it is
		}
		rapid.Check(t, func(t *rapid.T) {
			rs := drawReplicas(t)
			for i := range rs {
				rs[i] = scorer.Replica{ID: rs[i].ID, WarmUp: 1, Endpoint: &endpoint.Endpoint{Ready: true}}
			}
			for _, v := range score(s, plain, rs) {
				if first := score(s, plain, rs)[0]; v != first {
					t.Fatalf("%s: %v and %v for replicas of which nothing is known", s.Name(), first, v)
				}
			}
		})
	}
}

func TestScoresAllocateNothing(t *testing.T) {
	rs := make([]scorer.Replica, 2000)
	for i := range rs {
		rs[i] = scorer.Replica{InFlight: int64(i), Trust: 1, Endpoint: &endpoint.Endpoint{
			Gauges: endpoint.Gauges{Known: true, Waiting: i}, LoRA: &endpoint.LoRA{Running: []string{"a"}, Max: 2},
		}}
	}
	out := make([]float64, len(rs))
	in := &scorer.Input{Session: 7, Model: "a", Adapter: true}
	for _, s := range scorer.All {
		require.Zero(t, testing.AllocsPerRun(10, func() { s.Score(in, rs, out) }), s.Name())
	}
}

// The registry is what a configuration can name: each once, in order.
func TestRegistry(t *testing.T) {
	names := scorer.Names()
	require.Len(t, names, len(scorer.All))
	require.True(t, slices.IsSorted(names), "%v", names)
	require.Equal(t, names, slices.Compact(slices.Clone(names)))
	for _, name := range names {
		require.Regexp(t, `^[a-z]+(-[a-z]+)*$`, name)
		require.Equal(t, name, scorer.Named(name).Name())
	}
	require.Nil(t, scorer.Named("sticky"))
	require.Subset(t, names, []string{"in-flight", "kv-cache", "lora", "prefix", "queue", "requests", "round-robin", "session", "work"})
}

// What a scorer reads, it says that it needs: without it, it has no opinion.
func TestNeeds(t *testing.T) {
	for _, s := range scorer.All {
		rapid.Check(t, func(t *rapid.T) {
			in, rs := drawInput(t), drawReplicas(t)
			needs := s.Needs()
			same := *in
			if !needs.Has(scorer.NeedSession) {
				same.Session = 0
			}
			if !needs.Has(scorer.NeedTurn) {
				same.Turn = 0
			}
			others := slices.Clone(rs)
			for i := range others {
				if !needs.Has(scorer.NeedPrefix) {
					others[i].Hit = 0
				}
				if !needs.Has(scorer.NeedWork) {
					others[i].Work, others[i].Affinity = 0, scorer.NoAffinity
				}
			}
			if before, without := score(s, in, rs), score(s, &same, others); !near(before, without) {
				t.Fatalf("%s uses something that it does not need: %v, without it %v", s.Name(), before, without)
			}
		})
	}
	require.True(t, scorer.LoRA{}.Needs().Has(scorer.NeedAdapter))
	require.False(t, scorer.Needs(0).Has(scorer.NeedPrefix))
	require.False(t, scorer.NeedPrefix.Has(scorer.NeedPrefix|scorer.NeedTurn), "all bits")
}

func TestRoundRobinTakesTurns(t *testing.T) {
	rs := make([]scorer.Replica, 3)
	for turn, want := range [][]float64{{0, -1, -2}, {-2, 0, -1}, {-1, -2, 0}, {0, -1, -2}} {
		require.Equal(t, want, score(scorer.RoundRobin{}, &scorer.Input{Turn: uint64(turn)}, rs))
	}
}

// Work is the tokens before the first one of the response; a cached one that attracts
// counts more.
func TestWork(t *testing.T) {
	in := &scorer.Input{Tokens: 1000, CachedWeight: 32}
	require.Equal(t, []float64{-1000, -1500, -15000, -750, -750, -750 + 31*250}, score(scorer.Work{}, in, []scorer.Replica{
		{WarmUp: 1},
		{WarmUp: 1, Work: 500},
		{WarmUp: 0.1, Work: 500},
		{WarmUp: 1, Hit: 0.25},
		{WarmUp: 1, Hit: 0.25, Found: scorer.Found{Affinity: scorer.Stays}},
		{WarmUp: 1, Hit: 0.25, Found: scorer.Found{Affinity: scorer.Attracts}},
	}))
}

func TestInFlightPrefersFewer(t *testing.T) {
	out := score(scorer.InFlight{}, plain, []scorer.Replica{{InFlight: 0}, {InFlight: 1}, {InFlight: 50}, {InFlight: -1}})
	require.Greater(t, out[0], out[1])
	require.Greater(t, out[1], out[2])
	require.Equal(t, out[0], out[3], "less than nothing is nothing")
}

// What this Envoy has in flight and what the gauges report about others are one number.
func TestRequests(t *testing.T) {
	busy := func(inFlight int64, trust float64, waiting, running int) scorer.Replica {
		r := gauges(trust, endpoint.Gauges{Waiting: waiting, Running: running})
		r.InFlight = inFlight
		return r
	}
	out := score(scorer.Requests{}, plain, []scorer.Replica{
		busy(0, 1, 0, 0), busy(8, 1, 0, 0), busy(0, 1, 3, 5), busy(8, 1, 3, 5), busy(8, 1, 3, 13), busy(0, 0, 9, 9),
	})
	require.Greater(t, out[0], out[1])
	require.Equal(t, out[1], out[2])
	require.Equal(t, out[1], out[3], "those that run there are those from here")
	require.Greater(t, out[3], out[4])
	mean := (8.0 + 8.0) / 5 // others of the five whose gauges are fresh
	require.InDelta(t, 5/(5+mean), out[5], 1e-9, "of what is not known the mean is taken")
}

func gauges(trust float64, g endpoint.Gauges) scorer.Replica {
	return scorer.Replica{Trust: trust, Endpoint: &endpoint.Endpoint{Gauges: g}}
}

// What holds for every scorer that uses gauges; load sets one.
func testGauges(t *testing.T, s scorer.Scorer, load func(g *endpoint.Gauges, share float64)) {
	known := func(share, trust float64) scorer.Replica {
		g := endpoint.Gauges{Known: true}
		load(&g, share)
		return gauges(trust, g)
	}
	out := score(s, plain, []scorer.Replica{known(0, 1), known(0.5, 1), known(1, 1)})
	require.Greater(t, out[0], out[1])
	require.Greater(t, out[1], out[2])

	// A stale idle replica is not preferred to a fresh idle one, and a stale
	// saturated one is not shunned like a fresh saturated one.
	out = score(s, plain, []scorer.Replica{known(0, 1), known(0, 0), known(1, 1), known(1, 0)})
	require.Greater(t, out[0], out[1])
	require.Greater(t, out[3], out[2])
	require.InDelta(t, out[1], out[3], 1e-9, "stale gauges say the same: nothing")

	// With no gauge at all, nobody is preferred.
	out = score(s, plain, []scorer.Replica{gauges(0, endpoint.Gauges{}), gauges(0, endpoint.Gauges{Waiting: 9, KVUse: 1})})
	require.Equal(t, []float64{0.5, 0.5}, out)
}

func TestQueueTrustsFreshGauges(t *testing.T) {
	testGauges(t, scorer.Queue{}, func(g *endpoint.Gauges, share float64) { g.Waiting = int(100 * share) })
}

func TestKVCacheTrustsFreshGauges(t *testing.T) {
	testGauges(t, scorer.KVCache{}, func(g *endpoint.Gauges, share float64) { g.KVUse = share })
}

func TestLoRALadder(t *testing.T) {
	in := &scorer.Input{Model: "a", Adapter: true}
	with := func(trust float64, l *endpoint.LoRA) scorer.Replica {
		return scorer.Replica{Trust: trust, Endpoint: &endpoint.Endpoint{LoRA: l}}
	}
	rs := []scorer.Replica{
		with(1, &endpoint.LoRA{Running: []string{"a", "b"}, Max: 2}),
		with(1, &endpoint.LoRA{Running: []string{"b"}, Max: 2}),
		with(1, &endpoint.LoRA{Running: []string{"b", "c"}, Waiting: []string{"a"}, Max: 2}),
		with(1, &endpoint.LoRA{Running: []string{"b", "c"}, Max: 2}),
		with(1, nil),
		with(0, &endpoint.LoRA{Running: []string{"a"}, Max: 2}),
		with(1, &endpoint.LoRA{}),
	}
	mean := (1 + 0.8 + 0.6 + 0) / 4
	require.InDeltaSlice(t, []float64{1, 0.8, 0.6, 0, mean, mean, mean}, score(scorer.LoRA{}, in, rs), 1e-9)
	require.InDeltaSlice(t, []float64{1, 0.8, 0.6, 0, mean, mean, mean}, score(scorer.LoRA{}, &scorer.Input{Model: "base:a", Adapter: true}, rs), 1e-9,
		"with its parent's name before it, as SGLang has it")
	require.InDelta(t, 1, score(scorer.LoRA{}, &scorer.Input{Model: "base:a", Adapter: true}, []scorer.Replica{with(1, &endpoint.LoRA{Running: []string{"base:a"}, Max: 1})})[0], 1e-9)
	for _, v := range score(scorer.LoRA{}, &scorer.Input{Model: "a"}, rs) {
		require.InDelta(t, 0.5, v, 1e-9, "no adapter is asked for")
	}
}

func TestPrefixIsTheHit(t *testing.T) {
	require.Equal(t, []float64{0, 0.75, 1}, score(scorer.Prefix{}, plain, []scorer.Replica{{}, {Hit: 0.75}, {Hit: 1}}))
}

// A session has one replica; when another goes it keeps it, when it goes the
// next one is the same for all; sessions spread.
func TestSession(t *testing.T) {
	best := func(session uint64, rs []scorer.Replica) uint64 {
		out := score(scorer.Session{}, &scorer.Input{Session: session}, rs)
		at := 0
		for i, v := range out {
			if v > out[at] {
				at = i
			}
		}
		return rs[at].ID
	}
	var rs []scorer.Replica
	for id := range uint64(10) {
		rs = append(rs, scorer.Replica{ID: id})
	}
	hits := map[uint64]int{}
	for session := range uint64(10_000) {
		first := best(session+1, rs)
		hits[first]++
		gone := session % 10
		rest := slices.DeleteFunc(slices.Clone(rs), func(r scorer.Replica) bool { return r.ID == gone })
		if first != gone {
			require.Equal(t, first, best(session+1, rest))
		}
	}
	for id, n := range hits {
		require.InDelta(t, 1000, n, 150, "replica %d", id)
	}
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

package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const ms = time.Millisecond

// simple is hardware with round numbers.
var simple = Timing{Overhead: 10 * ms, PrefillRate: 1000, TokenTime: 5 * ms, TokenTimePerSeq: ms}

// prompt makes a request with this many prompt tokens whose text is one letter, at 16 tokens of 4 bytes per block.
func prompt(letter string, tokens, output int) *Request {
	return &Request{Hashes: Hashes(nil, "", []byte(strings.Repeat(letter, 4*tokens)), 64), PromptTokens: tokens, OutputTokens: output}
}

// drain runs an engine until it has nothing to do.
func drain(e *Engine) (events []Event) {
	for at, ok := e.Next(); ok; at, ok = e.Next() {
		events = append(events, e.Advance(at)...)
	}
	return events
}

func submit(t require.TestingT, e *Engine, at time.Duration, requests ...*Request) {
	for _, r := range requests {
		require.NoError(t, e.Submit(at, r))
	}
}

// TestTimes checks when the first and the last token arrive, for requests that arrive together.
func TestTimes(t *testing.T) {
	type times struct{ first, last time.Duration }
	for _, test := range []struct {
		name     string
		cfg      Config
		requests []*Request
		want     []times
	}{
		{"one request: overhead, prefill, steps", Config{}, []*Request{prompt("a", 100, 3)}, []times{{110 * ms, 120 * ms}}},
		{"a short prompt is bounded by the weights", Config{}, []*Request{prompt("a", 1, 1)}, []times{{15 * ms, 15 * ms}}},
		{"two share a step", Config{}, []*Request{prompt("a", 100, 2), prompt("b", 50, 2)}, []times{{161 * ms, 167 * ms}, {161 * ms, 167 * ms}}},
		{
			"chunks, and a decode between",
			Config{MaxNumBatchedTokens: 100},
			[]*Request{prompt("a", 100, 3), prompt("b", 150, 2)},
			// 100; 1 + 99 in 99+1; 1 + 51 in 51+1; b alone in 5
			[]times{{110 * ms, 262 * ms}, {262 * ms, 267 * ms}},
		},
		{"one at a time", Config{MaxNumSeqs: 1}, []*Request{prompt("a", 100, 2), prompt("b", 100, 2)}, []times{{110 * ms, 115 * ms}, {215 * ms, 220 * ms}}},
		{"a shared prefix within one step", Config{}, []*Request{prompt("a", 100, 1), prompt("a", 100, 1)}, []times{{115 * ms, 115 * ms}, {115 * ms, 115 * ms}}},
		{"an embedding has no tokens", Config{}, []*Request{prompt("a", 100, 0)}, []times{{0, 110 * ms}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.cfg.Timing = simple
			e := New(test.cfg)
			submit(t, e, 0, test.requests...)
			drain(e)
			for i, r := range test.requests {
				require.Equal(t, test.want[i], times{r.FirstToken, r.Finished}, "request %d", i)
			}
			requireIdle(t, e)
		})
	}
}

// TestContextTime: a decode step reads the context of every request in it.
func TestContextTime(t *testing.T) {
	timing := simple
	timing.ContextTime = 10 * ms
	e := New(Config{Timing: timing})
	r := prompt("a", 1000, 3)
	submit(t, e, 0, r)
	drain(e)
	require.Equal(t, 1010*ms, r.FirstToken)
	require.Equal(t, 2*5*ms+10*ms+10*ms+10*ms/1000, r.Finished-r.FirstToken, "1,000 tokens, then 1,001")
}

func requireIdle(t require.TestingT, e *Engine) {
	require.Zero(t, e.Running())
	require.Zero(t, e.Waiting())
	require.Zero(t, e.KVUse())
}

func TestPrefixCache(t *testing.T) {
	e := New(Config{Timing: simple})
	ask := func(r *Request) int {
		submit(t, e, e.now, r)
		drain(e)
		return r.CachedTokens
	}
	require.Equal(t, 0, ask(prompt("a", 100, 1)))
	require.Equal(t, 96, ask(prompt("a", 100, 1)), "six whole blocks")
	require.Equal(t, 80, ask(prompt("a", 96, 1)), "the last token is always computed")
	require.Equal(t, 0, ask(prompt("b", 100, 1)))
	require.Equal(t, 6, e.Cached(prompt("a", 100, 1).Hashes))
	require.Equal(t, Totals{Steps: 4, PromptTokens: 396, GeneratedTokens: 4, CacheQueries: 396, CacheHits: 176}, e.Totals())

	salted := prompt("a", 100, 1)
	salted.Hashes = Hashes(nil, "salt", []byte(strings.Repeat("a", 400)), 64)
	require.Equal(t, 0, ask(salted))

	answer := prompt("c", 30, 20) // one whole block of prompt; the second one ends in the output
	answer.Hashes = append(answer.Hashes, 77, 78)
	require.Equal(t, 0, ask(answer))
	require.Equal(t, 3, e.Cached(answer.Hashes), "49 of 50 tokens are computed: three whole blocks")
}

// TestEviction: the least recently used prefix is evicted first, and its end before its beginning.
func TestEviction(t *testing.T) {
	e := New(Config{Timing: simple, Blocks: 10})
	ask := func(letter string) int {
		r := prompt(letter, 64, 1) // 4 blocks
		submit(t, e, e.now, r)
		drain(e)
		return r.CachedTokens
	}
	ask("a")
	ask("b")
	require.Equal(t, 48, ask("a"))
	require.Equal(t, 0, ask("c"), "takes 2 fresh blocks and 2 of b")
	require.Equal(t, 2, e.Cached(prompt("b", 64, 1).Hashes))
	require.Equal(t, 4, e.Cached(prompt("a", 64, 1).Hashes))
	require.Equal(t, 10, e.CachedBlocks())
}

// TestPreemption: when the blocks run out during generation, the request that came last goes back to the queue and later
// computes again what is no longer cached.
func TestPreemption(t *testing.T) {
	e := New(Config{Timing: simple, Blocks: 5, TokenEvents: true})
	first, second := prompt("a", 32, 40), prompt("b", 32, 40) // 2 blocks each, 5 (71 computed tokens) at the end
	submit(t, e, 0, first, second)
	events := drain(e)
	require.Equal(t, 40, first.Generated)
	require.Equal(t, 40, second.Generated)
	require.Equal(t, 1, first.Admissions)
	require.Greater(t, second.Admissions, 1)
	require.EqualValues(t, first.Admissions+second.Admissions-2, e.Totals().Preemptions)
	require.Less(t, first.Finished, second.Finished)
	require.EqualValues(t, 80, e.Totals().GeneratedTokens, "no token is generated twice")
	tokens := map[*Request]int{}
	for _, event := range events {
		if event.Kind != Finished {
			tokens[event.Request]++
		}
	}
	require.Equal(t, map[*Request]int{first: 40, second: 40}, tokens)
	requireIdle(t, e)
}

// TestNobodyOvertakes: a request that does not fit blocks smaller ones behind it.
func TestNobodyOvertakes(t *testing.T) {
	e := New(Config{Timing: simple, Blocks: 10})
	large, larger, small := prompt("a", 100, 20), prompt("b", 100, 20), prompt("c", 1, 1)
	submit(t, e, 0, large, larger, small)
	e.Advance(20 * ms)
	require.Equal(t, 1, e.Running())
	require.Equal(t, 2, e.Waiting())
	require.True(t, e.Cancel(larger))
	e.Advance(110 * ms)
	require.Equal(t, 2, e.Running(), "at the end of the present step")
	drain(e)
	require.False(t, e.Cancel(larger))
	require.Zero(t, larger.Admissions)
	require.Less(t, small.Finished, large.Finished)
}

func TestSlots(t *testing.T) {
	timing := simple
	timing.LoRALoad = 100 * ms
	e := New(Config{Timing: timing, MaxLoRAs: 2})
	var all []*Request
	for _, adapter := range []int{1, 2, 3, 0, 1} { // all in one step, but 3
		r := prompt(fmt.Sprint(adapter), 1, 10)
		r.Adapter = adapter
		all = append(all, r)
	}
	submit(t, e, 0, all...)
	e.Advance(10 * ms)
	run, wait := e.AppendAdapters(nil, nil)
	require.Equal(t, []int{1, 2}, run)
	require.Equal(t, []int{3}, wait)
	require.Equal(t, []int{2, 1}, e.Loaded(nil))
	require.Equal(t, 4, e.Running(), "those behind pass")
	e.Advance(10*ms + 200*ms + 8*ms)
	require.Equal(t, 218*ms, all[0].FirstToken, "two loads, four requests in the step")
	drain(e)
	require.Greater(t, all[2].Admitted, all[0].FirstToken)
	require.EqualValues(t, 3, e.Totals().LoRALoads)
	require.Equal(t, []int{1, 3}, e.Loaded(nil), "2 was used least recently")

	r := prompt("x", 1, 1)
	r.Adapter = 1
	submit(t, e, e.now, r)
	drain(e)
	require.EqualValues(t, 3, e.Totals().LoRALoads, "it is still there")
}

// TestStall: a stalled request keeps its slot until it is canceled, and nothing spins meanwhile.
func TestStall(t *testing.T) {
	e := New(Config{Timing: simple, MaxNumSeqs: 1})
	stalled, next := prompt("a", 20, 5), prompt("b", 1, 1)
	stalled.Stall = true
	submit(t, e, 0, stalled, next)
	require.Empty(t, drain(e))
	_, ok := e.Next()
	require.False(t, ok)
	require.Equal(t, 1, e.Running())
	require.InDelta(t, 2.0/DefaultBlocks, e.KVUse(), 1e-12)
	require.Empty(t, e.Advance(time.Hour))
	require.True(t, e.Cancel(stalled))
	drain(e)
	require.Equal(t, time.Hour+5*ms, next.Finished)
	requireIdle(t, e)
}

func TestSubmitRefuses(t *testing.T) {
	e := New(Config{Blocks: 4})
	require.ErrorIs(t, e.Submit(0, prompt("a", 60, 5)), ErrTooLong)
	require.ErrorIs(t, e.Submit(0, prompt("a", 0, 5)), ErrInvalid)
	require.ErrorIs(t, e.Submit(0, prompt("a", 5, -1)), ErrInvalid)
	r := prompt("a", 60, 4)
	submit(t, e, 0, r)
	require.ErrorIs(t, e.Submit(0, r), ErrInvalid, "the engine has it")
	drain(e)
	submit(t, e, e.now, r)
	drain(e)
	require.Equal(t, 4, r.Generated)
}

func TestValidate(t *testing.T) {
	require.NoError(t, Config{}.Validate())
	require.EqualError(t, Config{Blocks: -1, Timing: Timing{PrefillRate: 1, LoRALoad: -1}}.Validate(),
		"KV blocks is -1, must be at least 1\nLoRA load time is -1ns, must be 0 or more")
	require.Panics(t, func() { New(Config{MaxNumSeqs: -1}) })
}

// workload draws requests that share prefixes, and when they arrive.
func workload(t *rapid.T) (cfg Config, at []time.Duration, make func() []*Request) {
	cfg = Config{
		Blocks:              rapid.IntRange(8, 40).Draw(t, "blocks"),
		BlockTokens:         rapid.IntRange(1, 5).Draw(t, "block tokens"),
		MaxNumSeqs:          rapid.IntRange(1, 6).Draw(t, "seqs"),
		MaxNumBatchedTokens: rapid.IntRange(1, 30).Draw(t, "batched tokens"),
		MaxLoRAs:            rapid.IntRange(1, 2).Draw(t, "loras"),
		Timing:              Timing{Overhead: 3, PrefillRate: 1e9, TokenTime: 5, TokenTimePerSeq: 1, ContextTime: 100, LoRALoad: 7},
		TokenEvents:         true,
	}
	type spec struct {
		text            string
		output, adapter int
	}
	var specs []spec
	now := time.Duration(0)
	room := cfg.Blocks * cfg.BlockTokens
	for range rapid.IntRange(1, 20).Draw(t, "requests") {
		text := rapid.StringMatching(fmt.Sprintf(`[ab]{1,%d}`, min(room, 40))).Draw(t, "text")
		specs = append(specs, spec{text, rapid.IntRange(0, min(20, room-len(text))).Draw(t, "output"), rapid.IntRange(0, 3).Draw(t, "adapter")})
		now += time.Duration(rapid.IntRange(0, 60).Draw(t, "gap"))
		at = append(at, now)
	}
	return cfg, at, func() (requests []*Request) {
		for _, s := range specs {
			requests = append(requests, &Request{
				Hashes:       Hashes(nil, fmt.Sprint(s.adapter), []byte(s.text), cfg.BlockTokens),
				PromptTokens: len(s.text), OutputTokens: s.output, Adapter: s.adapter, Tag: len(requests),
			})
		}
		return requests
	}
}

type happened struct {
	at   time.Duration
	kind Kind
	tag  any
}

func record(into []happened, events []Event) []happened {
	for _, event := range events {
		into = append(into, happened{event.At, event.Kind, event.Request.Tag})
	}
	return into
}

// TestAdvanceInAnyPieces: the events depend neither on how often Advance is called, nor on how long in advance requests
// are submitted.
func TestAdvanceInAnyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, at, make := workload(t)
		var whole, pieces []happened
		ahead := New(cfg)
		for i, r := range make() {
			submit(t, ahead, at[i], r)
		}
		whole = record(whole, ahead.Advance(time.Hour))

		e := New(cfg)
		now := time.Duration(0)
		for i, r := range make() {
			for now < at[i] {
				now = min(at[i], now+time.Duration(rapid.IntRange(1, 30).Draw(t, "piece")))
				if now < at[i] {
					pieces = record(pieces, e.Advance(now))
				}
			}
			submit(t, e, at[i], r)
		}
		pieces = record(pieces, e.Advance(time.Hour))
		require.Equal(t, whole, pieces)
		require.Equal(t, ahead.Totals(), e.Totals())
		requireIdle(t, e)
	})
}

// TestLaws: every request ends, with all its tokens, in order of time; no engine exceeds its limits; blocks and slots are
// neither lost nor used twice; requests may be canceled at any time.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, at, make := workload(t)
		e := New(cfg)
		requests := make()
		canceled := map[*Request]bool{}
		tokens, ends := map[*Request]int{}, map[*Request]int{}
		last := time.Duration(0)
		see := func(events []Event) {
			for _, event := range events {
				require.GreaterOrEqual(t, event.At, last)
				last = event.At
				require.False(t, canceled[event.Request], "an event of a canceled request")
				if event.Kind == Finished {
					ends[event.Request]++
				} else {
					require.Equal(t, event.Kind == FirstToken, tokens[event.Request] == 0)
					tokens[event.Request]++
				}
			}
			checkState(t, e)
		}
		for i, r := range requests {
			see(e.Advance(at[i] - 1))
			submit(t, e, at[i], r)
			if rapid.IntRange(0, 5).Draw(t, "cancel") == 0 {
				victim := requests[rapid.IntRange(0, i).Draw(t, "victim")]
				if e.Cancel(victim) {
					canceled[victim] = true
				}
				checkState(t, e)
			}
		}
		for at, ok := e.Next(); ok; at, ok = e.Next() {
			see(e.Advance(at))
		}
		for _, r := range requests {
			if canceled[r] {
				continue
			}
			require.Equal(t, 1, ends[r])
			require.Equal(t, r.OutputTokens, tokens[r])
			require.Equal(t, r.OutputTokens, r.Generated)
			require.GreaterOrEqual(t, r.Admitted, r.Arrived+cfg.Timing.Overhead)
			require.Less(t, r.CachedTokens, r.PromptTokens)
		}
		requireIdle(t, e)
	})
}

func checkState(t *rapid.T, e *Engine) {
	users := map[int32]int32{}
	adapters := map[int]bool{}
	for _, r := range e.running {
		for _, id := range r.blocks {
			users[id]++
		}
		if r.Adapter != 0 {
			adapters[r.Adapter] = true
		}
	}
	require.LessOrEqual(t, len(e.running), e.cfg.MaxNumSeqs)
	require.LessOrEqual(t, len(adapters), e.cfg.MaxLoRAs)
	require.LessOrEqual(t, len(e.slots.adapters), e.cfg.MaxLoRAs)
	require.Equal(t, len(adapters), e.slots.used)
	for adapter := range adapters {
		require.Contains(t, e.slots.adapters, adapter)
	}
	require.LessOrEqual(t, len(e.cache.block)-1, e.cfg.Blocks)
	for id := range e.cache.block[1:] {
		id := int32(id + 1)
		b := e.cache.block[id]
		require.Equal(t, users[id], b.users, "block %d", id)
		if b.hash != 0 {
			require.Equal(t, id, e.cache.table[b.hash])
		}
	}
	require.Equal(t, e.cfg.Blocks-len(users), e.cache.free())
}

// BenchmarkDecode is the cost of one step with this many decoding requests.
func BenchmarkDecode(b *testing.B) {
	for _, seqs := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("%dseqs", seqs), func(b *testing.B) {
			e := New(Config{Blocks: 1 << 20})
			for i := range seqs {
				submit(b, e, 0, &Request{PromptTokens: 100 + i%16, OutputTokens: 1 << 14})
			}
			e.Advance(time.Second)
			b.ReportAllocs()
			for b.Loop() {
				if e.Running() < seqs {
					b.StopTimer()
					drain(e)
					for i := range seqs {
						submit(b, e, e.now, &Request{PromptTokens: 100 + i%16, OutputTokens: 1 << 14})
					}
					e.Advance(e.now + time.Second)
					b.StartTimer()
				}
				e.Advance(e.end)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "steps/s")
		})
	}
}

// BenchmarkReplicas is a whole routing benchmark without its picker: 1,000 engines in virtual time, 20,000 requests of
// 8 to 40 blocks of 512 tokens, half of each prompt from a common stock. One operation is one request.
func BenchmarkReplicas(b *testing.B) {
	const replicas = 1000
	random := rand.New(rand.NewPCG(1, 2))
	engines := make([]*Engine, replicas)
	for i := range engines {
		engines[i] = New(Config{Blocks: 10000, BlockTokens: 512})
	}
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		now += time.Millisecond
		blocks := 8 + random.IntN(32)
		hashes := make([]uint64, blocks)
		h := random.Uint64N(1000)
		for i := range hashes {
			if i == blocks/2 {
				h = random.Uint64()
			}
			h = Chain(h, uint64(i))
			hashes[i] = h
		}
		for _, e := range engines {
			e.Advance(now)
		}
		submit(b, engines[random.IntN(replicas)], now, &Request{Hashes: hashes, PromptTokens: blocks*512 + 100, OutputTokens: 350})
	}
	steps := uint64(0)
	for _, e := range engines {
		steps += e.Totals().Steps
	}
	b.ReportMetric(float64(steps)/b.Elapsed().Seconds(), "steps/s")
}

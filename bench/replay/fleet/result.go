package fleet

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/bench/replay/workload"
)

// Result is the result of a run.
type Result struct {
	Requests int
	Blocks   int // of all prompts; the last block of each need not be full
	Found    int // of them that were in the cache of the replica

	firstToken []time.Duration // from the arrival of each request
	perToken   []time.Duration // of outputs with more than one token, mean time from one to the next
	whole      []time.Duration

	blockTokens int
	outputs     int
	first, last time.Duration
	work        []float64 // by replica: what it computed, in seconds of its hardware
	config      Config
}

func newResult(c Config, w *workload.Workload) *Result {
	n := len(w.Requests)
	return &Result{
		firstToken: make([]time.Duration, 0, n), perToken: make([]time.Duration, 0, n), whole: make([]time.Duration, 0, n),
		blockTokens: w.BlockTokens, first: w.Requests[0].At, work: make([]float64, c.Replicas), config: c,
	}
}

// add records a request that has ended.
func (r *Result) add(f *Flight) {
	r.Requests++
	r.Blocks += len(f.Asked.Blocks)
	r.Found += f.CachedTokens / r.blockTokens
	r.firstToken = append(r.firstToken, f.FirstToken-f.Arrived)
	r.whole = append(r.whole, f.Finished-f.Arrived)
	if f.OutputTokens > 1 {
		r.perToken = append(r.perToken, (f.Finished-f.FirstToken)/time.Duration(f.OutputTokens-1))
	}
	r.outputs += f.OutputTokens
	r.last = max(r.last, f.Finished)
	t := &r.config.Engine.Timing
	context := float64(f.PromptTokens + f.OutputTokens/2)
	r.work[f.Replica] += float64(f.PromptTokens-f.CachedTokens)/t.PrefillRate +
		float64(f.OutputTokens)*(t.TokenTimePerSeq.Seconds()+t.ContextTime.Seconds()*context/1000)
}

// HitRatio is the share of the prompts' blocks that were in the cache of their replica.
func (r *Result) HitRatio() float64 { return float64(r.Found) / float64(r.Blocks) }

// Imbalance is how much more the busiest replica computed than the mean.
func (r *Result) Imbalance() float64 {
	sum := 0.0
	for _, w := range r.work {
		sum += w
	}
	return slices.Max(r.work) * float64(len(r.work)) / sum
}

// Throughput is the number of output tokens per second, from the first request to the end of the last output.
func (r *Result) Throughput() float64 { return float64(r.outputs) / (r.last - r.first).Seconds() }

// TTFT, TPOT and E2E are quantiles of the time to the first token, from one to the next, and to the last.
func (r *Result) TTFT(q float64) time.Duration { return quantile(r.firstToken, q) }

// TPOT is a quantile of a response's mean time from one token to the next.
func (r *Result) TPOT(q float64) time.Duration { return quantile(r.perToken, q) }

// E2E is a quantile of the time to a response's end.
func (r *Result) E2E(q float64) time.Duration { return quantile(r.whole, q) }

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}

// deal distributes the requests over the workers at random, as clients' connections do.
type deal struct {
	random *rand.Rand
	n      int
}

func newDeal(c Config) *deal { return &deal{rand.New(rand.NewPCG(c.Seed, 1)), c.Proxies * c.Workers} }

func (d *deal) next() int { return d.random.IntN(d.n) }

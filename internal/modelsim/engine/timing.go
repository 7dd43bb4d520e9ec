package engine

import (
	"errors"
	"math"
	"time"
)

// Timing is the simulated hardware: how long one step of the engine takes, and the overhead of a request outside of it.
//
//	step = max(TokenTime, prompt tokens / PrefillRate) + (requests in the step - 1) * TokenTimePerSeq
//	       + tokens of context that decoding requests read * ContextTime / 1000 + adapters loaded * LoRALoad
//
// A step reads all weights once. With few tokens this read dominates (TokenTime); with many prompt tokens the computation
// does, and hides the read. Prefill is linear in the tokens: the additional cost of attention over a long context (about
// 30 % more at 10,000 tokens for the default hardware) is left out.
type Timing struct {
	// Overhead is the time before a request reaches the scheduler: HTTP, tokenizer, messages between processes. It
	// occupies nothing: requests spend it in parallel.
	Overhead time.Duration
	// PrefillRate is how many uncached prompt tokens are computed per second.
	PrefillRate float64
	// TokenTime is the shortest step: one decoding request alone.
	TokenTime time.Duration
	// TokenTimePerSeq is the time that each further request adds to a step.
	TokenTimePerSeq time.Duration
	// ContextTime is the time that reading the keys and values of 1,000 tokens of context adds to a step. Each decoding
	// request reads its whole context in every step.
	ContextTime time.Duration
	// LoRALoad is how long a step waits until an adapter is in its slot.
	LoRALoad time.Duration
}

// Default is calculated, not measured: the order of magnitude of an 8B model in bfloat16 (Llama 3.1: 32 layers, 8
// key-value heads of 128 dimensions) on one H100 with 80 GB. Sources: NVIDIA's H100 SXM data sheet (989 TFLOP/s dense in
// bfloat16, 3.35 TB/s) and the model's published configuration.
//
//   - PrefillRate: 16 GFLOP a token (2 per weight) at about 40 % of 989 TFLOP/s.
//   - TokenTime: reading 16 GB of weights at 3.35 TB/s takes 4.8 ms; launch and sampling bring it to about 7 ms.
//   - ContextTime: a token's keys and values are 2 * 32 * 8 * 128 * 2 bytes = 128 KiB; 1,000 of them take 39 µs.
//   - TokenTimePerSeq, an estimate: sampling and bookkeeping of one request. With 1,000 tokens of context each, a step of 100 requests
//     takes about twice as long as a step of one, as published curves of such servers show.
//   - LoRALoad, an estimate: an adapter of rank 16 to 64 (about 100 MB) from disk; vLLM keeps only as many in memory as it has
//     slots, unless max_cpu_loras is higher.
//   - Overhead, an estimate: a Python server's HTTP, tokenizer and messages between processes.
var Default = Timing{
	Overhead:        15 * time.Millisecond,
	PrefillRate:     25000,
	TokenTime:       7 * time.Millisecond,
	TokenTimePerSeq: 30 * time.Microsecond,
	ContextTime:     39 * time.Microsecond,
	LoRALoad:        200 * time.Millisecond,
}

// Instant is hardware that takes no time.
var Instant = Timing{PrefillRate: math.Inf(1)}

// Validate returns all errors, joined into one.
func (t Timing) Validate() error {
	var errs errorList
	errs.check(t.Overhead >= 0, "overhead is %v, must be 0 or more", t.Overhead)
	errs.check(t.PrefillRate > 0, "prefill rate is %v tokens a second, must be more than 0", t.PrefillRate)
	errs.check(t.TokenTime >= 0, "token time is %v, must be 0 or more", t.TokenTime)
	errs.check(t.TokenTimePerSeq >= 0, "token time per sequence is %v, must be 0 or more", t.TokenTimePerSeq)
	errs.check(t.ContextTime >= 0, "context time is %v, must be 0 or more", t.ContextTime)
	errs.check(t.LoRALoad >= 0, "LoRA load time is %v, must be 0 or more", t.LoRALoad)
	return errors.Join(errs...)
}

// batch is what one step computes.
type batch struct {
	requests int
	prompt   int // tokens, chunks of prompts
	context  int // context tokens that decoding requests read
	loads    int // adapters to load into a slot
}

func (t *Timing) step(b batch) time.Duration {
	d := max(t.TokenTime, time.Duration(float64(b.prompt)/t.PrefillRate*float64(time.Second)))
	d += time.Duration(b.requests-1) * t.TokenTimePerSeq
	d += t.ContextTime * time.Duration(b.context) / 1000
	return d + time.Duration(b.loads)*t.LoRALoad
}

// Package engine is the timing and cache model of one simulated inference engine. It follows the scheduler of vLLM's V1
// engine (vllm/v1/core/sched/scheduler.py, vllm/v1/core/block_pool.py): continuous batching with chunked prefill, a paged
// KV cache with prefix caching and eviction, preemption when blocks run out, LoRA slots.
//
// It is a pure function of what is submitted and when: no clock, no goroutine, no randomness. The caller provides the
// time, so the same model serves a server in real time and thousands of replicas in virtual time:
//
//	e := engine.New(engine.Config{})
//	r := &engine.Request{Hashes: engine.Hashes(nil, "", prompt, 64), PromptTokens: len(prompt) / 4, OutputTokens: 100}
//	e.Submit(at, r)
//	for _, event := range e.Advance(until) { … }
//
// Times are durations since a start that the caller chooses. An Engine is not safe for concurrent use.
package engine

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Request is one request as the engine sees it. The caller fills the first group of fields and does not touch the request
// while the engine has it. The engine fills the second group.
type Request struct {
	// Hashes has one hash per whole block of the prompt, each over everything up to that block's end (see Hashes). Hashes
	// beyond the prompt belong to the output's blocks, which are then cached too.
	Hashes []uint64
	// PromptTokens is the length of the prompt, at least 1.
	PromptTokens int
	// OutputTokens is the length of the output, known in advance. With 0 the request ends when its prompt is computed, as
	// for an embedding.
	OutputTokens int
	// Adapter is the number of a LoRA adapter, from 1; 0 is the base model.
	Adapter int
	// Stall is a fault: the request takes a slot, computes its prompt and never generates; it ends by Cancel.
	Stall bool
	// Tag is for the caller.
	Tag any

	Arrived    time.Duration // as submitted
	Admitted   time.Duration // when it first ran; meaningless while Admissions is 0
	FirstToken time.Duration // meaningless while Generated is 0
	Finished   time.Duration // of requests that ended normally

	CachedTokens int // of the prompt, at the first admission
	Generated    int // output tokens so far
	Admissions   int // how often it started to run: 1, and 1 for each preemption

	ready     time.Duration // Arrived + overhead: the scheduler sees it
	computed  int           // tokens whose keys and values are in the cache
	scheduled int           // tokens in the current step
	blocks    []int32
	known     int // leading blocks whose hashes the cache knows
	state     state
}

type state uint8

const (
	outside state = iota
	waiting
	running
)

// tokens returns the current number of tokens. The last one has been sampled but not computed.
func (r *Request) tokens() int { return r.PromptTokens + r.Generated }

// Queued is how long the request waited in the scheduler's queue before it first ran.
func (r *Request) Queued() time.Duration { return r.Admitted - r.ready }

// Kind is the type of an Event.
type Kind uint8

const (
	// FirstToken is the first output token of a request.
	FirstToken Kind = iota
	// Token is any further one; only with Config.TokenEvents.
	Token
	// Finished is the end of a request, which the engine no longer has. It follows the last token at the same time.
	Finished
)

// Event is a change in the life of a request.
type Event struct {
	At      time.Duration
	Kind    Kind
	Request *Request
}

// Totals are the engine's counters since its start.
type Totals struct {
	Steps           uint64
	PromptTokens    uint64 // of prompts that are completely computed, cached tokens included
	GeneratedTokens uint64
	CacheQueries    uint64 // prompt tokens that were looked up
	CacheHits       uint64 // prompt tokens that were found
	Preemptions     uint64
	LoRALoads       uint64
}

// Engine is one scheduler with its KV cache. Make it with New.
type Engine struct {
	cfg    Config
	cache  cache
	slots  slots
	totals Totals

	waiting  []*Request // from head, in order of arrival; preempted ones first
	head     int
	running  []*Request // in order of admission: the last one is preempted first
	stepping bool       // a step is in progress
	end      time.Duration
	// now is the time up to which Advance has been called, or the end of the last step. A step begins here or later.
	now    time.Duration
	events []Event
}

// New makes an engine. It panics on a configuration that Config.Validate refuses.
func New(cfg Config) *Engine {
	if err := cfg.Validate(); err != nil {
		panic(fmt.Sprintf("engine.New: %v", err))
	}
	cfg = cfg.WithDefaults()
	return &Engine{cfg: cfg, cache: newCache(cfg.Blocks), slots: slots{limit: cfg.MaxLoRAs}}
}

// Errors of Submit.
var (
	ErrTooLong = errors.New("prompt and output exceed the KV cache")
	ErrInvalid = errors.New("not a valid request")
)

// Submit adds a request at a time that is not before those of earlier requests. The time may be later than Advance has
// reached: a whole trace can be submitted in advance. A request may be submitted again once it has ended.
func (e *Engine) Submit(at time.Duration, r *Request) error {
	switch {
	case r.state != outside || r.PromptTokens < 1 || r.OutputTokens < 0 || r.Adapter < 0:
		return ErrInvalid
	case e.blocksFor(r.PromptTokens+r.OutputTokens) > e.cfg.Blocks:
		return ErrTooLong
	}
	r.Arrived, r.ready = at, at+e.cfg.Timing.Overhead
	r.Admitted, r.FirstToken, r.Finished = 0, 0, 0
	r.CachedTokens, r.Generated, r.Admissions = 0, 0, 0
	r.computed, r.scheduled, r.known, r.blocks = 0, 0, 0, r.blocks[:0]
	r.state = waiting
	if e.head > 64 && e.head > len(e.waiting)/2 { // everything before head is garbage
		e.waiting = append(e.waiting[:0], e.waiting[e.head:]...)
		e.head = 0
	}
	e.waiting = append(e.waiting, r)
	return nil
}

// Cancel removes a request in any state, because its client has gone. It returns false if the engine does not have it
// (any more).
func (e *Engine) Cancel(r *Request) bool {
	switch r.state {
	case outside:
		return false
	case waiting:
		i := indexOf(e.waiting, r)
		e.waiting = append(e.waiting[:i], e.waiting[i+1:]...)
	case running:
		i := indexOf(e.running, r)
		e.running = append(e.running[:i], e.running[i+1:]...)
		e.vacate(r)
	}
	r.state = outside
	return true
}

// Next returns when Advance next has something to do: the end of the current step, or the beginning of one. It returns
// false if there is nothing to do until a request is submitted or canceled.
func (e *Engine) Next() (time.Duration, bool) {
	if e.stepping {
		return e.end, true
	}
	for _, r := range e.running {
		if r.pending() > 0 {
			return e.now, true
		}
	}
	// No step is in progress: waiting requests can be blocked only by stalled ones.
	for _, r := range e.waiting[e.head:] {
		switch {
		case r.ready > e.now:
			return r.ready, true
		case !e.slots.allows(r.Adapter):
			continue
		case len(e.running) >= e.cfg.MaxNumSeqs:
			return 0, false
		}
		_, fits := e.lookUp(r)
		return e.now, fits
	}
	return 0, false
}

// Advance runs the engine up to a time and returns the events, in order; the slice is valid until the next call. A time
// before that of an earlier call changes nothing.
func (e *Engine) Advance(until time.Duration) []Event {
	e.events = e.events[:0]
	for {
		if e.stepping {
			if e.end > until {
				break
			}
			e.complete()
		}
		if !e.begin(until) {
			break
		}
	}
	e.now = max(e.now, until)
	return e.events
}

// begin starts the next step, if one begins by until.
func (e *Engine) begin(until time.Duration) bool {
	for e.now <= until {
		b, later := e.schedule()
		if b.requests > 0 {
			e.stepping = true
			e.end = e.now + e.cfg.Timing.step(b)
			return true
		}
		if later > until || later == never {
			return false
		}
		e.now = later // nothing to do until the next request is ready
	}
	return false
}

// never is later than any time.
const never = time.Duration(math.MaxInt64)

// schedule decides what the next step computes: first the running requests in order, then as many of the waiting ones as
// fit. It also returns when the next waiting request will be ready.
func (e *Engine) schedule() (b batch, later time.Duration) {
	budget := e.cfg.MaxNumBatchedTokens
	preempted := false
	for i := 0; i < len(e.running) && budget > 0; i++ {
		r := e.running[i]
		n := min(r.pending(), budget)
		if n == 0 {
			continue // stalled
		}
		if r.computed+n > len(r.blocks)*e.cfg.BlockTokens && !e.grow(r, n) {
			preempted = true
			if !e.makeRoom(i, n) {
				break // it was the last one, and was preempted itself
			}
		}
		e.compute(r, n, &b)
		budget -= n
	}
	later = never
	if preempted {
		return b, later // as in vLLM: no request is admitted while there are too few blocks for the running ones
	}
	for i := e.head; i < len(e.waiting) && budget > 0 && len(e.running) < e.cfg.MaxNumSeqs; i++ {
		r := e.waiting[i]
		if r.ready > e.now {
			later = r.ready
			break
		}
		if !e.slots.allows(r.Adapter) {
			continue // other adapters use all slots: requests behind it may go first, as in vLLM
		}
		if !e.admit(r) {
			break // and nobody overtakes
		}
		copy(e.waiting[e.head+1:i+1], e.waiting[e.head:i]) // the skipped ones move up
		e.waiting[e.head] = nil
		e.head++
		if e.slots.enter(r.Adapter) {
			b.loads++
			e.totals.LoRALoads++
		}
		n := min(r.pending(), budget)
		e.grow(r, n) // there are enough blocks: see admit
		e.compute(r, n, &b)
		budget -= n
	}
	return b, later
}

// pending returns how many tokens of a running request are to be computed.
func (r *Request) pending() int {
	if r.Stall {
		return r.PromptTokens - r.computed
	}
	return r.tokens() - r.computed
}

// compute puts n tokens of a request into the step. The blocks that it fills are known from now on: within a step keys
// and values are written before they are read, so that a later request in it can share them.
func (e *Engine) compute(r *Request, n int, b *batch) {
	r.scheduled = n
	b.requests++
	if n == 1 {
		b.context += r.computed
	} else {
		b.prompt += n
	}
	for r.known < len(r.Hashes) && (r.known+1)*e.cfg.BlockTokens <= r.computed+n {
		e.cache.remember(r.blocks[r.known], r.Hashes[r.known])
		r.known++
	}
}

// complete ends the current step: a request whose tokens are all computed gets the next one.
func (e *Engine) complete() {
	e.stepping = false
	e.now = e.end
	e.totals.Steps++
	gone := false
	for _, r := range e.running {
		if r.scheduled == 0 {
			continue
		}
		r.computed += r.scheduled
		r.scheduled = 0
		if r.computed < r.tokens() {
			continue // a chunk of its prompt
		}
		if r.Generated == 0 {
			e.totals.PromptTokens += uint64(r.PromptTokens)
		}
		if r.Stall {
			continue
		}
		if r.OutputTokens > 0 {
			e.token(r)
		}
		if r.Generated == r.OutputTokens {
			e.finish(r)
			gone = true
		}
	}
	if gone {
		e.compact()
	}
}

func (e *Engine) token(r *Request) {
	r.Generated++
	e.totals.GeneratedTokens++
	if r.Generated == 1 {
		r.FirstToken = e.now
		e.events = append(e.events, Event{At: e.now, Kind: FirstToken, Request: r})
	} else if e.cfg.TokenEvents {
		e.events = append(e.events, Event{At: e.now, Kind: Token, Request: r})
	}
}

func (e *Engine) finish(r *Request) {
	r.Finished = e.now
	r.state = outside
	e.vacate(r)
	e.events = append(e.events, Event{At: e.now, Kind: Finished, Request: r})
}

// compact removes finished requests from the running ones.
func (e *Engine) compact() {
	kept := e.running[:0]
	for _, r := range e.running {
		if r.state == running {
			kept = append(kept, r)
		}
	}
	clear(e.running[len(kept):])
	e.running = kept
}

// admit lets a waiting request run if the cache can hold all its current tokens (vLLM's scheduler_reserve_full_isl; the
// blocks themselves are taken chunk by chunk). The last token is always computed, even if its block is cached, because
// its logits are needed.
func (e *Engine) admit(r *Request) bool {
	cached, fits := e.lookUp(r)
	if !fits {
		return false
	}
	r.blocks = e.cache.share(r.blocks[:0], r.Hashes[:cached])
	r.known = cached
	r.computed = cached * e.cfg.BlockTokens
	if r.Admissions == 0 {
		r.Admitted = e.now
		r.CachedTokens = r.computed
		e.totals.CacheQueries += uint64(r.PromptTokens)
		e.totals.CacheHits += uint64(r.computed)
	}
	r.Admissions++
	r.state = running
	e.running = append(e.running, r)
	return true
}

func (e *Engine) lookUp(r *Request) (cached int, fits bool) {
	cached, idle := e.cache.find(r.Hashes, (r.tokens()-1)/e.cfg.BlockTokens)
	return cached, e.blocksFor(r.tokens())-cached <= e.cache.free()-idle
}

// grow gives a request the blocks for n more tokens. It returns false if there are too few.
func (e *Engine) grow(r *Request, n int) bool {
	missing := e.blocksFor(r.computed+n) - len(r.blocks)
	if missing > e.cache.free() {
		return false
	}
	r.blocks = e.cache.take(r.blocks, missing)
	return true
}

// makeRoom preempts the last admitted requests until running[i] has the blocks for n more tokens. It returns false if
// running[i] was the last one itself.
func (e *Engine) makeRoom(i, n int) bool {
	r := e.running[i]
	for {
		last := len(e.running) - 1
		victim := e.running[last]
		e.running[last] = nil
		e.running = e.running[:last]
		e.preempt(victim)
		if victim == r {
			return false
		}
		if e.grow(r, n) {
			return true
		}
	}
}

// preempt puts a request back at the head of the queue. It keeps its tokens but computes them again, as far as their
// blocks are no longer cached by then.
func (e *Engine) preempt(r *Request) {
	e.totals.Preemptions++
	e.vacate(r)
	r.state = waiting
	if e.head == 0 {
		e.waiting = append(e.waiting, nil)
		copy(e.waiting[1:], e.waiting)
		e.head = 1
	}
	e.head--
	e.waiting[e.head] = r
}

// vacate releases what a running request holds.
func (e *Engine) vacate(r *Request) {
	e.cache.release(r.blocks)
	r.blocks = r.blocks[:0]
	r.computed, r.scheduled, r.known = 0, 0, 0
	e.slots.leave(r.Adapter)
}

func (e *Engine) blocksFor(tokens int) int {
	return (tokens + e.cfg.BlockTokens - 1) / e.cfg.BlockTokens
}

// Running is how many requests run.
func (e *Engine) Running() int { return len(e.running) }

// Waiting is how many requests wait in the scheduler's queue; those that are still in their overhead do not count.
func (e *Engine) Waiting() int {
	n := len(e.waiting)
	for n > e.head && e.waiting[n-1].ready > e.now {
		n--
	}
	return n - e.head
}

// KVUse is the share of blocks that running requests hold, 0 to 1; cached blocks without users count as free.
func (e *Engine) KVUse() float64 {
	return float64(e.cfg.Blocks-e.cache.free()) / float64(e.cfg.Blocks)
}

// CachedBlocks is how many blocks can be found by prefix, in use or not.
func (e *Engine) CachedBlocks() int { return len(e.cache.table) }

// Cached is how many leading blocks of a prompt are now in the cache.
func (e *Engine) Cached(hashes []uint64) int {
	n, _ := e.cache.find(hashes, len(hashes))
	return n
}

// Totals are the counters.
func (e *Engine) Totals() Totals { return e.totals }

// Forget empties the prefix cache. Running requests continue.
func (e *Engine) Forget() { e.cache.forget() }

// AppendAdapters appends the adapters of running and of waiting requests, each once, in the order of their requests.
func (e *Engine) AppendAdapters(running, waiting []int) (run, wait []int) {
	for _, r := range e.running {
		running = appendNew(running, r.Adapter)
	}
	for _, r := range e.waiting[e.head : e.head+e.Waiting()] {
		waiting = appendNew(waiting, r.Adapter)
	}
	return running, waiting
}

// Loaded appends the adapters that are in a slot, least recently used first.
func (e *Engine) Loaded(dst []int) []int { return append(dst, e.slots.adapters...) }

func appendNew(list []int, adapter int) []int {
	if adapter == 0 {
		return list
	}
	for _, known := range list {
		if known == adapter {
			return list
		}
	}
	return append(list, adapter)
}

func indexOf(list []*Request, r *Request) int {
	for i, other := range list {
		if other == r {
			return i
		}
	}
	panic("engine: a request is in no list")
}

package sim

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// engine is the scheduler of one replica: a bounded set of running requests, a queue in order of arrival, the KV
// cache and the clock of the prefills. Everything but running is guarded by mu.
type engine struct {
	cfg     Config
	running atomic.Int64 // written under mu; read without it in every decode step

	mu          sync.Mutex
	waiting     list.List // of *job
	kv          *kvCache
	prefillFree time.Time // when the last admitted prefill will be done
	loras       map[string]*loraLoad
	stats       stats
}

// loraLoad counts the requests of one adapter.
type loraLoad struct{ running, waiting int }

// job is one request as the engine sees it. The caller fills the first group, the engine the second.
type job struct {
	lora         string   // adapter, "" for the base model
	hashes       []uint64 // of the whole prompt blocks
	promptTokens int
	outputTokens int // known beforehand: the simulation decides how long the answer is
	maxTokens    int // what the client asked for
	finish       string

	arrived, admitted, firstToken, lastToken time.Time
	cachedTokens                             int
	generated                                int
	blocks                                   []int32
	ready                                    chan struct{} // closed at admission of a job that had to wait
	gaps                                     histogramCounts
}

func newEngine(cfg Config) *engine {
	e := &engine{cfg: cfg, kv: newKVCache(cfg.KVBlocks), loras: map[string]*loraLoad{}, stats: newStats(cfg.MaxModelLen)}
	for _, name := range cfg.LoRAs {
		e.loras[name] = &loraLoad{}
	}
	return e
}

// start blocks until the job runs; its first token is due at j.firstToken. An error is the context's: the client has
// gone, and the job holds nothing. After a nil error the caller must call done exactly once.
func (e *engine) start(ctx context.Context, j *job) error {
	e.mu.Lock()
	j.arrived = time.Now()
	if e.waiting.Len() == 0 && e.admit(j) {
		e.mu.Unlock()
		return nil
	}
	j.ready = make(chan struct{})
	place := e.waiting.PushBack(j)
	if load := e.loras[j.lora]; load != nil {
		load.waiting++
	}
	e.mu.Unlock()

	select {
	case <-j.ready:
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-j.ready: // admitted at the same moment
		e.leave(j)
	default:
		e.waiting.Remove(place)
		if load := e.loras[j.lora]; load != nil {
			load.waiting--
		}
	}
	e.admitWaiting() // the one that left may have blocked smaller ones
	e.stats.finished(j, "abort", time.Now())
	return ctx.Err()
}

// done ends a running job. The reason is vLLM's finished_reason: stop, length or abort.
func (e *engine) done(j *job, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leave(j)
	e.admitWaiting()
	e.stats.finished(j, reason, time.Now())
}

// token records that the next output token is out.
func (e *engine) token(j *job) {
	now := time.Now()
	if j.generated == 0 {
		e.mu.Lock()
		e.stats.firstToken.observe(now.Sub(j.arrived).Seconds())
		e.mu.Unlock()
		j.firstToken = now
	} else {
		j.gaps.observe(interTokenBuckets, now.Sub(j.lastToken).Seconds())
	}
	j.lastToken = now
	j.generated++
}

// tokenTime is the length of one decode step with the present batch. 0 at speed 0.
func (e *engine) tokenTime() time.Duration {
	t := e.cfg.Timing
	return e.scaled(t.TokenTime + time.Duration(max(e.running.Load()-1, 0))*t.TokenTimePerSeq)
}

func (e *engine) scaled(d time.Duration) time.Duration {
	if e.cfg.Speed == 0 {
		return 0
	}
	return time.Duration(float64(d) / e.cfg.Speed)
}

// admit lets a job run if there is a slot and room in the KV cache. mu is held.
//
// Room is taken for the whole answer at once, so that a running job never has to be preempted; vLLM takes it block by
// block. As in vLLM the last prompt token is always computed, even when its block is cached: its logits are needed.
func (e *engine) admit(j *job) bool {
	if e.running.Load() >= int64(e.cfg.MaxNumSeqs) {
		return false
	}
	size := e.cfg.BlockSize
	total := (j.promptTokens + j.outputTokens + size - 1) / size
	blocks, cached, ok := e.kv.allocate(j.blocks[:0], j.hashes, max(j.promptTokens-1, 0)/size, total)
	if !ok {
		return false
	}
	j.blocks = blocks
	j.cachedTokens = cached * size
	j.admitted = time.Now()
	j.firstToken = e.prefill(j)
	e.running.Add(1)
	if load := e.loras[j.lora]; load != nil {
		load.running++
	}
	e.stats.admitted(j)
	return true
}

// prefill books the job's uncached tokens behind the prefills before it and returns when its first token is due.
func (e *engine) prefill(j *job) time.Time {
	if e.cfg.Speed == 0 {
		return j.admitted
	}
	uncached := float64(j.promptTokens - j.cachedTokens)
	work := e.scaled(time.Duration(uncached / e.cfg.Timing.PrefillRate * float64(time.Second)))
	if e.prefillFree.Before(j.admitted) {
		e.prefillFree = j.admitted
	}
	e.prefillFree = e.prefillFree.Add(work)
	return e.prefillFree.Add(e.scaled(e.cfg.Timing.Overhead))
}

// admitWaiting admits from the head of the queue while it fits; nobody overtakes. mu is held.
func (e *engine) admitWaiting() {
	for first := e.waiting.Front(); first != nil; first = e.waiting.Front() {
		j := first.Value.(*job)
		if !e.admit(j) {
			return
		}
		e.waiting.Remove(first)
		if load := e.loras[j.lora]; load != nil {
			load.waiting--
		}
		close(j.ready)
	}
}

// leave gives back what a running job holds. mu is held.
func (e *engine) leave(j *job) {
	e.kv.release(j.blocks)
	j.blocks = j.blocks[:0]
	e.running.Add(-1)
	if load := e.loras[j.lora]; load != nil {
		load.running--
	}
}

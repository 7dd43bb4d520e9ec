package sim

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// replica runs the engines of one server in real time: it provides the time, and wakes the requests that wait for their
// tokens. The model itself is package engine.
type replica struct {
	cfg   Config
	began time.Time
	rest  rest

	mu    sync.Mutex
	ranks []*rank
	turn  int // where the search for the least loaded rank begins
	timer *time.Timer
	due   time.Time // when the timer fires; zero: stopped
}

// rank is one engine with its counters. Guarded by replica.mu.
type rank struct {
	engine *engine.Engine
	stats  stats
	loras  loraSeries
	steps  uint64 // of the engine, when loras was recorded
}

// job is one request in an engine.
type job struct {
	engine.Request
	promptTokens int // as in the usage: 0 is possible
	maxTokens    int // what the client requested
	finish       string
	streams      bool // wakes for every token, not just for the end
	rank         int
	sent         int // output tokens of the response so far

	lastToken time.Duration // guarded by replica.mu

	available atomic.Int64 // output tokens so far
	ended     atomic.Bool  // the engine is done with the job
	wake      chan struct{}
}

// reset prepares a job for the next request. wake stays: a late wake-up finds a waiter that checks its condition and
// waits again.
func (j *job) reset() {
	j.Stall, j.promptTokens, j.maxTokens, j.finish, j.streams, j.sent, j.lastToken = false, 0, 0, "", false, 0, 0
	j.available.Store(0)
	j.ended.Store(false)
}

func newReplica(cfg Config) *replica {
	p := &replica{cfg: cfg, began: time.Now()}
	model := cfg.engine()
	if cfg.Speed == 0 {
		model.Timing = engine.Instant
	}
	for range cfg.Engines {
		p.ranks = append(p.ranks, &rank{engine: engine.New(model), stats: newStats(cfg.MaxModelLen), loras: loraSeries{names: cfg.LoRAs}})
	}
	p.timer = time.AfterFunc(time.Hour, p.tick)
	p.timer.Stop()
	return p
}

// submit adds a job to the least loaded engine.
func (p *replica) submit(j *job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.advance(now)
	j.rank = p.leastLoaded()
	rank := p.ranks[j.rank]
	if err := rank.engine.Submit(now, &j.Request); err != nil {
		return err
	}
	p.deliver(rank, rank.engine.Advance(now))
	p.arm(now)
	return nil
}

// cancel removes a job whose client has gone. It ignores a job that has ended.
func (p *replica) cancel(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.advance(now)
	rank := p.ranks[j.rank]
	if !rank.engine.Cancel(&j.Request) {
		return
	}
	rank.stats.finished(j, "abort", now, &p.cfg)
	rank.loras.record(rank.engine, time.Now())
	p.deliver(rank, rank.engine.Advance(now)) // requests that it blocked continue
	p.arm(now)
}

// tick runs when the timer fires: some engine has something to do.
func (p *replica) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Time{}
	now := p.now()
	p.advance(now)
	p.arm(now)
}

// leastLoaded returns the engine that vLLM's own balancer selects (DPLBAsyncMPClient): a waiting request weighs as much
// as four running ones. Equal engines take turns.
func (p *replica) leastLoaded() int {
	if len(p.ranks) == 1 {
		return 0
	}
	best, bestScore := 0, math.MaxInt
	for i := range p.ranks {
		i = (p.turn + i) % len(p.ranks)
		if score := 4*p.ranks[i].engine.Waiting() + p.ranks[i].engine.Running(); score < bestScore {
			best, bestScore = i, score
		}
	}
	p.turn = (best + 1) % len(p.ranks)
	return best
}

func (p *replica) advance(now time.Duration) {
	for _, rank := range p.ranks {
		p.deliver(rank, rank.engine.Advance(now))
	}
}

// deliver passes events to their jobs.
func (p *replica) deliver(rank *rank, events []engine.Event) {
	for _, event := range events {
		j := event.Request.Tag.(*job)
		switch event.Kind {
		case engine.FirstToken:
			rank.stats.firstToken.observe(p.seconds(event.At - j.Arrived))
			j.lastToken = event.At
		case engine.Token:
			rank.stats.interToken.observe(p.seconds(event.At - j.lastToken))
			j.lastToken = event.At
		case engine.Finished:
			rank.stats.finished(j, j.finish, event.At, &p.cfg)
			wake := j.wake
			j.ended.Store(true) // from here on the job may serve another request
			signal(wake)
			continue
		}
		if n := j.available.Add(1); j.streams && int(n) < j.OutputTokens { // the last one arrives with the end
			signal(j.wake)
		}
	}
	if steps := rank.engine.Totals().Steps; len(p.cfg.LoRAs) > 0 && (steps != rank.steps || rank.engine.Running()+rank.engine.Waiting() > 0) {
		rank.steps = steps
		rank.loras.record(rank.engine, time.Now())
	}
}

func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default: // one is already there
	}
}

// wait blocks until the job has more than so many tokens; for the last one, and for a job that does not stream, until it
// has ended. It returns the error of the context.
func (j *job) wait(ctx context.Context, tokens int) error {
	for {
		if j.ended.Load() || (j.streams && tokens < j.OutputTokens-1 && j.available.Load() > int64(tokens)) {
			return nil
		}
		select {
		case <-j.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// now is the engines' time: real time since the start, scaled by the configured speed.
func (p *replica) now() time.Duration {
	real := time.Since(p.began)
	if p.cfg.Speed == 0 || p.cfg.Speed == 1 {
		return real
	}
	return time.Duration(float64(real) * p.cfg.Speed)
}

// seconds converts a duration of the engines' time to seconds of real time.
func (p *replica) seconds(d time.Duration) float64 { return p.cfg.seconds(d) }

func (c *Config) seconds(d time.Duration) float64 {
	if c.Speed == 0 {
		return d.Seconds()
	}
	return d.Seconds() / c.Speed
}

// arm sets the timer to the first time at which an engine has something to do.
func (p *replica) arm(now time.Duration) {
	if p.cfg.Speed == 0 {
		return // nothing takes time
	}
	next := time.Duration(math.MaxInt64)
	for _, rank := range p.ranks {
		if at, ok := rank.engine.Next(); ok {
			next = min(next, at)
		}
	}
	if next == math.MaxInt64 {
		p.timer.Stop()
		p.due = time.Time{}
		return
	}
	due := p.began.Add(time.Duration(math.Ceil(float64(next) / p.cfg.Speed)))
	if due.Equal(p.due) {
		return
	}
	p.due = due
	p.timer.Reset(max(time.Until(due), 1)) // 1: after a rounding error the same moment may occur twice
}

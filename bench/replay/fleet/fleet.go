// Package fleet plays a workload to a fleet of simulated replicas through a way of routing, in virtual time. The replicas
// are those of cmd/modelsim (package engine). It uses neither the real time nor global randomness: the same run gives the
// same figures.
package fleet

import (
	"container/heap"
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/bench/replay/workload"
	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// Config is what is simulated.
type Config struct {
	Replicas int
	Engine   engine.Config
	Proxies  int // that share the traffic
	Workers  int // of each proxy
	Seed     uint64
}

// Router is a way of routing: one for all proxies, which it distinguishes by number.
type Router interface {
	// Pick returns the number of the replica that a request goes to. Worker is the number of its worker, among those of
	// all proxies.
	Pick(now time.Duration, worker int, f *Flight) (int, error)
	// FirstToken and Done report the progress of the request.
	FirstToken(now time.Duration, f *Flight)
	Done(now time.Duration, f *Flight)
	// Every returns the periodic tasks.
	Every() []Periodic
}

// Periodic runs at First and then each Period, as long as there are requests.
type Periodic struct {
	First, Period time.Duration
	Do            func(now time.Duration)
}

// Flight is a request in progress.
type Flight struct {
	engine.Request
	Asked   *workload.Request
	Worker  int
	Replica int
	state   any // for the router
}

// Gauges are the current metrics of the replicas.
type Gauges interface {
	// Read returns the gauges of a replica as they are now.
	Read(now time.Duration, replica int) (waiting, running int, kvUse float64)
}

// Run plays a workload. New makes the router, which may read gauges.
func Run(c Config, w *workload.Workload, begin func(c Config, w *workload.Workload, g Gauges) (Router, error)) (*Result, error) {
	s := &simulation{config: c, work: w, result: newResult(c, w)}
	for range c.Replicas {
		s.engines = append(s.engines, engine.New(c.Engine))
	}
	s.wake = make([]time.Duration, c.Replicas)
	var err error
	if s.router, err = begin(c, w, s); err != nil {
		return nil, err
	}
	for i, p := range s.router.Every() {
		s.add(p.First, -1-i)
		s.periodic = append(s.periodic, p)
	}
	return s.result, s.run()
}

// simulation is one run.
type simulation struct {
	config   Config
	work     *workload.Workload
	router   Router
	engines  []*engine.Engine
	wake     []time.Duration // by replica: when its engine has something to do; only its event at this time counts
	periodic []Periodic
	events   events
	seq      int
	flying   int
	free     []*Flight
	result   *Result
}

// event happens at a time: to replica number what, or, below zero, a periodic task.
type event struct {
	at   time.Duration
	seq  int // of two at the same time, the one that was scheduled first
	what int
}

func (s *simulation) add(at time.Duration, what int) {
	s.seq++
	heap.Push(&s.events, event{at, s.seq, what})
}

func (s *simulation) run() error {
	requests := s.work.Requests
	workers := newDeal(s.config)
	for len(requests) > 0 || s.flying > 0 {
		if len(requests) > 0 && (len(s.events) == 0 || requests[0].At <= s.events[0].at) {
			r := &requests[0]
			requests = requests[1:]
			if err := s.arrive(r, workers.next()); err != nil {
				return err
			}
			continue
		}
		e := heap.Pop(&s.events).(event)
		switch {
		case e.what < 0:
			p := &s.periodic[-1-e.what]
			p.Do(e.at)
			s.add(e.at+p.Period, e.what)
		case s.wake[e.what] == e.at:
			s.wake[e.what] = 0
			s.advance(e.at, e.what)
		}
	}
	return nil
}

// arrive sends a request to the replica that the router picks.
func (s *simulation) arrive(r *workload.Request, worker int) error {
	f := s.takeFlight()
	f.Asked, f.Worker = r, worker
	f.PromptTokens, f.OutputTokens = r.Input, r.Output
	f.Hashes = f.Hashes[:0]
	// Tenants begin with different hashes of nothing, so they share nothing.
	hash := uint64(r.Tenant) << 32
	for _, id := range r.Blocks[:r.Input/s.work.BlockTokens] {
		hash = engine.Chain(hash, uint64(id)+1)
		f.Hashes = append(f.Hashes, hash)
	}
	replica, err := s.router.Pick(r.At, worker, f)
	if err != nil {
		return err
	}
	f.Replica = replica
	s.flying++
	if err := s.engines[replica].Submit(r.At, &f.Request); err != nil {
		return fmt.Errorf("a request of %d and %d tokens: %w", r.Input, r.Output, err)
	}
	s.advance(r.At, replica)
	return nil
}

func (s *simulation) takeFlight() *Flight {
	if n := len(s.free); n > 0 {
		f := s.free[n-1]
		s.free = s.free[:n-1]
		return f
	}
	f := &Flight{}
	f.Tag = f
	return f
}

// advance runs a replica up to now and schedules its next event.
func (s *simulation) advance(now time.Duration, replica int) {
	e := s.engines[replica]
	for _, ev := range e.Advance(now) {
		f := ev.Request.Tag.(*Flight)
		switch ev.Kind {
		case engine.FirstToken:
			s.router.FirstToken(ev.At, f)
		case engine.Finished:
			s.router.Done(ev.At, f)
			s.result.add(f)
			s.flying--
			s.free = append(s.free, f)
		}
	}
	if next, ok := e.Next(); ok && s.wake[replica] != next {
		s.wake[replica] = next
		s.add(next, replica)
	}
}

// Read implements Gauges.
func (s *simulation) Read(now time.Duration, replica int) (waiting, running int, kvUse float64) {
	s.advance(now, replica)
	e := s.engines[replica]
	return e.Waiting(), e.Running(), e.KVUse()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

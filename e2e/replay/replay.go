package main

import (
	"container/heap"
	"container/list"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker"
	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/kv"
	"github.com/inlet-proxy/inlet/shared/kv/mem"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// tick is how often workers tell each other what they know.
const tick = 20 * time.Millisecond

// simulation is one replay.
type simulation struct {
	fleet
	now      time.Time
	events   events
	replicas []*replica
	at       map[string]*replica
	snapshot *endpoint.Snapshot
	workers  []*worker
	ticked   time.Time
	scraped  time.Time

	found, blocks int
	waits         []time.Duration
}

// replica is one simulated model server.
type replica struct {
	address string
	cache   cache
	free    time.Time // when it has computed the prompts that it has
	waiting int
	running int
	tokens  float64 // that it has computed
}

// worker is one picker with what belongs to a VM.
type worker struct {
	filter filter.Filter
	ledger *kv.Ledger
}

// result is what came of a replay.
type result struct {
	hits  float64
	work  []float64
	waits []time.Duration
}

// imbalance is how much more the busiest replica computed than the mean.
func (r *result) imbalance() float64 {
	sum := 0.0
	for _, w := range r.work {
		sum += w
	}
	return slices.Max(r.work) * float64(len(r.work)) / sum
}

// ttft is a quantile of the time to the first token, in seconds.
func (r *result) ttft(q float64) float64 { return r.waits[int(q*float64(len(r.waits)-1))].Seconds() }

func replay(f fleet, requests []request, stretch float64, document string, workers int) (*result, error) {
	s := &simulation{fleet: f, now: time.Unix(1000, 0), at: map[string]*replica{}}
	for i := range f.replicas {
		r := &replica{address: fmt.Sprintf("10.0.0.%03d:8000", i), cache: newCache(f.blocks)}
		s.replicas = append(s.replicas, r)
		s.at[r.address] = r
	}
	if err := s.startWorkers(document, workers); err != nil {
		return nil, err
	}
	s.scrape()
	start := s.now
	for i := range requests {
		r := &requests[i]
		w := s.workers[i%len(s.workers)]
		s.events.add(start.Add(time.Duration(float64(r.Timestamp)*stretch*float64(time.Millisecond))), func() { s.arrive(w, r) })
	}
	for len(s.events.queue) > 0 {
		s.advance(s.events.next())
	}
	slices.Sort(s.waits)
	result := &result{hits: float64(s.found) / float64(s.blocks), waits: s.waits}
	for _, r := range s.replicas {
		result.work = append(result.work, r.tokens)
	}
	return result, nil
}

func (s *simulation) startWorkers(document string, n int) error {
	store := mem.NewStore()
	for i := range n {
		id := strconv.Itoa(i)
		w := &worker{ledger: kv.NewLedger(store, id, func() time.Time { return s.now }, 3*tick)}
		deps := &filter.Deps{
			Now:      func() time.Time { return s.now },
			Rand:     rand.NewPCG(uint64(i), 1).Uint64,
			Store:    store,
			Counters: w.ledger,
			Worker:   id,
			Snapshot: func() *endpoint.Snapshot { return s.snapshot },
			Metrics:  unread{},
			Log:      func(filter.Level, string) {},
		}
		if err := conf.Decode([]byte(document), func(o *conf.Object) { w.filter = picker.Factory.New(o, deps) }); err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	return nil
}

// unread are metrics that nobody reads.
type unread struct{}

func (unread) Counter(string, ...string) filter.Metric   { return unread{} }
func (unread) Gauge(string, ...string) filter.Metric     { return unread{} }
func (unread) Histogram(string, ...string) filter.Metric { return unread{} }
func (unread) Record(int64, filter.Values)               {}

// advance goes on to an event, with the ticks and scrapes before it. Of a long
// silence only the last ticks matter.
func (s *simulation) advance(e event) {
	s.ticked = latest(s.ticked, e.at.Add(-10*tick))
	for ; e.at.Sub(s.ticked) >= tick; s.ticked = s.ticked.Add(tick) {
		s.now = s.ticked
		s.exchange()
	}
	s.now = e.at
	if s.now.Sub(s.scraped) >= s.fleet.scrape {
		s.scrape()
	}
	e.do()
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// exchange is a tick of all workers.
func (s *simulation) exchange() {
	for _, w := range s.workers {
		_ = w.ledger.Tick() // nobody else writes meanwhile
		w.filter.(filter.Ticker).OnTick()
	}
}

// scrape makes the snapshot of what the replicas' gauges say.
func (s *simulation) scrape() {
	s.scraped = s.now
	pool := endpoint.Pool{Name: "p"}
	for _, r := range s.replicas {
		pool.Endpoints = append(pool.Endpoints, endpoint.Endpoint{
			Address: r.address,
			Ready:   true,
			Gauges:  endpoint.Gauges{Known: true, Waiting: r.waiting, Running: r.running},
			Cache:   endpoint.Cache{BlockTokens: block, Blocks: int32(s.fleet.blocks)},
		})
	}
	s.snapshot = &endpoint.Snapshot{Received: s.now, Pools: []endpoint.Pool{pool}}
}

// arrive sends a request through a picker to a replica.
func (s *simulation) arrive(w *worker, q *request) {
	x := &filter.Exchange{}
	x.Reset(1)
	x.Start = s.now
	x.Route.Pool = "p"
	x.RequestHeaders = none{}
	x.Request = &llm.Request{PromptBytes: q.Input * llm.PrefixBlockBytes / llm.PrefixBlockTokens, Prefix: hashes(q.Blocks)}
	w.filter.OnRequest(x)
	r := s.at[x.Target.Address]

	hit := r.cache.hit(q.Blocks)
	r.cache.add(q.Blocks)
	s.found += hit
	s.blocks += len(q.Blocks)
	tokens := max(1, float64(q.Input-block*hit))
	r.tokens += tokens
	r.free = latest(r.free, s.now).Add(time.Duration(tokens / s.prefill * float64(time.Second)))
	r.waiting++
	s.waits = append(s.waits, r.free.Sub(s.now))
	s.events.add(r.free, func() {
		r.waiting--
		r.running++
		x.Response.Served, x.Response.Status = r.address, 200
		w.filter.OnResponseHeaders(x)
		w.filter.(filter.FirstByter).OnFirstByte(x)
	})
	s.events.add(r.free.Add(time.Duration(q.Output)*s.decode), func() {
		r.running--
		w.filter.OnDone(x, filter.End{Complete: true, Status: 200})
	})
}

// none are no headers.
type none struct{}

func (none) Get(string) (string, bool) { return "", false }

// hashes makes the blocks of the trace those of the scanner, which are smaller.
func hashes(blocks []int) []uint64 {
	const each = block / llm.PrefixBlockTokens
	all := make([]uint64, 0, each*len(blocks))
	for _, b := range blocks {
		for i := range each {
			h := fnv.New64a()
			_, _ = h.Write(binary.AppendUvarint(nil, uint64(each*b+i))) // never fails
			all = append(all, h.Sum64())
		}
	}
	return all
}

// cache keeps the blocks that were used last.
type cache struct {
	size  int
	used  *list.List // of int, the latest first
	where map[int]*list.Element
}

func newCache(size int) cache {
	return cache{size: size, used: list.New(), where: map[int]*list.Element{}}
}

// hit returns how many blocks from the beginning are there.
func (c *cache) hit(blocks []int) int {
	for i, b := range blocks {
		if c.where[b] == nil {
			return i
		}
	}
	return len(blocks)
}

// add uses the blocks, the last one first: it is the first to go.
func (c *cache) add(blocks []int) {
	for _, b := range slices.Backward(blocks) {
		if e := c.where[b]; e != nil {
			c.used.MoveToFront(e)
		} else {
			c.where[b] = c.used.PushFront(b)
		}
	}
	for len(c.where) > c.size {
		oldest := c.used.Back()
		delete(c.where, oldest.Value.(int))
		c.used.Remove(oldest)
	}
}

// event is something that happens at a time.
type event struct {
	at  time.Time
	seq int // of two at once the one that was planned first
	do  func()
}

type events struct {
	queue eventQueue
	seq   int
}

func (e *events) add(at time.Time, do func()) {
	e.seq++
	heap.Push(&e.queue, event{at, e.seq, do})
}

func (e *events) next() event { return heap.Pop(&e.queue).(event) }

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].seq < q[j].seq
	}
	return q[i].at.Before(q[j].at)
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

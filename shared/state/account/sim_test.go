package account

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// world is an allocator, proxies, and a network between them, on a virtual clock.
type world struct {
	t         *rapid.T
	now       time.Time
	skew      time.Duration // of the allocator's clock
	allocator *Allocator
	proxies   []*simProxy
	flying    []*packet
	names     []string
	limit     int64
	window    Window
	done      []*simRequest
	waiting   []*simRequest
	lossy     bool
	settled   time.Time  // when the allocator has its memory again
	net       *rand.Rand // what the network does
}

// simProxy is a proxy with some workers.
type simProxy struct {
	skew    time.Duration
	workers []Table
	busy    []bool // a report of that worker is in flight
	heard   time.Time
	dead    bool
}

// packet is a message on its way, there or back.
type packet struct {
	at      time.Time
	proxy   *simProxy
	worker  int
	body    []byte
	reply   bool
	request *simRequest // that waits for it; nil for a report
}

type simRequest struct {
	proxy  *simProxy
	worker int
	d      []Demand
	rounds int
	open   bool
	amount []int64 // what it has of each account, by name
	start  []int64
}

func newWorld(t *rapid.T, names int, limit int64, w Window) *world {
	s := &world{t: t, now: time.Date(2026, 11, 18, 12, 0, 30, 0, time.UTC), limit: limit, window: w}
	s.net = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "network"), 0))
	s.skew = time.Duration(rapid.Int64Range(-90_000, 90_000).Draw(t, "skew")) * time.Millisecond
	s.allocator = NewAllocator(1, s.now.Add(s.skew), true)
	for i := range names {
		s.names = append(s.names, fmt.Sprintf("account-%d", i))
	}
	return s
}

func (s *world) addProxy() *simProxy {
	p := &simProxy{skew: time.Duration(rapid.Int64Range(-90_000, 90_000).Draw(s.t, "skew")) * time.Millisecond, heard: s.now}
	id := uint64(len(s.proxies) + 1)
	o := Options{Accounts: 100, Rand: func() uint64 { return id }}
	if rapid.Bool().Draw(s.t, "memory") {
		p.workers = []Table{NewMemory(o, new(sync.Mutex))}
	} else {
		store := mem.NewStore()
		p.workers = []Table{NewShared(o, store, "quota"), NewShared(o, store, "quota")}
	}
	p.busy = make([]bool, len(p.workers))
	s.proxies = append(s.proxies, p)
	return p
}

func (s *world) clock(p *simProxy) time.Time { return s.now.Add(p.skew) }

// send puts a message on its way, or loses it, or repeats it.
func (s *world) send(p packet) {
	if !s.lossy {
		p.at = s.now.Add(time.Millisecond)
		s.flying = append(s.flying, &p)
		return
	}
	copies := 1
	switch n := s.net.IntN(10); {
	case n < 2 && s.now.Sub(p.proxy.heard) < 500*time.Millisecond:
		copies = 0
	case n < 4:
		copies = 2
	}
	for range copies {
		c := p
		c.at = s.now.Add(time.Duration(1+s.net.IntN(60)) * time.Millisecond)
		s.flying = append(s.flying, &c)
	}
}

// deliver delivers what arrives until now.
func (s *world) deliver() {
	for {
		i := slices.IndexFunc(s.flying, func(p *packet) bool { return !p.at.After(s.now) })
		if i < 0 {
			return
		}
		p := s.flying[i]
		s.flying = slices.Delete(s.flying, i, i+1)
		switch {
		case p.proxy.dead:
		case !p.reply:
			m, err := ParseMessage(p.body)
			require.NoError(s.t, err)
			r := s.allocator.Answer(s.now.Add(s.skew), &m)
			back := *p
			back.reply, back.body = true, r.Append(nil)
			s.send(back)
		default:
			require.NoError(s.t, p.proxy.workers[p.worker].Heard(s.clock(p.proxy), p.body))
			p.proxy.heard = s.now
			if p.request == nil {
				p.proxy.busy[p.worker] = false
			} else if p.request.rounds > 0 {
				s.try(p.request)
			}
		}
	}
}

// tick has the workers report. One whose report was lost tries again.
func (s *world) tick() {
	for _, p := range s.proxies {
		for i, w := range p.workers {
			if p.dead || p.busy[i] && s.net.IntN(2) == 0 {
				continue
			}
			if body := w.Report(s.clock(p), 0, nil, 2); body != nil {
				p.busy[i] = true
				s.send(packet{proxy: p, worker: i, body: body})
			}
		}
	}
}

// request begins a request for an amount of some accounts.
func (s *world) request(p *simProxy, amount int64, names ...string) *simRequest {
	r := &simRequest{proxy: p, worker: s.net.IntN(len(p.workers)), rounds: 3}
	for _, name := range names {
		r.d = append(r.d, Demand{Key: KeyOf([]byte(name)), Name: []byte(name), Limit: s.limit, Window: s.window, Amount: amount, Shared: true})
	}
	s.waiting = append(s.waiting, r)
	s.try(r)
	return r
}

func (s *world) try(r *simRequest) Result {
	w, now := r.proxy.workers[r.worker], s.clock(r.proxy)
	result := w.Take(now, r.d, time.Hour)
	switch result.Outcome {
	case Dry:
		if r.rounds--; r.rounds == 0 {
			require.NoError(s.t, w.Refund(now, r.d))
			break
		}
		s.send(packet{proxy: r.proxy, worker: r.worker, body: w.Ask(now, 0, nil, r.d), request: r})
	case Admitted:
		r.rounds, r.open = 0, true
		for i := range r.d {
			r.amount, r.start = append(r.amount, r.d[i].Amount), append(r.start, s.start(startOf(w, &r.d[i])))
		}
		s.done = append(s.done, r)
	default:
		r.rounds = 0
	}
	return result
}

// end settles or refunds an open request.
func (s *world) end(r *simRequest, used int64) {
	w, now := r.proxy.workers[r.worker], s.clock(r.proxy)
	r.open = false
	counts := slices.Repeat([]int64{used}, len(r.d))
	require.NoError(s.t, w.Settle(now, r.d, counts))
	if s.window.Unit == None {
		clear(counts)
	}
	r.amount = counts
}

// start names a window. All of a test is in one Flexi window, though a new allocator may name it otherwise.
func (s *world) start(start int64) int64 {
	if s.window.Flexi {
		return 0
	}
	return start
}

// startOf is where the window of a demand's account starts.
func startOf(w Table, d *Demand) int64 {
	if m, ok := w.(*Memory); ok {
		return m.accounts[d.held.key].bucket.start
	}
	s := w.(*Shared)
	if s.fetch(&s.spare, d.held.slot) != nil {
		return -1
	}
	return s.spare.find(d.held.key).bucket.start
}

// taken is what all requests have of an account in a window.
func (s *world) taken(name string, start int64) (sum int64) {
	for _, r := range s.done {
		for i := range r.d {
			if string(r.d[i].Name) == name && r.start[i] == start {
				sum += r.amount[i]
			}
		}
	}
	return sum
}

// check checks that no account has more than its limit in any window.
func (s *world) check() {
	type id struct {
		name  string
		start int64
	}
	sums := map[id]int64{}
	for _, r := range s.done {
		for i := range r.d {
			sums[id{string(r.d[i].Name), r.start[i]}] += r.amount[i]
		}
	}
	for id, sum := range sums {
		require.LessOrEqual(s.t, sum, s.limit, "%v", id)
	}
}

// advance moves the clock on, with ticks.
func (s *world) advance(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(5 * time.Millisecond) {
		s.deliver()
		if s.now.UnixMilli()%20 == 0 {
			s.tick()
		}
	}
	s.deliver()
}

// With messages that are late, lost, repeated and overtaken never more is admitted than the limit; nothing is counted twice; when
// all is quiet the rest of the limit can be taken to the unit, or but for 1 %; and what silent proxies hold comes back.
func TestManyProxies(t *testing.T) {
	for _, test := range []struct {
		limit int64
		w     Window
	}{
		{7, Window{Unit: Month}}, {7, Window{}}, {100, Window{Unit: Minute}}, {1000, Window{Unit: Hour, Flexi: true}}, {20_000, Window{Unit: Month}}, {20_000, Window{}},
	} {
		t.Run(fmt.Sprintf("%d per %s", test.limit, test.w.Append(nil)), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { manyProxies(t, test.limit, test.w) })
		})
	}
}

func manyProxies(t *rapid.T, limit int64, w Window) {
	s := newWorld(t, 3, limit, w)
	s.lossy = true
	for range rapid.IntRange(2, 4).Draw(t, "proxies") {
		s.addProxy()
	}
	for range rapid.IntRange(10, 60).Draw(t, "steps") {
		p := s.proxies[rapid.IntRange(0, len(s.proxies)-1).Draw(t, "proxy")]
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0, 1, 2, 3, 4:
			names := slices.Clone(s.names)[:rapid.IntRange(1, len(s.names)).Draw(t, "names")]
			s.request(p, rapid.Int64Range(1, max(limit/8, 1)).Draw(t, "amount"), names...)
		case 5, 6:
			if i := slices.IndexFunc(s.done, func(r *simRequest) bool { return r.open }); i >= 0 {
				s.end(s.done[i], rapid.Int64Range(0, s.done[i].amount[0]).Draw(t, "used"))
			}
		case 7:
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				s.restart()
			}
		default:
			s.advance(time.Duration(rapid.IntRange(1, 20).Draw(t, "time")) * 5 * time.Millisecond)
		}
		s.check()
	}
	s.quiet()
	s.rest(t)
	s.silence(t)
}

// restart has the allocator lose its memory.
func (s *world) restart() {
	now := s.now.Add(s.skew)
	s.allocator = NewAllocator(s.allocator.Generation+1, now, false)
	s.settled = s.now.Add(Lease/2 + 100*time.Millisecond)
}

// quiet settles all and lets the messages arrive.
func (s *world) quiet() {
	s.lossy = false
	s.advance(300 * time.Millisecond) // requests that wait are decided
	for _, r := range s.waiting {     // those whose messages were lost give up
		if r.rounds > 0 {
			r.rounds = 0
			require.NoError(s.t, r.proxy.workers[r.worker].Refund(s.clock(r.proxy), r.d))
		}
	}
	s.waiting = nil
	if s.now.Before(s.settled) {
		s.advance(s.settled.Sub(s.now))
	}
	for _, r := range s.done {
		if r.open {
			s.end(r, r.amount[0])
		}
	}
	s.advance(time.Second)
	s.check()
}

// current is the start of an account's window at the allocator.
func (s *world) current(name string) (start, used int64) {
	if al := s.allocator.Accounts[name]; al != nil {
		return s.start(al.Start), al.UsedUp()
	}
	return -1, 0
}

// rest takes the rest of a limit, from any proxy.
func (s *world) rest(t *rapid.T) {
	name := s.names[0]
	probe := s.request(s.proxies[0], 1, name)
	s.advance(100 * time.Millisecond)
	start, _ := s.current(name)
	for i, want := range probe.start {
		if s.window.Unit == Minute && want != start {
			return // a minute has ended
		}
		require.Equal(t, want, start, "%s: the proxy is in another window than the allocator", probe.d[i].Name)
	}
	s.quiet()
	again, used := s.current(name)
	if al := s.allocator.Accounts[name]; again != start || s.window.Unit == Minute && s.now.Add(s.skew+1500*time.Millisecond).UnixMilli() > al.End {
		return // a minute has ended
	}
	require.Equal(t, s.taken(name, start), used)
	left := s.limit - used
	chunk := max(s.limit/20, 1)
	got := int64(0)
	for i := 0; got < left; i++ {
		r := s.request(s.proxies[i%len(s.proxies)], min(chunk, left-got), name)
		s.advance(30 * time.Millisecond)
		if !r.open {
			break
		}
		got += r.amount[0]
	}
	s.check()
	if s.window.Unit == Minute && s.limit > 100 {
		return // takes longer than a minute
	}
	if s.limit <= exact {
		require.Equal(t, left, got)
	} else {
		require.GreaterOrEqual(t, got, left-s.limit/100-chunk)
	}
}

// silence has all proxies but a new one disappear.
func (s *world) silence(t *rapid.T) {
	if s.window.Unit == Minute {
		return
	}
	for _, p := range s.proxies {
		p.dead = true
	}
	s.advance(Lease + 200*time.Millisecond)
	p := s.addProxy()
	name := s.names[1]
	_, used := s.current(name)
	if s.limit == used {
		return
	}
	r := s.request(p, s.limit-used, name)
	s.advance(100 * time.Millisecond)
	require.True(t, r.open)
}

package kv_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

const (
	tick  = 50 * time.Millisecond
	lease = 3 * tick
)

// clock is a virtual clock.
type clock struct{ t time.Time }

func newClock() *clock                      { return &clock{time.Unix(1_000_000, 0)} }
func (c *clock) now() time.Time             { return c.t }
func (c *clock) advance(d time.Duration)    { c.t = c.t.Add(d) }
func worker(i int) string                   { return fmt.Sprintf("w%d", i) }
func replica(i int) string                  { return fmt.Sprintf("10.0.%d.%d:8000", i/250, i%250) }
func value(l *kv.Ledger, name string) int64 { return l.Open(name).Value() }
func tickAll(t require.TestingT, ls ...*kv.Ledger) {
	for _, l := range ls {
		require.NoError(t, l.Tick())
	}
}

// spy is a store that counts calls, and can put something between the calls of one worker: what another thread would do.
type spy struct {
	kv.Store
	gets, sets int
	bytes      int
	between    func(op, key string)
}

func (s *spy) Get(key string) ([]byte, uint32, error) {
	if s.between != nil {
		s.between("get", key)
	}
	s.gets++
	value, cas, err := s.Store.Get(key)
	s.bytes += len(value)
	return value, cas, err
}

func (s *spy) Set(key string, value []byte, cas uint32) error {
	if s.between != nil {
		s.between("set", key)
	}
	s.sets++
	s.bytes += len(value)
	return s.Store.Set(key, value, cas)
}

func (s *spy) reset() { s.gets, s.sets, s.bytes = 0, 0, 0 }

func TestOwnCountsAreSeenAtOnceOthersWithinATick(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	a.Open("x").Add(3)
	require.EqualValues(t, 3, value(a, "x"))
	require.EqualValues(t, 0, value(b, "x"))
	tickAll(t, a, b)
	require.EqualValues(t, 3, value(b, "x"))
	b.Open("x").Add(-1)
	require.EqualValues(t, 2, value(b, "x"))
	tickAll(t, b, a)
	require.EqualValues(t, 2, value(a, "x"))
}

func TestOpenGivesTheSameCounter(t *testing.T) {
	l := kv.NewLedger(mem.NewStore(), "a", newClock().now, lease)
	require.Same(t, l.Open("x"), l.Open("x"))
	require.NotSame(t, l.Open("x"), l.Open("y"))
}

func TestACounterOpenedLateFindsWhatTheOthersCount(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	a.Open("x").Add(5)
	tickAll(t, a, b)
	require.EqualValues(t, 0, value(b, "x"))
	tickAll(t, b)
	require.EqualValues(t, 5, value(b, "x"))
}

// What costs: an idle tick is one small read, and a worker without counts never writes.
func TestCallsOfATick(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)

	tickAll(t, a, b)
	require.Equal(t, [2]int{2, 0}, [2]int{store.gets, store.sets}, "nothing was ever counted")

	for i := range 100 {
		a.Open(replica(i)).Add(1)
		b.Open(replica(i))
	}
	tickAll(t, a, b)

	store.reset()
	tickAll(t, b)
	require.Equal(t, [2]int{1, 0}, [2]int{store.gets, store.sets}, "an idle tick")
	require.Less(t, store.bytes, 64)

	store.reset()
	x := a.Open(replica(0))
	x.Add(1)
	x.Add(-1)
	tickAll(t, a)
	require.Zero(t, store.sets, "a request that came and went within a tick")

	store.reset()
	c.advance(lease / 2)
	tickAll(t, a)
	require.Equal(t, 1, store.sets, "a renewal writes the directory alone")
	store.reset()
	tickAll(t, b)
	require.Equal(t, 1, store.gets, "a renewal makes no one read the record")

	store.reset()
	c.advance(lease/2 - 1)
	tickAll(t, a)
	require.Zero(t, store.sets, "one renewal for half a lease")
	c.advance(1)
	tickAll(t, a)
	require.Equal(t, 1, store.sets)
	x.Add(1)
	tickAll(t, a)
	store.reset()
	c.advance(lease/2 - 1)
	tickAll(t, a)
	require.Zero(t, store.sets, "a publication renews, too")
	x.Add(-1)
	tickAll(t, a, b)

	for i := range 100 {
		a.Open(replica(i)).Add(-1)
	}
	tickAll(t, a, b)
	store.reset()
	c.advance(time.Hour)
	tickAll(t, a, b)
	require.Equal(t, [2]int{2, 0}, [2]int{store.gets, store.sets}, "all counts are back at zero")
}

func TestADeadWorkersCountsExpireAfterItsLease(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	dead := kv.NewLedger(store, "dead", c.now, lease)
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	dead.Open("x").Add(7)
	a.Open("x").Add(1)
	b.Open("x")
	tickAll(t, dead, a, b)
	require.EqualValues(t, 8, value(a, "x"))

	for elapsed := tick; elapsed < lease; elapsed += tick {
		c.advance(tick)
		tickAll(t, a, b)
		require.EqualValues(t, 8, value(a, "x"), "the lease is not over")
		require.EqualValues(t, 8, value(b, "x"))
	}
	c.advance(tick)
	tickAll(t, a, b)
	require.EqualValues(t, 1, value(a, "x"))
	require.EqualValues(t, 1, value(b, "x"), "a live worker's counts stay")

	directory, _, err := store.Get("inlet.ledger.1")
	require.NoError(t, err)
	require.NotContains(t, string(directory), "dead")
	record, _, err := store.Get("inlet.ledger.1/dead")
	require.NoError(t, err)
	require.Len(t, record, 1, "the record is emptied: keys cannot be deleted")
}

func TestAWorkerTakenForDeadComesBack(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	slow, a := kv.NewLedger(store, "slow", c.now, lease), kv.NewLedger(store, "a", c.now, lease)
	slow.Open("x").Add(7)
	a.Open("x").Add(1)
	tickAll(t, slow, a)
	for range 4 {
		c.advance(tick)
		tickAll(t, a)
	}
	require.EqualValues(t, 1, value(a, "x"))
	for range 2 { // sees that it is off the list, and enters again
		c.advance(tick)
		tickAll(t, slow, a)
	}
	require.EqualValues(t, 8, value(a, "x"))
	require.EqualValues(t, 8, value(slow, "x"))
}

// The renewal of a worker reaches the directory between the moment when it is found silent and the moment when it would be taken off.
func TestARenewalInTheLastMoment(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	slow, a := kv.NewLedger(store, "slow", c.now, lease), kv.NewLedger(store, "a", c.now, lease)
	slow.Open("x").Add(7)
	a.Open("x").Add(1)
	tickAll(t, slow, a)
	for range 2 {
		c.advance(tick)
		tickAll(t, a)
	}
	c.advance(tick)
	gets := 0
	store.between = func(op, key string) {
		if op != "get" {
			return
		}
		if gets++; gets == 2 { // after the refresh, before the burial
			store.between = nil
			tickAll(t, slow)
		}
	}
	tickAll(t, a)
	require.Nil(t, store.between, "the renewal came in between")
	tickAll(t, a)
	require.EqualValues(t, 8, value(a, "x"))
	require.EqualValues(t, 8, value(slow, "x"))
}

// A worker that itself was away cannot tell whether the others were silent.
func TestAWorkerThatWasAwayDoesNotJudgeTheOthers(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	a.Open("x").Add(1)
	b.Open("x").Add(2)
	tickAll(t, a, b, a)
	for _, away := range []time.Duration{time.Hour, lease, lease - 1} { // the process was stopped, or the clock set
		c.advance(away)
		tickAll(t, a)
		require.EqualValues(t, 3, value(a, "x"), away)
		tickAll(t, b)
		require.EqualValues(t, 3, value(b, "x"), away)
		tickAll(t, a)
	}
}

func TestASuccessorReplacesTheDeadWorkersCounts(t *testing.T) {
	for _, next := range []int64{0, 2} {
		store, c := mem.NewStore(), newClock()
		first, a := kv.NewLedger(store, "w", c.now, lease), kv.NewLedger(store, "a", c.now, lease)
		first.Open("x").Add(7)
		a.Open("x")
		tickAll(t, first, a)
		require.EqualValues(t, 7, value(a, "x"))

		c.advance(tick)
		second := kv.NewLedger(store, "w", c.now, lease)
		second.Open("x").Add(next)
		tickAll(t, second, second, a)
		require.Equal(t, next, value(second, "x"))
		require.Equal(t, next, value(a, "x"))
	}
}

func TestClose(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	require.NoError(t, b.Close(), "one that never counted")
	a.Open("x").Add(7)
	b.Open("x")
	tickAll(t, a, b)
	require.NoError(t, a.Close())
	tickAll(t, b)
	require.EqualValues(t, 0, value(b, "x"))
}

// The sums of all workers agree after a round of ticks that publish and one that reads, whatever went before: interleaved adds, opens,
// ticks, workers that crash, and calls of others between any two calls of one.
func TestSumsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		store := &spy{Store: mem.NewStore()}
		n := rapid.IntRange(1, 6).Draw(t, "workers")
		ledgers := make([]*kv.Ledger, n)
		counts := make([]map[string]int64, n) // what each live worker added: the truth
		start := func(i int) {
			ledgers[i], counts[i] = kv.NewLedger(store, worker(i), c.now, lease), map[string]int64{}
		}
		for i := range ledgers {
			start(i)
		}
		name := func() string { return replica(rapid.IntRange(0, 9).Draw(t, "counter")) }

		// While one worker is within a call of the store, others may tick (each at most once at a time: a worker is single-threaded).
		busy := make([]bool, n)
		doTick := func(i int) {
			busy[i] = true
			defer func() { busy[i] = false }()
			if err := ledgers[i].Tick(); err != nil && !errors.Is(err, kv.ErrBusy) {
				t.Fatalf("%s: %v", worker(i), err)
			}
		}
		store.between = func(string, string) {
			if i := rapid.IntRange(-2*n, n-1).Draw(t, "between"); i >= 0 && !busy[i] {
				doTick(i)
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "worker")
			switch rapid.SampledFrom([]string{"add", "add", "tick", "tick", "sleep", "crash", "reuse"}).Draw(t, "step") {
			case "add":
				x, d := name(), int64(rapid.IntRange(-3, 3).Draw(t, "delta"))
				ledgers[i].Open(x).Add(d)
				counts[i][x] += d
			case "tick":
				doTick(i)
			case "sleep":
				c.advance(time.Duration(rapid.IntRange(1, 120).Draw(t, "ms")) * time.Millisecond)
			case "crash", "reuse":
				c.advance(time.Millisecond)
				start(i)
			}
		}
		store.between = nil

		// What crashed workers left expires; live ones keep ticking.
		for range 10 {
			c.advance(tick)
			tickAll(t, ledgers...)
		}
		for i := range 10 {
			var want int64
			for _, m := range counts {
				want += m[replica(i)]
			}
			for k, l := range ledgers {
				l.Open(replica(i))
				tickAll(t, l)
				require.Equal(t, want, value(l, replica(i)), "%s sees %s", worker(k), replica(i))
			}
		}
	})
}

// Two rounds of ticks are enough when nobody died.
func TestSumsConvergeInTwoRounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, c := mem.NewStore(), newClock()
		n := rapid.IntRange(1, 8).Draw(t, "workers")
		var ledgers []*kv.Ledger
		for i := range n {
			l := kv.NewLedger(store, worker(i), c.now, lease)
			for k := range 5 {
				l.Open(replica(k))
			}
			ledgers = append(ledgers, l)
		}
		var want [5]int64
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			i, k := rapid.IntRange(0, n-1).Draw(t, "worker"), rapid.IntRange(0, 4).Draw(t, "counter")
			if rapid.Bool().Draw(t, "tick") {
				tickAll(t, ledgers[i])
				continue
			}
			d := int64(rapid.IntRange(-2, 4).Draw(t, "delta"))
			ledgers[i].Open(replica(k)).Add(d)
			want[k] += d
		}
		tickAll(t, ledgers...)
		tickAll(t, ledgers...)
		for _, l := range ledgers {
			for k := range want {
				require.Equal(t, want[k], value(l, replica(k)))
			}
		}
	})
}

// Others that win every round: the call ends, the counts are kept, and the next tick brings them over.
func TestCompareAndSwapIsBounded(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	b.Open("x").Add(1)
	a.Open("x")
	tickAll(t, b, a)

	inner := store.Store
	store.between = func(op, key string) {
		if op == "set" && key == "inlet.ledger.1" {
			value, _, err := inner.Get(key)
			require.NoError(t, err)
			require.NoError(t, inner.Set(key, value, 0))
		}
	}
	store.reset()
	a.Open("x").Add(4)
	require.ErrorIs(t, a.Tick(), kv.ErrBusy)
	require.Less(t, store.gets+store.sets, 64)
	require.EqualValues(t, 5, value(a, "x"))

	store.between = nil
	tickAll(t, a, b)
	require.EqualValues(t, 5, value(b, "x"))
}

type broken struct{ kv.Store }

var errHost = errors.New("host said no")

func (broken) Get(string) ([]byte, uint32, error) { return nil, 0, errHost }
func (broken) Set(string, []byte, uint32) error   { return errHost }

func TestErrorsOfTheStoreAreReported(t *testing.T) {
	c := newClock()
	l := kv.NewLedger(broken{}, "a", c.now, lease)
	require.ErrorIs(t, l.Tick(), errHost)
	l.Open("x").Add(2)
	require.ErrorIs(t, l.Tick(), errHost)
	require.EqualValues(t, 2, value(l, "x"))
}

// Bytes that no Ledger wrote do no harm: no panic, and the workers find each other again.
func TestForeignBytesInTheStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, c := mem.NewStore(), newClock()
		a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
		a.Open("x").Add(1)
		b.Open("x").Add(2)
		tickAll(t, a, b, a)
		key := rapid.SampledFrom([]string{"inlet.ledger.1", "inlet.ledger.1/a"}).Draw(t, "key")
		value0, _, err := store.Get(key)
		require.NoError(t, err)
		mutated := append([]byte(nil), value0...)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			mutated[rapid.IntRange(0, len(mutated)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		mutated = mutated[:rapid.IntRange(0, len(mutated)).Draw(t, "length")]
		require.NoError(t, store.Set(key, mutated, 0))
		for range 12 {
			c.advance(tick)
			_, _ = a.Tick(), b.Tick()
		}
		a.Open("x").Add(1)
		b.Open("x").Add(1)
		for range 12 {
			c.advance(tick)
			_, _ = a.Tick(), b.Tick()
		}
		require.EqualValues(t, 5, value(a, "x"))
		require.EqualValues(t, 5, value(b, "x"))
	})
}

func TestHotPathAllocatesNothing(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	for i := range 100 {
		a.Open(replica(i)).Add(1)
		b.Open(replica(i))
	}
	tickAll(t, a, b, a)
	x := a.Open(replica(1))
	require.Zero(t, testing.AllocsPerRun(100, func() { x.Add(1); x.Add(-1); _ = x.Value() }), "Add and Value")
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = a.Open(replicaOne) }), "Open again")
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = b.Tick() }), "an idle tick")

	// The store in memory allocates the value that it keeps: two per publication, the record and the directory.
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { x.Add(1); _ = a.Tick() }), 2.0, "a tick that publishes")
	const both = 2.0
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { x.Add(1); _ = a.Tick(); _ = b.Tick() }), both, "a tick that reads one record")
}

var replicaOne = replica(1)

// Record size: what 2,000 busy replicas cost on the way through the host.
func TestRecordIsCompact(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	l := kv.NewLedger(store, "a", c.now, lease)
	names := 0
	for i := range 2000 {
		l.Open(replica(i)).Add(1)
		names += len(replica(i))
	}
	tickAll(t, l)
	record, _, err := store.Get("inlet.ledger.1/a")
	require.NoError(t, err)
	require.LessOrEqual(t, len(record), names+2*2000+9)
	require.Equal(t, 1, strings.Count(string(record), replica(77)))
}

func TestLease(t *testing.T) {
	const ttl = 100 * time.Millisecond
	store, c := mem.NewStore(), newClock()
	a, b := kv.NewLease(store, "job", "a", c.now, ttl), kv.NewLease(store, "job", "b", c.now, ttl)
	holds := func(l *kv.Lease, want bool) {
		t.Helper()
		got, err := l.Hold()
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.NoError(t, a.Release(), "free already")
	holds(a, true)
	holds(b, false)
	require.NoError(t, b.Release(), "not the holder")
	c.advance(60 * time.Millisecond)
	holds(a, true) // renewed
	c.advance(60 * time.Millisecond)
	holds(b, false)
	c.advance(40 * time.Millisecond)
	holds(b, true) // expired
	holds(a, false)
	require.NoError(t, b.Release())
	holds(a, true)
	c.advance(-time.Hour) // a clock that is set back locks nobody out
	holds(b, true)
}

func TestLeaseErrors(t *testing.T) {
	l := kv.NewLease(broken{}, "job", "a", newClock().now, time.Second)
	held, err := l.Hold()
	require.ErrorIs(t, err, errHost)
	require.False(t, held)
	require.ErrorIs(t, l.Release(), errHost)
}

// However the calls of several workers interleave, no two hold the lease at the same time.
func TestLeaseHasOneHolder(t *testing.T) {
	const ttl = 100 * time.Millisecond
	rapid.Check(t, func(t *rapid.T) {
		store, c := &spy{Store: mem.NewStore()}, newClock()
		n := rapid.IntRange(2, 4).Draw(t, "workers")
		leases := make([]*kv.Lease, n)
		for i := range leases {
			leases[i] = kv.NewLease(store, "job", worker(i), c.now, ttl)
		}
		busy := make([]bool, n)
		until := make([]time.Time, n) // when the last yes to each is certainly over
		hold := func(i int) {
			busy[i] = true
			defer func() { busy[i] = false }()
			asked := c.now()
			ok, err := leases[i].Hold()
			require.NoError(t, err)
			until[i] = time.Time{}
			if !ok {
				return
			}
			until[i] = asked.Add(ttl / 2)
			for k := range until {
				if k != i && until[k].After(c.now()) && until[i].After(c.now()) {
					t.Fatalf("%d and %d hold it", i, k)
				}
			}
		}
		store.between = func(string, string) {
			if i := rapid.IntRange(-n, n-1).Draw(t, "between"); i >= 0 && !busy[i] {
				hold(i)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "worker")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				c.advance(time.Duration(rapid.IntRange(1, 80).Draw(t, "ms")) * time.Millisecond)
			case 1:
				require.NoError(t, leases[i].Release())
				until[i] = time.Time{}
			default:
				hold(i)
			}
		}
	})
}

func benchmarkLedgers(workers, counters int) []*kv.Ledger {
	store, c := mem.NewStore(), newClock()
	ledgers := make([]*kv.Ledger, workers)
	for i := range ledgers {
		ledgers[i] = kv.NewLedger(store, worker(i), c.now, lease)
		for k := range counters {
			ledgers[i].Open(replica(k)).Add(1)
		}
	}
	for range 2 {
		for _, l := range ledgers {
			_ = l.Tick()
		}
	}
	return ledgers
}

func BenchmarkTickIdle(b *testing.B) {
	l := benchmarkLedgers(16, 2000)
	b.ReportAllocs()
	for b.Loop() {
		_ = l[0].Tick()
	}
}

// One worker publishes 2,000 counts.
func BenchmarkTickPublish(b *testing.B) {
	l := benchmarkLedgers(2, 2000)
	x := l[0].Open(replica(0))
	b.ReportAllocs()
	for b.Loop() {
		x.Add(1)
		_ = l[0].Tick()
	}
}

// The worst tick: 15 others changed 2,000 counts each. One iteration is a round of all 16 workers.
func BenchmarkRound16Workers2000Counters(b *testing.B) {
	l := benchmarkLedgers(16, 2000)
	b.ReportAllocs()
	for b.Loop() {
		for _, w := range l {
			w.Open(replicaOne).Add(1)
			_ = w.Tick()
		}
	}
}

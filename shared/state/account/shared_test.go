package account_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// busyStore is a store in which others do something before each call.
type busyStore struct {
	kv.Store
	before func()
	// after can make an answer of a Set that succeeded, or nil.
	after func() error
	calls int
	// written is the last key that was written.
	written string
}

func (s *busyStore) Get(key string) ([]byte, uint32, error) {
	s.calls++
	if s.before != nil {
		s.before()
	}
	return s.Store.Get(key)
}

func (s *busyStore) Set(key string, value []byte, cas uint32) error {
	s.calls++
	if s.before != nil {
		s.before()
	}
	s.written = key
	err := s.Store.Set(key, value, cas)
	if err == nil && s.after != nil {
		return s.after()
	}
	return err
}

// Workers interleave at every call of the store: no limit is exceeded, all or none is taken, and nothing is lost or counted twice.
func TestWorkersInterleave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := &busyStore{Store: mem.NewStore()}
		accounts := rapid.SampledFrom([]int{1, 4, 100}).Draw(t, "accounts") // 1: all in one record
		var workers []account.Table
		for range rapid.IntRange(2, 4).Draw(t, "workers") {
			workers = append(workers, account.NewShared(account.Options{Accounts: accounts}, store, "quota"))
		}
		limits := []account.Demand{counted(demand("requests", 20, minute, 1)), demand("tokens", 100, minute, 7), demand("open", 5, account.Window{}, 1)}
		type open struct {
			d []account.Demand
		}
		var taken []open
		want := [3]int64{}
		busy := make([]bool, len(workers))
		act := func() {
			i := rapid.IntRange(0, len(workers)-1).Draw(t, "worker")
			if busy[i] {
				return
			}
			busy[i] = true
			defer func() { busy[i] = false }()
			switch what := rapid.IntRange(0, 4).Draw(t, "what"); {
			case what < 2 || len(taken) == 0:
				d := slices.Clone(limits)
				if rapid.Bool().Draw(t, "other order") {
					d[0], d[2] = d[2], d[0]
				}
				if workers[i].Take(begin, d, hold).Outcome == account.Admitted {
					taken = append(taken, open{d})
					want[0]++
				}
			case what == 2:
				r := taken[0]
				taken = taken[1:]
				require.NoError(t, workers[i].Refund(begin, r.d))
				want[0]--
			default:
				r := taken[0]
				taken = taken[1:]
				require.NoError(t, workers[i].Settle(begin, r.d, []int64{5, 5, 5}))
				want[1] += 5
			}
		}
		store.before = func() {
			depth := 0
			for _, b := range busy {
				if b {
					depth++
				}
			}
			if depth < 3 && rapid.IntRange(0, 3).Draw(t, "others") == 0 {
				act()
			}
		}
		for range rapid.IntRange(5, 30).Draw(t, "steps") {
			act()
		}
		store.before = nil
		require.LessOrEqual(t, want[0], int64(20))
		require.LessOrEqual(t, len(taken), 5)
		require.Equal(t, [2]int64{want[0], 0}, used(workers[0], begin, limits[0]))
		require.Equal(t, [2]int64{want[1], 7 * int64(len(taken))}, used(workers[1], begin, limits[1]))
		require.Equal(t, [2]int64{0, int64(len(taken))}, used(workers[0], begin, limits[2]))
		require.LessOrEqual(t, want[1]+7*int64(len(taken)), int64(100))
		for _, r := range taken {
			require.NoError(t, workers[0].Settle(begin, r.d, []int64{5, 5, 5}))
		}
		require.Equal(t, [2]int64{0, 0}, used(workers[0], begin, limits[2]))
	})
}

// Threads that share nothing but the store, or a table in memory, admit exactly the limit.
func TestThreads(t *testing.T) {
	store, memory := mem.NewStore(), account.NewMemory(account.Options{Accounts: 100}, new(sync.Mutex))
	for name, make := range map[string]func() account.Table{
		"shared": func() account.Table { return account.NewShared(account.Options{Accounts: 100}, store, "quota") },
		"memory": func() account.Table { return memory },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := counted(demand("a", 1000, month, 1)), demand("b", 5000, month, 5)
			var done sync.WaitGroup
			var mu sync.Mutex
			admitted := int64(0)
			for range 4 {
				done.Go(func() {
					table, n := make(), int64(0)
					for range 400 {
						d := request(a, b)
						if table.Take(begin, d, hold).Outcome != account.Admitted {
							continue
						}
						for table.Settle(begin, d, []int64{1, 5}) != nil { // others won every round
						}
						n++
					}
					mu.Lock()
					defer mu.Unlock()
					admitted += n
				})
			}
			done.Wait()
			table := make()
			require.LessOrEqual(t, admitted, int64(1000))
			require.Equal(t, [2]int64{admitted, 0}, used(table, begin, a))
			require.Equal(t, [2]int64{5 * admitted, 0}, used(table, begin, b))
			for ; admitted < 1000; admitted++ {
				take(t, table, begin, account.Admitted, a, b)
			}
			take(t, table, begin, account.Refused, a, b)
		})
	}
}

// Q17: the store wrote a settlement, but its answer was lost.
func TestALostAnswer(t *testing.T) {
	store := &busyStore{Store: mem.NewStore()}
	table := account.NewShared(account.Options{Accounts: 100}, store, "quota")
	a, b, c := demand("a", 10, minute, 5), demand("b", 10, minute, 5), demand("c", 10, minute, 5)
	d := take(t, table, begin, account.Admitted, a, b, c)
	failed := errors.New("the answer was lost")
	sets := 0
	store.after = func() error {
		if sets++; sets == 2 {
			return failed
		}
		return nil
	}
	require.ErrorIs(t, table.Settle(begin, d, []int64{2, 2, 2}), failed)
	for range 3 {
		require.NoError(t, table.Settle(begin, d, []int64{2, 2, 2}))
	}
	for _, d := range request(a, b, c) {
		require.Equal(t, [2]int64{2, 0}, used(table, begin, d))
	}
}

// Q13: a settlement that fails for longer than its reservation is held becomes late, and not a refund. A request or a tick is enough to write it. So with
// a refund.
func TestASettlementThatFailsTwice(t *testing.T) {
	for name, next := range map[string]func(table account.Table, now time.Time){
		"request": func(table account.Table, now time.Time) {
			take(t, table, now, account.Admitted, demand("other", 10, minute, 1))
		},
		"tick":   func(table account.Table, now time.Time) { require.Nil(t, table.Report(now, -1, nil, 10)) },
		"ending": func(table account.Table, now time.Time) { require.NoError(t, table.Refund(now, nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			store := &busyStore{Store: mem.NewStore()}
			table := account.NewShared(account.Options{Accounts: 1000}, store, "quota")
			tokens, requests := demand("tokens", 1000, month, 500), counted(demand("requests", 10, month, 1))
			settled, refunded := take(t, table, begin, account.Admitted, tokens), take(t, table, begin, account.Admitted, requests)
			good := store.Store
			store.Store = readOnly{good}
			require.Error(t, table.Settle(begin, settled, []int64{400}))
			require.Error(t, table.Refund(begin, refunded))
			for range 2 {
				require.NoError(t, table.Settle(begin, settled, []int64{400}), "it is kept")
			}
			later := begin.Add(2 * hold)
			table.Report(later, -1, nil, 10) // it still fails
			store.Store = good
			require.Equal(t, [2]int64{0, 0}, used(table, later, tokens), "the reservation has expired")
			next(table, later)
			require.Equal(t, [2]int64{400, 0}, used(table, later, tokens))
			require.Equal(t, [2]int64{0, 0}, used(table, later, requests))
			for range 3 {
				require.NoError(t, table.Settle(later, settled, []int64{400}))
			}
			require.Equal(t, [2]int64{400, 0}, used(table, later, tokens), "once")
		})
	}
}

// As many are kept as there is place for. The caller learns of each of the others that it is lost, and may try it again.
func TestTooManySettlementsFail(t *testing.T) {
	store := &busyStore{Store: mem.NewStore()}
	table := account.NewShared(account.Options{Accounts: 1000}, store, "quota")
	tokens := demand("tokens", 1_000_000, month, 10)
	var open [][]account.Demand
	for range 300 {
		open = append(open, take(t, table, begin, account.Admitted, tokens))
	}
	good := store.Store
	store.Store = readOnly{good}
	lost := 0
	for _, d := range open {
		require.Error(t, table.Settle(begin, d, []int64{7}))
		if table.Settle(begin, d, []int64{7}) != nil {
			lost++
		}
	}
	require.Equal(t, 300-256, lost)
	store.Store = good
	store.calls = 0
	table.Report(begin, -1, nil, 10)
	require.LessOrEqual(t, store.calls, 40, "in parts: a request waits for it")
	for range 20 {
		table.Report(begin, -1, nil, 10)
	}
	require.Equal(t, [2]int64{256 * 7, int64(lost) * 10}, used(table, begin, tokens))
	for _, d := range open {
		require.NoError(t, table.Settle(begin, d, []int64{7}))
	}
	require.Equal(t, [2]int64{300 * 7, 0}, used(table, begin, tokens))
}

// readOnly is a store that writes nothing.
type readOnly struct{ kv.Store }

func (readOnly) Set(string, []byte, uint32) error { return errors.New("read only") }

// Where the store fails nothing is taken. Where others win every round neither, and it is counted.
func TestAStoreThatFails(t *testing.T) {
	store := &busyStore{Store: mem.NewStore()}
	table, other := account.NewShared(account.Options{Accounts: 100}, store, "quota"), account.NewShared(account.Options{Accounts: 100}, store.Store, "quota")
	a, b := counted(demand("a", 1000, minute, 1)), counted(demand("b", 1000, minute, 1))
	failed := errors.New("down")
	store.after = func() error { return failed }
	take(t, table, begin, account.Failed, a)
	store.after = nil
	before := used(table, begin, b)
	store.before = func() { // another request for b, all the time
		take(t, other, begin, account.Admitted, b)
		before[0]++
	}
	take(t, table, begin, account.Busy, a, b)
	store.before = nil
	require.Equal(t, before, used(table, begin, b))
	require.EqualValues(t, 1, table.Counts().Busy)
	require.LessOrEqual(t, store.calls, 600)
	store.Store = brokenStore{}
	take(t, table, begin, account.Failed, a, b)
}

// A worker whose other goes first at each of a hundred rounds still gets through, and begins no request once more for it: only the record that it lost
// is read again.
func TestAWorkerThatLosesManyRounds(t *testing.T) {
	store := &busyStore{Store: mem.NewStore()}
	table, other := account.NewShared(account.Options{Accounts: 1000}, store, "quota"), account.NewShared(account.Options{Accounts: 1000}, store.Store, "quota")
	cold, hot := counted(demand("cold", 1000, minute, 1)), counted(demand("hot", 1000, minute, 1))
	lost := 0
	store.before = func() {
		if lost < 100 {
			lost++
			take(t, other, begin, account.Admitted, hot)
		}
	}
	take(t, table, begin, account.Admitted, cold, hot)
	require.Equal(t, 100, lost)
	require.Zero(t, table.Counts().Busy)
	require.LessOrEqual(t, store.calls, 106, "two a lost round, and none for the record that is written")
	store.before = nil
	require.Equal(t, [2]int64{1, 0}, used(table, begin, cold))
	require.Equal(t, [2]int64{101, 0}, used(table, begin, hot))
}

// An account that refuses when it is read again takes back what was taken of the others.
func TestTheLastUnitIsLost(t *testing.T) {
	store := &busyStore{Store: mem.NewStore()}
	table, other := account.NewShared(account.Options{Accounts: 1000}, store, "quota"), account.NewShared(account.Options{Accounts: 1000}, store.Store, "quota")
	a, b := counted(demand("a", 1, minute, 1)), counted(demand("b", 1, minute, 1))
	take(t, table, begin, account.Admitted, counted(demand("c", 1, minute, 1)))
	store.calls = 0
	store.before = func() {
		if store.calls == 4 { // both are read, and one is written
			store.before = nil
			for _, d := range request(a, b) {
				other.Take(begin, request(d), hold)
			}
		}
	}
	r := table.Take(begin, request(a, b), hold)
	require.Equal(t, account.Refused, r.Outcome)
	require.Equal(t, [2]int64{}, used(table, begin, [...]account.Demand{b, a}[r.At]), "given back")
	require.Equal(t, [2]int64{1, 0}, used(table, begin, [...]account.Demand{a, b}[r.At]))
}

// Of two requests that want the last unit of two accounts at the same time, named in opposite orders, one is admitted.
func TestOneOfTwoWins(t *testing.T) {
	for calls := range 6 {
		store := &busyStore{Store: mem.NewStore()}
		table, other := account.NewShared(account.Options{Accounts: 1000}, store, "quota"), account.NewShared(account.Options{Accounts: 1000}, store.Store, "quota")
		a, b := counted(demand("a", 1, minute, 1)), counted(demand("b", 1, minute, 1))
		take(t, table, begin, account.Admitted, counted(demand("c", 1, minute, 1)))
		store.calls = 0
		second := account.Failed
		store.before = func() {
			if store.calls == calls+1 {
				store.before = nil
				second = other.Take(begin, request(b, a), hold).Outcome
			}
		}
		first := table.Take(begin, request(a, b), hold).Outcome
		if calls < 4 {
			require.NotEqual(t, first, second, calls)
		}
		require.Contains(t, []account.Outcome{first, second}, account.Admitted)
	}
}

type brokenStore struct{}

func (brokenStore) Get(string) ([]byte, uint32, error) { return nil, 0, errors.New("broken") }
func (brokenStore) Set(string, []byte, uint32) error   { return errors.New("broken") }

// What is in the store and cannot be read is replaced.
func TestForeignRecords(t *testing.T) {
	for _, value := range []string{"", "\x00", "\x02foreign", "\x01cut", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		store := mem.NewStore()
		for i := range 60 {
			require.NoError(t, store.Set(fmt.Sprintf("quota/%d", i), []byte(value), 0))
		}
		require.NoError(t, store.Set("quota/link", []byte(value), 0))
		table := account.NewShared(account.Options{Accounts: 100}, store, "quota")
		shared := demand("b", 5, minute, 1)
		shared.Shared = true
		take(t, table, begin, account.Admitted, demand("a", 1, minute, 1))
		take(t, table, begin, account.Refused, demand("a", 1, minute, 1))
		take(t, table, begin, account.Dry, shared)
	}
}

// Q31: one-off accounts never push out one that has used something; those that are idle go first; what comes on top shares an account.
func TestABoundedTable(t *testing.T) {
	for name, table := range map[string]account.Table{
		"memory": account.NewMemory(account.Options{Accounts: 8}, new(sync.Mutex)),
		"shared": account.NewShared(account.Options{Accounts: 4}, mem.NewStore(), "quota"), // one record
	} {
		t.Run(name, func(t *testing.T) {
			take(t, table, at(0), account.Admitted, counted(demand("debtor", 5, month, 5)))
			for i := range 1000 {
				d := request(demand(fmt.Sprintf("visitor %d", i), 5, minute, 3))
				require.Equal(t, account.Admitted, table.Take(at(0), d, hold).Outcome)
				require.NoError(t, table.Refund(at(0), d))
			}
			for range 2 { // they come back
				for i := range 10 {
					d := request(demand(fmt.Sprintf("visitor %d", i), 5, minute, 3))
					require.Equal(t, account.Admitted, table.Take(at(0), d, hold).Outcome)
					require.NoError(t, table.Refund(at(0), d))
				}
			}
			require.Zero(t, table.Counts().Overflow, "idle ones were replaced")
			for i := range 7 {
				take(t, table, at(0), account.Admitted, counted(demand(fmt.Sprintf("regular %d", i), 5, minute, 3)))
			}
			crowd := func(i int) account.Demand { return counted(demand(fmt.Sprintf("crowd %d", i), 5, minute, 3)) }
			first := take(t, table, at(0), account.Admitted, crowd(0))
			take(t, table, at(0), account.Refused, crowd(1))
			require.Positive(t, table.Counts().Overflow)
			require.NoError(t, table.Refund(at(0), first))
			take(t, table, at(0), account.Admitted, crowd(2))
			take(t, table, at(0), account.Refused, crowd(3))
			take(t, table, at(0), account.Refused, counted(demand("debtor", 5, month, 1)))
			for i := range 7 {
				take(t, table, at(0), account.Refused, counted(demand(fmt.Sprintf("regular %d", i), 5, minute, 3)))
			}
			take(t, table, at(60), account.Admitted, crowd(4), crowd(5))
			take(t, table, at(60), account.Refused, counted(demand("debtor", 5, month, 1)))
			long := counted(demand(string(make([]byte, account.MaxName+1)), 5, minute, 3))
			take(t, table, at(60), account.Admitted, long)
			take(t, table, at(60), account.Refused, long)
		})
	}
}

// A new account never takes the place of one that the same request has found a moment ago, although nothing is in that yet.
func TestTheAccountsOfOneRequest(t *testing.T) {
	for name, table := range map[string]account.Table{
		"memory": account.NewMemory(account.Options{Accounts: 8}, new(sync.Mutex)),
		"shared": account.NewShared(account.Options{Accounts: 4}, mem.NewStore(), "quota"), // one record
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 7 {
				take(t, table, at(0), account.Admitted, counted(demand(fmt.Sprint("debtor ", i), 5, month, 1)))
			}
			for range 2 { // both new, then both known
				d := take(t, table, at(0), account.Admitted, demand("a", 100, minute, 3), demand("b", 100, minute, 40))
				require.EqualValues(t, 3, table.Standing(at(0), &d[0]).Held)
				require.EqualValues(t, 40, table.Standing(at(0), &d[1]).Held)
				require.NoError(t, table.Refund(at(0), d))
			}
			require.EqualValues(t, 2, table.Counts().Overflow)
		})
	}
}

// Two limits of one size share no overflow account: not two measures of one limit, and not two limits. All accounts of one limit do.
func TestEachLimitHasItsOverflow(t *testing.T) {
	for name, table := range map[string]account.Table{
		"memory": account.NewMemory(account.Options{Accounts: 1}, new(sync.Mutex)),
		"shared": account.NewShared(account.Options{Accounts: 1}, mem.NewStore(), "quota"),
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 8 {
				take(t, table, at(0), account.Admitted, counted(demand(fmt.Sprint("debtor ", i), 50, month, 1)))
			}
			for _, limit := range []string{"a/total-tokens:1m", "a/prompt-tokens:1m", "b/total-tokens:1m"} {
				for i := range 2 {
					d := take(t, table, at(0), account.Admitted, demand(fmt.Sprint(limit, "/app=", i), 1000, minute, 400))
					require.EqualValues(t, 400*(i+1), table.Standing(at(0), &d[0]).Held)
				}
			}
		})
	}
}

// Who can choose names and knows how they are hashed still cannot fill the record of another account: where it is depends on a seed of the store, which
// all workers share.
func TestNobodyKnowsTheRecord(t *testing.T) {
	const slots = 16384 / 4
	victim := "p/requests:1m/app=victim"
	var beside []string // of which an unseeded hash says that they are in the same record
	for i := 0; len(beside) < 8; i++ {
		name := fmt.Sprintf("tenants/requests:1d/tenant=%d", i)
		if account.KeyOf([]byte(name)).Lo%slots == account.KeyOf([]byte(victim)).Lo%slots {
			beside = append(beside, name)
		}
	}
	records := map[string]int{}
	for seed := range uint64(20) {
		store := &busyStore{Store: mem.NewStore()}
		o := account.Options{Accounts: 16384, Rand: func() uint64 { return seed<<32 + 5 }}
		table := account.NewShared(o, store, "quota")
		for _, name := range beside {
			take(t, table, begin, account.Admitted, counted(demand(name, 1000, month, 1)))
		}
		store.written = ""
		take(t, table, begin, account.Admitted, counted(demand(victim, 1, minute, 1)))
		records[store.written]++
		require.Zero(t, table.Counts().Overflow)
		o.Rand = func() uint64 { return 99 } // another worker finds what the first one drew
		take(t, account.NewShared(o, store, "quota"), begin, account.Refused, counted(demand(victim, 1, minute, 1)))
	}
	require.Greater(t, len(records), 15)
}

// Without a seed nothing is taken: a worker with one of its own would count by itself.
func TestTheSeedCannotBeRead(t *testing.T) {
	store := &busyStore{Store: brokenStore{}}
	table := account.NewShared(account.Options{Accounts: 4}, store, "quota")
	take(t, table, begin, account.Failed, counted(demand("a", 1, minute, 1)))
	store.Store = mem.NewStore()
	require.NoError(t, store.Store.Set("quota/seed", []byte("short"), 0))
	take(t, table, begin, account.Admitted, counted(demand("a", 1, minute, 1)))
	take(t, account.NewShared(account.Options{Accounts: 4}, store, "quota"), begin, account.Refused, counted(demand("a", 1, minute, 1)))
}

// Where even the overflow accounts are full nobody is admitted.
func TestNoPlace(t *testing.T) {
	for name, table := range map[string]account.Table{
		"memory": account.NewMemory(account.Options{Accounts: 1}, new(sync.Mutex)),
		"shared": account.NewShared(account.Options{Accounts: 1}, mem.NewStore(), "quota"),
	} {
		t.Run(name, func(t *testing.T) {
			failed := 0
			for i := range int64(2000) {
				r := table.Take(at(0), request(counted(demand(fmt.Sprint(i), 5+i, minute, 3))), hold)
				if r.Outcome == account.Full {
					failed++
				} else {
					require.Equal(t, account.Admitted, r.Outcome)
				}
			}
			require.Positive(t, failed)
			require.EqualValues(t, failed, table.Counts().Full)
		})
	}
}

// Two names with one key are two accounts.
func TestACollision(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		a, b := counted(demand("a", 1, minute, 1)), counted(demand("b", 1, minute, 1))
		b.Key = a.Key
		take(t, table, at(0), account.Admitted, a)
		d := take(t, table, at(0), account.Admitted, b)
		take(t, table, at(0), account.Refused, b)
		require.NoError(t, table.Refund(at(1), d))
		take(t, table, at(1), account.Refused, a)
	})
}

package account_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// companion answers messages at once.
type companion struct {
	t *testing.T
	*account.Allocator
	skew time.Duration
}

func newCompanion(t *testing.T) *companion {
	return &companion{t: t, Allocator: account.NewAllocator(7, begin.Add(-time.Hour), true)}
}

// exchange sends a message and returns the response.
func (c *companion) exchange(now time.Time, body []byte) []byte {
	m, err := account.ParseMessage(body)
	require.NoError(c.t, err)
	r := c.Answer(now.Add(c.skew), &m)
	return r.Append(nil)
}

// take takes, and asks the companion where that is needed.
func (c *companion) take(table account.Table, now time.Time, d ...account.Demand) ([]account.Demand, account.Result) {
	r := table.Take(now, d, hold)
	for round := 0; r.Outcome == account.Dry && round < 2; round++ {
		require.NoError(c.t, table.Heard(now, c.exchange(now, table.Ask(now, 1, nil, d))))
		r = table.Take(now, d, hold)
	}
	return d, r
}

// tick reports, if there is something to say.
func (c *companion) tick(table account.Table, now time.Time) (said bool) {
	body := table.Report(now, 1, nil, 100)
	if body == nil {
		return false
	}
	require.NoError(c.t, table.Heard(now, c.exchange(now, body)))
	return true
}

// ticks reports at each tick from one time to another.
func (c *companion) ticks(from, to time.Time, tables ...account.Table) {
	for now := from; now.Before(to); now = now.Add(20 * time.Millisecond) {
		for _, table := range tables {
			c.tick(table, now)
		}
	}
}

func sharedDemand(d account.Demand) account.Demand { d.Shared = true; return d }

var ids uint64

// proxies are pairs of tables, of either kind.
func proxies(t *testing.T, test func(t *testing.T, c *companion, a, b account.Table)) {
	t.Helper()
	options := func() account.Options {
		ids++
		id := ids
		return account.Options{Accounts: 100, Rand: func() uint64 { return id }}
	}
	memory := func() account.Table { return account.NewMemory(options(), new(sync.Mutex)) }
	shared := func() account.Table { return account.NewShared(options(), mem.NewStore(), "quota") }
	t.Run("memory", func(t *testing.T) { test(t, newCompanion(t), memory(), memory()) })
	t.Run("shared", func(t *testing.T) { test(t, newCompanion(t), shared(), shared()) })
}

// Up to 1000 every unit is granted when it is needed, and a refusal is the allocator's.
func TestTheHundredthPasses(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(counted(demand("requests", 100, minute, 1)))
		for i := range 100 {
			_, r := c.take([]account.Table{a, b}[i%2], at(float64(i)/10), d)
			require.Equal(t, account.Admitted, r.Outcome, i)
		}
		c.ticks(at(10), at(20), a, b)
		for _, table := range []account.Table{a, b} {
			_, r := c.take(table, at(20), d)
			require.Equal(t, account.Result{Outcome: account.Refused, Wait: 40 * time.Second}, r)
			require.Equal(t, account.Standing{Limit: 100, Used: 100, Reset: 40 * time.Second}, table.Standing(at(20), &d))
		}
		_, r := c.take(a, at(60), d)
		require.Equal(t, account.Admitted, r.Outcome)
		require.EqualValues(t, 99, a.Standing(at(60), &d).Remaining)
	})
}

// A flood that is refused does not ask for each of its requests.
func TestAFloodIsRefusedAtOnce(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(demand("open", 1, account.Window{}, 1))
		first, r := c.take(a, at(0), d)
		require.Equal(t, account.Admitted, r.Outcome)
		_, r = c.take(b, at(0), d)
		require.Equal(t, account.Refused, r.Outcome)
		require.True(t, r.Held)
		take(t, b, at(0.02), account.Refused, d)
		take(t, b, at(0.021), account.Dry, d)
		require.NoError(t, a.Settle(at(0.03), first, []int64{1}))
		require.True(t, c.tick(a, at(0.04)))
		_, r = c.take(b, at(0.05), d)
		require.Equal(t, account.Admitted, r.Outcome)
	})
}

// What a proxy has used itself is gone until the window ends, although the allocator has not heard of it yet.
func TestWhatThisProxyUsedIsGone(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, _ account.Table) {
		d := sharedDemand(counted(demand("requests", 1, minute, 1)))
		_, r := c.take(a, at(0), d)
		require.Equal(t, account.Admitted, r.Outcome)
		r = a.Take(at(0.01), request(d), hold)
		require.Equal(t, account.Result{Outcome: account.Refused, Wait: 59990 * time.Millisecond}, r)
	})
}

// Several requests that wait at once need one round.
func TestOneRoundForAllThatWait(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(demand("tokens", 1000, minute, 10))
		var waiting [][]account.Demand
		var response []byte
		for range 50 {
			r := take(t, a, at(0), account.Dry, d)
			response = c.exchange(at(0), a.Ask(at(0), 1, nil, r))
			waiting = append(waiting, r)
		}
		require.NoError(t, a.Heard(at(0.01), response))
		for _, r := range waiting {
			require.Equal(t, account.Admitted, a.Take(at(0.01), r, hold).Outcome)
		}
		require.EqualValues(t, 500, c.Accounts["tokens"].Shares[messageFrom(t, a).Proxy].Granted)
	})
}

func messageFrom(t *testing.T, table account.Table) account.Message {
	m, err := account.ParseMessage(table.Ask(at(0), 1, nil, nil))
	require.NoError(t, err)
	return m
}

// Above 1000 a proxy gets a stock by its rate, so that its requests rarely wait, and gives it back when it is idle.
func TestBatches(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(counted(demand("tokens", 100_000, minute, 10)))
		rounds, id := 0, messageFrom(t, a).Proxy
		for ms := 0; ms < 2000; ms += 2 {
			now := at(float64(ms) / 1000)
			r := request(d)
			if a.Take(now, r, hold).Outcome == account.Dry {
				rounds++
				_, result := c.take(a, now, r...)
				require.Equal(t, account.Admitted, result.Outcome)
			}
			if ms%20 == 0 {
				c.tick(a, now)
			}
			stock := c.Accounts["tokens"].Shares[id]
			require.LessOrEqual(t, stock.Granted-stock.Released-stock.Used, int64(1000+200), "1 %, and what was used since the last tick")
		}
		require.Less(t, rounds, 20)
		c.ticks(at(2), at(2.5), a)
		for _, s := range c.Accounts["tokens"].Shares {
			require.EqualValues(t, 10_000, s.Used)
			require.EqualValues(t, s.Used, s.Granted-s.Released)
		}
	})
}

// What a proxy used before it was granted anything is subtracted once, also if the allocator has heard of it.
func TestWhatIsLeftWithoutGrants(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, _ account.Table) {
		c.Allocator = account.NewAllocator(7, at(0), false) // it grants nothing for 1.5 s
		d := sharedDemand(counted(demand("requests", 5, month, 1)))
		d.Open = true
		a.Silence(at(0))
		for i := range 5 {
			now := at(float64(i) / 10)
			take(t, a, now, account.Admitted, d)
			require.EqualValues(t, 4-i, a.Standing(now, &d).Remaining, "before the companion has heard of it")
			c.tick(a, now)
			require.EqualValues(t, 4-i, a.Standing(now, &d).Remaining)
		}
		take(t, a, at(0.6), account.Refused, d)
	})
}

// While the companion is silent a proxy admits its share, or nothing. What it used is said once when the companion is back.
func TestTheCompanionIsSilent(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		open := sharedDemand(counted(demand("requests", 100, month, 1)))
		open.Open = true
		closed := sharedDemand(counted(demand("closed", 100, month, 1)))
		for _, table := range []account.Table{a, b} {
			_, r := c.take(table, at(0), open, closed)
			require.Equal(t, account.Admitted, r.Outcome)
		}
		c.ticks(at(0), at(1), a, b)
		a.Silence(at(1))
		take(t, a, at(1), account.Unreachable, closed)
		for range 49 { // with the one before its half
			take(t, a, at(10), account.Admitted, open)
		}
		take(t, a, at(10), account.Refused, open)
		take(t, a, at(10), account.Unreachable, closed)
		c.ticks(at(10), at(10.1), b)
		require.EqualValues(t, 2, c.Accounts["requests"].UsedUp())
		for range 3 {
			c.ticks(at(11), at(12), a)
			require.EqualValues(t, 51, c.Accounts["requests"].UsedUp())
		}
		_, r := c.take(a, at(12), closed)
		require.Equal(t, account.Admitted, r.Outcome)
		for i := range 49 {
			_, r := c.take(a, at(13), open)
			require.Equal(t, account.Admitted, r.Outcome, i)
		}
		_, r = c.take(a, at(13), open)
		require.Equal(t, account.Refused, r.Outcome)
	})
}

// What a dead proxy held comes back after the lease time; one that was only cut off does not use it meanwhile.
func TestAProxyThatIsCutOff(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(demand("tokens", 100, month, 100))
		first, r := c.take(a, at(0), d)
		require.Equal(t, account.Admitted, r.Outcome)
		require.NoError(t, a.Settle(at(0.1), first, []int64{30})) // 70 are free, and the companion does not know
		one := d
		one.Amount = 70
		_, r = c.take(b, at(2.9), one)
		require.Equal(t, account.Refused, r.Outcome)
		take(t, a, at(1.6), account.Dry, one)
		_, r = c.take(b, at(3.1), one)
		require.Equal(t, account.Admitted, r.Outcome)
		c.ticks(at(3.2), at(3.4), a, b)
		one.Amount = 1
		_, r = c.take(a, at(3.5), one)
		require.Equal(t, account.Refused, r.Outcome)
		require.EqualValues(t, 30, c.Accounts["tokens"].UsedUp())
	})
}

// After a lapse a proxy gives up what it was granted and does not use, also if a response about another account comes first: others may have it.
func TestALapseReleasesWhatIsNotInUse(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d, other := sharedDemand(demand("tokens", 100, month, 100)), sharedDemand(counted(demand("other", 5, month, 1)))
		first, r := c.take(a, at(0), d)
		require.Equal(t, account.Admitted, r.Outcome)
		require.NoError(t, a.Settle(at(0.1), first, []int64{30}))
		d.Amount = 70
		_, r = c.take(b, at(3.1), d)
		require.Equal(t, account.Admitted, r.Outcome)
		_, r = c.take(a, at(3.2), other)
		require.Equal(t, account.Admitted, r.Outcome, "the companion is heard again")
		take(t, a, at(3.3), account.Dry, d)
		_, r = c.take(a, at(3.3), d)
		require.Equal(t, account.Refused, r.Outcome)
	})
}

// A restarted proxy is a new one. What the old one used stays used; what it held comes back.
func TestAProxyRestarts(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, old, young account.Table) {
		d := sharedDemand(demand("tokens", 100, month, 50))
		first, _ := c.take(old, at(0), d)
		_, r := c.take(old, at(0), d)
		require.Equal(t, account.Admitted, r.Outcome)
		require.NoError(t, old.Settle(at(0.1), first, []int64{40}))
		c.ticks(at(0.1), at(0.2), old)
		_, r = c.take(young, at(0.3), d)
		require.Equal(t, account.Refused, r.Outcome)
		_, r = c.take(young, at(3.3), d)
		require.Equal(t, account.Admitted, r.Outcome)
		require.EqualValues(t, 40, c.Accounts["tokens"].UsedUp())
	})
}

// A companion that has lost its memory grants nothing until what was granted before is trusted no longer, and is told what was used, of accounts that
// are idle, too.
func TestTheCompanionLosesItsMemory(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(counted(demand("requests", 100, month, 40)))
		for _, table := range []account.Table{a, b} {
			_, r := c.take(table, at(0), d)
			require.Equal(t, account.Admitted, r.Outcome)
		}
		c.ticks(at(0), at(5), a, b)
		c.Allocator = account.NewAllocator(8, at(5), false)
		_, r := c.take(a, at(5.1), d)
		require.Equal(t, account.Unreachable, r.Outcome)
		c.ticks(at(5.1), at(6.7), a, b)
		require.EqualValues(t, 80, c.Accounts["requests"].UsedUp())
		_, r = c.take(b, at(6.7), d)
		require.Equal(t, account.Refused, r.Outcome)
		d.Amount = 20
		_, r = c.take(b, at(6.7), d)
		require.Equal(t, account.Admitted, r.Outcome)
		_, r = c.take(a, at(6.8), d)
		require.Equal(t, account.Refused, r.Outcome)
	})
}

// Q23: the allocator's clock makes the windows, also for proxies whose clocks are wrong, and a response about a window that is over does no harm.
func TestTheAllocatorsClock(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(counted(demand("requests", 4, minute, 1)))
		clock := map[account.Table]time.Duration{a: 10 * time.Second, b: -50 * time.Second}
		admitted := 0
		for s := 0; s < 60; s++ {
			for _, table := range []account.Table{a, b} {
				c.skew = -clock[table]
				if _, r := c.take(table, at(float64(s)).Add(clock[table]), d); r.Outcome == account.Admitted {
					admitted++
				}
			}
		}
		require.Equal(t, 4, admitted)
		// One asks just before the minute ends by the allocator's clock, and the response is late.
		c.skew = -clock[a]
		ask := take(t, a, at(59.99).Add(clock[a]), account.Dry, d)
		late := c.exchange(at(59.99).Add(clock[a]), a.Ask(at(59.99).Add(clock[a]), 1, nil, ask))
		require.NoError(t, a.Refund(at(60).Add(clock[a]), ask))
		for range 4 {
			_, r := c.take(a, at(60.1).Add(clock[a]), d)
			require.Equal(t, account.Admitted, r.Outcome)
		}
		require.NoError(t, a.Heard(at(60.2).Add(clock[a]), late))
		_, r := c.take(a, at(60.2).Add(clock[a]), d)
		require.Equal(t, account.Refused, r.Outcome)
		require.InDelta(t, 59.8, r.Wait.Seconds(), 0.01)
	})
}

// Repeated and old responses change nothing; foreign ones are an error.
func TestResponses(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(demand("tokens", 100, month, 10))
		r := take(t, a, at(0), account.Dry, d)
		response := c.exchange(at(0), a.Ask(at(0), 1, nil, r))
		for range 3 {
			require.NoError(t, a.Heard(at(0.1), response))
		}
		require.Equal(t, account.Admitted, a.Take(at(0.1), r, hold).Outcome)
		take(t, a, at(0.2), account.Dry, d)
		require.NoError(t, a.Refund(at(0.2), r))
		c.ticks(at(0.3), at(0.4), a)
		require.NoError(t, a.Heard(at(0.5), response))
		take(t, a, at(0.5), account.Dry, d)
		for _, foreign := range []string{"", "{", "[]", "null", `{"accounts":[]}`, `{"now":1}`, `{"now":1,"accounts":{}}`} {
			require.Error(t, a.Heard(at(1), []byte(foreign)), foreign)
		}
		require.NoError(t, a.Heard(at(1), []byte(`{"generation":7,"t":1795003201000,"now":1795003201000,"accounts":[{"k":"unknown","g":5},{}]}`)))
	})
}

// An administrator may give more, or begin again.
func TestCredit(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(counted(demand("requests", 10, month, 10)))
		_, r := c.take(a, at(0), d)
		require.Equal(t, account.Admitted, r.Outcome)
		c.ticks(at(0), at(0.1), a)
		c.Accounts["requests"].Allow(5)
		d.Amount = 5
		_, r = c.take(b, at(0.2), d)
		require.Equal(t, account.Admitted, r.Outcome)
		c.ticks(at(0.2), at(0.3), b)
		_, r = c.take(b, at(0.3), d)
		require.Equal(t, account.Refused, r.Outcome)
		require.EqualValues(t, 15, b.Standing(at(0.3), &d).Limit)
		c.Accounts["requests"].Reset()
		d.Amount = 10
		_, r = c.take(a, at(0.4), d)
		require.Equal(t, account.Admitted, r.Outcome)
		_, r = c.take(a, at(0.4), d)
		require.Equal(t, account.Refused, r.Outcome)
	})
}

// The rate of a spike limit is divided among the proxies.
func TestASpikeOfTwoProxies(t *testing.T) {
	proxies(t, func(t *testing.T, c *companion, a, b account.Table) {
		d := sharedDemand(demand("spike", 10, account.Window{Unit: account.Second}, 1))
		d.Spike = true
		for _, table := range []account.Table{a, b} {
			take(t, table, at(0), account.Admitted, d)
			c.tick(table, at(0))
		}
		c.ticks(at(0.02), at(1), a, b)
		take(t, a, at(1), account.Admitted, d)
		require.Equal(t, 200*time.Millisecond, a.Take(at(1), request(d), hold).Wait)
	})
}

// Proxies that are long gone are added up, and one of them that comes back is not counted twice.
func TestProxiesThatAreGone(t *testing.T) {
	c := newCompanion(t)
	d := sharedDemand(counted(demand("requests", 1000, month, 1)))
	tables := make([]account.Table, 100)
	for i := range tables {
		tables[i] = account.NewMemory(account.Options{Accounts: 10, Rand: func() uint64 { return uint64(i) }}, new(sync.Mutex))
		_, r := c.take(tables[i], at(0), d)
		require.Equal(t, account.Admitted, r.Outcome)
		c.ticks(at(0), at(0.1), tables[i])
	}
	_, r := c.take(tables[0], at(2*3600), d)
	require.Equal(t, account.Admitted, r.Outcome)
	require.EqualValues(t, 100, c.Accounts["requests"].Folded+int64(len(c.Accounts["requests"].Shares))-1+1, "each has used 1")
	require.LessOrEqual(t, len(c.Accounts["requests"].Shares), 64)
	for i, table := range tables {
		_, r := c.take(table, at(2*3600+1), d)
		require.Equal(t, account.Admitted, r.Outcome)
		c.ticks(at(2*3600+1), at(2*3600+1.1), table)
		require.EqualValues(t, 102+i, c.Accounts["requests"].UsedUp(), fmt.Sprint(i))
	}
}

// Accounts that are over, and those that nobody has anything of, are forgotten.
func TestTheAllocatorForgets(t *testing.T) {
	c := newCompanion(t)
	table := account.NewMemory(account.Options{Accounts: 10}, new(sync.Mutex))
	d, _ := c.take(table, at(0), sharedDemand(demand("a", 10, minute, 1)), sharedDemand(demand("open", 10, account.Window{}, 1)))
	require.Len(t, c.Accounts, 2)
	c.ticks(at(0.1), at(0.2), table)
	c.tick(table, at(130))
	require.Len(t, c.Accounts, 1, "the minute is over, the request is open")
	require.NoError(t, table.Settle(at(131), d, []int64{1, 1}))
	c.ticks(at(131), at(131.2), table)
	c.tick(table, at(2*3600))
	require.Empty(t, c.Accounts)
}

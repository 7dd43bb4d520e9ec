package account_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// begin is when tests begin: at 12:00:00 on a day in the middle of a month.
var begin = time.Date(2026, 11, 18, 12, 0, 0, 0, time.UTC)

const hold = 10 * time.Minute

func at(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }

var (
	minute = account.Window{Unit: account.Minute}
	month  = account.Window{Unit: account.Month}
)

// tables are all kinds of tables, which count alike.
func tables(t *testing.T, test func(t *testing.T, table account.Table)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, account.NewMemory(account.Options{Accounts: 100}, new(sync.Mutex))) })
	t.Run("shared", func(t *testing.T) {
		test(t, account.NewShared(account.Options{Accounts: 100}, mem.NewStore(), "quota"))
	})
}

// demand is one demand; more is added by functions.
func demand(name string, limit int64, w account.Window, amount int64) account.Demand {
	return account.Demand{Key: account.KeyOf([]byte(name)), Name: []byte(name), Limit: limit, Window: w, Amount: amount}
}

func counted(d account.Demand) account.Demand { d.Count = true; return d }

func request(d ...account.Demand) []account.Demand { return d }

// take takes and requires an outcome.
func take(t require.TestingT, table account.Table, now time.Time, want account.Outcome, d ...account.Demand) []account.Demand {
	r := table.Take(now, d, hold)
	require.Equal(t, want, r.Outcome, "%+v", r)
	return d
}

// used is what an account has used and holds.
func used(table account.Table, now time.Time, d account.Demand) [2]int64 {
	s := table.Standing(now, &d)
	return [2]int64{s.Used, s.Held}
}

// Q1: a refusal takes from none of several accounts.
func TestARefusalTakesFromNone(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		requests, open := counted(demand("requests", 2, minute, 1)), demand("open", 1, account.Window{}, 1)
		a := take(t, table, at(0), account.Admitted, requests, open)
		r := table.Take(at(1), request(requests, open), hold)
		require.Equal(t, account.Refused, r.Outcome)
		require.Equal(t, 1, r.At)
		require.True(t, r.Held)
		require.Equal(t, time.Second, r.Wait)
		require.Equal(t, [2]int64{1, 0}, used(table, at(1), requests))
		require.NoError(t, table.Settle(at(2), a, []int64{1, 1}))
		require.Equal(t, [2]int64{0, 0}, used(table, at(2), open))
		c := take(t, table, at(3), account.Admitted, requests, open)
		require.NoError(t, table.Settle(at(3), c, []int64{1, 1}))
		r = table.Take(at(4), request(requests, open), hold)
		require.Equal(t, account.Refused, r.Outcome)
		require.Equal(t, 0, r.At)
		require.False(t, r.Held)
		require.Equal(t, 56*time.Second, r.Wait)
		require.Equal(t, [2]int64{0, 0}, used(table, at(4), open))
	})
}

// Q3: each reservation has its own expiry, which other traffic does not renew.
func TestHoldsExpire(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		budget := demand("budget", 10, month, 4)
		take(t, table, at(0), account.Admitted, budget)
		take(t, table, at(1), account.Admitted, budget)
		for s := 2; s < 600; s++ {
			take(t, table, at(float64(s)), account.Refused, budget)
			one := budget
			one.Amount = 1
			d := take(t, table, at(float64(s)), account.Admitted, one)
			require.NoError(t, table.Refund(at(float64(s)), d))
		}
		require.Equal(t, [2]int64{0, 8}, used(table, at(599), budget))
		require.Equal(t, [2]int64{0, 0}, used(table, at(751), budget))
	})
}

// A hold counts for the whole hold time and ends with a millisecond of it. One that joins a group ends with that, and never too early.
func TestWhenAHoldExpires(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		budget := demand("budget", 100, month, 1)
		take(t, table, at(0), account.Admitted, budget)       // until 749.999 at the latest
		take(t, table, at(149.999), account.Admitted, budget) // the last one that may join it
		require.Equal(t, [2]int64{0, 2}, used(table, at(749.998), budget))
		require.Equal(t, [2]int64{0, 0}, used(table, at(749.999), budget))
	})
	tables(t, func(t *testing.T, table account.Table) {
		budget := demand("budget", 100, month, 1)
		take(t, table, at(0), account.Admitted, budget)
		take(t, table, at(150), account.Admitted, budget)
		require.Equal(t, [2]int64{0, 1}, used(table, at(749.999), budget))
		require.Equal(t, [2]int64{0, 1}, used(table, at(899.998), budget))
		require.Equal(t, [2]int64{0, 0}, used(table, at(899.999), budget))
	})
}

// Q4: a reservation names its window.
func TestAReservationOfTheWindowBefore(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		tokens := func(n int64) account.Demand { return demand("tokens", 1000, minute, n) }
		a := take(t, table, at(58), account.Admitted, tokens(800))
		take(t, table, at(62), account.Admitted, tokens(900))
		require.NoError(t, table.Settle(at(70), a, []int64{100}))
		require.Equal(t, [2]int64{0, 900}, used(table, at(70), tokens(0)))
		r := table.Take(at(70), request(tokens(200)), hold)
		require.Equal(t, account.Refused, r.Outcome)
		require.LessOrEqual(t, r.Wait, 50*time.Second)
	})
}

// Q5: each account has its own start.
func TestEachAccountHasItsStart(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		flexi := account.Window{Unit: account.Minute, Flexi: true}
		requests, tokens := counted(demand("requests", 500, minute, 1)), demand("tokens", 186, flexi, 31)
		for s := 7; s < 67; s += 10 {
			d := take(t, table, at(float64(s)), account.Admitted, requests, tokens)
			require.NoError(t, table.Settle(at(float64(s)), d, []int64{1, 31}))
		}
		require.Equal(t, [2]int64{186, 0}, used(table, at(66), tokens))
		require.Equal(t, [2]int64{0, 0}, used(table, at(66), requests), "since 60")
		d := take(t, table, at(67), account.Admitted, requests, tokens)
		require.NoError(t, table.Settle(at(67), d, []int64{1, 31}))
		require.Equal(t, [2]int64{31, 0}, used(table, at(67), tokens))
		require.Equal(t, [2]int64{1, 0}, used(table, at(67), requests))
	})
}

// Q8, Q9: what can never pass; the longest wait of several limits.
func TestWaits(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		r := table.Take(at(0), request(demand("a", 1000, minute, 1), demand("b", 100, minute, 200)), hold)
		require.Equal(t, account.Result{Outcome: account.TooLarge, At: 1}, r)
		require.Equal(t, [2]int64{0, 0}, used(table, at(0), demand("a", 1000, minute, 0)))
		take(t, table, at(0), account.TooLarge, demand("none", 0, minute, 0))

		short, long := demand("short", 5, minute, 1), demand("long", 5, month, 1)
		for range 5 {
			d := take(t, table, at(0), account.Admitted, short, long)
			require.NoError(t, table.Settle(at(0), d, []int64{1, 1}))
		}
		r = table.Take(at(48), request(short, long), hold)
		require.Equal(t, account.Result{Outcome: account.Refused, At: 1, Wait: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Sub(at(48))}, r)
		take(t, table, at(48).Add(r.Wait-1), account.Refused, short, long)
		take(t, table, at(48).Add(r.Wait), account.Admitted, short, long)
	})
}

// Q15: what was used counts, also above the reservation and above the limit. Q17: a settlement takes effect once.
func TestSettlements(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		a, b, c := demand("a", 1000, minute, 300), demand("b", 310, minute, 300), demand("c", 1000, minute, 300)
		d := take(t, table, at(0), account.Admitted, a, b, c)
		for range 3 {
			require.NoError(t, table.Settle(at(1), d, []int64{330, 330, 2}))
			require.NoError(t, table.Refund(at(1), d))
		}
		require.Equal(t, [2]int64{330, 0}, used(table, at(1), a))
		require.Equal(t, [2]int64{330, 0}, used(table, at(1), b))
		require.Equal(t, [2]int64{2, 0}, used(table, at(1), c))
		r := table.Take(at(2), request(b), hold)
		require.Equal(t, account.Refused, r.Outcome)
		require.Zero(t, table.Standing(at(2), &b).Remaining)
		b.Amount = 0
		take(t, table, at(2), account.Refused, b)
		a.Amount = 0
		take(t, table, at(2), account.Admitted, a)
		refused := request(b)
		require.NoError(t, table.Settle(at(2), refused, []int64{5}), "was never taken")
		require.Equal(t, [2]int64{330, 0}, used(table, at(1), b))
	})
}

// Q18: every account binds, and what is held binds.
func TestWhatBinds(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		org, user := counted(demand("org", 100, minute, 1)), counted(demand("user", 3000, minute, 1))
		for range 100 {
			take(t, table, at(0), account.Admitted, org, user)
		}
		take(t, table, at(0), account.Refused, org, user)
		require.Equal(t, [2]int64{100, 0}, used(table, at(0), user))

		tokens := demand("tokens", 100, minute, 80)
		take(t, table, at(0), account.Admitted, tokens)
		tokens.Amount = 50
		take(t, table, at(0), account.Refused, tokens)
		require.Equal(t, account.Standing{Limit: 100, Held: 80, Remaining: 20, Reset: time.Minute}, table.Standing(at(0), &tokens))
		tokens.Count = true
		take(t, table, at(0), account.Refused, tokens)
		tokens.Amount = 20
		r := table.Take(at(0), request(user, tokens), hold)
		require.Equal(t, account.Result{At: 1}, r, "the tightest")
	})
}

// Q21, Q22: what is used is kept when a limit changes.
func TestALimitChanges(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		hourly := counted(demand("hourly", 10, account.Window{Unit: account.Hour}, 1))
		try := func() (admitted int) {
			for range 50 {
				if table.Take(at(0), request(hourly), hold).Outcome == account.Admitted {
					admitted++
				}
			}
			return admitted
		}
		require.Equal(t, 10, try())
		require.Equal(t, 0, try())
		hourly.Limit = 20
		require.Equal(t, 10, try())
		hourly.Limit = 5
		require.Equal(t, 0, try())
		require.Equal(t, account.Standing{Limit: 5, Used: 20, Reset: time.Hour}, table.Standing(at(0), &hourly))
	})
}

// Q23: a clock that steps back brings back nothing, and one that was far ahead is forgotten.
func TestTheClockStepsBack(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		requests := counted(demand("requests", 4, minute, 1))
		for range 4 {
			take(t, table, at(60), account.Admitted, requests)
		}
		take(t, table, at(50), account.Refused, requests)
		r := table.Take(at(1), request(requests), hold)
		require.Equal(t, account.Result{Outcome: account.Refused, Wait: 119 * time.Second}, r)
		take(t, table, at(60), account.Refused, requests)
		take(t, table, at(-60), account.Admitted, requests)

		spike := demand("spike", 10, account.Window{Unit: account.Second}, 1)
		spike.Spike = true
		take(t, table, at(100), account.Admitted, spike)
		take(t, table, at(99.5), account.Refused, spike)
		take(t, table, at(50), account.Admitted, spike)

		held := demand("held", 10, month, 10)
		d := take(t, table, at(100), account.Admitted, held)
		require.NoError(t, table.Settle(at(50), d, []int64{3}))
		require.Equal(t, [2]int64{3, 0}, used(table, at(50), held))
	})
}

// A spike limit is spacing, of amounts too, and exact.
func TestSpike(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		spike := demand("spike", 10, account.Window{Unit: account.Second}, 1)
		spike.Spike = true
		d := take(t, table, at(0), account.Admitted, spike)
		r := table.Take(at(0.05), request(spike), hold)
		require.Equal(t, account.Result{Outcome: account.Refused, Wait: 50 * time.Millisecond}, r)
		require.Equal(t, account.Standing{Limit: 10, Reset: 50 * time.Millisecond}, table.Standing(at(0.05), &spike))
		require.NoError(t, table.Settle(at(0.05), d, []int64{9}), "nothing to settle")
		take(t, table, at(0.1), account.Admitted, spike)
		spike.Amount = 3
		d = take(t, table, at(0.2), account.Admitted, spike)
		take(t, table, at(0.4999), account.Refused, spike)
		require.NoError(t, table.Refund(at(0.3), d))
		require.NoError(t, table.Refund(at(0.3), d))
		take(t, table, at(0.3), account.Admitted, spike)
		spike.Amount = 11
		take(t, table, at(10), account.TooLarge, spike)

		weekly := demand("weekly", 7, account.Window{Unit: account.Week}, 1)
		weekly.Spike = true
		take(t, table, at(0), account.Admitted, weekly)
		require.Equal(t, 24*time.Hour, table.Take(at(0), request(weekly), hold).Wait)

		three := demand("three", 3, account.Window{Unit: account.Second}, 1)
		three.Spike = true
		n := 0
		for ms := range 1000 {
			if table.Take(at(20+float64(ms)/1000), request(three), hold).Outcome == account.Admitted {
				n++
			}
		}
		require.Equal(t, 3, n)
	})
}

// Requests of a Spike that were taken long ago and are refunded now do not let a burst pass.
func TestARefundedSpike(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		spike := demand("spike", 10, account.Window{Unit: account.Second}, 1)
		spike.Spike = true
		var open [][]account.Demand
		for i := range 10 {
			open = append(open, take(t, table, at(float64(i)/10), account.Admitted, spike))
		}
		admitted := 0
		for _, d := range open {
			require.NoError(t, table.Refund(at(1), d))
			if table.Take(at(1), request(spike), hold).Outcome == account.Admitted {
				admitted++
			}
		}
		require.Equal(t, 1, admitted)
		last := take(t, table, at(1.1), account.Admitted, spike)
		require.NoError(t, table.Refund(at(1.11), last))
		take(t, table, at(1.12), account.Admitted, spike)
	})
}

// Q29: numbers are exact at the limit, and none is too large.
func TestNumbers(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		money := demand("money", 25_000_000_000, month, 24_999_999_999)
		d := take(t, table, at(0), account.Admitted, money)
		money.Amount = 1
		take(t, table, at(0), account.Admitted, money)
		take(t, table, at(0), account.Refused, money)
		require.NoError(t, table.Settle(at(0), d, []int64{24_999_999_999}))
		take(t, table, at(0), account.Refused, money)

		huge := demand("huge", 1<<62, month, 1<<62)
		for range 3 {
			d = request(huge)
			table.Take(at(0), d, hold)
			require.NoError(t, table.Settle(at(0), d, []int64{1<<63 - 1}))
		}
		require.Equal(t, account.Refused, table.Take(at(0), request(huge), hold).Outcome)
		d = request(demand("negative", 10, month, -5))
		require.Equal(t, account.Admitted, table.Take(at(0), d, hold).Outcome)
		require.NoError(t, table.Settle(at(0), d, []int64{-5}))
		require.Equal(t, [2]int64{0, 0}, used(table, at(0), d[0]))
	})
}

// A request that was as if it had never been leaves nothing, a counted one neither.
func TestRefund(t *testing.T) {
	tables(t, func(t *testing.T, table account.Table) {
		requests, tokens, open := counted(demand("requests", 2, minute, 1)), demand("tokens", 10, minute, 10), demand("open", 1, account.Window{}, 1)
		for range 10 {
			d := take(t, table, at(0), account.Admitted, requests, tokens, open)
			require.NoError(t, table.Refund(at(0), d))
			require.NoError(t, table.Settle(at(0), d, []int64{1, 10, 1}))
		}
		for _, d := range request(requests, tokens, open) {
			require.Equal(t, [2]int64{0, 0}, used(table, at(0), d))
		}
		d := take(t, table, at(59), account.Admitted, requests, tokens, open)
		take(t, table, at(60), account.Refused, requests, tokens, open)
		require.NoError(t, table.Refund(at(61), d))
		require.Equal(t, [2]int64{0, 0}, used(table, at(61), requests), "of the window before")
		require.Equal(t, [2]int64{0, 0}, used(table, at(61), open), "which has no windows")
	})
}

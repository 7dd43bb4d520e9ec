package account_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// client sends one request after the other to a worker.
type client struct {
	table  account.Table
	d      []account.Demand
	rounds int
	at     time.Time // of what it does next
	next   func(now time.Time)
}

// What is granted is for the requests that asked, also if others come to the same account of another worker in the meantime: nobody asks again and again
// where enough is left.
func TestWhoAsksIsServedSoon(t *testing.T) {
	for _, limit := range []int64{1000, 1_000_000_000} {
		c := newCompanion(t)
		store := mem.NewStore()
		random := rand.New(rand.NewPCG(1, 2))
		soon := func(now time.Time, most int) time.Time {
			return now.Add(time.Duration(1+random.IntN(most*1000)) * time.Microsecond)
		}
		var workers []account.Table
		for range 4 {
			workers = append(workers, account.NewShared(account.Options{Accounts: 100, Rand: random.Uint64}, store, "quota"))
		}
		most, done := 0, 0
		var clients []*client
		for i := range 64 {
			u := &client{table: workers[i%4], at: soon(at(0), 5)}
			var begin, take func(now time.Time)
			begin = func(now time.Time) {
				u.rounds = 0
				u.d = request(sharedDemand(demand("open", limit, account.Window{}, 1)), sharedDemand(demand("tokens", 1_000_000_000, month, 50)))
				take(now)
			}
			take = func(now time.Time) {
				r := u.table.Take(now, u.d, hold)
				switch r.Outcome {
				case account.Admitted:
					most, done = max(most, u.rounds), done+1
					u.at, u.next = soon(now, 10), func(now time.Time) {
						require.NoError(t, u.table.Settle(now, u.d, []int64{1, int64(random.IntN(60))}))
						u.at, u.next = soon(now, 5), begin
					}
				case account.Dry:
					u.rounds++
					body := u.table.Ask(now, 1, nil, u.d)
					u.at, u.next = soon(now, 2), func(now time.Time) {
						reply := c.exchange(now, body)
						u.at, u.next = soon(now, 2), func(now time.Time) {
							require.NoError(t, u.table.Heard(now, reply))
							take(now)
						}
					}
				default:
					require.Fail(t, "refused", "%v", r)
				}
			}
			u.next = begin
			clients = append(clients, u)
		}
		tick := at(0)
		for now := at(0); now.Before(at(1)); {
			first := clients[0]
			for _, u := range clients {
				if u.at.Before(first.at) {
					first = u
				}
			}
			if tick.Before(first.at) {
				tick = tick.Add(20 * time.Millisecond)
				for _, w := range workers {
					c.tick(w, tick)
				}
				continue
			}
			now = first.at
			first.next(now)
		}
		require.Greater(t, done, 1000)
		require.LessOrEqual(t, most, 2)
	}
}

package feed

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// envoy has used something, which the companion has to learn.
type envoy struct {
	*world
	table account.Table
	talks *Talks
	open  []call
}

func newEnvoy(t *testing.T, id uint64) *envoy {
	e := &envoy{world: newWorld()}
	random := id
	e.Deps.Rand = func() uint64 { random = random*6364136223846793005 + 1442695040888963407; return random >> 1 }
	e.table = account.NewMemory(account.Options{Accounts: 10, Rand: e.Deps.Rand}, new(sync.Mutex))
	link := &filter.Link{}
	link.Converse("/v1/quota", func() []byte { return e.table.Report(e.now, 0, nil, 10) }, func(r *filter.Reply) {
		if r.Err != nil || e.table.Heard(e.now, r.Body) != nil {
			e.table.Silence(e.now)
		}
	})
	e.talks = NewTalks("companion", link.Conversations(), e.Deps, func(r *Request, done func(*filter.Reply)) error {
		e.open = append(e.open, call{r, done})
		return nil
	})
	name := []byte("requests")
	d := []account.Demand{{Key: account.KeyOf(name), Name: name, Limit: 1000, Window: account.Window{Unit: account.Month, N: 1}, Amount: 1, Count: true, Shared: true, Open: true}}
	e.table.Silence(e.now)
	require.Equal(t, account.Admitted, e.table.Take(e.now, d, time.Minute).Outcome)
	return e
}

// However long the companion was away, and whether calls fail at once or get no reply, it knows what all proxies have used before it
// grants again.
func TestAllSpeakBeforeACompanionWithoutMemoryGrants(t *testing.T) {
	for name, after := range map[string]time.Duration{"refused": 0, "no reply": talkTimeout} {
		for _, outage := range []time.Duration{time.Second, 7 * time.Second, time.Minute} {
			t.Run(fmt.Sprintf("%s/%v", name, outage), func(t *testing.T) {
				var all []*envoy
				for id := range uint64(20) {
					all = append(all, newEnvoy(t, id))
				}
				now := all[0].now
				back := now.Add(outage)
				var companion *account.Allocator
				sent := map[*Request]time.Time{}
				for ; companion == nil || now.Before(companion.Settled); now = now.Add(Period) {
					if companion == nil && !now.Before(back) {
						companion = account.NewAllocator(9, now, false)
					}
					for _, e := range all {
						e.now = now
						e.talks.Tick()
						if len(e.open) == 0 {
							continue
						}
						c := e.open[0]
						if _, ok := sent[c.Request]; !ok {
							sent[c.Request] = now
						}
						reply := &filter.Reply{Err: errors.New("gone")}
						switch lost := sent[c.Request].Before(back); {
						case lost && now.Sub(sent[c.Request]) < after:
							continue
						case !lost:
							m, err := account.ParseMessage(c.Body)
							require.NoError(t, err)
							r := companion.Answer(now, &m)
							reply = &filter.Reply{Status: 200, Body: r.Append(nil)}
						}
						e.open = e.open[1:]
						c.done(reply)
					}
				}
				require.EqualValues(t, len(all), companion.Accounts["requests"].UsedUp())
			})
		}
	}
}

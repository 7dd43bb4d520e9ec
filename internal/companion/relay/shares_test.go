package relay

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Whatever is told, listed and expires: the sums are those of what the proxies have, and what is kept of a proxy is as large
// as what it reported about replicas that are listed, however many there are.
func TestSharesAddUp(t *testing.T) {
	address := func(i int) string { return fmt.Sprintf("10.0.0.%02d:80", i) }
	rapid.Check(t, func(t *rapid.T) {
		b, now := newBoard(1<<10, 1), time.Now()
		replica, many := rapid.IntRange(0, 9), rapid.SliceOfN(rapid.IntRange(0, 9), 0, 12)
		list := func() {
			pool := endpoint.Pool{Name: "p"}
			for _, i := range many.Draw(t, "listed") {
				pool.Endpoints = append(pool.Endpoints, endpoint.Endpoint{Address: address(i)})
			}
			b.list(&endpoint.Snapshot{Pools: []endpoint.Pool{pool}})
		}
		list()
		t.Repeat(map[string]func(*rapid.T){
			"list": func(*rapid.T) { list() },
			"tell": func(t *rapid.T) {
				told, listed := endpoint.Report{}, map[int]bool{}
				for _, i := range many.Draw(t, "told") {
					id := endpoint.ReplicaID(address(i))
					told.InFlight = append(told.InFlight, endpoint.Reported{Replica: id, InFlight: endpoint.InFlight{Requests: 1 + int64(i)}})
					if slot, ok := b.slots[id]; ok {
						listed[slot] = true
					}
				}
				p := b.proxy(fmt.Sprint(replica.Draw(t, "proxy")), now)
				_, err := b.report(p, &told, now, time.Second)
				require.NoError(t, err)
				require.Len(t, p.own, len(listed))
				require.LessOrEqual(t, cap(p.own), 2*len(listed))
			},
			"expire": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms")) * time.Millisecond)
				b.expire(now, time.Minute)
			},
			"": func(t *rapid.T) {
				want, shares := make([]endpoint.InFlight, len(b.slots)), 0
				for _, p := range b.proxies {
					shares += len(p.own)
					for _, s := range p.own {
						want[s.slot].Requests += s.Requests
						want[s.slot].Tokens += s.Tokens
					}
				}
				require.Equal(t, want, b.total)
				require.Equal(t, shares, b.shares)
			},
		})
	})
}

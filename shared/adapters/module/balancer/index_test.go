package balancer

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// many makes n hosts, one of ten unhealthy.
func many(n int) []fakeHost {
	list := make([]fakeHost, n)
	for i := range list {
		list[i] = fakeHost{address: fmt.Sprintf("10.0.%d.%d:8000", i/250, i%250), weight: 1, sick: i%10 == 7}
	}
	return list
}

// quick is a cluster and a request that answer at once, as Envoy does.
type quick struct {
	all, healthy []Member
	list         []byte
	looks        []Look
}

func newQuick(hosts []fakeHost, list string) *quick {
	c := &fakeCluster{levels: [][]fakeHost{hosts}}
	q := &quick{list: []byte(list)}
	q.all, q.healthy = c.Hosts(0)
	for _, m := range q.healthy {
		q.looks = append(q.looks, Look{Address: m.Address, Healthy: true})
	}
	return q
}

func (q *quick) Priorities() int                   { return 1 }
func (q *quick) Healthy(int) int                   { return len(q.healthy) }
func (q *quick) Hosts(int) (all, healthy []Member) { return q.all, q.healthy }
func (q *quick) List() []byte                      { return q.list }
func (q *quick) Look(_, _, healthy uint32) Look    { return q.looks[healthy] }

const (
	goodList = "10.0.1.20:8000,10.0.1.21:8000,10.0.1.22:8000"
	badList  = "10.0.1.7:8000,10.9.9.9:8000,10.0.1.17:8000"
)

// Neither a choice nor an update that changes nothing allocates.
func TestAllocations(t *testing.T) {
	for name, list := range map[string]string{"listed": goodList, "fallback": badList, "no list": ""} {
		q := newQuick(many(1000), list)
		j := NewJournal()
		b := New("c", Config{Fallback: LeastRequest}, j, nil)
		b.Update(q)
		b.Update(q)
		require.Zero(t, testing.AllocsPerRun(100, func() { b.Update(q) }), name)
		choose := func() {
			if _, _, ok := b.Choose(q, q); !ok {
				panic("no host")
			}
			j.Take(func(Count) {})
		}
		choose()
		require.Zero(t, testing.AllocsPerRun(1000, choose), name)
	}
}

// An update forgets hosts that have gone, and their addresses.
func TestUpdatesForget(t *testing.T) {
	r := newRig(LeastRequest, many(100))
	for i := range 50 {
		r.cluster.levels[0] = hosts(fmt.Sprintf("h%d:1", i), "b:1")
		r.Update(r.cluster)
	}
	require.Len(t, r.index.byAddress, 2)
	require.LessOrEqual(t, len(r.index.oldByAddress), 2)
	require.Equal(t, "h49:1", r.choose("h48:1,h49:1"))
}

// Envoy's lists are in one order. If they were not, what is not found is not used.
func TestHealthyInAnotherOrder(t *testing.T) {
	q := newQuick(hosts("a:1", "b:1", "c:1"), "a:1,b:1,c:1")
	q.healthy[0], q.healthy[2] = q.healthy[2], q.healthy[0]
	q.looks[0], q.looks[2] = q.looks[2], q.looks[0]
	b := New("c", Config{Fallback: LeastRequest}, NewJournal(), nil)
	b.Update(q)
	_, place, ok := b.Choose(q, q)
	require.True(t, ok)
	require.Equal(t, "c:1", string(q.healthy[place].Address))
}

func BenchmarkChoose(b *testing.B) {
	for _, c := range []struct{ name, list string }{{"listed", goodList}, {"all three unusable", badList}, {"no list", ""}} {
		b.Run(c.name, func(b *testing.B) {
			q := newQuick(many(1000), c.list)
			j := NewJournal()
			p := New("c", Config{Fallback: LeastRequest}, j, nil)
			p.Update(q)
			b.ReportAllocs()
			for b.Loop() {
				p.Choose(q, q)
				j.Take(func(Count) {})
			}
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	q := newQuick(many(1000), "")
	p := New("c", Config{Fallback: LeastRequest}, NewJournal(), nil)
	b.ReportAllocs()
	for b.Loop() {
		p.Update(q)
	}
}

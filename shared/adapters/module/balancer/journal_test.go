package balancer

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Workers count while others take: nothing is lost or counted twice.
func TestJournalOfThreads(t *testing.T) {
	j := NewJournal()
	var mu sync.Mutex
	taken := map[Count]int64{}
	take := func() {
		j.Take(func(c Count) {
			mu.Lock()
			defer mu.Unlock()
			n := c.N
			c.N = 0
			taken[c] += n
		})
	}
	var all sync.WaitGroup
	for thread := range 4 {
		all.Go(func() {
			for i := range 3000 {
				j.count(Picks, []string{"a", "b"}[i%2], reasonListed, 1)
				j.passOver(fmt.Sprint(i % 7))
				if i%(thread+1) == 0 {
					take()
				}
				j.PassedOver("3", time.Now())
			}
		})
	}
	all.Wait()
	take()
	require.Equal(t, map[Count]int64{
		{Kind: Picks, Cluster: "a", Reason: reasonListed}: 6000, {Kind: Picks, Cluster: "b", Reason: reasonListed}: 6000,
	}, taken)
}

func TestPassedOver(t *testing.T) {
	r := newRig(LeastRequest, []fakeHost{{address: "a:1", weight: 1, sick: true}, {address: "b:1", weight: 1}})
	before := time.Now()
	require.Equal(t, "b:1", r.choose("x:1,a:1,b:1"))
	require.True(t, r.journal.PassedOver("a:1", before))
	require.False(t, r.journal.PassedOver("a:1", time.Now().Add(time.Nanosecond)), "not since then")
	require.False(t, r.journal.PassedOver("b:1", before))
	require.False(t, r.journal.PassedOver("x:1", before), "it is not unhealthy, it is not there")

	for i := range 2 * maxPassed {
		r.journal.passOver(fmt.Sprint(i))
	}
	require.LessOrEqual(t, len(r.journal.passedAt), maxPassed)
}

func TestInstances(t *testing.T) {
	j := NewJournal()
	a, b := New("c", Config{}, j, nil), New("c", Config{}, j, nil)
	a.Close()
	n := int64(0)
	j.Take(func(c Count) { n += c.N })
	require.EqualValues(t, 1, n)
	b.Close()
	j.Take(func(c Count) { n += c.N })
	require.Zero(t, n)
}

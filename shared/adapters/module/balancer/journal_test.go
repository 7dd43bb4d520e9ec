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
			if taken[c] += n; taken[c] == 0 {
				delete(taken, c)
			}
		})
	}
	var all sync.WaitGroup
	for thread := range 4 {
		all.Go(func() {
			of := []*Balancer{New("a", Config{}, j, nil), New("b", Config{}, j, nil)}
			for i := range 3000 {
				of[i%2].count(pickListed)
				if i%100 == 0 {
					New("c", Config{}, j, nil).Close()
				}
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
		{Kind: Picks, Cluster: "a", Reason: "listed"}: 6000, {Kind: Picks, Cluster: "b", Reason: "listed"}: 6000,
		{Kind: Instances, Cluster: "a"}: 4, {Kind: Instances, Cluster: "b"}: 4,
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

// Workers do not wait for each other, nor for one that makes or ends a policy.
func TestAChoiceTakesNoLock(t *testing.T) {
	r := newRig(LeastRequest, hosts("a:1", "b:1"))
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	require.Equal(t, "b:1", r.choose("x:1,b:1"))
	require.Equal(t, "-not_in_cluster=1 next=1", r.counts())
}

// Clusters come and go, and no request passes a filter of Inlet, so nobody takes what they count.
func TestClustersThatAreGone(t *testing.T) {
	j := NewJournal()
	stays := New("stays", Config{}, j, nil)
	sum := map[Kind]int64{}
	take := func() { j.Take(func(c Count) { sum[c.Kind] += c.N }) }
	take()
	const clusters, workers = 2 * maxNames, 2
	for i := range clusters {
		for range workers {
			b := New(fmt.Sprint(i), Config{}, j, nil)
			b.count(pickFallback)
			b.count(skipAbsent)
			stays.count(pickListed)
			b.Close()
		}
	}
	waiting := 0
	for c := j.waiting.Load(); c != nil; c = c.next {
		waiting++
	}
	require.LessOrEqual(t, waiting, maxClosed+1)
	require.LessOrEqual(t, len(j.kept), 2*(maxNames+1))
	take()
	require.Equal(t, map[Kind]int64{Picks: 2 * workers * clusters, Skips: workers * clusters, Instances: 1}, sum, "none is lost")
	require.Empty(t, j.kept)
	require.Empty(t, j.names)
	stays.Close()
	take()
	require.Zero(t, sum[Instances])
}

package balancer

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRegistry(t *testing.T) {
	var r Registry[int]
	require.Nil(t, r.Get(0))
	require.Nil(t, r.Get(7))
	require.Nil(t, r.Remove(7))
	ids := map[uintptr]int{}
	for i := range 3 * chunkSize {
		ids[r.Add(&i)] = i
	}
	require.Len(t, ids, 3*chunkSize)
	require.NotContains(t, ids, uintptr(0))
	for id, i := range ids {
		require.Equal(t, i, *r.Get(id))
	}
	require.Nil(t, r.Get(3*chunkSize+1))
	for id, i := range ids {
		require.Equal(t, i, *r.Remove(id))
		require.Nil(t, r.Get(id))
		require.Nil(t, r.Remove(id), "only once")
	}
	// Ids are used again: a process that makes and ends policies for years does not grow.
	for i := range 10_000 {
		id := r.Add(&i)
		require.Contains(t, ids, id)
		r.Remove(id)
	}
	require.Len(t, *r.chunks.Load(), 3)
}

// Threads add, look up and remove at once, each its own.
func TestRegistryOfThreads(t *testing.T) {
	var r Registry[int]
	var all sync.WaitGroup
	for thread := range 8 {
		all.Go(func() {
			for i := range 2000 {
				v := thread<<16 | i
				id := r.Add(&v)
				if got := r.Get(id); got == nil || *got != v {
					panic("another's value")
				}
				if r.Remove(id) != &v {
					panic("another's value")
				}
			}
		})
	}
	all.Wait()
	require.Len(t, *r.chunks.Load(), 1)
}

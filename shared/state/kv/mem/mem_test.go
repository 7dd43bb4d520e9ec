package mem_test

import (
	"fmt"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/kvtest"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

func TestStore(t *testing.T) {
	kvtest.Store(t, func(*testing.T) kv.Store { return mem.NewStore() })
}

func TestCountersOfManyThreads(t *testing.T) {
	c := mem.NewCounters()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				c.Open(fmt.Sprint(i % 10)).Add(1)
			}
		})
	}
	wg.Wait()
	for i := range 10 {
		require.EqualValues(t, 800, c.Open(fmt.Sprint(i)).Value())
	}
	require.Same(t, c.Open("0"), c.Open("0"))
	require.NotSame(t, c.Open("0"), c.Open("1"))
}

func TestCompareAndSwapOfManyThreads(t *testing.T) {
	s := mem.NewStore()
	require.NoError(t, s.Set("n", []byte{0, 0}, 0))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for done := 0; done < 100; {
				value, cas, err := s.Get("n")
				if err != nil {
					t.Error(err)
					return
				}
				n := int(value[0])<<8 + int(value[1]) + 1
				if s.Set("n", []byte{byte(n >> 8), byte(n)}, cas) == nil {
					done++
				}
			}
		})
	}
	wg.Wait()
	value, _, err := s.Get("n")
	require.NoError(t, err)
	require.Equal(t, 800, int(value[0])<<8+int(value[1]))
}

func TestHotPathAllocatesNothing(t *testing.T) {
	c := mem.NewCounters()
	c.Open("a")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		n := c.Open("a")
		n.Add(1)
		_ = n.Value()
	}))
}

// Threads that count on different replicas: the padding is what this measures.
func BenchmarkCounterAdd(b *testing.B) {
	c := mem.NewCounters()
	var mu sync.Mutex
	next := 0
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		n := c.Open(fmt.Sprint(next))
		next++
		mu.Unlock()
		for pb.Next() {
			n.Add(1)
		}
	})
}

// A name may lie in memory that is used again.
func TestNamesAreKept(t *testing.T) {
	for _, c := range []kv.Counters{mem.NewCounters(), kv.NewLedger(mem.NewStore(), "w", time.Now, time.Second)} {
		name := []byte("10.0.0.1:80")
		c.Open(unsafe.String(&name[0], len(name))).Add(1)
		copy(name, "99999999999")
		require.EqualValues(t, 1, c.Open("10.0.0.1:80").Value())
		require.Zero(t, c.Open("99999999999").Value())
	}
}

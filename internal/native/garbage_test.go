package native

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGarbagePercent(t *testing.T) {
	for bytes, want := range map[uint64]int{
		0: 1600, 1 << 20: 1600, 4 << 20: 400, 10 << 20: 150, 16 << 20: 100, 64 << 20: 25, 70 << 20: 25, 4 << 30: 25,
	} {
		require.Equal(t, want, garbagePercent(bytes), bytes)
	}
}

func TestBoundGarbage(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "")
	BoundGarbage()
	index := make([]uint64, 64<<20/8)
	percent := func() int {
		runtime.GC()
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	require.Eventually(t, func() bool { return percent() == garbageShare }, time.Minute, time.Millisecond)
	runtime.KeepAlive(index)
	index = nil
	require.Eventually(t, func() bool { return percent() > garbageShare }, time.Minute, time.Millisecond)
}

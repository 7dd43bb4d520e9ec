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
	reaches := func(ok func(percent int) bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			runtime.GC()
			percent := debug.SetGCPercent(100)
			debug.SetGCPercent(percent)
			return ok(percent)
		}, time.Minute, time.Millisecond)
	}
	func() {
		index := make([]uint64, 64<<20/8)
		reaches(func(percent int) bool { return percent == garbageShare })
		runtime.KeepAlive(index)
	}()
	reaches(func(percent int) bool { return percent > garbageShare })
}

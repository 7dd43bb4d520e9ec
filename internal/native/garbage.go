package native

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage may gather before Go collects it: a quarter of what is in use, and at least 16 MB.
const (
	garbageShare = 25 // percent
	leastGarbage = 16 << 20
)

// BoundGarbage keeps Go from letting as much garbage gather as there is in use, its default. Most of what is in use is the
// picker's index, which has no pointers and costs the collector nothing: the garbage would only double the memory that
// it takes. A small heap may have more than the default, for which Go would collect many times a second.
//
// A GOGC in the environment is left alone. Called again it changes nothing.
func BoundGarbage() {
	if os.Getenv("GOGC") == "" {
		watchGarbage(0)
	}
}

// sentinel is garbage from the beginning, so that its finalizer runs at each collection.
type sentinel struct {
	percent int
	_       *byte // Go puts small objects without pointers together, and then they live as long as the last of them
}

// watchGarbage sets the bound after each collection. percent is the one in force, 0 if it was never set.
func watchGarbage(percent int) {
	runtime.SetFinalizer(&sentinel{percent: percent}, func(s *sentinel) {
		defer func() { _ = recover() }()
		now := garbagePercent(inUse())
		if now != s.percent {
			debug.SetGCPercent(now)
		}
		watchGarbage(now)
	})
}

// garbagePercent is GOGC for so many bytes in use. Coarse, since to set it stops all threads for a moment.
func garbagePercent(bytes uint64) int {
	const step = 25
	percent := leastGarbage * 100 / max(bytes, 1<<20)
	return max(garbageShare, int(percent/step*step))
}

// inUse is what the last collection has left.
func inUse() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return live[0].Value.Uint64()
}

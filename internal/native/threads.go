package native

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// ThreadsVariable overrides the bound of [BoundThreads].
const ThreadsVariable = "INLET_GOMAXPROCS"

// BoundThreads lets Go run on as many threads at once as can call it: Envoy's
// workers and its main thread. More would serve the garbage collector alone,
// which takes idle ones for itself and so the cores that Envoy's workers need.
// Fewer would let workers wait for each other.
//
// Go's own default follows the CPU affinity and the cgroup, Envoy's --concurrency
// need not. The bound is the smaller of the two; INLET_GOMAXPROCS overrides it,
// and a GOMAXPROCS in the environment is left alone.
func BoundThreads() {
	n := threads(os.Args, os.Getenv, runtime.GOMAXPROCS(0))
	if n != runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}

// spareThreads is how many threads of Go's are for the goroutines of an embedded companion. Where all cores are busy, the system takes them
// away for milliseconds while they scrape, and a worker that calls Go must still find a place.
const spareThreads = 2

// addThreads makes room for an embedded companion.
func addThreads() {
	if os.Getenv(ThreadsVariable) == "" && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareThreads)
	}
}

// threads returns the value for GOMAXPROCS, given Envoy's command line.
func threads(args []string, getenv func(string) string, now int) int {
	if n, err := strconv.Atoi(getenv(ThreadsVariable)); err == nil && n > 0 {
		return n
	}
	if getenv("GOMAXPROCS") != "" {
		return now
	}
	if workers := concurrency(args); workers > 0 {
		return min(now, workers+1)
	}
	return now
}

// concurrency returns the number of workers that Envoy was told to have, 0 if it
// was told nothing.
func concurrency(args []string) int {
	for i, arg := range args {
		value, found := strings.CutPrefix(arg, "--concurrency")
		if !found {
			continue
		}
		if value == "" && i+1 < len(args) {
			value = args[i+1]
		}
		n, err := strconv.Atoi(strings.TrimPrefix(value, "="))
		if err == nil && n > 0 {
			return n
		}
	}
	return 0
}

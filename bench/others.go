package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// others measures how many cores all other processes on the machine use meanwhile: the more, the less reliable the
// figures.
type others struct {
	begin       time.Time
	busy, owned time.Duration
}

// watch starts the measurement.
func (b *bench) watch() (o others, err error) {
	o.begin = time.Now()
	o.busy, o.owned, err = b.used()
	return o, err
}

// cores is what the others have used since then.
func (o others) cores(b *bench) (float64, error) {
	busy, owned, err := b.used()
	return max(0, float64(busy-o.busy-(owned-o.owned))) / float64(time.Since(o.begin)), err
}

// used is the CPU time that all processes have used, and that those of this benchmark have used.
func (b *bench) used() (all, own time.Duration, err error) {
	if all, err = busyTime(); err != nil {
		return 0, 0, err
	}
	times, err := each(b.pids(), cpuTime)
	return all, sum(times), err
}

// pids are all processes of the benchmark, each once: this one, the companion, the peers', and those of the modes.
func (b *bench) pids() []int {
	pids := []int{os.Getpid(), b.shared.Companion.PID()}
	if b.peers != nil {
		pids = append(pids, b.peers.PIDs()...)
	}
	if b.limits != nil {
		pids = append(pids, b.limits.PIDs()...)
	}
	for _, m := range b.modes {
		pids = append(pids, m.pids()...)
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// clockTick is the unit of the times in /proc/stat: 1/100 s on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// busyTime is the time that all cores were not idle (proc(5), stat).
func busyTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(first)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", first)
	}
	var ticks int64
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 {
			ticks += n
		}
	}
	return time.Duration(ticks) * clockTick, nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inlet-proxy/inlet/bench/load"
)

// sample is one run of one cell.
type sample struct {
	rps, p50, p99 float64   // p50, p99: µs
	envoy, total  float64   // CPU time, µs per request: of Envoy, and of it and the other processes
	busy          float64   // total minus what they use without requests
	envoyRSS, rss float64   // memory, MB: likewise
	gc            []float64 // µs, see collections
}

// measure runs one cell once.
func (m *mode) measure(ctx context.Context, c *chatCase, request *load.Request, answer int, d time.Duration) (s sample, err error) {
	log, err := m.gcLogSize()
	if err != nil {
		return s, err
	}
	before, err := m.cpu()
	if err != nil {
		return s, err
	}
	l := load.Load{Address: strings.TrimPrefix(m.stack.URL(), "http://"), Request: request, Answer: answer, Conns: c.conns}
	r, err := l.Run(ctx, d)
	if err != nil {
		return s, err
	}
	m.sent += r.Requests
	after, err := m.cpu()
	if err != nil {
		return s, err
	}
	n := float64(r.Requests)
	s = sample{
		rps: r.Rate(), p50: micros(r.Percentile(0.5)), p99: micros(r.Percentile(0.99)),
		envoy: micros(after[0]-before[0]) / n, total: micros(sum(after)-sum(before)) / n,
	}
	s.busy = s.total - m.idle*micros(r.Elapsed)/n
	resident, err := m.resident()
	if err != nil {
		return s, err
	}
	s.envoyRSS, s.rss = resident[0], sum(resident)
	s.gc, err = m.collections(log)
	return s, err
}

// rest measures what each mode uses without requests: ticks, polls, and scrapes.
func (b *bench) rest(ctx context.Context, d time.Duration) error {
	used := func() ([]time.Duration, error) {
		var all []time.Duration
		for _, m := range b.modes {
			d, err := m.cpu()
			if err != nil {
				return nil, err
			}
			all = append(all, sum(d))
		}
		return all, nil
	}
	before, err := used()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := wait(ctx, d); err != nil {
		return err
	}
	after, err := used()
	for i, m := range b.modes {
		m.idle = float64(after[i]-before[i]) / float64(time.Since(begin))
	}
	return err
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func sum[T time.Duration | float64](all []T) (n T) {
	for _, v := range all {
		n += v
	}
	return n
}

// cpu is the CPU time that each process of the mode has used.
func (m *mode) cpu() ([]time.Duration, error) { return each(m.pids(), cpuTime) }

// resident is the memory of each process of the mode, in MB.
func (m *mode) resident() ([]float64, error) { return each(m.pids(), residentMB) }

// pids are the processes of the mode: Envoy first, then the others.
func (m *mode) pids() []int { return append([]int{m.stack.EnvoyPID()}, m.beside...) }

// each calls f for each process.
func each[T any](pids []int, of func(pid int) (T, error)) ([]T, error) {
	var all []T
	for _, pid := range pids {
		v, err := of(pid)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// cpuTime is the user and system time that a process has used, from its CPU clock (clock_getcpuclockid(3)):
// /proc/PID/stat counts in steps of 10 ms, which is too coarse for a turn.
func cpuTime(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED, linux/posix-timers.h
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &used); err != nil {
		return 0, fmt.Errorf("the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}

// residentMB is the memory that a process occupies (proc(5), statm).
func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	return pages * float64(os.Getpagesize()) / 1e6, err
}

// cell is all runs of one mode and case, in order of the turns.
type cell struct{ samples []sample }

func (c *cell) add(s sample) { c.samples = append(c.samples, s) }

func (c *cell) median(of func(sample) float64) float64 {
	return median(c.samples, func(_ int, s sample) float64 { return of(s) })
}

// pairwise is the median over the turns of the difference to another mode.
func (c *cell) pairwise(other *cell, of func(sample) float64) float64 {
	return median(c.samples, func(i int, s sample) float64 { return of(s) - of(other.samples[i]) })
}

// collections are those of all turns, sorted.
func (c *cell) collections() []float64 {
	var all []float64
	for _, s := range c.samples {
		all = append(all, s.gc...)
	}
	slices.Sort(all)
	return all
}

func median[T any](samples []T, of func(int, T) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(i, s)
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}

// percentile of sorted values, p in 0..1.
func percentile(sorted []float64, p float64) float64 {
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

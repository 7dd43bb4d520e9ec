package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/barrier"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Options are the surroundings of a companion.
type Options struct {
	// Apply gets each snapshot, on one thread at a time. It belongs to the receiver but for its names and facts, which snapshots share.
	Apply func(*endpoint.Snapshot)
	// Log writes a line to the proxy's log; from any thread.
	Log func(filter.Level, string)
	// Replicas are settings for tests; its Log is not used.
	Replicas replicas.Options
}

// Companion finds and scrapes the replicas of one section.
type Companion struct {
	config  replicas.Config
	o       Options
	log     *slog.Logger
	source  uint64
	version uint64
	faulted time.Time // when a panic of Apply was logged

	follows atomic.Pointer[replicas.Replicas]
}

// Start begins in goroutines of its own, and never blocks. They end soon after ctx, and write no log then.
func Start(ctx context.Context, config *replicas.Config, o Options) *Companion {
	c := &Companion{config: *config, o: o, source: rand.Uint64() | 1}
	c.log = logger(func(l filter.Level, line string) {
		if ctx.Err() == nil {
			o.Log(l, line)
		}
	})
	c.o.Replicas.Log = c.log
	go barrier.Run(ctx, c.log, "the embedded companion", func() { c.run(ctx) })
	return c
}

// Pauses after failures double from the first to the last.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
)

// run follows the replicas, again and again: a file that scraping needs may be missing, and come later.
func (c *Companion) run(ctx context.Context) {
	last := ""
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != last { // logged once
			last = text
			c.log.Error("cannot follow the replicas; trying again, and keeping the last snapshot", "reason", text)
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// follow publishes what it finds until ctx ends, or something fails.
func (c *Companion) follow(ctx context.Context) error {
	all, err := replicas.New(c.config, c.o.Replicas)
	if err != nil {
		return err
	}
	c.follows.Store(all)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	var errs [3]error
	for i, part := range []func() error{
		func() error { return all.Run(ctx) },
		func() error { all.Publish(ctx, c.publish); return nil },
		func() error { all.Await(ctx); <-ctx.Done(); return nil }, // for the log
	} {
		wait.Go(func() {
			defer cancel()
			errs[i] = barrier.Try(part)
		})
	}
	wait.Wait()
	return errors.Join(errs[:]...)
}

// publish hands a snapshot over.
func (c *Companion) publish(pools []endpoint.Pool, now time.Time) {
	c.version++
	s := &endpoint.Snapshot{Source: c.source, Version: c.version, Taken: now, Received: now, Pools: pools}
	err := barrier.Try(func() error { c.o.Apply(s); return nil })
	if err != nil && now.Sub(c.faulted) > lastPause {
		c.faulted = now
		c.log.Error("a snapshot could not be used", "reason", err)
	}
}

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/peers"
	"github.com/inlet-proxy/inlet/bench/upstream"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// startPeer starts a program of the extension for a mode, and returns how Envoy should call it.
func (b *bench) startPeer(ctx context.Context, root string, m *mode, name string) (edit, error) {
	if b.peers == nil {
		var err error
		if b.peers, err = peers.Start(ctx, root, os.Stderr); err != nil {
			return nil, err
		}
	}
	var s *peers.Server
	var err error
	if name == "epp" {
		s, err = b.peers.Picker(ctx, m.name, b.replicas.Addresses)
	} else {
		s, err = b.peers.Router(ctx)
	}
	if err != nil {
		return nil, err
	}
	m.ask(s)
	p, err := peerProcessing(name)
	return addExtProc(s.Address, p), err
}

// scraping is the case of 32 replicas without requests: the cost of scraping.
const scraping = "32r-50k"

// runScraping measures the extension's picker and Inlet's companion side by side, each at its own default interval.
func runScraping(ctx context.Context, o options, f *figures.File) error {
	if !matches(o.cases, scraping) {
		return nil
	}
	root, err := stack.Root()
	if err != nil {
		return err
	}
	replicas, err := upstream.Start(32, pageSize)
	if err != nil {
		return err
	}
	defer replicas.Close()
	p, err := peers.Start(ctx, root, os.Stderr)
	if err != nil {
		return err
	}
	defer p.Close()
	picker, err := p.Picker(ctx, "idle", replicas.Addresses)
	if err != nil {
		return err
	}
	epp, err := cores(ctx, picker.PID(), o)
	if err != nil {
		return err
	}
	picker.Stop()
	s, err := stack.Start(ctx, stack.Options{ABI: stack.None, Pools: []stack.Pool{{Name: pool, Addresses: replicas.Addresses}}})
	if err != nil {
		return err
	}
	defer s.Close()
	companion, err := cores(ctx, s.Companion.PID(), o)
	if err != nil {
		return err
	}
	f.Line(scraping, "epp", "cpu_cores", epp, "")
	f.Line(scraping, "companion", "cpu_cores", companion, "")
	return nil
}

// cores is how many cores a process uses, once it has started.
func cores(ctx context.Context, pid int, o options) (float64, error) {
	const settle = 3 * time.Second
	if err := wait(ctx, settle); err != nil {
		return 0, err
	}
	before, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := wait(ctx, time.Duration(o.repeat)*o.duration); err != nil {
		return 0, err
	}
	after, err := cpuTime(pid)
	return float64(after-before) / float64(time.Since(begin)), err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
}

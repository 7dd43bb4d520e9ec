package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// snapshots is the companion's newest snapshot.
type snapshots struct {
	counters kv.Counters
	latest   atomic.Pointer[endpoint.Snapshot]
}

const (
	pollWait  = 20 * time.Second
	pollPause = 100 * time.Millisecond
)

// follow polls the companion until ctx ends.
func (s *server) follow(ctx context.Context, companion string) {
	client := &http.Client{Timeout: pollWait + 5*time.Second}
	for ctx.Err() == nil {
		if err := s.poll(ctx, client, companion); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "companion:", err)
			time.Sleep(pollPause)
		}
	}
}

// poll polls once and applies the response.
func (s *server) poll(ctx context.Context, client *http.Client, companion string) error {
	have := s.snapshots.latest.Load()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+companion+endpoint.Path(have, s.worker, pollWait), nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode == http.StatusNotModified:
		return nil
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("response status %d, want 200", res.StatusCode)
	}
	next, err := endpoint.Apply(have, body)
	if err != nil {
		s.snapshots.latest.Store(nil) // so that the next response is whole
		return err
	}
	next.Received = time.Now()
	next.Attach(s.snapshots.counters, have)
	s.snapshots.latest.Store(next)
	return nil
}

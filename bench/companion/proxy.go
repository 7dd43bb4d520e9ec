package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// proxy polls the companion and reports to it like a proxy.
type proxy struct {
	began     time.Time
	replicas  []uint64 // their endpoint.ReplicaID
	client    *http.Client
	url, name string
	measuring atomic.Bool

	have    *endpoint.Snapshot
	seen    map[string]int // the latest stamps, by address
	visible []float64      // ms from the writing of a page to the snapshot that contains it
	err     error          // of its polls
	untold  error          // of its reports
}

// poll polls repeatedly until ctx ends.
func (p *proxy) poll(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.call(ctx); err != nil && ctx.Err() == nil {
			p.err = err
			return
		}
	}
}

func (p *proxy) call(ctx context.Context) error {
	status, body, err := p.do(ctx, http.MethodGet, endpoint.RelayedPath(p.have, p.name, 20*time.Second, p.name), nil)
	switch {
	case err != nil:
		return err
	case status == http.StatusServiceUnavailable, status == http.StatusNotModified:
		return nil
	case status != http.StatusOK:
		return fmt.Errorf("status %d: %s", status, body)
	}
	if p.have, err = endpoint.Apply(p.have, body); err != nil {
		return err
	}
	p.look(time.Since(p.began))
	return nil
}

func (p *proxy) do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// look finds the new stamps.
func (p *proxy) look(now time.Duration) {
	pool := p.have.Pool("llama")
	if pool == nil {
		return
	}
	for i := range pool.Endpoints {
		e := &pool.Endpoints[i]
		if e.Gauges.Waiting < int(time.Second.Microseconds()) { // not a time
			continue
		}
		if before := p.seen[e.Address]; before != e.Gauges.Waiting && p.measuring.Load() && before > 0 {
			p.visible = append(p.visible, float64(now.Microseconds()-int64(e.Gauges.Waiting))/1000)
		}
		p.seen[e.Address] = e.Gauges.Waiting
	}
}

// What a proxy reports in a round: a request in flight on each replica, and some prompts that it sent, of 4,096 tokens
// each.
const (
	notesOfRound = 5
	blocksOfNote = 64
)

// tell reports requests in flight and some notes, once per round, until ctx ends.
func (p *proxy) tell(ctx context.Context) {
	if sleep(ctx, rand.N(feed.Round)) != nil {
		return
	}
	round := time.NewTicker(feed.Round)
	defer round.Stop()
	for {
		status, answer, err := p.do(ctx, http.MethodPost, endpoint.ReportPath(p.name), p.news())
		if err == nil && status != http.StatusNoContent {
			err = fmt.Errorf("told: status %d: %s", status, answer)
		}
		if err != nil && ctx.Err() == nil {
			p.untold = err
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-round.C:
		}
	}
}

// news is a report of changes on every replica, and of unknown prompts.
func (p *proxy) news() []byte {
	var t endpoint.Report
	for _, replica := range p.replicas {
		requests := 1 + rand.Int64N(4)
		t.InFlight = append(t.InFlight, endpoint.Reported{Replica: replica, InFlight: endpoint.InFlight{Requests: requests, Tokens: requests * 1000}})
	}
	var chain [blocksOfNote]uint64
	for range notesOfRound {
		for i := range chain {
			chain[i] = rand.Uint64()
		}
		t.Notes = endpoint.AppendNote(t.Notes, p.replicas[rand.IntN(len(p.replicas))], chain[:])
	}
	return endpoint.AppendReport(nil, &t)
}

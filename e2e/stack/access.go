package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
)

// Access is one line of the access log, as the shipped bootstraps write it.
type Access struct {
	RequestID  string `json:"request_id"`
	Method     string `json:"method"`
	Path       string `json:"path"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Flags      string `json:"flags"`
	Model      string `json:"model"`
	Pool       string `json:"pool"`
	Picked     string `json:"picked"`
	Cluster    string `json:"cluster"`
	Replica    string `json:"replica"` // ip:port
	Attempts   int    `json:"attempts"`
	DurationMS int    `json:"duration_ms"`
	Why        string `json:"why"`
}

// accessLog collects the access log.
type accessLog struct {
	mu      sync.Mutex
	entries []Access
	changed chan struct{} // closed and replaced with every entry
	bad     error
	ended   bool
}

func newAccessLog() *accessLog { return &accessLog{changed: make(chan struct{})} }

func (l *accessLog) add(line string) {
	var a Access
	err := json.Unmarshal([]byte(line), &a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.bad = fmt.Errorf("access log: %w in %q", err, line)
	} else {
		l.entries = append(l.entries, a)
	}
	l.wake()
}

func (l *accessLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wake()
}

func (l *accessLog) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// from returns entry n, waiting for it.
func (l *accessLog) from(ctx context.Context, n int) (Access, error) {
	for {
		l.mu.Lock()
		changed := l.changed
		switch {
		case n < len(l.entries):
			a := l.entries[n]
			l.mu.Unlock()
			return a, nil
		case l.bad != nil || l.ended:
			err := l.bad
			l.mu.Unlock()
			if err == nil {
				err = fmt.Errorf("the access log has ended")
			}
			return Access{}, err
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Access{}, fmt.Errorf("no further line in the access log: %w", ctx.Err())
		}
	}
}

// Access returns the access log's line for the response with this x-request-id. It
// waits for the line: Envoy writes it after the end of the response.
func (s *Stack) Access(ctx context.Context, requestID string) (Access, error) {
	for n := 0; ; n++ {
		a, err := s.access.from(ctx, n)
		if err != nil || a.RequestID == requestID {
			return a, err
		}
	}
}

// EachAccess calls f with every line of the access log, from the first, until ctx or the stack ends.
func (s *Stack) EachAccess(ctx context.Context, f func(Access)) {
	for n := 0; ; n++ {
		a, err := s.access.from(ctx, n)
		if err != nil {
			return
		}
		f(a)
	}
}

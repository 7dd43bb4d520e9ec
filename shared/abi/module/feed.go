package module

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/kv"
)

// feed is what one companion tells this process. It lasts as long as the
// process, so that a new configuration begins with the replicas that the one
// before knew.
//
// Every configuration that names the companion has a poller, of which the
// newest asks. An older one that is no longer asked for comes to its end
// without a call under way, on whatever thread that is.
type feed struct {
	cluster  string
	worker   string
	counters kv.Counters
	latest   atomic.Pointer[endpoint.Snapshot]

	mu      sync.Mutex
	pollers []*poller // oldest first
	failing bool      // said so in the log
	pause   time.Duration
}

// Pauses after a poll that failed: doubling, and less by a random part of a
// half, so that a fleet does not come back in step.
const (
	shortPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
)

// join adds a poller for a new configuration. Its first poll runs in the main
// loop of Envoy, not here.
func (f *feed) join(handle shared.HttpFilterConfigHandle, wait time.Duration, log func(filter.Level, string)) *poller {
	p := &poller{feed: f, handle: handle, main: handle.GetScheduler(), wait: wait, log: log}
	f.mu.Lock()
	f.pollers = append(f.pollers, p)
	f.mu.Unlock()
	p.wake()
	return p
}

// remove takes a poller out and returns the one whose turn it is now.
func (f *feed) remove(p *poller) *poller {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pollers = slices.DeleteFunc(f.pollers, func(q *poller) bool { return q == p })
	return f.newest()
}

// newest needs the lock.
func (f *feed) newest() *poller {
	if len(f.pollers) == 0 {
		return nil
	}
	return f.pollers[len(f.pollers)-1]
}

func (f *feed) isNewest(p *poller) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newest() == p
}

// apply takes a snapshot over, unless it is an older one of the same companion.
func (f *feed) apply(s *endpoint.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.latest.Load(); now != nil && now.Source == s.Source && now.Version > s.Version {
		return
	}
	f.latest.Store(s)
}

// worked says whether the companion was gone before.
func (f *feed) worked() (recovered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	recovered = f.failing
	f.failing, f.pause = false, 0
	return recovered
}

// failed returns how long to pause, and whether it is the first failure in a row.
func (f *feed) failed(random uint64) (pause time.Duration, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first = !f.failing
	f.failing = true
	f.pause = min(max(2*f.pause, shortPause), longPause)
	return f.pause - time.Duration(random%uint64(f.pause/2)), first
}

var errUnreadable = errors.New("its snapshot is not readable")

// decode makes an answer a snapshot of this process; have is what the companion
// was told is here.
func (f *feed) decode(have *endpoint.Snapshot, r *filter.Reply, now time.Time) (*endpoint.Snapshot, error) {
	if r.Err != nil {
		return nil, r.Err
	}
	if r.Status != 200 {
		return nil, fmt.Errorf("it answers with status %d", r.Status)
	}
	s, err := endpoint.Apply(have, r.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	s.Received = now
	s.Attach(f.counters)
	return s, nil
}

package module

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// source is what one companion tells this process. It lasts as long as the
// process, so that a new configuration begins with the replicas that the one
// before knew.
//
// Every configuration that names the companion has a poller, of which the
// newest calls and converses. An older one that is no longer asked for comes to its end
// without a call in progress, on whatever thread that is.
type source struct {
	proxy  string // how the companion tells this Envoy from others
	notes  *feed.Notes
	latest atomic.Pointer[endpoint.Snapshot]
	see    atomic.Pointer[func()] // looks at each new one, of the newest configuration; nil: nobody does

	mu      sync.Mutex
	pollers []*poller // oldest first
}

// join adds a poller for a new configuration. Its first call runs in the main
// loop of Envoy, not here.
func (s *source) join(handle shared.HttpFilterConfigHandle, c *chain.Chain, deps *filter.Deps) *poller {
	p := newPoller(s, handle, c, deps)
	s.mu.Lock()
	s.pollers = append(s.pollers, p)
	s.mu.Unlock()
	p.wake()
	return p
}

// remove takes a poller out and returns the one whose turn it is now.
func (s *source) remove(p *poller) *poller {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pollers = slices.DeleteFunc(s.pollers, func(q *poller) bool { return q == p })
	return s.newest()
}

// newest needs the lock.
func (s *source) newest() *poller {
	if len(s.pollers) == 0 {
		return nil
	}
	return s.pollers[len(s.pollers)-1]
}

func (s *source) isNewest(p *poller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest() == p
}

// apply takes a snapshot over, unless it is an older one of the same companion.
func (s *source) apply(snapshot *endpoint.Snapshot) {
	s.mu.Lock()
	newer := feed.Supersedes(snapshot, s.latest.Load())
	if newer {
		s.latest.Store(snapshot)
	}
	s.mu.Unlock()
	if see := s.see.Load(); newer && see != nil {
		(*see)()
	}
}

// peers implements filter.Peers for the filters of one configuration, which are
// made before it is known whether there is a companion.
type peers struct {
	source *source // nil if there is none
	learn  func([]byte)
	see    func()
}

// watch implements filter.Deps.Watch.
func (p *peers) watch(see func()) { p.see = see }

func (p *peers) Tell(notes []byte) {
	if p.source != nil {
		p.source.notes.Tell(notes)
	}
}

func (p *peers) Hear(learn func([]byte)) { p.learn = learn }

// join is the end of making the filters.
func (p *peers) join(s *source) {
	p.source = s
	if p.learn != nil {
		s.notes.Hear(p.learn)
	}
	if p.see != nil {
		s.see.Store(&p.see)
	}
}

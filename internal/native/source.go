package native

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Source is what one companion tells this process. It lasts as long as the
// process, so that a new configuration begins with the replicas that the one
// before knew.
//
// Every configuration that names the companion has a [Poller], of which the
// newest calls and converses. An older one that is no longer asked for comes to its end
// without a call in progress, on whatever thread that is.
type Source struct {
	Notes *feed.Notes

	proxy  string // how the companion tells this Envoy from others
	latest atomic.Pointer[endpoint.Snapshot]
	see    atomic.Pointer[func()] // looks at each new one, of the newest configuration; nil: nobody does

	mu      sync.Mutex
	pollers []*Poller // oldest first
}

// Latest is the newest picture of the replicas, nil before the first.
func (s *Source) Latest() *endpoint.Snapshot { return s.latest.Load() }

// Apply takes a snapshot over, unless it is an older one of the same companion.
func (s *Source) Apply(snapshot *endpoint.Snapshot) {
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

func (s *Source) add(p *Poller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pollers = append(s.pollers, p)
}

// remove takes a poller out and returns the one whose turn it is now.
func (s *Source) remove(p *Poller) *Poller {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pollers = slices.DeleteFunc(s.pollers, func(q *Poller) bool { return q == p })
	return s.newest()
}

// newest needs the lock.
func (s *Source) newest() *Poller {
	if len(s.pollers) == 0 {
		return nil
	}
	return s.pollers[len(s.pollers)-1]
}

func (s *Source) isNewest(p *Poller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest() == p
}

// peers implements filter.Peers for the filters of one configuration, which are
// made before it is known whether there is a companion.
type peers struct {
	source *Source // nil if there is none
	learn  func([]byte)
	see    func()
}

// watch implements filter.Deps.Watch.
func (p *peers) watch(see func()) { p.see = see }

func (p *peers) Tell(notes []byte) {
	if p.source != nil {
		p.source.Notes.Tell(notes)
	}
}

func (p *peers) Hear(learn func([]byte)) { p.learn = learn }

// join is the end of making the filters.
func (p *peers) join(s *Source) {
	p.source = s
	if p.learn != nil {
		s.Notes.Hear(p.learn)
	}
	if p.see != nil {
		s.see.Store(&p.see)
	}
}

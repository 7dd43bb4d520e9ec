package native

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
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
	Notes *feed.Notes // nil if there is nobody to tell: the companion is an embedded one

	process *Process
	latest  atomic.Pointer[endpoint.Snapshot]
	listeners

	mu       sync.Mutex
	pollers  []*Poller  // oldest first
	speakers []*speaker // oldest first
	heard    int        // changes of speakers
}

// speaker is a configuration whose filters have something to say to the companion; a poller says it. What filters
// say is the state of the process, so of each path the newest speaker says it for all.
type speaker struct{ talks []filter.Conversation }

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
	if newer {
		s.look()
	}
}

// listeners are the filters that are shown each new snapshot, and what other proxies have learned: those of the
// newest configuration that asked for it.
type listeners struct {
	see   atomic.Pointer[func()]
	hears atomic.Pointer[func([]byte)]
}

// join is the end of making the filters of a configuration.
func (l *listeners) join(p *peers) {
	if p.see != nil {
		l.see.Store(&p.see)
	}
	if p.learn != nil {
		l.hears.Store(&p.learn)
	}
}

func (s *Source) look() {
	see := s.see.Load()
	if see == nil {
		see = s.process.aside.see.Load()
	}
	if see != nil {
		(*see)()
	}
}

func (s *Source) learn(notes []byte) {
	hears := s.hears.Load()
	if hears == nil {
		hears = s.process.aside.hears.Load()
	}
	if hears != nil {
		(*hears)(notes)
	}
}

// hear adds a speaker.
func (s *Source) hear(talks []filter.Conversation) *speaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &speaker{talks}
	s.speakers = append(s.speakers, one)
	s.heard++
	return one
}

// forget takes a speaker out.
func (s *Source) forget(one *speaker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.speakers = slices.DeleteFunc(s.speakers, func(other *speaker) bool { return other == one })
	s.heard++
}

// conversations are those to be held, if others than when there were so many changes.
func (s *Source) conversations(since int) (all []filter.Conversation, now int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard == since {
		return nil, since
	}
	for _, one := range slices.Backward(s.speakers) {
		for _, talk := range one.talks {
			if !slices.ContainsFunc(all, func(c filter.Conversation) bool { return c.Path == talk.Path }) {
				all = append(all, talk)
			}
		}
	}
	return all, s.heard
}

// asked reports whether some listener's configuration has a poller.
func (s *Source) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pollers) > 0
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
	from  func() *Source
	learn func([]byte)
	see   func()
}

// watch implements filter.Deps.Watch.
func (p *peers) watch(see func()) { p.see = see }

// Tell implements filter.Peers.
func (p *peers) Tell(notes []byte) {
	if from := p.from(); from != nil && from.Notes != nil {
		from.Notes.Tell(notes)
	}
}

// Hear implements filter.Peers.
func (p *peers) Hear(learn func([]byte)) { p.learn = learn }

// Package scrape reads the gauges of the replicas from their metrics, asks which models they serve, and decides which replicas are ready.
package scrape

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
)

// Options are the settings of a Scraper.
type Options struct {
	Interval time.Duration // between two scrapes of one replica, varied by a tenth so that the replicas do not synchronise
	Timeout  time.Duration // of one request
	Models   time.Duration // between two requests for a replica's list of models; a minute if 0
	Stale    time.Duration // the age at which the proxies ignore gauges; 0: unknown

	Dial http1.DialFunc // in place of net.Dialer's
	Log  *slog.Logger   // discarded if nil
}

const (
	// unreadyAfter is for how many intervals a replica stays ready after its last good response.
	unreadyAfter = 3
	// longestPause bounds the back-off: a replica that comes back is noticed within it (or within the interval, if that is longer).
	longestPause = 2 * time.Second
	// firstWithin bounds how long the first scrape of a new replica is delayed to spread the load.
	firstWithin = time.Second
)

// Scraper has one poller for each replica, and knows the state of all of them. A replica in several pools is scraped once if they have the
// same plan. Its methods are safe for concurrent use.
//
// A replica is ready from its first good response until an attempt fails (both scrape and health check) and the last good response is older
// than three intervals. A slow response is not a failure: busy model servers answer /metrics late. A replica that reports that it sleeps is
// not ready until it is awake.
type Scraper struct {
	opts     Options
	scanners sync.Pool
	log      *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	changed chan struct{}
	tried   chan struct{}

	mu         sync.Mutex
	pools      map[string]*pool
	pollers    map[key]*poller
	loggedLate time.Time // see judgeAge
}

// New returns a scraper for the given pools; it scrapes nothing until SetTargets. An unknown engine or an unreadable file is an error.
func New(pools map[string]Plan, o Options) (*Scraper, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Models == 0 {
		o.Models = time.Minute
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	s := &Scraper{
		opts:     o,
		scanners: sync.Pool{New: func() any { return new(scanner) }},
		log:      o.Log,
		changed:  make(chan struct{}, 1),
		tried:    make(chan struct{}),
		pools:    make(map[string]*pool),
		pollers:  make(map[key]*poller),
	}
	for name, p := range pools {
		plan, err := s.planFor(p)
		if err != nil {
			return nil, fmt.Errorf("pool %s: %w", name, err)
		}
		s.pools[name] = &pool{name: name, plan: plan, members: make(map[string]*member)}
	}
	if len(s.pools) == 0 {
		close(s.tried) // there is nothing to wait for, and no change will come
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close stops all pollers and waits for them.
func (s *Scraper) Close() {
	s.cancel()
	s.wait.Wait()
}

// Changed receives a value after something changed that Pools returns. Changes that happen before it is received are coalesced.
func (s *Scraper) Changed() <-chan struct{} { return s.changed }

// Tried is closed when the replicas of every pool are known and each was tried once: from then on Pools is complete.
func (s *Scraper) Tried() <-chan struct{} { return s.tried }

// Missing lists what Tried waits for, one line per pool; it is empty once Tried is closed.
func (s *Scraper) Missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, p := range s.pools {
		if line := p.missing(); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// missing says what is not known of the pool yet, "" if nothing.
func (p *pool) missing() string {
	if !p.known {
		return fmt.Sprintf("pool %s: its list of endpoints could not be read yet", p.name)
	}
	untried := 0
	for _, m := range p.members {
		if !m.poller.tried {
			untried++
		}
	}
	if untried > 0 {
		return fmt.Sprintf("pool %s: %d of %d endpoints not tried yet", p.name, untried, len(p.members))
	}
	return ""
}

// notify signals that something changed. Callers hold s.mu.
func (s *Scraper) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
	select {
	case <-s.tried:
	default:
		missing := 0
		for _, p := range s.pools {
			if p.missing() == "" {
				p.tried = true
			} else {
				missing++
			}
		}
		if missing == 0 {
			close(s.tried)
		}
	}
}

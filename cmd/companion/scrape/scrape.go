package scrape

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// Options are the settings of a Scraper.
type Options struct {
	Interval time.Duration // between two scrapes of one replica, each varied by a tenth so that the replicas do not fall into step
	Timeout  time.Duration // of one scrape
	Path     string        // of the metrics
	Health   string        // path asked when a scrape fails: 200 means ready

	Transport http.RoundTripper // NewTransport() if nil
	Log       *slog.Logger      // discarded if nil
}

const (
	// unreadyAfter is for how many intervals a replica stays ready after its last good answer.
	unreadyAfter = 3
	// longestPause bounds the back-off: a replica that comes back is noticed within it (or within the interval, if that is longer).
	longestPause = 2 * time.Second
	// firstWithin bounds how long the first scrape of a new replica is put off to spread the load.
	firstWithin = time.Second
)

// Target is a replica to scrape.
type Target struct {
	Address string // ip:port
	Usable  bool   // false: the source of replicas says that it takes no requests, so it is never ready
}

// Scraper keeps one poller for each replica of each pool, and knows the state of all. Its methods are safe for concurrent use.
//
// A replica is ready from its first good answer on, until an attempt fails (scrape and health check both) and the last good answer is
// older than three intervals. An answer that is slow is no reason: model servers answer /metrics late when they are busy.
type Scraper struct {
	opts    Options
	client  *http.Client
	buffers sync.Pool
	log     *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	changed chan struct{}
	tried   chan struct{}

	mu    sync.Mutex
	pools map[string]*pool
}

type pool struct {
	name    string
	engine  Engine
	known   bool                // its list of replicas was set
	pollers map[string]*replica // by address
	stats   Stats
}

// Stats counts the scrapes of a pool since the start.
type Stats struct {
	OK         uint64        // brought gauges
	Incomplete uint64        // the replica answered, a metric was missing
	Failed     uint64        // no answer, or none that can be read
	Took       time.Duration // all of them together
}

func (s *Stats) count(err error, took time.Duration) {
	switch {
	case err == nil:
		s.OK++
	case errors.Is(err, ErrMissing):
		s.Incomplete++
	default:
		s.Failed++
	}
	s.Took += took
}

// replica is the state of one; guarded by Scraper.mu.
type replica struct {
	target Target
	stop   context.CancelFunc

	tried    bool      // the first attempt is over
	answered bool      // ready, as far as its answers go
	lastGood time.Time // of scrape or health check
	gauges   endpoint.Gauges
	scraped  time.Time // when the gauges were read
	reason   string    // why the last scrape failed, "" if it did not
}

func (r *replica) ready() bool { return r.answered && r.target.Usable }

// NewTransport returns the transport that suits scraping: direct (no proxy), kept-alive connections, plain bodies, certificates verified.
func NewTransport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:        0, // as many as there are replicas
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // on a fast network, inflating costs more than it saves
		ReadBufferSize:      32 << 10,
	}
}

// New returns a scraper for the given pools, named with the engine of each; it scrapes nothing until SetTargets. An engine that is not
// one of Engines is an error.
func New(pools map[string]string, o Options) (*Scraper, error) {
	if o.Transport == nil {
		o.Transport = NewTransport()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scraper{
		opts: o,
		client: &http.Client{
			Transport:     o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		buffers: sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxLine) }},
		log:     o.Log,
		changed: make(chan struct{}, 1),
		tried:   make(chan struct{}),
		pools:   make(map[string]*pool),
	}
	for name, engine := range pools {
		e, ok := engines[engine]
		if !ok {
			return nil, fmt.Errorf("pool %s: engine %q is not one of %s", name, engine, strings.Join(Engines(), ", "))
		}
		s.pools[name] = &pool{name: name, engine: e, pollers: make(map[string]*replica)}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends all pollers and waits for them.
func (s *Scraper) Close() {
	s.cancel()
	s.wait.Wait()
	s.client.CloseIdleConnections()
}

// SetTargets sets the replicas of a pool: new ones are scraped from now on, missing ones no more, the others go on undisturbed.
func (s *Scraper) SetTargets(poolName string, targets []Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[poolName]
	if p == nil || s.ctx.Err() != nil {
		return
	}
	p.known = true
	listed := make(map[string]bool, len(targets))
	for _, t := range targets {
		listed[t.Address] = true
		if r := p.pollers[t.Address]; r != nil {
			r.target = t
			continue
		}
		ctx, stop := context.WithCancel(s.ctx)
		r := &replica{target: t, stop: stop}
		p.pollers[t.Address] = r
		s.wait.Go(func() { s.poll(ctx, p, r, t.Address) })
	}
	for address, r := range p.pollers {
		if !listed[address] {
			r.stop()
			delete(p.pollers, address)
		}
	}
	s.notify()
}

// Changed receives a value after something changed that Pools tells. Changes that come before it is received are one.
func (s *Scraper) Changed() <-chan struct{} { return s.changed }

// Tried is closed when the replicas of every pool are known and each was tried once: from then on Pools tells the truth.
func (s *Scraper) Tried() <-chan struct{} { return s.tried }

// Missing says what Tried waits for, one line for each pool, nothing if for none.
func (s *Scraper) Missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing()
}

func (s *Scraper) missing() []string {
	var lines []string
	for _, p := range s.pools {
		untried := 0
		for _, r := range p.pollers {
			if !r.tried {
				untried++
			}
		}
		switch {
		case !p.known:
			lines = append(lines, fmt.Sprintf("pool %s: its list of endpoints could not be read yet", p.name))
		case untried > 0:
			lines = append(lines, fmt.Sprintf("pool %s: %d of %d endpoints not tried yet", p.name, untried, len(p.pollers)))
		}
	}
	slices.Sort(lines)
	return lines
}

// notify says that something changed. Callers hold s.mu.
func (s *Scraper) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
	select {
	case <-s.tried:
	default:
		if len(s.missing()) == 0 {
			close(s.tried)
		}
	}
}

// Pools returns the state of all replicas, sorted, with the gauges' ages at now.
func (s *Scraper) Pools(now time.Time) []endpoint.Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	pools := make([]endpoint.Pool, 0, len(s.pools))
	for _, p := range s.pools {
		endpoints := make([]endpoint.Endpoint, 0, len(p.pollers))
		for address, r := range p.pollers {
			e := endpoint.Endpoint{Address: address, Ready: r.ready(), Gauges: r.gauges}
			if e.Gauges.Known {
				e.Gauges.Age = now.Sub(r.scraped)
			}
			endpoints = append(endpoints, e)
		}
		slices.SortFunc(endpoints, func(a, b endpoint.Endpoint) int { return cmp.Compare(a.Address, b.Address) })
		pools = append(pools, endpoint.Pool{Name: p.name, Endpoints: endpoints})
	}
	slices.SortFunc(pools, func(a, b endpoint.Pool) int { return cmp.Compare(a.Name, b.Name) })
	return pools
}

// Stats returns the counts of each pool, by name.
func (s *Scraper) Stats() map[string]Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := make(map[string]Stats, len(s.pools))
	for _, p := range s.pools {
		stats[p.name] = p.stats
	}
	return stats
}

// poll scrapes one replica until ctx ends.
func (s *Scraper) poll(ctx context.Context, p *pool, r *replica, address string) {
	pause := rand.N(min(s.opts.Interval, firstWithin)) // spread over the interval
	timer := time.NewTimer(pause)
	defer timer.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		if s.attempt(ctx, p, r, address) {
			failures = 0
		} else {
			failures++
		}
		timer.Reset(s.pauseAfter(failures, time.Since(began)))
	}
}

// pauseAfter returns how long to wait for the next attempt: the rest of the interval, doubled for each failure in a row.
func (s *Scraper) pauseAfter(failures int, took time.Duration) time.Duration {
	pause := s.opts.Interval
	for range failures {
		if pause *= 2; pause >= longestPause {
			pause = max(longestPause, s.opts.Interval)
			break
		}
	}
	pause += time.Duration((rand.Float64() - 0.5) * 0.2 * float64(pause))
	return max(pause-took, pause/10) // a replica that takes longer than the interval is not asked without a break
}

// attempt scrapes one replica once, and asks for its health if that fails. It reports whether the scrape brought gauges.
func (s *Scraper) attempt(ctx context.Context, p *pool, r *replica, address string) bool {
	began := time.Now()
	gauges, scrapeErr := s.scrape(ctx, p.engine, address)
	ended := time.Now()
	alive := scrapeErr == nil || errors.Is(scrapeErr, ErrMissing)
	if !alive && ctx.Err() == nil {
		alive = s.healthy(ctx, address)
	}
	if ctx.Err() != nil {
		return false
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	p.stats.count(scrapeErr, ended.Sub(began))
	before, beforeGauges, beforeTried := r.ready(), r.gauges, r.tried
	r.tried = true
	now := time.Now()
	switch {
	case alive:
		r.answered, r.lastGood = true, now
	case r.answered && now.Sub(r.lastGood) > unreadyAfter*s.opts.Interval:
		r.answered = false
	}
	switch {
	case scrapeErr == nil:
		r.gauges, r.scraped = gauges, began // the replica wrote them after that
	case errors.Is(scrapeErr, ErrMissing):
		r.gauges = endpoint.Gauges{} // it answers, and no longer says: not "as before"
	}
	s.logTurn(p, r, address, before, scrapeErr)
	if r.ready() != before || r.gauges != beforeGauges || !beforeTried {
		s.notify()
	}
	return scrapeErr == nil
}

// logTurn logs what is new about a replica, once.
func (s *Scraper) logTurn(p *pool, r *replica, address string, wasReady bool, scrapeErr error) {
	log := s.log.With("pool", p.name, "endpoint", address)
	reason := ""
	if scrapeErr != nil {
		reason = scrapeErr.Error()
	}
	if (reason == "") != (r.reason == "") {
		if reason != "" {
			log.Warn("scrape failed", "reason", reason)
		} else {
			log.Info("scrape works again")
		}
	}
	r.reason = reason
	if r.ready() != wasReady {
		log.Info("readiness changed", "ready", r.ready())
	}
}

func (s *Scraper) scrape(ctx context.Context, e Engine, address string) (endpoint.Gauges, error) {
	body, done, err := s.get(ctx, address, s.opts.Path)
	if err != nil {
		return endpoint.Gauges{}, err
	}
	defer done()
	r := s.buffers.Get().(*bufio.Reader)
	defer s.buffers.Put(r)
	r.Reset(body)
	defer r.Reset(nil)
	return e.read(r)
}

func (s *Scraper) healthy(ctx context.Context, address string) bool {
	_, done, err := s.get(ctx, address, s.opts.Health)
	if err != nil {
		return false
	}
	done()
	return true
}

// get asks a replica and returns the body of its 200. done reads off a short rest, so that the connection can be used again.
func (s *Scraper) get(ctx context.Context, address, path string) (body io.Reader, done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	req.Header.Set("User-Agent", "inlet-companion")
	resp, err := s.client.Do(req)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	done = func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
		resp.Body.Close()
		cancel()
	}
	if resp.StatusCode != http.StatusOK {
		done()
		return nil, nil, fmt.Errorf("GET %s: status %d", path, resp.StatusCode)
	}
	return resp.Body, done, nil
}

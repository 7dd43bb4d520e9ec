// Package scrape reads the gauges of the replicas from their metrics, asks what models they serve, and tells which replicas are ready.
package scrape

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Options are the settings of a Scraper.
type Options struct {
	Interval time.Duration // between two scrapes of one replica, each varied by a tenth so that the replicas do not fall into step
	Timeout  time.Duration // of one request
	Models   time.Duration // between two looks at what a replica serves; a minute if 0
	Stale    time.Duration // the age at which gauges say nothing to the proxies any more; 0: not known

	Dial func(ctx context.Context, network, address string) (net.Conn, error) // in place of net.Dialer's
	Log  *slog.Logger                                                         // discarded if nil
}

// Plan says how the replicas of a pool are asked.
type Plan struct {
	Engine string // one of Engines, Auto or Custom
	Custom Engine // if Engine is Custom
	Access Access
	Port   int    // of the metrics, 0: the replica's own
	Path   string // of the metrics, "" for the engine's
	Health string // path asked when a scrape fails or lacks metrics: 200 means ready; "" for the engine's
	Models string // path of the list of models, "" to not ask
}

const (
	// unreadyAfter is for how many intervals a replica stays ready after its last good answer.
	unreadyAfter = 3
	// longestPause bounds the back-off: a replica that comes back is noticed within it (or within the interval, if that is longer).
	longestPause = 2 * time.Second
	// firstWithin bounds how long the first scrape of a new replica is put off to spread the load.
	firstWithin = time.Second

	defaultPath   = "/metrics"
	defaultHealth = "/health"
)

// Target is a replica to scrape.
type Target struct {
	Address string // ip:port
	Usable  bool   // false: the source of replicas says that it takes no requests, so it is never ready
	Engine  string // in place of the plan's, "" for that

	Priority uint16 // its rank in the pool
}

// Scraper keeps one poller for each replica, and knows the state of all. A replica that is in several pools is scraped once if they have
// the same plan. Its methods are safe for concurrent use.
//
// A replica is ready from its first good answer on, until an attempt fails (scrape and health check both) and the last good answer is
// older than three intervals. An answer that is slow is no reason: model servers answer /metrics late when they are busy. One that says that
// it sleeps is not ready until it is awake.
type Scraper struct {
	opts     Options
	scanners sync.Pool
	log      *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	changed chan struct{}
	tried   chan struct{}

	mu       sync.Mutex
	pools    map[string]*pool
	pollers  map[key]*poller
	toldLate time.Time // see judgeAge
}

type pool struct {
	name    string
	plan    *plan
	known   bool               // its list of replicas was set
	members map[string]*member // by address ...
	sorted  []*member          // ... and in its order, which is asked for many times a second
	stats   Stats
}

// member is a replica as one pool has it.
type member struct {
	address  string
	usable   bool
	priority uint16
	poller   *poller
}

func (m *member) ready() bool { return m.usable && m.poller.ready() }

// plan is a Plan at work; pools with the same Plan share one.
type plan struct {
	Plan
	token *token // nil: none
}

// key is what makes a replica one to scrape.
type key struct {
	address string
	plan    *plan
	engine  string
}

// poller is the state of one replica.
type poller struct {
	key
	stop context.CancelFunc

	// These belong to its goroutine.
	own      *link // to its address ...
	metrics  *link // ... and to where its metrics are, the same one as a rule
	kind     Engine
	mapping  *mapping  // nil: not found out yet
	listTime time.Time // when the models were asked for

	// These are guarded by Scraper.mu.
	pools    map[*pool]bool // that list it
	tried    bool           // the first attempt is over
	answered bool           // lately
	lastGood time.Time      // of scrape or health check
	reading  Reading
	began    int64 // endpoint.Endpoint.Started
	models   *endpoint.Models
	scraped  time.Time // when the gauges were read
	reason   string    // why the last scrape failed, "" if it did not
}

// ready reports whether the replica takes requests, as far as its answers go. One that sleeps answers, and lets requests wait.
func (p *poller) ready() bool { return p.answered && !p.reading.Asleep }

// Stats counts the scrapes of a pool since the start.
type Stats struct {
	OK         uint64        // brought gauges
	Incomplete uint64        // the replica answered, a metric was missing
	Failed     uint64        // no answer, or none that can be read
	Late       uint64        // of the OK ones: the gauges had become too old for the proxies to trust them, by slowness alone
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

// New returns a scraper for the given pools; it scrapes nothing until SetTargets. An engine that is not known, or a file that cannot be
// read, is an error.
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
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// planFor returns the plan at work that is the same, a new one if there is none.
func (s *Scraper) planFor(p Plan) (*plan, error) {
	for _, other := range s.pools {
		if reflect.DeepEqual(other.plan.Plan, p) {
			return other.plan, nil
		}
	}
	if _, _, known := engineOf(p.Engine); !known && p.Engine != Auto && p.Engine != Custom {
		return nil, fmt.Errorf("engine %q is not one of %s, %s, %s", p.Engine, strings.Join(Engines(), ", "), Auto, Custom)
	}
	if err := p.Access.Check(); err != nil {
		return nil, err
	}
	if t := p.Access.TLS; t != nil && t.InsecureSkipVerify {
		s.log.Warn("insecureSkipVerify: the certificates of replicas are not verified, anyone on the path can read the token and forge gauges")
	}
	made := &plan{Plan: p}
	if p.Access.TokenFile != "" {
		made.token = &token{file: p.Access.TokenFile}
	}
	return made, nil
}

// Close ends all pollers and waits for them.
func (s *Scraper) Close() {
	s.cancel()
	s.wait.Wait()
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
		k := key{t.Address, p.plan, s.engineFor(p, t)}
		m := p.members[t.Address]
		if m == nil || m.poller.key != k {
			poller := s.join(p, k)
			if m != nil {
				s.leave(p, m.poller)
			}
			m = &member{address: t.Address, poller: poller}
			p.members[t.Address] = m
		}
		m.usable, m.priority = t.Usable, t.Priority
	}
	for address, m := range p.members {
		if !listed[address] {
			delete(p.members, address)
			s.leave(p, m.poller)
		}
	}
	p.sorted = slices.SortedFunc(maps.Values(p.members), func(a, b *member) int { return cmp.Compare(a.address, b.address) })
	s.notify()
}

// engineFor returns the proper word for a target's engine. What its source says counts, if that is known here.
func (s *Scraper) engineFor(p *pool, t Target) string {
	if t.Engine != "" {
		if name, _, ok := engineOf(t.Engine); ok {
			return name
		}
		s.log.Warn("an endpoint's engine is not known, the pool's is taken", "pool", p.name, "endpoint", t.Address, "engine", t.Engine)
	}
	if name, _, ok := engineOf(p.plan.Engine); ok {
		return name
	}
	return p.plan.Engine
}

// join returns the poller for a replica, a new one if there is none. Callers hold s.mu.
func (s *Scraper) join(p *pool, k key) *poller {
	if old := s.pollers[k]; old != nil {
		old.pools[p] = true
		return old
	}
	ctx, stop := context.WithCancel(s.ctx)
	n := &poller{key: k, stop: stop, pools: map[*pool]bool{p: true}}
	s.connect(ctx, n)
	switch k.engine {
	case Auto:
	case Custom:
		n.kind, n.mapping = k.plan.Custom, compile(k.plan.Custom)
	default:
		n.kind, n.mapping = engines[k.engine], compiled[k.engine]
	}
	s.pollers[k] = n
	s.wait.Go(func() { s.poll(ctx, n) })
	return n
}

// connect makes a poller's links; a connection is opened when one is needed.
func (s *Scraper) connect(ctx context.Context, p *poller) {
	p.own = &link{ctx: ctx, dial: s.opts.Dial, access: &p.plan.Access, token: p.plan.token, address: p.address}
	p.metrics = p.own
	if address := p.metricsAddress(); address != p.address {
		p.metrics = &link{ctx: ctx, dial: s.opts.Dial, access: &p.plan.Access, token: p.plan.token, address: address}
	}
}

// leave ends a poller that no pool needs any more. Callers hold s.mu.
func (s *Scraper) leave(p *pool, old *poller) {
	delete(old.pools, p)
	if len(old.pools) == 0 {
		old.stop()
		delete(s.pollers, old.key)
	}
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
		for _, m := range p.members {
			if !m.poller.tried {
				untried++
			}
		}
		switch {
		case !p.known:
			lines = append(lines, fmt.Sprintf("pool %s: its list of endpoints could not be read yet", p.name))
		case untried > 0:
			lines = append(lines, fmt.Sprintf("pool %s: %d of %d endpoints not tried yet", p.name, untried, len(p.members)))
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
		endpoints := make([]endpoint.Endpoint, 0, len(p.members))
		for _, m := range p.sorted {
			r := &m.poller.reading
			e := endpoint.Endpoint{
				Address: m.address, Ready: m.ready(), Gauges: r.Gauges, Cache: r.Cache, LoRA: r.LoRA, Models: m.poller.models,
				Priority: m.priority, Started: m.poller.began,
			}
			if e.Gauges.Known {
				e.Gauges.Age = now.Sub(m.poller.scraped)
			}
			endpoints = append(endpoints, e)
		}
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

// Pollers returns how many replicas are scraped, each counted once.
func (s *Scraper) Pollers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pollers)
}

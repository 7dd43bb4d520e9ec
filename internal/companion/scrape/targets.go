package scrape

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/inlet-proxy/inlet/internal/companion/barrier"
	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Target is a replica to scrape.
type Target struct {
	Address string // ip:port
	Usable  bool   // false: its source lists it as taking no requests, so it is never ready
	Engine  string // overrides the plan's, "" for that

	Priority uint16 // its priority in the pool; the lowest number comes first

	Identity string // another one at the same address is another replica, of which nothing is known; "" if its source has none
	Started  int64  // when it started, in seconds since 1970, as far as its source knows; 0: unknown
}

type pool struct {
	name    string
	plan    *plan
	known   bool               // its list of replicas was set
	tried   bool               // once, each replica of the list had been tried
	members map[string]*member // by address ...
	sorted  []*member          // ... and sorted by it, since Pools needs that many times a second
	stats   Stats
}

// member is a replica of one pool.
type member struct {
	address  string
	usable   bool
	priority uint16
	poller   *poller
}

func (m *member) ready() bool { return m.usable && m.poller.ready() }

// key identifies what is scraped: replicas with the same key share a poller.
type key struct {
	address  string
	plan     *plan
	engine   string
	identity string
}

// SetTargets sets the replicas of a pool: new ones are scraped from now on, missing ones no longer, the others are not disturbed.
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
		k := key{t.Address, p.plan, s.engineFor(p, t), t.Identity}
		m := p.members[t.Address]
		if m == nil || m.poller.key != k {
			poller := s.join(p, k)
			if poller.began == 0 {
				poller.began = t.Started // which its metrics may make later; proxies that knew another replica at this address then forget it
			}
			if m != nil {
				if m.poller.identity != k.identity {
					poller.began = max(poller.began, m.poller.began+endpoint.StartJitter+1)
				}
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

// engineFor returns the canonical name of a target's engine: that of its source if it is known here, else the pool's.
func (s *Scraper) engineFor(p *pool, t Target) string {
	if t.Engine != "" {
		if name, _, ok := engineOf(t.Engine); ok {
			return name
		}
		s.log.Warn("endpoint names an unknown engine; using the pool's", "pool", p.name, "endpoint", t.Address, "engine", t.Engine, "using", p.plan.Engine)
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
	s.wait.Go(func() {
		barrier.Run(ctx, s.log, "the scrapes of "+n.address, func() { s.poll(ctx, n) })
	})
	return n
}

// accept prefers the text format of Prometheus to the JSON that some servers send otherwise.
const accept = "text/plain;version=0.0.4, application/json;q=0.5"

// connect makes a poller's clients; they connect when they are used.
func (s *Scraper) connect(ctx context.Context, p *poller) {
	client := func(address string) *http1.Client {
		return http1.New(ctx, http1.Options{Address: address, Accept: accept, Access: &p.plan.Access, Token: p.plan.token, Dial: s.opts.Dial})
	}
	p.own = client(p.address)
	p.metrics = p.own
	if address := p.metricsAddress(); address != p.address {
		p.metrics = client(address)
	}
}

// leave stops a poller that no pool needs any longer. Callers hold s.mu.
func (s *Scraper) leave(p *pool, old *poller) {
	delete(old.pools, p)
	if len(old.pools) == 0 {
		old.stop()
		delete(s.pollers, old.key)
	}
}

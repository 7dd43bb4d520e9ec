package balancer

import (
	"bytes"
	"math/rand/v2"
)

// Request is what Envoy knows of the request that a host is chosen for.
type Request interface {
	// List is the value of the header that has the list, in Envoy's memory.
	List() []byte
	// Look looks at a host: by its priority, its place among all and its place among the healthy hosts.
	Look(priority, all, healthy uint32) Look
}

// Look is what is true of a host now.
type Look struct {
	Address []byte // of the host at the place among the healthy ones
	Active  uint64 // requests in progress
	Tried   bool   // by this request
	Healthy bool   // its own state, which the list of the healthy ones follows a little later
}

// Balancer is the policy in one cluster on one thread.
type Balancer struct {
	tally   *tally
	config  Config
	journal *Journal
	broken  func(panicked any)
	rand    *rand.Rand
	index   index
	built   bool // the index can be used
	stale   bool // the index was found not to be that of the cluster
}

// New makes the policy for a thread. It knows no host before the first Update. Panics
// of its methods are told to broken, and go no further.
func New(cluster string, config Config, journal *Journal, broken func(panicked any)) *Balancer {
	t := &tally{cluster: cluster}
	journal.add(t, instance, 1)
	return &Balancer{
		tally: t, config: config, journal: journal, broken: broken,
		rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
}

// Close ends it.
func (b *Balancer) Close() { b.journal.close(b.tally) }

// Update reads the hosts of the cluster. After a panic, Choose does without them.
func (b *Balancer) Update(c Cluster) {
	defer func() {
		if p := recover(); p != nil {
			b.broken(p)
		}
	}()
	b.built = false
	b.index.build(c)
	b.built = true
}

// Choose returns the host for a request: its priority and its place among the healthy
// hosts there; ok is false if there is none. After a panic it is any healthy host, with
// the fallback None none.
func (b *Balancer) Choose(c Cluster, r Request) (priority, place uint32, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			b.broken(p)
			priority, place, ok = b.any(c)
		}
	}()
	if !b.built {
		return b.any(c)
	}
	h, reason := b.choose(r)
	if b.stale { // Envoy asks before it reports a change: seldom, if ever
		if b.Update(c); !b.built {
			return b.any(c)
		}
		if h, reason = b.choose(r); b.stale {
			return b.any(c)
		}
	}
	b.count(reason)
	if h == nil {
		return 0, 0, false
	}
	return h.priority, h.healthy, true
}

// any returns a random healthy host of the first priority that has one. It needs nothing
// but Envoy: it is for what must not happen. With the fallback None it returns none: the list
// may be all that a client is allowed.
func (b *Balancer) any(c Cluster) (priority, place uint32, ok bool) {
	b.count(pickPanic)
	if b.config.Fallback == None {
		return 0, 0, false
	}
	for p := range c.Priorities() {
		if n := c.Healthy(p); n > 0 {
			return uint32(p), b.rand.Uint32N(uint32(n)), true
		}
	}
	return 0, 0, false
}

func (b *Balancer) count(e event) { b.journal.add(b.tally, e, 1) }

// choose returns the host and why it was chosen.
func (b *Balancer) choose(r Request) (*host, event) {
	b.stale = false
	h, reason, again := b.listed(r)
	if h != nil || b.stale {
		return h, reason
	}
	if b.config.Fallback != None {
		if h := b.fallback(r, good); h != nil || b.stale {
			return h, pickFallback
		}
		if again == nil {
			again = b.fallback(r, last)
		}
	}
	if again == nil {
		return nil, pickNone
	}
	return again, pickAgain
}

// listed returns the first host of the list that is healthy and has not been tried, or
// else, as again, the first that is healthy.
func (b *Balancer) listed(r Request) (h *host, reason event, again *host) {
	reason = pickListed
	for list := r.List(); len(list) > 0 && !b.stale; {
		var address []byte
		address, list, _ = bytes.Cut(list, comma)
		if address = bytes.TrimSpace(address); len(address) == 0 {
			continue
		}
		skip := skipAbsent
		if h := b.index.find(address); h != nil {
			switch s, _ := b.look(r, h); s {
			case good:
				return h, reason, nil
			case tried:
				skip = skipTried
				if again == nil {
					again = h
				}
			default:
				skip = skipUnhealthy
				b.journal.passOver(h.address)
			}
		}
		if !b.stale {
			b.count(skip)
		}
		reason = pickNext
	}
	return nil, pickNone, again
}

var comma = []byte{','}

// standing is how good a host is for a request. The better ones come first.
type standing uint8

const (
	good  standing = iota
	tried          // by this request, which others may not have been
	sick           // it is not healthy any more
	out            // it is not healthy, and so cannot be chosen

	last = sick
)

// look looks at a host. It also returns how many requests that has in progress.
func (b *Balancer) look(r Request, h *host) (standing, uint64) {
	if h.healthy == unhealthy {
		return out, 0
	}
	l := r.Look(h.priority, h.all, h.healthy)
	switch {
	case string(l.Address) != h.address:
		b.stale = true
		return out, 0
	case !l.Healthy:
		return sick, l.Active
	case l.Tried:
		return tried, l.Active
	}
	return good, l.Active
}

// fallback returns a host that is not in the list, none worse than that; nil if there is none.
func (b *Balancer) fallback(r Request, worst standing) *host {
	x := &b.index
	first := x.draw(b.rand)
	if first < 0 {
		return nil
	}
	for i := range x.levels {
		l := &x.levels[(first+i)%len(x.levels)]
		if h := b.lessBusy(r, l, worst); h != nil || b.stale {
			return h
		}
	}
	return nil
}

// lessBusy returns the host of a level which has fewer requests in progress for its
// weight, of two random ones; with the fallback Random the first of them.
func (b *Balancer) lessBusy(r Request, l *level, worst standing) *host {
	if len(l.healthy) == 0 {
		return nil
	}
	at := l.draw(b.rand)
	one, busy := b.walk(r, l, at, worst)
	if one == nil || b.config.Fallback == Random {
		return one
	}
	from := l.draw(b.rand)
	if from == at {
		from++
	}
	if two, less := b.walk(r, l, from, worst); two != nil && less*uint64(one.weight) < busy*uint64(two.weight) {
		return two
	}
	return one
}

// walk returns the first host of a level that is not worse than that, from a place on,
// and how many requests it has in progress.
func (b *Balancer) walk(r Request, l *level, from int, worst standing) (*host, uint64) {
	for i := range l.healthy {
		h := &b.index.hosts[l.healthy[(from+i)%len(l.healthy)]]
		s, active := b.look(r, h)
		if b.stale {
			return nil, 0
		}
		if s <= worst {
			return h, active
		}
	}
	return nil, 0
}

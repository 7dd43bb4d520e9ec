package balancer

import (
	"sync"
	"sync/atomic"
)

// event is what a policy counts.
type event uint8

const (
	skipAbsent    event = iota // of the list: the cluster does not have it
	skipUnhealthy              // Envoy knows it as that, or as degraded
	skipTried                  // the request has been there
	pickListed                 // the first of the list
	pickNext                   // a lower one of the list
	pickFallback               // none of the list
	pickAgain                  // one that the request has been to, or that has just fallen, since there was no other
	pickNone                   // there was no host
	pickPanic                  // a defect of the policy
	instance                   // of the policy
	events
)

var labels = [events]struct {
	kind   Kind
	reason string
}{
	skipAbsent:    {Skips, "not_in_cluster"},
	skipUnhealthy: {Skips, "unhealthy"},
	skipTried:     {Skips, "tried"},
	pickListed:    {Picks, "listed"},
	pickNext:      {Picks, "next"},
	pickFallback:  {Picks, "fallback"},
	pickAgain:     {Picks, "again"},
	pickNone:      {Picks, "none"},
	pickPanic:     {Picks, "panic"},
	instance:      {Instances, ""},
}

// tally is what one policy has counted since that was taken last. Its own thread counts, any thread takes.
type tally struct {
	cluster string
	n       [events]atomic.Int64
	waits   atomic.Bool // it is in the list of those that have something, or about to be
	closed  atomic.Bool
	next    *tally // there; of the thread that has turned waits, or has taken the list
}

// counts are the tallies of a journal.
type counts struct {
	waiting atomic.Pointer[tally] // those that have something

	// What closed policies have left. Nobody may ever take it: a request that passes a filter of Inlet does.
	mu     sync.Mutex
	closed int // since they were folded last
	kept   map[Count]int64
	names  map[string]bool // of clusters in kept
	keeps  atomic.Bool     // something is in kept
}

const (
	maxClosed = 256     // policies that are closed and not folded
	maxNames  = 1 << 12 // clusters of closed policies
	other     = "other" // all further ones
)

// add counts. It takes no lock.
func (c *counts) add(t *tally, e event, n int64) {
	t.n[e].Add(n)
	if !t.waits.Load() && t.waits.CompareAndSwap(false, true) {
		c.push(t)
	}
}

func (c *counts) push(t *tally) {
	for {
		t.next = c.waiting.Load()
		if c.waiting.CompareAndSwap(t.next, t) {
			return
		}
	}
}

// take empties a tally that is in no list. From then on its policy may put it there again.
func (t *tally) take(f func(Count)) {
	t.waits.Store(false)
	for e := range t.n {
		if n := t.n[e].Swap(0); n != 0 {
			f(Count{labels[e].kind, t.cluster, labels[e].reason, n})
		}
	}
}

// close is the end of a policy.
func (c *counts) close(t *tally) {
	t.closed.Store(true)
	c.add(t, instance, -1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed++; c.closed >= maxClosed {
		c.closed = 0
		c.fold()
	}
}

// fold keeps what closed policies have counted, and no more of them. It needs the lock.
func (c *counts) fold() {
	for t := c.waiting.Swap(nil); t != nil; {
		next := t.next
		if t.closed.Load() {
			t.take(c.keep)
		} else {
			c.push(t)
		}
		t = next
	}
}

// keep needs the lock. Of instances only those are left that have been taken before: no more clusters than there were then.
func (c *counts) keep(n Count) {
	if n.Kind != Instances && !c.names[n.Cluster] {
		if len(c.names) < maxNames {
			c.names[n.Cluster] = true
		} else {
			n.Cluster = other
		}
	}
	key := n
	key.N = 0
	if c.kept[key] += n.N; c.kept[key] == 0 {
		delete(c.kept, key)
	}
	c.keeps.Store(len(c.kept) > 0)
}

// Take calls f with what has been counted since the last time.
func (c *counts) Take(f func(Count)) {
	if c.keeps.Load() {
		for n, sum := range c.leave() {
			n.N = sum
			f(n)
		}
	}
	if c.waiting.Load() == nil {
		return
	}
	for t := c.waiting.Swap(nil); t != nil; {
		next := t.next
		t.take(f)
		t = next
	}
}

// leave returns what is kept, and keeps it no more.
func (c *counts) leave() map[Count]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.kept
	c.kept, c.names = map[Count]int64{}, map[string]bool{}
	c.keeps.Store(false)
	return kept
}

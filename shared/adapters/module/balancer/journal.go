package balancer

import (
	"sync"
	"sync/atomic"
	"time"
)

// Journal is what the policies of a process tell its filters.
type Journal struct {
	start   time.Time
	pending atomic.Bool // counts, so that nobody locks for nothing
	mu      sync.Mutex
	counts  []Count
	spare   []Count

	passed   sync.RWMutex
	passedAt map[string]*atomic.Int64 // when an unhealthy address was passed over, since start
}

// Count is how often something happened in a cluster.
type Count struct {
	Kind    Kind
	Cluster string
	Reason  string
	N       int64
}

// Kind is what is counted.
type Kind uint8

// The kinds.
const (
	Picks     Kind = iota // of a host
	Skips                 // of an address of a list
	Instances             // of the policy
)

// Reasons of picks.
const (
	reasonListed   = "listed"   // the first of the list
	reasonNext     = "next"     // a lower one of the list
	reasonFallback = "fallback" // none of the list
	reasonAgain    = "again"    // one that the request has been to, or that has just fallen, since there was no other
	reasonNone     = "none"     // there was no host
	reasonPanic    = "panic"    // a defect of the policy: any healthy host
)

// Reasons to skip an address of the list.
const (
	skipUnhealthy = "unhealthy"      // Envoy knows it as that, or as degraded
	skipAbsent    = "not_in_cluster" // the cluster does not have it
	skipTried     = "tried"          // the request has been there
)

// maxPassed bounds what is known of addresses, of which some have gone for good.
const maxPassed = 1 << 14

// NewJournal makes an empty one.
func NewJournal() *Journal {
	return &Journal{start: time.Now(), passedAt: map[string]*atomic.Int64{}}
}

// Shared is the journal of this process: the policies that Envoy makes write it.
var Shared = NewJournal()

// count adds to a count. There are few at a time: they are taken with every callback of
// a request.
func (j *Journal) count(kind Kind, cluster, reason string, n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.counts {
		if c := &j.counts[i]; c.Kind == kind && c.Reason == reason && c.Cluster == cluster {
			c.N += n
			return
		}
	}
	j.counts = append(j.counts, Count{kind, cluster, reason, n})
	j.pending.Store(true)
}

// Take calls f with what has been counted since the last time.
func (j *Journal) Take(f func(Count)) {
	if !j.pending.Load() {
		return
	}
	j.mu.Lock()
	batch := j.counts
	j.counts, j.spare = j.spare[:0], nil
	j.pending.Store(false)
	j.mu.Unlock()
	for _, c := range batch {
		f(c)
	}
	j.mu.Lock()
	j.spare = batch
	j.mu.Unlock()
}

// passOver notes that an unhealthy host was passed over.
func (j *Journal) passOver(address string) {
	at := int64(time.Since(j.start))
	j.passed.RLock()
	last := j.passedAt[address]
	j.passed.RUnlock()
	if last == nil {
		j.passed.Lock()
		defer j.passed.Unlock()
		if last = j.passedAt[address]; last == nil {
			if len(j.passedAt) >= maxPassed {
				clear(j.passedAt)
			}
			last = new(atomic.Int64)
			j.passedAt[address] = last
		}
	}
	last.Store(at)
}

// PassedOver reports whether a policy has passed over an address since then, because
// Envoy knew it as unhealthy.
func (j *Journal) PassedOver(address string, since time.Time) bool {
	j.passed.RLock()
	last := j.passedAt[address]
	j.passed.RUnlock()
	return last != nil && last.Load() >= int64(since.Sub(j.start))
}

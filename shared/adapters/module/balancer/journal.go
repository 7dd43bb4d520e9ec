package balancer

import (
	"sync"
	"sync/atomic"
	"time"
)

// Journal is what the policies of a process tell its filters.
type Journal struct {
	start time.Time
	counts

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

// maxPassed bounds what is known of addresses, of which some have gone for good.
const maxPassed = 1 << 14

// NewJournal makes an empty one.
func NewJournal() *Journal {
	return &Journal{
		start: time.Now(), passedAt: map[string]*atomic.Int64{},
		counts: counts{kept: map[Count]int64{}, names: map[string]bool{}},
	}
}

// Shared is the journal of this process: the policies that Envoy makes write it.
var Shared = NewJournal()

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

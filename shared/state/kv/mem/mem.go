// Package mem has the stores of package kv in the memory of one process: for the threads of a native module, and for tests that put
// several workers on one store.
package mem

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// NewStore returns an empty store with the semantics of Envoy's shared data. It is safe for concurrent use.
func NewStore() kv.Store {
	return &store{values: make(map[string]value)}
}

type store struct {
	mu     sync.Mutex
	last   uint32 // cas handed out last, of any key: as in Envoy
	values map[string]value
}

// value is never written to after it was stored, so Get can hand it out without a copy.
type value struct {
	bytes []byte
	cas   uint32
}

func (s *store) Get(key string) ([]byte, uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	if !ok {
		return nil, 0, kv.ErrNotFound
	}
	return v.bytes, v.cas, nil
}

func (s *store) Set(key string, bytes []byte, cas uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.values[key]; ok && cas != 0 && cas != v.cas {
		return kv.ErrMismatch
	}
	s.last++
	if s.last == 0 { // 0 means "no cas"
		s.last = 1
	}
	s.values[key] = value{append([]byte(nil), bytes...), s.last}
	return nil
}

// NewCounters returns counters for the threads of one process: every Add is seen by all at once. Safe for concurrent use.
func NewCounters() kv.Counters {
	return &counters{byName: make(map[string]*counter)}
}

type counters struct {
	mu     sync.RWMutex
	byName map[string]*counter
}

func (c *counters) Open(name string) kv.Counter {
	c.mu.RLock()
	n := c.byName[name]
	c.mu.RUnlock()
	if n != nil {
		return n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.byName[name]; n != nil {
		return n
	}
	n = new(counter)
	c.byName[strings.Clone(name)] = n
	return n
}

// counter fills two cache lines (processors fetch them in pairs), so that threads that count on different replicas do not slow each
// other down.
type counter struct {
	n atomic.Int64
	_ [120]byte
}

func (c *counter) Add(delta int64) { c.n.Add(delta) }
func (c *counter) Value() int64    { return c.n.Load() }

package balancer

import (
	"sync"
	"sync/atomic"
)

// Registry gives ids to values, for Envoy to hold instead of Go pointers. Looking one up
// takes no lock: it is done for every request.
type Registry[T any] struct {
	mu     sync.Mutex // held to add and remove
	free   []uintptr
	next   uintptr
	chunks atomic.Pointer[[]*chunk[T]] // only grows
}

const chunkSize = 64

type chunk[T any] [chunkSize]atomic.Pointer[T]

// Add returns the id of a value, which is never 0.
func (r *Registry[T]) Add(v *T) uintptr {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.free); n > 0 {
		id := r.free[n-1]
		r.free = r.free[:n-1]
		r.slot(id).Store(v)
		return id
	}
	if r.next%chunkSize == 0 {
		var chunks []*chunk[T]
		if present := r.chunks.Load(); present != nil {
			chunks = append(chunks, *present...)
		}
		chunks = append(chunks, new(chunk[T]))
		r.chunks.Store(&chunks)
	}
	r.next++
	r.slot(r.next).Store(v)
	return r.next
}

// Get returns the value of an id, nil if it has none.
func (r *Registry[T]) Get(id uintptr) *T {
	s := r.slot(id)
	if s == nil {
		return nil
	}
	return s.Load()
}

// Remove returns the value of an id, nil if it has none. The id may then be given to
// another value.
func (r *Registry[T]) Remove(id uintptr) *T {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slot(id)
	if s == nil {
		return nil
	}
	v := s.Swap(nil)
	if v != nil {
		r.free = append(r.free, id)
	}
	return v
}

func (r *Registry[T]) slot(id uintptr) *atomic.Pointer[T] {
	chunks := r.chunks.Load()
	if chunks == nil || id == 0 || (id-1)/chunkSize >= uintptr(len(*chunks)) {
		return nil
	}
	return &(*chunks)[(id-1)/chunkSize][(id-1)%chunkSize]
}

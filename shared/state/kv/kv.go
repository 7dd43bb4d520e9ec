// Package kv holds what the workers of one Envoy share: a small key-value store with compare-and-swap, and on top of it counters
// ([Ledger]) and a lease ([Lease]).
//
// A wasm worker has nothing in common with its neighbours but Envoy's shared data, and each call of it crosses into the host and copies
// the value. So the types here are frugal with calls, and need nothing but the Store and a clock that the caller injects. The threads of
// a native module share memory instead: package kv/mem has the same interfaces on top of atomics.
package kv

import (
	"errors"
	"math"
)

var (
	// ErrNotFound is what Get returns for a key that was never set. Keys are never deleted.
	ErrNotFound = errors.New("kv: no such key")
	// ErrMismatch is what Set returns when the key's value changed since it was read.
	ErrMismatch = errors.New("kv: the value changed meanwhile")
	// ErrBusy is what a bounded compare-and-swap loop returns when others won every round. The caller's state is kept, the next call
	// tries again.
	ErrBusy = errors.New("kv: others kept changing the value")
)

// Create is the cas for a Set that must not replace anything: it stores the value if the key is absent and is an ErrMismatch if it is
// there. A store hands out cas numbers upwards from 1 and so never hands out this one in practice.
const Create uint32 = math.MaxUint32

// Store is the small key-value space shared by the workers of one Envoy. Its semantics are those of Envoy's real shared data
// (proxy-wasm-cpp-host, src/shared_data.cc), which some emulators get wrong; package kvtest checks them:
//
//   - Set with cas 0 writes unconditionally;
//   - Set with another cas writes if the key is absent (see [Create]) or if the value's cas is that very number, else it is an ErrMismatch;
//   - every successful Set gives the value a new cas that is not 0, also when the bytes are the same.
//
// Set copies the value. The bytes that Get returns belong to the store: read them before the next call, do not write to them.
type Store interface {
	// Get returns the value and its cas, or ErrNotFound.
	Get(key string) (value []byte, cas uint32, err error)
	// Set stores the value, or returns ErrMismatch.
	Set(key string, value []byte, cas uint32) error
}

// Counter is an int64 shared by the workers of one Envoy, such as the requests in flight on a replica. Add is exact and seen at once by
// the worker that calls it; the other workers see it within one tick of each.
type Counter interface {
	Add(delta int64)
	Value() int64
}

// Counters opens counters by name: the same name is the same counter, in every worker. Open never returns nil. A counter stays for good,
// so names come from what the operator runs (addresses of replicas) and never from what a client sends.
type Counters interface {
	Open(name string) Counter
}

// casRounds bounds every read-change-write loop: a worker must not spin while its requests wait. With 16 workers that write in the same
// instant one of them loses at most 15 times.
const casRounds = 16

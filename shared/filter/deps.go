package filter

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/kv"
)

// Deps is the outside world of a filter. The adapter fills it in, so that the
// same policy runs in a wasm VM, in a native module and in a test.
type Deps struct {
	// Now is the clock.
	Now func() time.Time
	// Rand returns 64 uniform random bits.
	Rand func() uint64
	// Store is the key-value space that the workers of this Envoy share.
	Store kv.Store
	// Counters are shared by the workers of this Envoy.
	Counters kv.Counters
	// Snapshot returns the newest picture of the replicas, nil before the
	// first. It is immutable; ask once per decision.
	Snapshot func() *endpoint.Snapshot
	// ClaimHeader says that a request header is set by this filter alone: a
	// client's own is removed like every control header. Only while a filter is
	// being made.
	ClaimHeader func(name string)
	// Metrics defines metrics; only while a filter is being made.
	Metrics Metrics
	// Log writes one line to Envoy's log. No prompts, no keys.
	Log func(level Level, message string)
}

// Level is a log level.
type Level uint8

// Log levels, as Envoy names them.
const (
	Debug Level = iota
	Info
	Warn
	Error
	Critical
)

package filter

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
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
	// Routes are the models and pools of the filter that decides on them, which stands before; nil if there is none, or it does not know. Only
	// while a filter is being made.
	Routes *Routes
	// Watch sets what is called each time that there is a new Snapshot, by one thread
	// at a time. Nil where OnTick comes soon enough.
	Watch func(see func())
	// Metrics defines metrics; only while a filter is being made.
	Metrics Metrics
	// Keep returns what is kept in memory under a name, made by create the first
	// time. It outlives the configuration. In a native module it belongs to the
	// process, whose threads use it at once: NewMutex. In a wasm VM, which has one
	// thread, it belongs to the VM. Nil keeps nothing beyond the filter.
	Keep func(name string, create func() any) any
	// NewMutex makes a lock for what Keep keeps. Nil where there is one thread.
	NewMutex func() Mutex
	// Worker is the unique id of this worker where each worker keeps its own, and
	// tells the others through Store; "" where all share what Keep keeps.
	Worker string
	// Peers are the other proxies; nil where there is no way to them.
	Peers Peers
	// Companion is the way to the companion itself; nil where no companion is configured.
	// Only while a filter is being made.
	Companion *Link
	// PassedOver reports whether Envoy has passed over an address of a ranked list
	// since then, because it knew that endpoint as unhealthy. Nil where that is not
	// told: only the module's own load-balancing policy does.
	PassedOver func(address string, since time.Time) bool
	// Log writes one line to Envoy's log. No prompts, no keys.
	Log func(level Level, message string)
}

// Routes are what a chain routes to.
type Routes struct {
	// Models has the public name of a model for each name that a client may call it by.
	Models map[string]string
	// Learned: there may be more of them.
	Learned bool
	// Pools are all that there are.
	Pools []string
}

// Peers brings notes of what this proxy learns about prompts to the other proxies,
// by way of the companion, and back. Notes are in the form of endpoint.AppendNote.
// That they arrive is likely, not certain.
type Peers interface {
	// Tell has the others told. It keeps a copy, never waits, and may be called by
	// any thread.
	Tell(notes []byte)
	// Hear sets who learns from the others: it is called with notes that belong to
	// the caller, after the snapshot that came with them is there, and by one thread
	// at a time.
	Hear(learn func(notes []byte))
}

// Mutex excludes other threads, as sync.Mutex does.
type Mutex interface {
	Lock()
	Unlock()
}

// Kept is Keep, or create if there is none.
func (d *Deps) Kept(name string, create func() any) any {
	if d.Keep == nil {
		return create()
	}
	return d.Keep(name, create)
}

// Mutex is NewMutex, or a lock that does nothing if there is one thread.
func (d *Deps) Mutex() Mutex {
	if d.NewMutex == nil {
		return oneThread{}
	}
	return d.NewMutex()
}

type oneThread struct{}

func (oneThread) Lock()   {}
func (oneThread) Unlock() {}

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

package account

import "time"

// The times of leases. A proxy is taken for dead, and what it holds is given to others, when nothing was heard from it for Lease. It does not trust
// its own grants for longer than half of that after it sent the last message that was replied to; and while it has any, it says something every Renew.
const (
	Lease = 3 * time.Second
	Renew = 500 * time.Millisecond
)

// Allocator divides limits among proxies. It is the arithmetic alone: no clock, no lock, no storage.
type Allocator struct {
	Generation uint32
	// SettledAt is when it may grant: Lease/2 after a start without the grants of the one before, so that all of these have run out.
	SettledAt time.Time
	Accounts  map[string]*Allocation // by name
	Seen      map[string]int64       // proxies: when each was last heard from, ms
}

// Allocation is one account at the allocator.
type Allocation struct {
	Window     string // Window.Append
	Start, End int64  // ms
	Limit      int64  // as last said by a proxy
	Credit     int64  // on top of the limit, by an administrator; ends with the window
	Leases     map[string]*Share
}

// Share is what one proxy has of an Allocation. All numbers only grow within a window.
type Share struct {
	Granted, Released, Used, Back int64
	// Known is the part of Used that is counted elsewhere already.
	Known int64
}

// NewAllocator returns an allocator without accounts. The generation is a random number that is not 0; one that was restored from a journal keeps its own.
func NewAllocator(generation uint32, settledAt time.Time) *Allocator {
	return &Allocator{Generation: generation, SettledAt: settledAt, Accounts: map[string]*Allocation{}, Seen: map[string]int64{}}
}

// Answer merges a message and returns the reply. The accounts that changed are those that the message names.
func (a *Allocator) Answer(now time.Time, m *Message) Reply { return Reply{} }

// UsedUp is what all proxies together have used in the account's window.
func (a *Allocation) UsedUp() int64 { return 0 }

package quota

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// Bounds of what proxies can make the companion keep.
const (
	maxProxies  = 1024    // that have something in any account
	maxAccounts = 200_000 // in memory
)

// Store keeps the counters and the directory. Its methods are safe for concurrent use.
type Store interface {
	// Exchange merges a proxy's message and returns the reply, after what it grants is saved. Accounts that cannot be kept are not
	// in the reply; one that a request waits for and that does not fit is an error, as is a proxy too many.
	Exchange(ctx context.Context, m *account.Message) (account.Reply, error)
	// Counters returns up to limit accounts whose names contain the text, by name, and how many there are in all.
	Counters(ctx context.Context, contains string, limit int) (list []Counter, all int, err error)
	// Credit adds to an account's limit until its window ends: amount; or, if reset is set, exactly what is used, in place of earlier amounts.
	Credit(ctx context.Context, name string, amount int64, reset bool) (Counter, error)
	// Directory returns the directory as it was last saved, nil if there is none.
	Directory(ctx context.Context) ([]byte, error)
	// SetDirectory saves the directory that takes the place of before, durably. The error is errChanged if it is no longer before.
	SetDirectory(ctx context.Context, before, document []byte) error
	// Stats returns the present counts.
	Stats() StoreStats
	Close() error
}

var (
	errUnknownAccount = errors.New("there is no account with this name; one is made by the first request that it counts")
	errChanged        = errors.New("the directory was changed by somebody else meanwhile")
	errBusy           = errors.New("too many messages wait for Redis")
	errTooMany        = fmt.Errorf("the companion keeps counters of at most %d proxies, and there are that many", maxProxies)
	errFull           = errors.New("the companion is full: the counter of another account does not fit")
)

// Counter is an account as people see it.
type Counter struct {
	Name      string     `json:"name"`
	Window    string     `json:"window,omitempty"`
	Start     *time.Time `json:"start,omitempty"`
	End       *time.Time `json:"end,omitempty"`
	Limit     int64      `json:"limit"`
	Credit    int64      `json:"credit,omitempty"` // granted by an administrator on top of the limit, until the window ends
	Used      int64      `json:"used"`
	Reserved  int64      `json:"reserved"` // granted to proxies, and not used yet
	Remaining int64      `json:"remaining"`
	Proxies   int        `json:"proxies"` // that have a part of it
}

// StoreStats is what a store counts.
type StoreStats struct {
	Accounts, Proxies int
	Overflow          uint64 // accounts that could not be kept: there were too many
	Resets            uint64 // the store lost what it had, or went back to an older state
	ClockSteps        uint64 // the clock was set back
	Journal           *JournalStats
	Redis             *RedisStats
}

// counterOf describes an allocation.
func counterOf(name string, a *account.Allocation) Counter {
	c := Counter{Name: name, Window: a.Period, Limit: a.Limit, Credit: a.Credit, Used: a.UsedUp(), Proxies: len(a.Shares)}
	if a.End > 0 {
		start, end := time.UnixMilli(a.Start).UTC(), time.UnixMilli(a.End).UTC()
		c.Start, c.End = &start, &end
	}
	for _, s := range a.Shares {
		c.Reserved += max(0, s.Granted-s.Released-s.Used+s.Back)
	}
	c.Remaining = max(0, c.Limit+c.Credit-c.Used-c.Reserved)
	return c
}

// RedisStats is what the store in Redis counts.
type RedisStats struct {
	Calls, Errors uint64
	Took          time.Duration // of all calls
	Up            bool          // the last call succeeded
}

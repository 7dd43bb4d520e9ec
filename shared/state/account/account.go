package account

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// Key identifies an account by a hash of its name. It is the same in every process.
type Key struct{ Hi, Lo uint64 }

// MaxName is the longest name of an account in bytes. Demands with a longer one share the overflow account of their limit.
const MaxName = 255

// Demand is what one request wants of one account. The caller fills in the exported fields and hands the same Demand to Take and then to Settle or
// Refund: the table remembers in it what it took. To use the memory again for another request, assign a new value.
//
// What makes two accounts different belongs in the name: the limit's own name, what it counts, its window, and the values of its dimensions. What
// comes before the second slash is the limit's; all its accounts begin with that, and share one overflow account.
// The Limit does not: if that changes, what is used stays used.
type Demand struct {
	Key    Key
	Name   []byte // readable and printable ASCII, see AppendValue: "trial/total-tokens:1m/app=a". The table copies it when the account is new.
	Limit  int64  // 0 admits nothing
	Window Window
	Spike  bool  // equal spacing: Limit per Window, with no burst (GCRA)
	Amount int64 // to be reserved. 0 reserves nothing, and is refused where nothing is left
	Count  bool  // the Amount is used at once (a request), and not held until Settle
	Shared bool  // the capacity is what the companion granted to this proxy
	Open   bool  // of a Shared demand: while the companion is unreachable this proxy's share of the limit is admitted, instead of nothing

	// Set by the table.
	held  hold
	asked int64 // announced to the companion, and not yet taken
}

// hold is what was taken for a demand.
type hold struct {
	key    Key   // of the account: an overflow account has another key than the demand
	slot   int   // of the record that it is in (Shared)
	window int64 // bucket.name
	until  int64 // names the group of the account's holds; of a Spike, the end of its slot in ns
	amount int64
	open   bool   // to be settled or refunded
	lost   uint64 // digest of a record that was written or not: see Shared.change
}

// Outcome is what a table said to the demands of one request.
type Outcome uint8

const (
	// Admitted took from all accounts.
	Admitted Outcome = iota
	// Refused took from none: a limit is reached. Wait says when to come again.
	Refused
	// TooLarge took from none: an Amount is larger than its whole limit, so that waiting is useless.
	TooLarge
	// Dry took from none: the companion may have more. Send what Ask says, give the response to Heard, and Take again.
	Dry
	// Unreachable took from none: a Shared demand that is not Open, and the companion does not respond.
	Unreachable
	// Busy took from none: other workers won every round. The store works; the same request may succeed at once.
	Busy
	// Full took from none: the table and its overflow accounts are full.
	Full
	// Failed took from none: the store failed.
	Failed
)

// Result is the outcome of Take.
type Result struct {
	Outcome Outcome
	// At is the index of the demand that binds: the one with the longest wait if Refused, the one with the smallest part of its limit left
	// if Admitted, the first one that stands in the way otherwise. -1 without demands.
	At int
	// Wait is how long until At admits the same amount, if nobody else takes it. Only if Refused.
	Wait time.Duration
	// Held says that what stands in the way are open requests of others, not what is used up: it may be over sooner than any window. Wait is
	// then a guess of a second, or less.
	Held bool
	// Local says of what was Admitted that the companion did not respond: the proxy's share of the limit counted.
	Local bool
}

// Standing is how an account stands.
type Standing struct {
	Limit, Used, Held int64
	Remaining         int64         // not below 0
	Reset             time.Duration // until the window ends, or the next unit is due (Spike)
}

// Counts are numbers of a table for metrics. They only grow, apart from Accounts.
type Counts struct {
	Accounts int64 // that are in memory; 0 for a Shared table, which does not know
	Overflow int64 // demands that had to share an overflow account
	Full     int64 // requests that found no account at all
	Busy     int64 // requests and settlements given up since other workers won every round
}

// Table is a set of accounts. A demand's account is made when it is first named.
//
// The time given is the proxy's clock. It may step back: an account then stays where it was.
type Table interface {
	// Take takes from all accounts, or from none. What is not settled within hold is given back by itself; the account may keep it for a
	// quarter longer. Demands name different accounts.
	Take(now time.Time, d []Demand, hold time.Duration) Result
	// Settle replaces each reservation by what was really used, which may be more. It takes effect once, however often it is called, also if
	// only some of the accounts could be written the time before, which is the error. The table writes the others at the next call, a tick or
	// a request: so what was used is not forgotten when its reservation expires. If another call fails as well, too many wait for that. Demands that were not taken are passed over. A reservation
	// of a window that is over is dropped. For concurrency and for Count the number is not used: an open request ends, a request stays counted.
	Settle(now time.Time, d []Demand, used []int64) error
	// Refund gives everything back, Count too, as if the request had never been. It also ends a request that waits for the companion. Once, like
	// Settle. Of a Spike only the newest unit comes back: older ones would let several requests pass at one moment.
	Refund(now time.Time, d []Demand) error
	// Standing is how the demand's account stands, for headers. An account that does not exist has its whole limit.
	Standing(now time.Time, d *Demand) Standing
	// Counts returns numbers for metrics.
	Counts() Counts

	// Report appends a message to the companion with up to max accounts that have something to say, and first releases what this proxy
	// needs no longer. It returns nil if there is nothing to say. Called at each tick; the message is sent at once or not at all, and a lost one
	// is made up for by later ones. document is the version of the keys that the filter has.
	Report(now time.Time, document int64, dst []byte, max int) []byte
	// Ask appends the message for demands that were Dry. They are then counted among those that wait, until Take, Settle or Refund.
	Ask(now time.Time, document int64, dst []byte, d []Demand) []byte
	// Heard applies the companion's response to a Report or an Ask. An old or repeated one does no harm.
	Heard(now time.Time, response []byte) error
	// Silence notes that a message got no response: until the next one is heard, nobody waits for the companion.
	Silence(now time.Time)
}

// Locker is a lock, as sync.Mutex is one and as filter.Deps makes them.
type Locker interface {
	Lock()
	Unlock()
}

// Options are what a table needs to know.
type Options struct {
	// Accounts bounds how many accounts a table keeps. Accounts in use are never given up for others: what comes on top shares overflow
	// accounts.
	Accounts int
	// Rand returns 64 uniform random bits, for this proxy's id and for where accounts are in a store.
	Rand func() uint64
}

var (
	_ Table = (*Memory)(nil)
	_ Table = (*Shared)(nil)
)

// NewMemory returns a table in memory, for one process. Its methods hold the lock, for a microsecond or so, and do not allocate for an account
// that is known. It outlives configurations: keep it with filter.Deps.Keep.
func NewMemory(o Options, mu Locker) *Memory { return newMemory(o, mu) }

// NewShared returns one worker's view of a table over a store that the workers share. Keys of a store are never deleted, so accounts live in a fixed number of
// records, each named prefix and a number. A Shared belongs to one thread.
func NewShared(o Options, store kv.Store, prefix string) *Shared { return newShared(o, store, prefix) }

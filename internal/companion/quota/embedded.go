package quota

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/quota/journal"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// JournalStats is what the journal counts.
type JournalStats = journal.Stats

// longWindow is the length from which grants are on the disk before a proxy gets them. What is lost of a shorter window when the machine dies
// is over before it is back, or within a minute; that the process dies loses nothing of it either.
const longWindow = time.Minute

// embedded is the Store of a companion that is alone: in memory, and in a journal if it has one.
type embedded struct {
	now     func() time.Time
	log     *slog.Logger
	journal *journal.Journal // nil: in memory only
	most    int              // accounts

	mu        sync.Mutex
	alloc     *account.Allocator
	directory []byte
	swept     time.Time
	latest    time.Time          // by the clock, which may be set back
	dirty     map[shareID]bool   // changed since they were journaled
	stats     StoreStats         // what it counts itself
	stop      context.CancelFunc // of the housekeeping
	done      chan struct{}
}

// shareID names a proxy's part of an account.
type shareID struct{ account, proxy string }

// EmbeddedOptions are how a store without Redis is opened.
type EmbeddedOptions struct {
	Dir string // of the journal; "" for none
	Log *slog.Logger
	Now func() time.Time // time.Now
	FS  journal.FS       // of the operating system
	// Tick is how often what changed is journaled that need not be at once; 100 ms.
	Tick time.Duration
	// MinLog and Retry are the journal's.
	MinLog int64
	Retry  time.Duration

	maxAccounts int // of tests
}

// OpenEmbedded opens a store that counts in this process.
func OpenEmbedded(o EmbeddedOptions) (Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tick <= 0 {
		o.Tick = 100 * time.Millisecond
	}
	if o.maxAccounts == 0 {
		o.maxAccounts = maxAccounts
	}
	e := &embedded{now: o.Now, log: o.Log, most: o.maxAccounts, dirty: map[shareID]bool{}, done: make(chan struct{})}
	e.alloc = account.NewAllocator(0, time.Time{}, true)
	if o.Dir != "" {
		// Until Open has returned nothing else uses e, apart from a snapshot, which waits.
		e.mu.Lock()
		var err error
		e.journal, err = journal.Open(journal.Options{
			Dir: o.Dir, Load: e.load, Snapshot: e.snapshot, FS: o.FS, Log: o.Log, MinLog: o.MinLog, Retry: o.Retry,
		})
		e.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	e.begin()
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	go e.keepHouse(ctx, o.Tick)
	return e, nil
}

// begin goes on where the companion before ended, if that ended in order. If not, what it said last may be missing, and a machine that died
// may have lost the latest grants of short windows: with another generation all proxies say again what they have, and nothing is granted until
// they have.
func (e *embedded) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	generation := e.alloc.Generation
	clean := e.journal != nil && e.journal.Clean()
	for generation == 0 || !clean && generation == e.alloc.Generation {
		generation = rand.Uint32()
	}
	accounts := e.alloc.Accounts
	e.alloc = account.NewAllocator(generation, e.tick(), clean)
	e.alloc.Accounts = accounts
	for _, a := range accounts {
		for proxy := range a.Shares {
			e.alloc.Seen[proxy] = e.alloc.Started.UnixMilli() // it is given the time of a lease to come back
		}
	}
	e.append(record{Generation: generation}, false)
}

// tick returns the time, which does not go back when the clock is set back a little.
func (e *embedded) tick() time.Time {
	now := e.now()
	switch back := e.latest.Sub(now); {
	case back <= 0:
		e.latest = now
	case back > time.Minute:
		// It was in the future before. Windows that have begun there stay until they end.
		e.stats.ClockSteps++
		e.log.Warn("the clock was set back", "by", back.Round(time.Second))
		e.latest = now
	}
	return e.latest
}

// record is one line of the journal: the generation, the directory, or a part of an account.
type record struct {
	Generation uint32          `json:"generation,omitempty"`
	Directory  json.RawMessage `json:"directory,omitempty"`

	Account string `json:"k,omitempty"`
	Window  string `json:"w,omitempty"`
	Start   int64  `json:"s,omitempty"`
	End     int64  `json:"e,omitempty"`
	Limit   int64  `json:"l,omitempty"`
	Credit  int64  `json:"c,omitempty"`
	Folded  int64  `json:"f,omitempty"`

	// Either the part of one proxy, or those of all.
	Proxy  string                    `json:"p,omitempty"`
	Share  *account.Share            `json:"v,omitempty"`
	Shares map[string]*account.Share `json:"all,omitempty"`
}

func (r *record) encode() []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // there is nothing in it that has no JSON
	}
	return text
}

// append journals a record.
func (e *embedded) append(r record, durable bool) *journal.Group {
	if e.journal == nil {
		return nil
	}
	return e.journal.Append(r.encode(), durable)
}

// load takes a record from the journal.
func (e *embedded) load(text []byte) error {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	switch {
	case r.Generation != 0:
		e.alloc.Generation = r.Generation
	case r.Directory != nil:
		e.directory = bytes.Clone(r.Directory)
	case r.Account != "":
		e.loadShare(&r)
	}
	return nil
}

func (e *embedded) loadShare(r *record) {
	a := e.alloc.Accounts[r.Account]
	switch {
	case a == nil || a.Start < r.Start || a.Period != r.Window:
		a = &account.Allocation{Shares: map[string]*account.Share{}}
		e.alloc.Accounts[r.Account] = a
	case a.Start > r.Start:
		return // of a window that is over
	}
	a.Period, a.Start, a.End, a.Limit, a.Credit, a.Folded = r.Window, r.Start, r.End, r.Limit, r.Credit, r.Folded
	if r.Shares != nil {
		a.Shares = r.Shares
	}
	if r.Share != nil {
		a.Shares[r.Proxy] = r.Share
	}
}

// snapshot passes on everything that there is, for the journal.
func (e *embedded) snapshot(emit func([]byte) error) error {
	e.mu.Lock()
	names := slices.Collect(maps.Keys(e.alloc.Accounts))
	first := record{Generation: e.alloc.Generation}
	text := first.encode()
	if e.directory != nil {
		r := record{Directory: e.directory}
		err := errors.Join(emit(text), emit(r.encode()))
		if err != nil {
			e.mu.Unlock()
			return err
		}
		text = nil
	}
	e.mu.Unlock()
	if text != nil {
		if err := emit(text); err != nil {
			return err
		}
	}
	// The lock is held for a hundred accounts at a time: proxies wait.
	for some := range slices.Chunk(names, 100) {
		var lines [][]byte
		e.mu.Lock()
		for _, name := range some {
			if a := e.alloc.Accounts[name]; a != nil {
				r := wholeRecord(name, a)
				lines = append(lines, r.encode())
			}
		}
		e.mu.Unlock()
		for _, line := range lines {
			if err := emit(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// recordOf is the record of an account, with the part of a proxy if there is one.
func recordOf(name string, a *account.Allocation, proxy string) record {
	r := record{Account: name, Window: a.Period, Start: a.Start, End: a.End, Limit: a.Limit, Credit: a.Credit, Folded: a.Folded}
	if share := a.Shares[proxy]; share != nil {
		r.Proxy, r.Share = proxy, share
	}
	return r
}

// wholeRecord is the record of an account with the parts of all proxies.
func wholeRecord(name string, a *account.Allocation) record {
	r := recordOf(name, a, "")
	r.Shares = a.Shares
	return r
}

// Exchange implements Store.
func (e *embedded) Exchange(_ context.Context, m *account.Message) (account.Reply, error) {
	e.mu.Lock()
	now := e.tick()
	if err := e.admit(now, m); err != nil {
		e.mu.Unlock()
		return account.Reply{}, err
	}
	before := make([]past, len(m.Accounts))
	for i := range m.Accounts {
		before[i] = e.past(m.Accounts[i].Name, m.Proxy)
	}
	reply := e.alloc.Answer(now, m)
	var saved *journal.Group
	durable := false
	for i := range m.Accounts {
		g, long := e.save(m.Accounts[i].Name, m.Proxy, before[i])
		if g != nil {
			saved, durable = g, durable || long
		}
	}
	e.mu.Unlock()
	if saved != nil {
		// That the disk fails is said in the log and in the metrics; requests go on.
		if durable {
			_ = saved.Synced()
		} else {
			_ = saved.Written()
		}
	}
	return reply, nil
}

// past is how an account was before a message.
type past struct {
	start, folded int64
	share         account.Share
}

func (e *embedded) past(name, proxy string) (p past) {
	if a := e.alloc.Accounts[name]; a != nil {
		p.start, p.folded = a.Start, a.Folded
		if s := a.Shares[proxy]; s != nil {
			p.share = *s
		}
	}
	return p
}

// save journals what a message changed. It returns what the reply has to wait for, nil for nothing, and whether that has to be on the disk.
func (e *embedded) save(name, proxy string, before past) (saved *journal.Group, long bool) {
	a := e.alloc.Accounts[name]
	if e.journal == nil || a == nil || a.Shares[proxy] == nil {
		return nil, false
	}
	s := a.Shares[proxy]
	id := shareID{name, proxy}
	switch {
	case a.Start == before.start && a.Folded == before.folded && *s == before.share:
		return nil, false
	case a.Start == before.start && a.Folded == before.folded && s.Granted <= before.share.Granted:
		e.dirty[id] = true
		return nil, false
	}
	delete(e.dirty, id)
	r := recordOf(name, a, proxy)
	if a.Folded != before.folded {
		r = wholeRecord(name, a) // what was added up is in no other part any more
	}
	long = a.End == 0 || time.Duration(a.End-a.Start)*time.Millisecond > longWindow
	return e.append(r, long), long
}

// admit keeps a message within the bounds. A request that waits for an account that does not fit gets an error, as when the store fails: the
// proxy must not take it for one that is over its limit. What else is said of such an account is dropped; the proxy says it again.
func (e *embedded) admit(now time.Time, m *account.Message) error {
	if _, ok := e.alloc.Seen[m.Proxy]; !ok && len(e.alloc.Seen) >= maxProxies {
		if e.sweep(now); len(e.alloc.Seen) >= maxProxies {
			return errTooMany
		}
	}
	if len(e.alloc.Accounts)+len(m.Accounts) <= e.most {
		return nil
	}
	e.sweep(now)
	room, waits := e.most-len(e.alloc.Accounts), false
	m.Accounts = slices.DeleteFunc(m.Accounts, func(entry account.Entry) bool {
		if e.alloc.Accounts[entry.Name] != nil {
			return false
		}
		if room--; room >= 0 {
			return false
		}
		e.stats.Overflow++
		waits = waits || entry.Need > 0
		return true
	})
	if waits {
		return errFull
	}
	return nil
}

// idleProxies is how many leases a proxy is silent before it is forgotten where there is no window to remember it for.
const idleProxies = 10

// sweep forgets windows that are over, and proxies that have nothing any more, where there are too many. The allocator does so too, once a minute.
func (e *embedded) sweep(now time.Time) {
	if since := now.Sub(e.swept); since >= 0 && since < time.Second {
		return // it looks at every account
	}
	e.swept = now
	used := make(map[string]bool, len(e.alloc.Seen))
	long := now.Add(-idleProxies * account.Lease).UnixMilli()
	for name, a := range e.alloc.Accounts {
		if a.End == 0 {
			maps.DeleteFunc(a.Shares, func(proxy string, _ *account.Share) bool { return e.alloc.Seen[proxy] < long })
		}
		if a.End > 0 && a.End+account.Lease.Milliseconds() < now.UnixMilli() || len(a.Shares) == 0 && a.Credit == 0 {
			delete(e.alloc.Accounts, name)
			continue
		}
		for proxy := range a.Shares {
			used[proxy] = true
		}
	}
	maps.DeleteFunc(e.alloc.Seen, func(proxy string, seen int64) bool { return !used[proxy] && seen < long })
}

// keepHouse journals what changed.
func (e *embedded) keepHouse(ctx context.Context, every time.Duration) {
	defer close(e.done)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		e.mu.Lock()
		e.flush()
		e.mu.Unlock()
	}
}

// flush journals what changed without having to be saved at once.
func (e *embedded) flush() {
	for id := range e.dirty {
		if a := e.alloc.Accounts[id.account]; a != nil && a.Shares[id.proxy] != nil {
			e.append(recordOf(id.account, a, id.proxy), false)
		}
	}
	clear(e.dirty)
}

// Counters implements Store.
func (e *embedded) Counters(_ context.Context, contains string, limit int) (list []Counter, all int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.tick().UnixMilli()
	for _, name := range slices.Sorted(maps.Keys(e.alloc.Accounts)) {
		a := e.alloc.Accounts[name]
		if !strings.Contains(name, contains) || a.End > 0 && a.End <= now {
			continue
		}
		if all++; all <= limit {
			list = append(list, counterOf(name, a))
		}
	}
	return list, all, nil
}

// Credit implements Store.
func (e *embedded) Credit(_ context.Context, name string, amount int64, reset bool) (Counter, error) {
	e.mu.Lock()
	a := e.alloc.Accounts[name]
	if a == nil || a.End > 0 && a.End <= e.tick().UnixMilli() {
		e.mu.Unlock()
		return Counter{}, errUnknownAccount
	}
	before := a.Credit
	if reset {
		a.Reset()
	} else {
		a.Allow(amount)
	}
	saved := e.append(recordOf(name, a, ""), true)
	counter := counterOf(name, a)
	e.mu.Unlock()
	if saved != nil {
		if err := saved.Synced(); err != nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			a.Credit = before
			return Counter{}, err
		}
	}
	return counter, nil
}

// Directory implements Store.
func (e *embedded) Directory(context.Context) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.directory, nil
}

// SetDirectory implements Store.
func (e *embedded) SetDirectory(_ context.Context, before, document []byte) error {
	e.mu.Lock()
	if !bytes.Equal(before, e.directory) {
		e.mu.Unlock()
		return errChanged
	}
	e.directory = document
	saved := e.append(record{Directory: document}, true)
	e.mu.Unlock()
	if saved == nil {
		return nil
	}
	err := saved.Synced()
	if err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if bytes.Equal(e.directory, document) {
			e.directory = before
		}
	}
	return err
}

// Stats implements Store.
func (e *embedded) Stats() StoreStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Accounts, s.Proxies = len(e.alloc.Accounts), len(e.alloc.Seen)
	if e.journal != nil {
		j := e.journal.Stats()
		s.Journal = &j
	}
	return s
}

// Close implements Store.
func (e *embedded) Close() error {
	e.stop()
	<-e.done
	if e.journal == nil {
		return nil
	}
	e.mu.Lock()
	e.flush()
	e.mu.Unlock()
	return e.journal.Close()
}

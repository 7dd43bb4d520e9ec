package account

import "time"

// The times of leases. A proxy is taken for dead, and what it holds and has not used is given to others, when nothing was heard from it for Lease. It does
// not trust its own grants for longer than half of that after it sent the last message that was replied to; and while it has any, it says something
// every Renew.
const (
	Lease = 3 * time.Second
	Renew = 500 * time.Millisecond
)

// Allocator divides limits among proxies. It is the arithmetic alone: no clock, no lock, no storage.
type Allocator struct {
	// Generation is a random number that is not 0. A restarted allocator keeps it if it remembers everything that it ever replied; then
	// proxies go on as if nothing had been.
	Generation uint32
	Started    time.Time
	// Settled is when it grants for the first time. One that does not remember what was granted before waits until that is used up or
	// trusted no longer: for Lease/2 after it started.
	Settled  time.Time
	Accounts map[string]*Allocation // by name
	Seen     map[string]int64       // proxies: when each was last heard from, ms
	pruned   int64
}

// Allocation is one account at the allocator.
type Allocation struct {
	Period     string // Window.Append
	Start, End int64  // ms; End is 0 without windows
	Limit      int64  // as last said by a proxy
	Credit     int64  // on top of the limit, by an administrator; ends with the window
	Folded     int64  // used by proxies that are long gone
	Shares     map[string]*Share

	window Window // read from Period
	read   string // the text that it was read from
}

// Share is what one proxy has of an Allocation. All numbers only grow within a window.
type Share struct {
	// Window names the proxy's window, to which the numbers belong: see Entry. 0 until it has used something.
	Window                        int64
	Granted, Released, Used, Back int64
	// Seq is the number of the last message that could be granted something.
	Seq int64
	// Known is the part of Used that Folded has already.
	Known int64
}

// NewAllocator returns an allocator without accounts that starts now. remembers says that all that was ever granted is known: it is put into
// Accounts, or it is nothing.
func NewAllocator(generation uint32, now time.Time, remembers bool) *Allocator {
	a := &Allocator{Generation: generation, Started: now, Settled: now, Accounts: map[string]*Allocation{}, Seen: map[string]int64{}}
	if !remembers {
		a.Settled = now.Add(Lease / 2)
	}
	return a
}

// Answer merges a message and returns the reply. The accounts that changed are those that the reply names: what is said may have been
// forgotten by a crash unless these are stored first. An entry whose window cannot be read has no answer.
func (a *Allocator) Answer(now time.Time, m *Message) Reply {
	ms := now.UnixMilli()
	a.prune(ms)
	a.Seen[m.Proxy] = max(ms, a.Seen[m.Proxy])
	r := Reply{Generation: a.Generation, Time: m.Time, Now: ms, Proxies: a.alive(ms), Settling: now.Before(a.Settled)}
	for i := range m.Accounts {
		e := &m.Accounts[i]
		al := a.Accounts[e.Name]
		if al == nil {
			al = &Allocation{Shares: map[string]*Share{}}
		}
		if !al.open(now, e) {
			continue
		}
		a.Accounts[e.Name] = al
		al.fold(func(proxy string) bool { return ms-a.seen(proxy) > foldAfter })
		al.revoke(func(proxy string) bool { return ms-a.seen(proxy) > Lease.Milliseconds() })
		r.Accounts = append(r.Accounts, al.answer(m.Proxy, e, m.Generation == a.Generation, r.Settling, int64(r.Proxies)))
	}
	return r
}

// seen is when a proxy was last heard from. One of before this start may have been heard from until then.
func (a *Allocator) seen(proxy string) int64 { return max(a.Seen[proxy], a.Started.UnixMilli()) }

func (a *Allocator) alive(now int64) (n int) {
	for _, seen := range a.Seen {
		if now-seen <= Lease.Milliseconds() {
			n++
		}
	}
	return n
}

// foldAfter is how long a proxy must be silent before it can be forgotten, in ms.
const foldAfter = int64(time.Hour / time.Millisecond)

// prune forgets proxies, and accounts whose window is long over, once a minute.
func (a *Allocator) prune(now int64) {
	if now-a.pruned < 60_000 {
		return
	}
	a.pruned = now
	for proxy, seen := range a.Seen {
		if now-seen > 2*foldAfter {
			delete(a.Seen, proxy)
		}
	}
	for name, al := range a.Accounts {
		over := al.End != 0 && now-al.End > 60_000
		if over || al.End == 0 && a.unused(al, now) {
			delete(a.Accounts, name)
		}
	}
}

// unused reports whether nobody who may come back has anything of an account.
func (a *Allocator) unused(al *Allocation, now int64) bool {
	for proxy, s := range al.Shares {
		if s.committed() != 0 || now-a.seen(proxy) <= foldAfter {
			return false
		}
	}
	return true
}

// open makes the window that now is in the account's. It reports whether there is one.
func (al *Allocation) open(now time.Time, e *Entry) bool {
	if al.read != e.Period || al.read == "" {
		w, err := ParseWindow(e.Period)
		if err != nil {
			return false
		}
		al.window, al.read, al.Period = w, e.Period, e.Period
	}
	al.Limit = e.Limit
	ms := now.UnixMilli()
	if al.window.Unit == None || ms < al.End && !al.opensEarly(ms, al.End, e) {
		return true
	}
	if al.window.Flexi && al.resumes(ms, e) {
		now = time.UnixMilli(e.Start)
	}
	start, end := al.window.Bounds(now)
	if al.opensEarly(ms, end.UnixMilli(), e) {
		start, end = al.window.Bounds(end)
	}
	*al = Allocation{Period: al.Period, Start: start.UnixMilli(), End: end.UnixMilli(), Limit: al.Limit, Shares: map[string]*Share{}, window: al.window, read: al.read}
	return true
}

// opensEarly reports whether a proxy whose clock is a little fast is in the next window already, after end. It then begins for all: no request has to wait.
func (al *Allocation) opensEarly(now, end int64, e *Entry) bool {
	return !al.window.Flexi && e.Start == end && end-now <= min(early, al.window.length().Milliseconds()/20)
}

// resumes reports whether a proxy is in a Flexi window that this allocator has forgotten.
func (al *Allocation) resumes(now int64, e *Entry) bool {
	if e.Used == 0 && e.Granted == 0 || e.Start < al.End || e.Start > now+early {
		return false
	}
	_, end := al.window.Bounds(time.UnixMilli(e.Start))
	return end.UnixMilli() > now
}

// mostShares is for how many proxies an account has numbers before those that are long gone are added up.
const mostShares = 64

// fold adds up what proxies have used that are long gone. Should one of them come back, its message says what was confirmed to it.
func (al *Allocation) fold(gone func(proxy string) bool) {
	if len(al.Shares) <= mostShares {
		return
	}
	for proxy, s := range al.Shares {
		if gone(proxy) {
			al.Folded += s.net()
			delete(al.Shares, proxy)
		}
	}
}

// revoke takes from dead proxies what they have not used.
func (al *Allocation) revoke(dead func(proxy string) bool) {
	for proxy, s := range al.Shares {
		if used := max(s.Used-s.Back, 0); s.capacity() > used && dead(proxy) {
			s.Released = s.Granted - used
		}
	}
}

// net is what the proxy has used, apart from what is Folded.
func (s *Share) net() int64 { return max(s.Used-s.Back-s.Known, 0) }

// committed is what others cannot have.
func (s *Share) committed() int64 { return max(s.Granted-s.Released-s.Known, s.net()) }

// answer merges what a proxy says, and grants what it needs if that is free.
func (al *Allocation) answer(proxy string, e *Entry, sameGeneration, settling bool, proxies int64) Grant {
	s := al.Shares[proxy]
	if s == nil {
		s = &Share{}
		if sameGeneration && e.Start == al.Start {
			s.Known = e.Said
		}
		al.Shares[proxy] = s
	}
	inUse, same := al.merge(s, e)
	need, want := inUse+e.Need, inUse+e.Want
	free := al.free()
	grant := func(n int64) {
		s.Granted += n
		free -= n
	}
	batch := int64(0)
	if !settling && same && e.Seq > s.Seq {
		s.Seq = e.Seq
		if n := want - s.capacity(); n > 0 && n <= free {
			grant(n)
		} else if n := need - s.capacity(); n > 0 && n <= free {
			grant(n)
		}
		batch = al.batch(e.Rate, free, proxies)
		if n := want + batch - s.capacity(); n > batch/2 && n > 0 && free > 0 && batch > 0 {
			grant(min(n, batch, free))
		}
	}
	return Grant{
		Name: e.Name, Start: al.Start, End: al.End, Window: s.Window, Seq: e.Seq, Used: s.Used, Back: s.Back, Released: s.Released, Granted: s.Granted,
		Batch: batch, Free: max(free, 0), Total: al.UsedUp(), Credit: al.Credit,
	}
}

// merge takes over what a proxy says of itself, and returns what it has in use in this window. same is false if that is not known: the proxy's window
// has another name.
func (al *Allocation) merge(s *Share, e *Entry) (inUse int64, same bool) {
	if e.Used == 0 && e.Held == 0 && e.Granted == 0 {
		return s.Used - s.Back, true // it will begin with what its share says, or has nothing to say
	}
	if e.Start != al.Start {
		if e.Start >= al.End {
			return 0, false // it is ahead, and waits or changes over
		}
		if al.before(e.Start) {
			return s.Used - s.Back, true // it is in a window that is over
		}
	}
	switch {
	case e.Window < s.Window:
		return 0, false
	case s.Window == 0:
		s.Window = e.Window
	case e.Window > s.Window: // the proxy's clock has jumped, or it forgot: what it used before is history
		al.Folded += s.net()
		*s = Share{Window: e.Window}
	}
	s.Used, s.Back = max(s.Used, e.Used), max(s.Back, e.Back)
	s.Granted, s.Released = max(s.Granted, e.Granted), max(s.Released, e.Released)
	return s.Used - s.Back + e.Held, true
}

// before reports whether a window that starts then is over when the account's begins.
func (al *Allocation) before(start int64) bool {
	if start < al.Start-2*al.window.length().Milliseconds() { // not to count the windows of a thousand years
		return true
	}
	_, end := al.window.Bounds(time.UnixMilli(start))
	return end.UnixMilli() <= al.Start
}

// capacity is what the proxy may have in use.
func (s *Share) capacity() int64 { return max(s.Granted-s.Released, 0) }

// free is what is left for all.
func (al *Allocation) free() int64 {
	free := al.Limit + al.Credit - al.Folded
	for _, s := range al.Shares {
		free -= s.committed()
	}
	return free
}

// exact is the largest limit that is divided to the unit.
const exact = 1000

// batch is what a proxy may have in stock, so that its next requests need not wait: what it took in the last 100 ms, but all proxies
// together at most 1 % of the limit, and no more than half of what is left.
func (al *Allocation) batch(rate, free, proxies int64) int64 {
	if al.Limit <= exact || free <= 0 {
		return 0
	}
	proxies = max(proxies, 1)
	return min(rate, al.Limit/100/proxies, free/(2*proxies))
}

// UsedUp is what all proxies together have used in the account's window.
func (al *Allocation) UsedUp() int64 {
	used := al.Folded
	for _, s := range al.Shares {
		used += s.net()
	}
	return used
}

// Reset makes the whole limit available again until the window ends, apart from what is held. What was allowed on top of it ends.
func (al *Allocation) Reset() { al.Credit = al.UsedUp() }

// Allow gives an account more than its limit until the window ends.
func (al *Allocation) Allow(amount int64) {
	al.Credit = min(max(al.Credit+amount, -Most), Most)
}

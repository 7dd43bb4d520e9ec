package picker

import (
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/prefix"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// view is a snapshot with the members that its endpoints are. It does not change once it
// is made.
type view struct {
	snapshot *endpoint.Snapshot
	entries  [][]entry     // as the snapshot's pools and their endpoints
	renewal  time.Duration // see renewals
	used     time.Time     // when a request last asked for it
}

// entry is an endpoint of a view.
type entry struct {
	member *member
	ready  bool
	since  time.Time // when it became ready; zero: it always was
	cache  endpoint.Cache

	started int64 // its process, as endpoint.Endpoint has it
}

// keptViews is for how many snapshots at a time there may be requests: those of two
// companions before and after a change, and the newest of a few others.
const keptViews = 6

// view returns the view of a snapshot, and who has how much of a prompt.
func (f *fleet) view(s *endpoint.Snapshot, chain []uint64, matches *prefix.Matches, now time.Time) *view {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.viewOf(s, now)
	if len(chain) > 0 {
		f.index.Match(chain, matches)
	}
	return v
}

// viewOf needs the lock.
func (f *fleet) viewOf(s *endpoint.Snapshot, now time.Time) *view {
	for _, v := range f.views {
		if v.snapshot == s {
			v.used = now
			return v
		}
	}
	before := f.newestOf(s.Source)
	v := &view{snapshot: s, entries: make([][]entry, len(s.Pools)), used: now}
	for i := range s.Pools {
		v.entries[i] = f.entries(s, &s.Pools[i], before)
	}
	if before != nil {
		noteMissing(before, v)
		f.renewals.note(before.snapshot, s)
	}
	v.renewal = f.renewals.least()
	f.keep(v)
	f.sweep(now)
	return v
}

// newestOf returns the newest view of a companion, nil if there is none: snapshots of different companions do not
// compare. It needs the lock.
func (f *fleet) newestOf(source uint64) *view {
	for _, v := range f.views {
		if v.snapshot.Source == source {
			return v
		}
	}
	return nil
}

// keep puts a view first. If there are too many, the oldest goes that is not the newest of its companion: a companion that
// is asked for often must not have one forgotten that is asked for rarely. It needs the lock.
func (f *fleet) keep(v *view) {
	f.views = slices.Insert(f.views, 0, v)
	if len(f.views) <= keptViews {
		return
	}
	drop := len(f.views) - 1
	for i := drop; i > 0; i-- {
		if f.newestOf(f.views[i].snapshot.Source) != f.views[i] {
			drop = i
			break
		}
	}
	f.views = slices.Delete(f.views, drop, drop+1)
}

// entries needs the lock. The endpoints are mostly those of the companion's view before, in the same
// order: then nothing is looked up. What a companion that is new says of a replica is compared with what others said.
func (f *fleet) entries(s *endpoint.Snapshot, p *endpoint.Pool, before *view) []entry {
	_, old := before.find(p.Name)
	if slices.EqualFunc(old, p.Endpoints, entry.isOf) {
		return old // nothing is new but the gauges, as in most snapshots
	}
	entries := make([]entry, len(p.Endpoints))
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		var was entry
		if i < len(old) && old[i].member.address == e.Address {
			was = old[i]
		} else {
			was = findEntry(old, e.Address)
		}
		if before == nil {
			was = f.lastEntry(e.Address)
		}
		entries[i] = entry{member: was.member, ready: e.Ready, since: was.since, cache: e.Cache, started: e.Started}
		if was.member == nil {
			entries[i].member = f.member(e.Address)
		}
		if e.Cache != was.cache {
			f.index.Resize(entries[i].member.slot, blocksOf(e.Cache))
		}
		f.noteProcess(entries[i].member, s)
		if e.Ready && !was.ready && len(f.views) > 0 {
			entries[i].since = s.Received
			f.recovered(entries[i].member)
		}
	}
	return entries
}

// lastEntry returns what the newest view that lists a replica says of it. It needs the lock.
func (f *fleet) lastEntry(address string) entry {
	for _, v := range f.views {
		for _, entries := range v.entries {
			if e := findEntry(entries, address); e.member != nil {
				return e
			}
		}
	}
	return entry{}
}

// isOf reports whether it is the entry of an endpoint, as it is now.
func (s entry) isOf(e endpoint.Endpoint) bool {
	return s.ready == e.Ready && s.cache == e.Cache && s.started == e.Started && s.member.address == e.Address
}

// blocksOf returns how many blocks of a prompt fit into a cache, 0 if that is not known.
func blocksOf(c endpoint.Cache) int {
	return int(int64(c.Blocks) * int64(c.BlockTokens) / llm.PrefixBlockTokens)
}

// findEntry looks for the entry of an address; entries are sorted by it.
func findEntry(entries []entry, address string) entry {
	i, ok := slices.BinarySearchFunc(entries, address, func(s entry, a string) int {
		switch {
		case s.member.address < a:
			return -1
		case s.member.address > a:
			return 1
		}
		return 0
	})
	if !ok {
		return entry{}
	}
	return entries[i]
}

// find returns a pool and its entries, nil if there is none of that name.
func (v *view) find(name string) (*endpoint.Pool, []entry) {
	if v == nil {
		return nil, nil
	}
	for i := range v.snapshot.Pools {
		if p := &v.snapshot.Pools[i]; p.Name == name {
			return p, v.entries[i]
		}
	}
	return nil, nil
}

// lists reports whether any pool of a view has a replica.
func (v *view) lists(address string) bool {
	for _, entries := range v.entries {
		if findEntry(entries, address).member != nil {
			return true
		}
	}
	return false
}

// noteMissing notes which replicas a view lists no more that the companion's view before listed; it needs the lock.
func noteMissing(before, v *view) {
	for i := range before.entries {
		_, now := v.find(before.snapshot.Pools[i].Name)
		if sameEntries(before.entries[i], now) {
			continue // as nearly always
		}
		for _, was := range before.entries[i] {
			if !v.lists(was.member.address) {
				was.member.process.Miss(v.snapshot.Received)
			}
		}
	}
}

// sameEntries reports whether two slices are one.
func sameEntries(a, b []entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// renewals watches how long it takes until gauges are renewed. If that is longer than the
// age at which they say nothing, healthy gauges say nothing for a part of the time, and
// nobody would notice.
//
// These are the means of the latest snapshots, of the gauges that are new in each. There
// are enough that one outage, after which all come late once, fills only a few.
type renewals [16]time.Duration

// note takes in a snapshot. Only those of one companion compare.
func (r *renewals) note(before, s *endpoint.Snapshot) {
	if before.Source != s.Source {
		return
	}
	var sum time.Duration
	n := 0
	for i := range min(len(s.Pools), len(before.Pools)) {
		last, latest := before.Pools[i].Endpoints, s.Pools[i].Endpoints
		for j := range min(len(last), len(latest)) {
			a, b := &last[j], &latest[j]
			if a.Address != b.Address || !a.Gauges.Known || !b.Gauges.Known {
				continue
			}
			// By the companion's clock; that of a gauge which is not new is 0.
			if d := a.Gauges.Age + s.Taken.Sub(before.Taken) - b.Gauges.Age; d > time.Millisecond {
				sum += d
				n++
			}
		}
	}
	if n > 0 {
		copy(r[1:], r[:])
		r[0] = sum / time.Duration(n)
	}
}

// least is the shortest of them, 0 if there are not enough yet.
func (r *renewals) least() time.Duration {
	least := r[0]
	for _, d := range r {
		least = min(least, d)
	}
	return least
}

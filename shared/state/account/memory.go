package account

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Memory is a table in memory.
type Memory struct {
	mu       Locker
	most     int
	accounts map[Key]*kept
	all      []*kept // the same, in the order in which they are looked at when a place is needed
	hand     int
	overflow int // overflow accounts among them
	counts   Counts

	link    link
	uses    bool    // the companion
	watched []*kept // accounts that may have something to say to the companion
	found   []*kept // of the demands of one request
	scratch []byte
}

// kept is an account in memory.
type kept struct {
	key      Key
	name     string
	window   Window
	limit    int64
	watched  bool
	shared   bool
	overflow bool
	bucket   bucket
}

func newMemory(o Options, mu Locker) *Memory {
	return &Memory{mu: mu, most: max(o.Accounts, 1), accounts: map[Key]*kept{}, link: link{id: []byte(newID(o.Rand))}}
}

// newID returns an id for a proxy.
func newID(rand func() uint64) string {
	if rand == nil {
		return "proxy"
	}
	return strconv.FormatUint(rand()|1<<63, 36)
}

// Take implements Table.
func (m *Memory) Take(now time.Time, d []Demand, hold time.Duration) Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	own := now.UnixMilli()
	m.link.lapse(own)
	m.found = m.found[:0]
	t := newTally()
	for i := range d {
		a := m.lookup(own, &d[i])
		m.found = append(m.found, a)
		if a == nil {
			m.counts.Full++
			t.add(i, verdict{outcome: Full})
			continue
		}
		t.add(i, a.bucket.check(now, &d[i], &m.link))
		a.bucket.answered(&d[i])
	}
	if t.Outcome != Admitted {
		return t.Result
	}
	for i, a := range m.found {
		d[i].held.key = a.key
		a.bucket.take(now, &d[i], hold, spacing(&d[i], proxiesOf(&d[i], &m.link)))
		m.watch(a)
	}
	return t.Result
}

// lookup returns the demand's account, made if it is new, and brought up to date. Nil if there is no place for it.
func (m *Memory) lookup(own int64, d *Demand) *kept {
	a := m.accounts[d.Key]
	if a == nil || a.name != string(d.Name) {
		if a != nil || len(d.Name) > MaxName {
			a = nil
		} else {
			a = m.add(own, d.Key, d.Name, d)
		}
		if a == nil {
			a = m.overflowFor(own, d)
		}
		if a == nil {
			return nil
		}
	}
	a.limit, a.shared = d.Limit, d.Shared && !d.Spike
	m.uses = m.uses || d.Shared
	a.bucket.prepare(own, a.shared, &d.Window, &m.link)
	return a
}

// mostOverflow bounds the overflow accounts, on top of all others. There is one a limit and window.
const mostOverflow = 1024

// overflowFor returns the account that all share for whom there is no place.
func (m *Memory) overflowFor(own int64, d *Demand) *kept {
	m.counts.Overflow++
	m.scratch = appendOverflowName(m.scratch[:0], d)
	key := KeyOf(m.scratch)
	if a := m.accounts[key]; a != nil {
		return a
	}
	if m.overflow >= mostOverflow {
		return nil
	}
	m.overflow++
	a := &kept{overflow: true}
	m.all = append(m.all, a)
	return m.fill(a, key, m.scratch, d)
}

// overflowPrefix begins the names of overflow accounts.
var overflowPrefix = []byte("overflow:")

// appendOverflowName appends the name of the overflow account for demands like this one: of the same limit, so that what one limit counts is
// never in the way of another that happens to be as large.
func appendOverflowName(dst []byte, d *Demand) []byte {
	dst = append(dst, overflowPrefix...)
	dst = strconv.AppendUint(dst, xxhash.Sum64(limitOf(d.Name)), 36)
	dst = strconv.AppendInt(append(dst, '/'), d.Limit, 10)
	dst = d.Window.Append(append(dst, '/'))
	for _, kind := range [...]struct {
		is   bool
		name string
	}{{d.Spike, " spike"}, {d.Count, " count"}, {d.Shared, " shared"}} {
		if kind.is {
			dst = append(dst, kind.name...)
		}
	}
	return dst
}

// limitOf is the part of an account's name that names the limit: up to the second slash. A name without one is of no limit in particular. Only
// what follows is chosen by clients.
func limitOf(name []byte) []byte {
	first := bytes.IndexByte(name, '/')
	if first < 0 {
		return nil
	}
	if second := bytes.IndexByte(name[first+1:], '/'); second >= 0 {
		return name[:first+1+second]
	}
	return name
}

// searched bounds how many accounts are looked at to find one that can be forgotten.
const searched = 64

// add makes an account, in the place of an idle one if the table is full.
func (m *Memory) add(own int64, key Key, name []byte, d *Demand) *kept {
	if len(m.all)-m.overflow < m.most {
		a := &kept{}
		m.all = append(m.all, a)
		return m.fill(a, key, name, d)
	}
	for range min(searched, len(m.all)) {
		m.hand = (m.hand + 1) % len(m.all)
		a := m.all[m.hand]
		now := own
		if a.shared {
			now = m.link.now(own)
		}
		a.bucket.expire(own)
		if !a.overflow && a.bucket.idle(now, own) && !slices.Contains(m.found, a) {
			delete(m.accounts, a.key)
			return m.fill(a, key, name, d)
		}
	}
	return nil
}

// fill makes a new account of a.
func (m *Memory) fill(a *kept, key Key, name []byte, d *Demand) *kept {
	*a = kept{key: key, name: string(name), window: d.Window, watched: a.watched, overflow: a.overflow}
	m.accounts[key] = a
	return a
}

// of returns the account that a demand was taken from.
func (m *Memory) of(own int64, d *Demand) *kept {
	a := m.accounts[d.held.key]
	if a != nil {
		a.bucket.prepare(own, a.shared, &a.window, &m.link)
	}
	return a
}

// Settle implements Table.
func (m *Memory) Settle(now time.Time, d []Demand, used []int64) error {
	m.end(now, d, func(b *bucket, i int) { b.settle(&d[i], used[i]) })
	return nil
}

// Refund implements Table.
func (m *Memory) Refund(now time.Time, d []Demand) error {
	m.end(now, d, func(b *bucket, i int) { b.refund(&d[i], spacing(&d[i], proxiesOf(&d[i], &m.link))) })
	return nil
}

// end ends what was taken, once.
func (m *Memory) end(now time.Time, d []Demand, how func(b *bucket, i int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	own := now.UnixMilli()
	m.link.lapse(own)
	for i := range d {
		m.stopWaiting(&d[i])
		if !d[i].held.open {
			continue
		}
		d[i].held.open = false
		if a := m.of(own, &d[i]); a != nil {
			how(&a.bucket, i)
			m.watch(a)
		}
	}
}

// stopWaiting takes a request from those that wait for the companion.
func (m *Memory) stopWaiting(d *Demand) {
	if d.asked == 0 {
		return
	}
	if a := m.accounts[d.held.key]; a != nil {
		a.bucket.answered(d)
	}
	d.asked = 0
}

// Standing implements Table.
func (m *Memory) Standing(now time.Time, d *Demand) Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	own := now.UnixMilli()
	key := d.Key
	if d.held.key != (Key{}) {
		key = d.held.key
	}
	if a := m.accounts[key]; a != nil {
		a.bucket.prepare(own, a.shared, &d.Window, &m.link)
		return a.bucket.standing(now, d, &m.link)
	}
	var b bucket
	b.prepare(own, false, &d.Window, &m.link)
	return b.standing(now, d, &m.link)
}

// Counts implements Table.
func (m *Memory) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts
	c.Accounts = int64(len(m.all))
	return c
}

// watch has an account looked at in Report.
func (m *Memory) watch(a *kept) {
	if a.shared && !a.watched {
		a.watched = true
		m.watched = append(m.watched, a)
	}
}

// Report implements Table.
func (m *Memory) Report(now time.Time, document int64, dst []byte, most int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.uses {
		return nil
	}
	own := now.UnixMilli()
	m.link.lapse(own)
	dst = appendHead(dst, string(m.link.id), document, m.link.generation, now)
	left := m.watched[:0]
	m.found = m.found[:0] // what was said something of: the others come first the next time
	for _, a := range m.watched {
		b := &a.bucket
		b.prepare(own, a.shared, &a.window, &m.link)
		say := a.shared && b.release(own, &m.link)
		switch {
		case !say && (!a.shared || b.quiet()):
			a.watched = false
		case say && len(m.found) < most:
			dst = m.appendEntry(dst, a, own, 0, len(m.found) == 0)
			m.found = append(m.found, a)
		default:
			left = append(left, a)
		}
	}
	said := len(m.found)
	left = append(left, m.found...)
	clear(m.watched[len(left):])
	m.watched = left
	if said == 0 && !m.link.beats(own) {
		return nil
	}
	return appendTail(dst)
}

// appendEntry appends an account to a message, for a request that needs amount.
func (m *Memory) appendEntry(dst []byte, a *kept, own, amount int64, first bool) []byte {
	a.bucket.lease.sent(own)
	e := a.bucket.entry(own, amount)
	m.scratch = a.window.Append(m.scratch[:0])
	e.Name, e.Period, e.Limit = a.name, string(m.scratch), a.limit
	return appendEntry(dst, &e, first)
}

// Ask implements Table.
func (m *Memory) Ask(now time.Time, document int64, dst []byte, d []Demand) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	own := now.UnixMilli()
	m.link.lapse(own)
	dst = appendHead(dst, string(m.link.id), document, m.link.generation, now)
	first := true
	for i := range d {
		if !d[i].Shared || d[i].Spike {
			continue
		}
		a := m.lookup(own, &d[i])
		if a == nil {
			continue
		}
		outcome := a.bucket.check(now, &d[i], &m.link).outcome
		if outcome != Dry && outcome != Admitted {
			continue
		}
		d[i].held.key = a.key
		a.bucket.ask(own, &d[i])
		if outcome == Admitted { // it is there, and stays there until the others are
			continue
		}
		dst = m.appendEntry(dst, a, own, max(clamp(d[i].Amount), 1), first)
		first = false
		m.watch(a)
	}
	return appendTail(dst)
}

// Heard implements Table.
func (m *Memory) Heard(now time.Time, response []byte) error {
	r, err := ParseReply(response)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	own := now.UnixMilli()
	generation := m.link.generation
	if !m.link.hear(own, &r) {
		return nil
	}
	if generation != m.link.generation {
		for _, a := range m.all {
			m.watch(a)
		}
	}
	for i := range r.Accounts {
		g := &r.Accounts[i]
		m.scratch = append(m.scratch[:0], g.Name...)
		if a := m.accounts[KeyOf(m.scratch)]; a != nil && a.shared && a.name == g.Name {
			a.bucket.update(own, &m.link)
			a.bucket.hear(own, r.Now, g, &m.link)
			m.watch(a) // it may have been granted what nobody waits for any more
		}
	}
	return nil
}

// Silence implements Table.
func (m *Memory) Silence(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link.lapse(now.UnixMilli())
	m.link.silent = true
}

package account

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// Shared is a worker's view of a table over a kv.Store.
//
// Take reads the records of all its accounts, checks them, and writes them one after the other, each only if nobody else wrote it meanwhile. If
// somebody did, what was written is given back and all is done once more. Between the two, others see a little less left than there is. After 16
// rounds Take gives up with Failed.
type Shared struct {
	store   kv.Store
	slots   int
	keys    []string // of the records, by slot; the overflow accounts' are the last ones
	linkKey string
	rand    func() uint64
	counts  Counts
	pages   []page // that a call has read
	read    int
	found   []place
	out     []byte
	scratch []byte
	spare   page

	link       link
	uses       bool           // the companion
	watched    map[Key]*watch // accounts that this worker has something to say of
	queue      []*watch       // the same, in the order of their turns
	said       []*watch
	generation uint32 // whose accounts this worker looks for
	scan       int    // next slot to look for accounts in
}

// place is where the account of a demand was found.
type place struct {
	page  int // in pages
	entry *entry
	asked int64
}

// watch is when an account is to be looked at, and where.
type watch struct {
	key  Key
	slot int
	due  int64
}

// rounds bounds every read-change-write loop: a worker must not spin while its requests wait.
const rounds = 16

// overflowSlots is how many records the overflow accounts have.
const overflowSlots = 16

func newShared(o Options, store kv.Store, prefix string) *Shared {
	slots := max((o.Accounts+pageEntries/2-1)/(pageEntries/2), 1)
	s := &Shared{
		store: store, slots: slots, linkKey: prefix + "/link", rand: o.Rand, keys: make([]string, slots+overflowSlots), watched: map[Key]*watch{}, scan: -1,
	}
	for i := range s.keys {
		s.keys[i] = prefix + "/" + strconv.Itoa(i)
	}
	return s
}

// slotOf is the record that an account is in.
func (s *Shared) slotOf(key Key, name []byte) int {
	if bytes.HasPrefix(name, overflowPrefix) {
		return s.slots + int(key.Lo%overflowSlots)
	}
	return int(key.Lo % uint64(s.slots))
}

// fetch reads a record into p.
func (s *Shared) fetch(p *page, slot int) error {
	value, cas, err := s.store.Get(s.keys[slot])
	switch {
	case errors.Is(err, kv.ErrNotFound):
		value, cas = nil, kv.Create
	case err != nil:
		return fmt.Errorf("read accounts: %w", err)
	}
	p.slot, p.cas, p.raw = slot, cas, append(p.raw[:0], value...)
	p.decode()
	return nil
}

// put writes a record, if nobody wrote it since it was read.
func (s *Shared) put(p *page) error {
	s.out = p.append(s.out[:0])
	return s.store.Set(s.keys[p.slot], s.out, p.cas)
}

// page returns the record of a slot, read once in a round.
func (s *Shared) page(slot int) (int, error) {
	for i := range s.read {
		if s.pages[i].slot == slot {
			return i, nil
		}
	}
	s.read++
	return s.read - 1, s.fetch(&s.pages[s.read-1], slot)
}

// begin starts a round with n demands, each with an account and an overflow account at most. No page moves in memory within a round.
func (s *Shared) begin(n int) {
	s.read, s.found = 0, s.found[:0]
	for len(s.pages) < 2*n {
		s.pages = append(s.pages, page{})
	}
}

// lookup finds the demand's account, makes it if it is new, and brings it up to date. The entry is nil if there is no place for it.
func (s *Shared) lookup(own int64, d *Demand) (place, error) {
	i, err := s.page(s.slotOf(d.Key, d.Name))
	if err != nil {
		return place{}, err
	}
	p := &s.pages[i]
	e := p.find(d.Key)
	switch {
	case len(d.Name) > MaxName || e != nil && !bytes.Equal(e.name, d.Name):
		e = nil
	case e == nil:
		e = s.fill(p.place(own, s.link.now(own), s.found), d.Key, d.Name, d)
	}
	if e == nil {
		s.counts.Overflow++
		s.scratch = appendOverflowName(s.scratch[:0], d)
		key := KeyOf(s.scratch)
		if i, err = s.page(s.slotOf(key, s.scratch)); err != nil {
			return place{}, err
		}
		p = &s.pages[i]
		if e = p.find(key); e == nil {
			e = s.fill(p.place(own, s.link.now(own), s.found), key, bytes.Clone(s.scratch), d)
		}
		if e == nil {
			return place{page: i}, nil
		}
	}
	e.limit, e.shared = d.Limit, d.Shared && !d.Spike
	e.bucket.prepare(own, e.shared, &d.Window, &s.link)
	return place{page: i, entry: e, asked: d.asked}, nil
}

// fill makes a new account of e.
func (s *Shared) fill(e *entry, key Key, name []byte, d *Demand) *entry {
	if e == nil {
		return nil
	}
	var window []byte
	if d.Shared && !d.Spike {
		window = d.Window.Append(nil)
	}
	*e = entry{key: key, name: name, window: window}
	return e
}

// Take implements Table.
func (s *Shared) Take(now time.Time, d []Demand, hold time.Duration) Result {
	own := now.UnixMilli()
	s.follow(own, d)
	for range rounds {
		r := s.admit(now, d)
		if r.Outcome != Admitted {
			s.stopWaiting(d, r.Outcome)
			return r
		}
		for i := range d {
			e := s.found[i].entry
			d[i].held.key, d[i].held.slot = e.key, s.pages[s.found[i].page].slot
			e.bucket.take(now, &d[i], hold, spacing(&d[i], proxiesOf(&d[i], &s.link)))
			d[i].held.open = false // until it is written
		}
		err := s.commit(now, d)
		if err == nil {
			return r
		}
		if !errors.Is(err, kv.ErrMismatch) {
			return Result{Outcome: Failed}
		}
	}
	s.counts.Busy++
	return Result{Outcome: Failed}
}

// admit reads all accounts of a request, and checks them.
func (s *Shared) admit(now time.Time, d []Demand) Result {
	s.begin(len(d))
	t := newTally()
	for i := range d {
		p, err := s.lookup(now.UnixMilli(), &d[i])
		s.found = append(s.found, p)
		if err != nil || p.entry == nil {
			if err == nil {
				s.counts.Full++
			}
			t.add(i, verdict{outcome: Failed})
			continue
		}
		t.add(i, p.entry.bucket.check(now, &d[i], &s.link))
		p.entry.bucket.answered(&d[i])
	}
	for i := range d {
		d[i].asked = s.found[i].asked // until it is written
	}
	return t.Result
}

// commit writes all records of a round, or gives back what it has written.
func (s *Shared) commit(now time.Time, d []Demand) error {
	for i := range s.read {
		err := s.put(&s.pages[i])
		if err == nil {
			for j := range d {
				if s.found[j].page == i {
					d[j].held.open, d[j].asked = true, 0
				}
			}
			continue
		}
		if undo := s.Refund(now, d); undo != nil {
			return undo // what is still held expires
		}
		return err
	}
	for i := range d {
		s.watch(&d[i])
	}
	return nil
}

// Settle implements Table.
func (s *Shared) Settle(now time.Time, d []Demand, used []int64) error {
	return s.end(now, d, func(b *bucket, i int) { b.settle(&d[i], used[i]) })
}

// Refund implements Table.
func (s *Shared) Refund(now time.Time, d []Demand) error {
	return s.end(now, d, func(b *bucket, i int) { b.refund(&d[i], spacing(&d[i], proxiesOf(&d[i], &s.link))) })
}

// end ends what was taken, once. An account that cannot be written stays as it is for the next call; the others are ended all the same.
func (s *Shared) end(now time.Time, d []Demand, how func(b *bucket, i int)) (failed error) {
	own := now.UnixMilli()
	s.follow(own, d)
	for i := range d {
		h := &d[i].held
		if !h.open && d[i].asked == 0 {
			continue
		}
		lost, err := s.change(h.slot, h.key, h.lost, func(e *entry) bool {
			e.bucket.lease.served(d[i].asked)
			if h.open {
				e.bucket.prepare(own, e.shared, &d[i].Window, &s.link)
				how(&e.bucket, i)
			}
			return true
		})
		h.lost = lost
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		h.open, d[i].asked = false, 0
		s.watch(&d[i])
	}
	return failed
}

// change changes one account in the store, if it is there. lost is the digest of a record whose writing failed in a way that left open whether it was
// written, 0 if there is none: if it is found, it was. A change that returns false is not written.
func (s *Shared) change(slot int, key Key, lost uint64, how func(e *entry) bool) (uint64, error) {
	p := &s.spare
	for range rounds {
		if err := s.fetch(p, slot); err != nil {
			return lost, err
		}
		if lost != 0 && xxhash.Sum64(p.raw) == lost {
			return 0, nil
		}
		e := p.find(key)
		if e == nil || !how(e) {
			return 0, nil
		}
		err := s.put(p)
		if err == nil {
			return 0, nil
		}
		if !errors.Is(err, kv.ErrMismatch) {
			return xxhash.Sum64(s.out), fmt.Errorf("write accounts: %w", err)
		}
	}
	s.counts.Busy++
	return lost, fmt.Errorf("write accounts: %w", kv.ErrBusy)
}

// stopWaiting takes a request that was refused from those that wait for the companion. One that is to ask again goes on waiting.
func (s *Shared) stopWaiting(d []Demand, o Outcome) {
	if o == Dry {
		return
	}
	for i := range d {
		if d[i].asked == 0 {
			continue
		}
		_, _ = s.change(d[i].held.slot, d[i].held.key, 0, func(e *entry) bool { e.bucket.lease.served(d[i].asked); return true })
		d[i].asked = 0 // if it could not be written, it ends by itself
	}
}

// Standing implements Table.
func (s *Shared) Standing(now time.Time, d *Demand) Standing {
	own := now.UnixMilli()
	key, slot := d.Key, s.slotOf(d.Key, d.Name)
	if d.held.key != (Key{}) {
		key, slot = d.held.key, d.held.slot
	}
	var none bucket
	b, shared := &none, false
	if err := s.fetch(&s.spare, slot); err == nil {
		if e := s.spare.find(key); e != nil {
			b, shared = &e.bucket, e.shared
		}
	}
	b.prepare(own, shared, &d.Window, &s.link)
	return b.standing(now, d, &s.link)
}

// Counts implements Table.
func (s *Shared) Counts() Counts { return s.counts }

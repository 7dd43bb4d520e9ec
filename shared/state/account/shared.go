package account

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// Shared is a worker's view of a table over a kv.Store.
//
// Take reads the records of all its accounts, checks them, and writes them one after the other, each only if nobody else wrote it meanwhile. If
// somebody did, that record alone is read and checked again: what is written already stays, and the time between reading and writing, in which
// others can win, is as short for a request of many accounts as for one of a single account. Only if such a record then refuses is all given back
// and begun once more; until then others see a little less left than there is. All workers write in the order of the slots: of two requests that want
// the last unit of two accounts, the one that gets the first account also gets the second.
type Shared struct {
	store   kv.Store
	slots   int
	keys    []string // of the records, by slot; the overflow accounts' are the last ones
	linkKey string
	seedKey string
	seed    uint64 // see slotOf; 0 is not known yet
	stamp   uint64 // of the last record that was written
	rand    func() uint64
	counts  Counts
	pages   []page // that a call has read
	read    int
	found   []place
	order   []int // of pages, by slot: in which they are written
	out     []byte
	scratch []byte
	spare   page
	late    []late

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

// rounds bounds every read-change-write loop: a worker must not spin while its requests wait. Each lost round is one that another worker has won, so
// with 64 workers that do nothing else, a loss of all of them has a chance of 2 %; with 16 of one in ten million. It takes less than a millisecond.
const rounds = 256

// restarts bounds how often a request begins from the start, since an account refused when it was read again.
const restarts = 16

// overflowSlots is how many records the overflow accounts have.
const overflowSlots = 128

func newShared(o Options, store kv.Store, prefix string) *Shared {
	slots := max((o.Accounts+pageEntries/2-1)/(pageEntries/2), 1)
	s := &Shared{
		store: store, slots: slots, linkKey: prefix + "/link", seedKey: prefix + "/seed", rand: o.Rand, keys: make([]string, slots+overflowSlots), watched: map[Key]*watch{}, scan: -1,
	}
	if o.Rand != nil {
		s.stamp = o.Rand()
	}
	for i := range s.keys {
		s.keys[i] = prefix + "/" + strconv.Itoa(i)
	}
	return s
}

// slotOf is the record that an account is in. It depends on a seed that is drawn for each store: who can choose names, by a value of a dimension,
// could else find some whose accounts fill the record of another one, and so have that share an overflow account.
func (s *Shared) slotOf(key Key, name []byte) (int, error) {
	if s.seed == 0 {
		if err := s.readSeed(); err != nil {
			return 0, err
		}
	}
	first, slots := 0, s.slots
	if bytes.HasPrefix(name, overflowPrefix) {
		first, slots = s.slots, overflowSlots
	}
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], key.Lo)
	binary.LittleEndian.PutUint64(b[8:], key.Hi)
	var d xxhash.Digest
	d.ResetWithSeed(s.seed)
	_, _ = d.Write(b[:])
	return first + int(d.Sum64()%uint64(slots)), nil
}

// readSeed reads the store's seed, which the first worker draws.
func (s *Shared) readSeed() error {
	for range rounds {
		value, cas, err := s.store.Get(s.seedKey)
		switch {
		case err == nil && len(value) == 8 && binary.LittleEndian.Uint64(value) != 0:
			s.seed = binary.LittleEndian.Uint64(value)
			return nil
		case errors.Is(err, kv.ErrNotFound):
			cas = kv.Create
		case err != nil:
			return fmt.Errorf("read the seed of the accounts: %w", err)
		}
		seed := uint64(1)
		if s.rand != nil {
			seed = max(s.rand(), 1)
		}
		err = s.store.Set(s.seedKey, binary.LittleEndian.AppendUint64(nil, seed), cas)
		if err != nil && !errors.Is(err, kv.ErrMismatch) {
			return fmt.Errorf("write the seed of the accounts: %w", err)
		}
	}
	return fmt.Errorf("write the seed of the accounts: %w", kv.ErrBusy)
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
	s.stamp++
	s.out = p.append(s.out[:0], s.stamp)
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
	slot, err := s.slotOf(d.Key, d.Name)
	if err != nil {
		return place{}, err
	}
	i, err := s.page(slot)
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
		if slot, err = s.slotOf(key, s.scratch); err != nil {
			return place{}, err
		}
		if i, err = s.page(slot); err != nil {
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
	s.catchUp(now)
	s.follow(now.UnixMilli(), d)
	left := rounds
	for range restarts {
		r := s.admit(now, d)
		if r.Outcome != Admitted {
			s.stopWaiting(d, r.Outcome)
			return r
		}
		for i := range d {
			s.take(now, d, i, hold)
		}
		ok, err := s.commit(now, d, hold, &left)
		switch {
		case ok:
			return r
		case err != nil && !errors.Is(err, kv.ErrBusy):
			return Result{Outcome: Failed}
		case err != nil || left <= 0:
			s.counts.Busy++
			return Result{Outcome: Busy}
		}
	}
	s.counts.Busy++
	return Result{Outcome: Busy}
}

// take takes from an account that has admitted its demand, in the record as it will be written.
func (s *Shared) take(now time.Time, d []Demand, i int, hold time.Duration) {
	e := s.found[i].entry
	d[i].held.key, d[i].held.slot = e.key, s.pages[s.found[i].page].slot
	e.bucket.take(now, &d[i], hold, spacing(&d[i], proxiesOf(&d[i], &s.link)))
	d[i].held.open = false // until it is written
}

// admit reads all accounts of a request, and checks them.
func (s *Shared) admit(now time.Time, d []Demand) Result {
	s.begin(len(d))
	t := newTally()
	for i := range d {
		p, err := s.lookup(now.UnixMilli(), &d[i])
		s.found = append(s.found, p)
		switch {
		case err != nil:
			t.add(i, verdict{outcome: Failed})
			continue
		case p.entry == nil:
			s.counts.Full++
			t.add(i, verdict{outcome: Full})
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

// commit writes all records of a round, or gives back what it has written. Not ok without an error: to be done once more.
func (s *Shared) commit(now time.Time, d []Demand, hold time.Duration, left *int) (ok bool, err error) {
	s.sort()
	for _, i := range s.order {
		for err = s.put(&s.pages[i]); errors.Is(err, kv.ErrMismatch); err = s.put(&s.pages[i]) {
			if *left--; *left <= 0 || !s.again(now, d, i, hold) {
				return false, s.Refund(now, d)
			}
		}
		if err != nil {
			_ = s.Refund(now, d) // what is still held expires
			return false, err
		}
		for j := range d {
			if s.found[j].page == i {
				d[j].held.open, d[j].asked = true, 0
			}
		}
	}
	for i := range d {
		s.watch(&d[i])
	}
	return true, nil
}

// sort puts the pages of a round that have an account of a demand in the order of their slots.
func (s *Shared) sort() {
	s.order = s.order[:0]
	for i := range s.read {
		if !slices.ContainsFunc(s.found, func(p place) bool { return p.page == i }) {
			continue // it was full
		}
		s.order = append(s.order, i)
		for k := len(s.order) - 1; k > 0 && s.pages[s.order[k]].slot < s.pages[s.order[k-1]].slot; k-- {
			s.order[k], s.order[k-1] = s.order[k-1], s.order[k]
		}
	}
}

// again reads one record again that another worker has written, and takes from its accounts. It reports whether that was possible: not if one of
// them refuses now, or is somewhere else.
func (s *Shared) again(now time.Time, d []Demand, page int, hold time.Duration) bool {
	if s.fetch(&s.pages[page], s.pages[page].slot) != nil {
		return false
	}
	for i := range d {
		if s.found[i].page == page {
			s.found[i].entry = nil
		}
	}
	for i := range d {
		if s.found[i].page != page {
			continue
		}
		p, err := s.lookup(now.UnixMilli(), &d[i])
		if err != nil || p.entry == nil || p.page != page {
			return false
		}
		s.found[i] = p
		p.entry.bucket.answered(&d[i])
		admits := p.entry.bucket.check(now, &d[i], &s.link).outcome == Admitted
		if d[i].asked = p.asked; !admits {
			return false
		}
		s.take(now, d, i, hold)
	}
	return true
}

// Standing implements Table.
func (s *Shared) Standing(now time.Time, d *Demand) Standing {
	own := now.UnixMilli()
	key := d.Key
	slot, err := s.slotOf(d.Key, d.Name)
	if d.held.key != (Key{}) {
		key, slot = d.held.key, d.held.slot
	}
	var none bucket
	b, shared := &none, false
	if err == nil && s.fetch(&s.spare, slot) == nil {
		if e := s.spare.find(key); e != nil {
			b, shared = &e.bucket, e.shared
		}
	}
	b.prepare(own, shared, &d.Window, &s.link)
	return b.standing(now, d, &s.link)
}

// Counts implements Table.
func (s *Shared) Counts() Counts { return s.counts }

package account

import (
	"errors"
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// follow reads what the workers know of the companion, where a demand needs it and what this worker has read is not good any longer.
func (s *Shared) follow(own int64, d []Demand) {
	for i := range d {
		if d[i].Shared {
			if s.uses = true; !s.link.trusts(own) {
				s.refresh(own)
			}
			return
		}
	}
}

// refresh reads what the workers know of the companion, and notes when the grants are not to be trusted any longer.
func (s *Shared) refresh(own int64) {
	_ = s.changeLink(func(k *link) bool { return k.lapse(own) }) // what cannot be read is as old as before, and then not trusted
}

// changeLink changes what the workers know of the companion. A change that returns false is not written.
func (s *Shared) changeLink(how func(k *link) bool) error {
	for range rounds {
		value, cas, err := s.store.Get(s.linkKey)
		switch {
		case errors.Is(err, kv.ErrNotFound):
			value, cas = nil, kv.Create
		case err != nil:
			return fmt.Errorf("read the quota link: %w", err)
		}
		s.link = decodeLink(value)
		if !how(&s.link) {
			return nil
		}
		s.out = s.link.append(s.out[:0])
		if err = s.store.Set(s.linkKey, s.out, cas); err == nil {
			return nil
		}
		if !errors.Is(err, kv.ErrMismatch) {
			return fmt.Errorf("write the quota link: %w", err)
		}
	}
	return fmt.Errorf("write the quota link: %w", kv.ErrBusy)
}

// name makes sure that this proxy has an id, which all its workers use. It reports whether it has.
func (s *Shared) name() bool {
	if len(s.link.id) > 0 {
		return true
	}
	err := s.changeLink(func(k *link) bool {
		if len(k.id) > 0 {
			return false
		}
		k.id = []byte(newID(s.rand))
		return true
	})
	return err == nil
}

// watch has the demand's account looked at in Report.
func (s *Shared) watch(d *Demand) {
	if d.Shared && !d.Spike {
		s.watchKey(d.held.key, d.held.slot)
	}
}

func (s *Shared) watchKey(key Key, slot int) {
	if w := s.watched[key]; w != nil {
		w.due = 0
		return
	}
	w := &watch{key: key, slot: slot}
	s.watched[key] = w
	s.queue = append(s.queue, w)
}

// Report implements Table. Each worker reports the accounts that it has used.
func (s *Shared) Report(now time.Time, document int64, dst []byte, most int) []byte {
	own := now.UnixMilli()
	s.catchUp(now)
	if !s.uses {
		return nil
	}
	s.refresh(own)
	if !s.name() {
		return nil
	}
	s.look()
	dst = appendHead(dst, string(s.link.id), document, s.link.generation, now)
	left := s.queue[:0]
	s.said = s.said[:0] // they come last the next time
	for _, w := range s.queue {
		if w.due > own || len(s.said) == most {
			left = append(left, w)
			continue
		}
		e, keep := s.report(own, w)
		switch {
		case e != nil:
			dst = e.appendEntry(dst, own, 0, len(s.said) == 0)
			s.said = append(s.said, w)
		case keep:
			left = append(left, w)
		default:
			delete(s.watched, w.key)
		}
	}
	said := len(s.said)
	left = append(left, s.said...)
	clear(s.queue[len(left):])
	s.queue = left
	if said == 0 && !s.beats(own) {
		return nil
	}
	return appendTail(dst)
}

// beats reports whether this worker is to say something for all of them.
func (s *Shared) beats(own int64) bool {
	k, beats := s.link, false
	if !k.beats(own) { // as read a moment ago
		return false
	}
	err := s.changeLink(func(k *link) bool { beats = k.beats(own); return beats })
	return beats && err == nil
}

// report releases what an account does not need, and returns it if there is something to say of it. keep says that there may be something later.
func (s *Shared) report(own int64, w *watch) (e *entry, keep bool) {
	say := false
	_, err := s.change(w.slot, w.key, 0, func(e *entry) bool {
		b := &e.bucket
		if keep = e.shared && !b.over(s.link.now(own)); !keep {
			return false
		}
		b.update(own, &s.link)
		released, seq := b.lease.released, b.lease.seq
		say = b.release(own, &s.link)
		keep = !b.quiet()
		if say && b.mayBeGranted(e.limit) {
			b.lease.sent(own)
		}
		return b.lease.released != released || b.lease.seq != seq
	})
	switch {
	case err != nil:
		return nil, true
	case say:
		return s.spare.find(w.key), true
	}
	w.due = own + rateStep
	return nil, keep
}

// mayBeGranted reports whether a message without a number would not do.
func (b *bucket) mayBeGranted(limit int64) bool {
	l := &b.lease
	return limit > exact || l.waiting > 0 || l.unheard() || l.granted-l.released < b.net()+b.held()
}

// appendEntry appends an account to a message, for a request that needs amount.
func (e *entry) appendEntry(dst []byte, own, amount int64, first bool) []byte {
	said := e.bucket.entry(own, amount)
	said.Name, said.Period, said.Limit = string(e.name), string(e.window), e.limit
	return appendEntry(dst, &said, first)
}

// scanned is how many records are looked through at each tick, after a start and for a new allocator.
const scanned = 256

// look looks for accounts of which the allocator may not know, since it or a worker lost its memory.
func (s *Shared) look() {
	if s.scan < 0 || s.generation != s.link.generation {
		s.scan, s.generation = 0, s.link.generation
	}
	for range scanned {
		if s.scan >= len(s.keys) || s.fetch(&s.spare, s.scan) != nil {
			return
		}
		for i := range s.spare.n {
			if e := &s.spare.entries[i]; e.shared {
				s.watchKey(e.key, s.scan)
			}
		}
		s.scan++
	}
}

// Ask implements Table.
func (s *Shared) Ask(now time.Time, document int64, dst []byte, d []Demand) []byte {
	own := now.UnixMilli()
	s.follow(own, d)
	s.name()
	dst = appendHead(dst, string(s.link.id), document, s.link.generation, now)
	first := true
	for i := range d {
		if !d[i].Shared || d[i].Spike {
			continue
		}
		if e := s.ask(now, &d[i]); e != nil {
			dst = e.appendEntry(dst, own, max(clamp(d[i].Amount), 1), first)
			first = false
			s.watch(&d[i])
		}
	}
	return appendTail(dst)
}

// ask counts a request among those that wait for an account, and returns that if it is dry.
func (s *Shared) ask(now time.Time, d *Demand) *entry {
	asked := d.asked
	for range rounds {
		s.begin(1)
		p, err := s.lookup(now.UnixMilli(), d)
		if err != nil || p.entry == nil {
			return nil
		}
		outcome := p.entry.bucket.check(now, d, &s.link).outcome
		if outcome != Dry && outcome != Admitted {
			return nil
		}
		d.held.key, d.held.slot = p.entry.key, s.pages[p.page].slot
		p.entry.bucket.ask(now.UnixMilli(), d)
		if outcome == Dry {
			p.entry.bucket.lease.sent(now.UnixMilli())
		}
		if err = s.put(&s.pages[p.page]); err == nil && outcome == Dry {
			return p.entry
		}
		if err == nil { // it is there, and stays there until the others are
			s.watch(d)
			return nil
		}
		d.asked = asked
		if !errors.Is(err, kv.ErrMismatch) {
			return nil
		}
	}
	s.counts.Busy++
	return nil
}

// Heard implements Table.
func (s *Shared) Heard(now time.Time, response []byte) error {
	r, err := ParseReply(response)
	if err != nil {
		return err
	}
	own := now.UnixMilli()
	counts := false
	if err := s.changeLink(func(k *link) bool { counts = k.hear(own, &r); return counts }); err != nil || !counts {
		return err
	}
	for i := range r.Accounts {
		g := &r.Accounts[i]
		s.scratch = append(s.scratch[:0], g.Name...)
		key := KeyOf(s.scratch)
		slot, failed := s.slotOf(key, s.scratch)
		if failed != nil {
			return failed
		}
		_, failed = s.change(slot, key, 0, func(e *entry) bool {
			if !e.shared || string(e.name) != g.Name {
				return false
			}
			e.bucket.update(own, &s.link)
			e.bucket.hear(own, r.Now, g, &s.link)
			if !e.bucket.quiet() {
				s.watchKey(key, slot) // it may have been granted what nobody waits for any more
			}
			return true
		})
		err = errors.Join(err, failed)
	}
	return err
}

// Silence implements Table.
func (s *Shared) Silence(now time.Time) {
	_ = s.changeLink(func(k *link) bool {
		k.lapse(now.UnixMilli())
		k.silent = true
		return true
	})
}

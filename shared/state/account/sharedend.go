package account

import (
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// late is an ending that could not be written. What was used must not become a refund, so it is written later, also after the reservation has expired.
type late struct {
	d      [1]Demand
	used   int64
	refund bool
}

const (
	// mostLate bounds the endings that a worker keeps.
	mostLate = 256
	// catchUps bounds how many of them one call writes: a request waits for it.
	catchUps = 16
)

// Settle implements Table.
func (s *Shared) Settle(now time.Time, d []Demand, used []int64) error {
	return s.end(now, d, used)
}

// Refund implements Table.
func (s *Shared) Refund(now time.Time, d []Demand) error { return s.end(now, d, nil) }

// end ends what was taken, once. An account that cannot be written is kept for later; the others are ended all the same. used is nil for a refund.
func (s *Shared) end(now time.Time, d []Demand, used []int64) (failed error) {
	s.catchUp(now)
	s.follow(now.UnixMilli(), d)
	for i := range d {
		if !d[i].held.open && d[i].asked == 0 {
			continue
		}
		n := int64(0)
		if used != nil {
			n = used[i]
		}
		if err := s.finish(now, &d[i], n, used == nil); err != nil {
			failed = errors.Join(failed, err)
			s.keep(&d[i], n, used == nil)
		}
	}
	return failed
}

// finish ends what was taken of one account.
func (s *Shared) finish(now time.Time, d *Demand, used int64, refund bool) error {
	own := now.UnixMilli()
	h := &d.held
	lost, err := s.change(h.slot, h.key, h.lost, func(e *entry) bool {
		e.bucket.lease.served(d.asked)
		if !h.open {
			return true
		}
		e.bucket.prepare(own, e.shared, &d.Window, &s.link)
		if refund {
			e.bucket.refund(d, spacing(d, proxiesOf(d, &s.link)))
		} else {
			e.bucket.settle(d, used)
		}
		return true
	})
	if h.lost = lost; err != nil {
		return err
	}
	h.open, d.asked = false, 0
	s.watch(d)
	return nil
}

// keep keeps an ending for later. If there are too many it stays the caller's, who may try again.
func (s *Shared) keep(d *Demand, used int64, refund bool) {
	if len(s.late) >= mostLate {
		return
	}
	l := late{d: [1]Demand{*d}, used: used, refund: refund}
	l.d[0].Name = nil // the caller uses its memory again
	s.late = append(s.late, l)
	d.held.open, d.asked = false, 0
}

// catchUp writes endings that could not be written before, until one fails again: that is the last one in the next call.
func (s *Shared) catchUp(now time.Time) {
	for range min(len(s.late), catchUps) {
		l := s.late[0]
		s.late = s.late[:copy(s.late, s.late[1:])]
		s.follow(now.UnixMilli(), l.d[:])
		if s.finish(now, &l.d[0], l.used, l.refund) != nil {
			s.late = append(s.late, l)
			return
		}
	}
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

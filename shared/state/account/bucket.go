package account

import "time"

// groups is how many groups of holds an account has. Holds whose expiries are less than a quarter of the hold time apart share a group, so six are
// in use at most while all holds are for one time; two more are for the change to another one.
const groups = 8

// bucket is the state of an account: a fixed size, integers, no clock. Times are in ms: of holds by the proxy's clock, of the window
// by the allocator's as far as known, if the account is shared.
type bucket struct {
	start, end int64 // of the window; both 0 without windows
	name       int64 // of the window: its first start. It stays when the proxy learns that the allocator's window starts at another time
	used       int64 // in the window, settled or counted
	back       int64 // of used, given back again
	holds      [groups]struct{ until, amount int64 }
	next       int64 // Spike: when the next unit is due, ns

	lease lease
}

// net is what is used up.
func (b *bucket) net() int64 { return b.used - b.back }

// held is what open requests hold.
func (b *bucket) held() (sum int64) {
	for i := range b.holds {
		sum += b.holds[i].amount
	}
	return min(sum, Most)
}

// expire drops holds that were never settled.
func (b *bucket) expire(now int64) {
	for i := range b.holds {
		if h := &b.holds[i]; h.until <= now {
			h.until, h.amount = 0, 0
		}
	}
}

// ahead is how far an account may be ahead of the clock: the length of its window, and a minute at least. A clock that stepped back further had been
// wrong before, and what was counted then would be in the way for a long time.
func ahead(w *Window) int64 { return max(w.length().Milliseconds(), 60_000) }

// roll begins a new window if the old one is over. It reports whether it did. A clock that steps back does not bring back a window.
func (b *bucket) roll(now int64, w *Window) bool {
	if w.Unit == None || now < b.end && b.start-now <= ahead(w) {
		return false
	}
	start, end := w.Bounds(time.UnixMilli(now))
	b.begin(start.UnixMilli(), end.UnixMilli())
	return true
}

// begin starts a window: nothing used, nothing held. What is held belongs to the window before, and so do its settlements.
func (b *bucket) begin(start, end int64) {
	l := b.lease
	*b = bucket{start: start, end: end, name: start, lease: lease{seq: l.seq, heardSeq: l.seq, lapses: l.lapses, generation: l.generation, rate: l.rate}}
}

// idle reports whether an account is as good as a new one, so that it can be forgotten.
// now is the window's clock, own the proxy's.
func (b *bucket) idle(now, own int64) bool {
	if b.next > own*int64(time.Millisecond) {
		return false
	}
	return b.over(now) || b.net() == 0 && b.held() == 0 && b.lease.forgettable(b.used)
}

// reserve holds an amount until about the given time, and returns the name of the group that it is in.
func (b *bucket) reserve(now, hold, amount int64) (until int64) {
	grain := max(hold/4, 1)
	asked := now + hold
	free, later, latest := -1, -1, 0
	for i := range b.holds {
		switch h := &b.holds[i]; {
		case h.until == 0:
			free = i
		case h.until >= asked && h.until < asked+grain:
			h.amount = min(h.amount+amount, Most)
			return h.until
		default:
			if h.until >= asked && (later < 0 || h.until < b.holds[later].until) {
				later = i
			}
			if h.until > b.holds[latest].until {
				latest = i
			}
		}
	}
	// A new group expires as late as any hold that may still join it. With none free, because requests are held for many different times, it is
	// a group that expires later than asked, or else the last one.
	switch {
	case free >= 0:
		b.holds[free].until = b.distinct(asked + grain - 1)
	case later >= 0:
		free = later
	default:
		free = latest
	}
	b.holds[free].amount = min(b.holds[free].amount+amount, Most)
	return b.holds[free].until
}

// distinct is until, or a bit later if a group has that name: they differ after a clock has stepped.
func (b *bucket) distinct(until int64) int64 {
	for i := range b.holds {
		if b.holds[i].until == until {
			return b.distinct(until + 1)
		}
	}
	return until
}

// unreserve takes a hold out of its group, if that has not expired.
func (b *bucket) unreserve(h *hold) {
	for i := range b.holds {
		if b.holds[i].until == h.until && h.until != 0 {
			b.holds[i].amount = max(b.holds[i].amount-h.amount, 0)
			if b.holds[i].amount == 0 {
				b.holds[i].until = 0
			}
			return
		}
	}
}

// same reports whether a hold is of this window.
func (b *bucket) same(h *hold) bool { return h.window == b.name }

// take takes what check has admitted.
func (b *bucket) take(now time.Time, d *Demand, holdTime time.Duration, spacing int64) {
	h := &d.held
	h.window, h.until, h.amount, h.open = b.name, 0, clamp(d.Amount), true
	switch {
	case d.Spike:
		b.next = max(b.next, now.UnixNano()) + mul(h.amount, spacing)
		h.until = b.next
	case d.Count:
		b.used = min(b.used+h.amount, 2*Most)
	case h.amount > 0:
		h.until = b.reserve(now.UnixMilli(), max(holdTime.Milliseconds(), 1), h.amount)
	}
	b.lease.rate.add(now.UnixMilli(), h.amount)
}

// settle replaces a hold by what was used.
func (b *bucket) settle(d *Demand, used int64) {
	h := &d.held
	if d.Spike || d.Count || !b.same(h) {
		return
	}
	b.unreserve(h)
	if d.Window.Unit != None {
		b.used = min(b.used+clamp(used), 2*Most)
	}
}

// refund gives back what was taken.
func (b *bucket) refund(d *Demand, spacing int64) {
	h := &d.held
	switch {
	case d.Spike:
		// Only the newest gives its slot back: what came after an older one had to keep its distance, and a slot of the past would make two
		// requests of one moment.
		if b.next == h.until {
			b.next = max(b.next-mul(h.amount, spacing), 0)
		}
	case !b.same(h):
	case d.Count:
		b.back = min(b.back+h.amount, b.used)
	default:
		b.unreserve(h)
	}
}

// spacing is the time between two units of a Spike, ns: rounded up, so that there are never more than the limit in a window. Each of several proxies
// gets its part of the rate.
func spacing(d *Demand, proxies int64) int64 {
	if !d.Spike {
		return 0
	}
	limit := max(clamp(d.Limit), 1)
	length := mul(int64(d.Window.length()), proxies)
	return (length + limit - 1) / limit
}

// due is when the next unit of a Spike is due, ns from now. More than a window away is the rest of a clock that stepped back.
func (b *bucket) due(now time.Time, d *Demand, proxies int64) int64 {
	wait := b.next - now.UnixNano()
	if wait > mul(int64(d.Window.length()), proxies) {
		b.next = 0
	}
	return max(b.next-now.UnixNano(), 0)
}

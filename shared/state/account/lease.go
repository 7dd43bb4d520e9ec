package account

import "time"

// lease is what a bucket has to do with the companion. All of it but the rate belongs to the window.
type lease struct {
	granted, released int64 // cumulative; the capacity is the difference
	said              int64 // net use that the allocator has confirmed
	confirmed         int64 // of released
	heardAt           int64 // the allocator's clock when it said the newest of this, ms
	free, freeAt      int64 // what was left for all, and when that was heard (the proxy's clock)
	total             int64 // used by all proxies
	batch, credit     int64
	waiting           int64 // amounts of requests that wait for the companion
	waitingAt         int64
	seq, heardSeq     int64 // of the last message that may have been granted something, and of the last one that was replied to
	lapses            uint32
	generation        uint32

	rate rate
}

// rate counts what was taken in steps of 100 ms.
type rate struct{ step, now, before int64 }

const rateStep = 100 // ms

func (r *rate) turn(now int64) {
	switch step := now / rateStep; step {
	case r.step:
	case r.step + 1:
		*r = rate{step: step, before: r.now}
	default:
		*r = rate{step: step}
	}
}

func (r *rate) add(now, n int64) {
	r.turn(now)
	r.now += n
}

// recent is what was taken in about the last 100 ms.
func (r *rate) recent(now int64) int64 {
	r.turn(now)
	return max(r.now, r.before)
}

// forgettable reports whether the allocator need not learn more of an account with that use.
func (l *lease) forgettable(used int64) bool {
	return l.granted <= l.released && l.confirmed >= l.released && l.waiting == 0 && !l.unheard() && (l.granted == 0 || used == 0)
}

// link is what a table has to do with the companion.
type link struct {
	id         []byte // of the proxy
	generation uint32 // of the allocator
	lapses     uint32 // how often the grants were not to be trusted any longer
	skew       int64  // the allocator's clock less the proxy's, ms: late by the time that a response takes
	known      bool   // skew is
	trusted    int64  // until when the grants are good, by the proxy's clock, ms
	proxies    int64  // that are alive
	silent     bool   // nobody waits for the companion
	heard      int64  // the allocator's clock in the newest reply, ms
	beatAt     int64  // when a message was sent only to be heard from
}

// now is the allocator's time.
func (k *link) now(own int64) int64 { return own + k.skew }

// share is how many proxies there are to divide by.
func (k *link) share() int64 { return max(k.proxies, 1) }

const trust = int64(Lease/2) / int64(time.Millisecond)

func (k *link) trusts(own int64) bool { return own < k.trusted && k.trusted-own <= trust }

// beats reports whether it is time to say something even with nothing to say, and notes that it is said: so that grants stay good, and to find out
// when the companion is back, or has lost its memory.
func (k *link) beats(own int64) bool {
	every := Renew.Milliseconds()
	if k.silent {
		every /= 5
	}
	if own-k.beatAt < every && own >= k.beatAt {
		return false
	}
	k.beatAt = own
	return true
}

// lapse notes that the grants are not to be trusted any longer. It reports whether that is new.
func (k *link) lapse(own int64) bool {
	if k.trusted == 0 || k.trusts(own) {
		return false
	}
	k.trusted = 0
	k.lapses++
	return true
}

// hear takes over what a reply says about all accounts. It reports whether the reply counts: one to a message that was sent too long ago says
// what may have been taken back since.
func (k *link) hear(own int64, r *Reply) bool {
	if r.Time > own || own-r.Time >= trust || r.Generation != k.generation && r.Now <= k.heard {
		return false
	}
	k.heard = max(k.heard, r.Now)
	k.lapse(own)
	// The allocator's clock showed Now at some time between sending and now.
	low, high := r.Now-own, r.Now-r.Time
	if !k.known {
		k.skew, k.known = low, true
	}
	k.skew = min(max(k.skew, low), high)
	k.trusted = max(k.trusted, r.Time+trust)
	k.proxies = int64(r.Proxies)
	k.silent = r.Settling
	k.generation = r.Generation
	return true
}

// prepare brings a bucket up to date before anything is read of it.
func (b *bucket) prepare(own int64, shared bool, w *Window, k *link) {
	if !shared {
		b.roll(own, w)
		b.expire(own)
		return
	}
	b.roll(k.now(own), w)
	b.update(own, k)
}

// over reports whether the account's window is over.
func (b *bucket) over(now int64) bool { return b.end != 0 && b.end <= now }

// update is prepare without a new window.
func (b *bucket) update(own int64, k *link) {
	b.expire(own)
	b.lease.meet(b.net()+b.held(), own, k)
}

// ask counts a request among those that wait for the companion.
func (b *bucket) ask(own int64, d *Demand) {
	b.answered(d)
	d.asked = max(clamp(d.Amount), 1)
	b.lease.waiting = min(b.lease.waiting+d.asked, Most)
	b.lease.waitingAt = own
}

// answered takes a request from those that wait.
func (b *bucket) answered(d *Demand) {
	b.lease.served(d.asked)
	d.asked = 0
}

func (l *lease) served(n int64) { l.waiting = max(l.waiting-n, 0) }

// meet learns what happened to the link since the bucket was last used. After a lapse the allocator may have given to others what is not in use, and
// a new allocator knows nothing: only what is in use stays.
func (l *lease) meet(inUse, own int64, k *link) {
	if l.lapses != k.lapses || l.generation != k.generation {
		l.released = max(l.released, l.granted-inUse)
		l.freeAt = 0
	}
	if l.generation != k.generation {
		l.said, l.confirmed, l.heardAt = 0, 0, 0
	}
	l.lapses, l.generation = k.lapses, k.generation
	if l.waiting > 0 && (own-l.waitingAt > waitingFor || own < l.waitingAt) {
		l.waiting = 0
	}
}

// waitingFor bounds for how long requests that wait are counted without another one, in ms: they may have ended together with their worker.
const waitingFor = 2000

// fresh is for how long what the allocator said to be left is taken for what is left, in ms: a tick. A client that floods does not cause a
// message for each request.
const fresh = 20

// capacity is what the account may have in use.
func (l *lease) capacity(own int64, k *link) int64 {
	if !k.trusts(own) {
		return 0
	}
	return max(l.granted-l.released, 0)
}

// hear takes over what the allocator says about an account; now is its clock then.
func (b *bucket) hear(own, now int64, g *Grant, k *link) {
	at := k.now(own)
	if g.Start != b.start {
		switch {
		case g.End != 0 && g.End <= at: // it is over, and so is the response
			return
		case g.Start >= b.end || b.end <= at || b.used == 0 && b.held() == 0 && b.lease.granted == 0:
			l := b.lease
			b.begin(g.Start, g.End)
			b.lease.waiting, b.lease.waitingAt = l.waiting, l.waitingAt
		case g.End <= b.start && b.start-at <= early:
			return // this proxy is a little early
		default:
			// Both are of the same time, but this one began by a clock that is wrong, or was the first of a Flexi account. Its name stays, so
			// that nothing is counted twice.
			b.start, b.end = g.Start, g.End
		}
	}
	l := &b.lease
	if g.Window != 0 && g.Window != b.name {
		if b.used != 0 || b.held() != 0 || l.granted != 0 {
			// The allocator learns the name from the next message. It takes a smaller one for an old one.
			if g.Window > b.name {
				b.name = g.Window + 1
			}
			return
		}
		b.name = g.Window // this proxy has been in that window before
	}
	b.used, b.back = max(b.used, g.Used), max(b.back, g.Back)
	l.granted, l.released = max(l.granted, g.Granted), max(l.released, g.Released)
	l.heardSeq = max(l.heardSeq, g.Seq)
	if now < l.heardAt {
		return
	}
	l.heardAt, l.said, l.confirmed = now, g.Used-g.Back, g.Released
	l.free, l.freeAt, l.total, l.batch, l.credit = g.Free, own, g.Total, g.Batch, g.Credit
}

// early is by how much a proxy's window may begin before the allocator's, in ms.
const early = 1000

// release gives back what is not needed, and reports whether there is something to say.
func (b *bucket) release(own int64, k *link) (say bool) {
	l := &b.lease
	inUse := b.net() + b.held() + l.waiting
	keep := min(l.batch, l.rate.recent(own))
	if spare := l.granted - l.released - inUse; spare > keep {
		l.released += spare - keep
	}
	topUp := l.batch > 0 && keep > 0 && l.granted-l.released-inUse < keep/2
	return b.net() != l.said || l.released > l.confirmed || l.unheard() || topUp
}

// unheard reports whether something may have been granted that this proxy does not know of.
func (l *lease) unheard() bool { return l.heardSeq < l.seq }

// sent numbers a message that may be granted something. The allocator grants to each number once, and to none after a later one, so that what it
// grants is what the proxy learns. An account that was forgotten goes on with larger numbers, by the clock.
func (l *lease) sent(own int64) { l.seq = max(l.seq+1, own) }

// quiet reports whether an account that has nothing to say will have nothing to say later, unless it is used.
func (b *bucket) quiet() bool {
	return b.held() == 0 && b.lease.granted-b.lease.released <= b.net() && b.lease.waiting == 0
}

// entry is what a message says about the account, for a request that needs amount.
func (b *bucket) entry(own, amount int64) Entry {
	l := &b.lease
	return Entry{
		Start: b.start, Window: b.name, Used: b.used, Back: b.back, Said: l.said, Released: l.released, Granted: l.granted,
		Seq: l.seq, Held: b.held(), Need: amount, Want: max(l.waiting, amount), Rate: l.rate.recent(own),
	}
}

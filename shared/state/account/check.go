package account

import "time"

// verdict is what one account says to a demand.
type verdict struct {
	outcome Outcome
	wait    time.Duration
	held    bool
	local   bool    // see Result
	left    float64 // part of the limit that is left afterwards
}

// guess is the wait where nobody knows how long an open request takes.
const guess = time.Second

// check says what the account, which is prepared, thinks of a demand.
func (b *bucket) check(now time.Time, d *Demand, k *link) verdict {
	limit, amount := clamp(d.Limit), clamp(d.Amount)
	if d.Shared && !d.Spike {
		limit = clamp(limit + b.lease.credit)
	}
	need := max(amount, 1)
	switch {
	case need > limit:
		return verdict{outcome: TooLarge}
	case d.Spike:
		if wait := b.due(now, d, proxiesOf(d, k)); wait > 0 {
			return verdict{outcome: Refused, wait: time.Duration(wait)}
		}
		return verdict{left: 1}
	case d.Shared:
		return b.checkShared(now, d, limit, need, k)
	}
	left := limit - b.net() - b.held()
	if need > left {
		return b.refuse(now.UnixNano(), need <= limit-b.net())
	}
	return verdict{left: float64(left-amount) / float64(limit)}
}

// proxiesOf is among how many proxies the rate of a Spike is divided.
func proxiesOf(d *Demand, k *link) int64 {
	if d.Shared {
		return k.share()
	}
	return 1
}

// refuse says how long to wait, at a time of the window's clock in ns. held says that only open requests stand in the way.
func (b *bucket) refuse(now int64, held bool) verdict {
	v := verdict{outcome: Refused, wait: guess, held: held}
	if b.end == 0 {
		return v
	}
	if left := time.Duration(b.end*int64(time.Millisecond) - now); !v.held || left < v.wait {
		v.wait = max(left, 1)
	}
	return v
}

// checkShared admits from what was granted, and else says whether the companion is to be asked.
func (b *bucket) checkShared(now time.Time, d *Demand, limit, need int64, k *link) verdict {
	own := now.UnixMilli()
	l := &b.lease
	inUse := b.net() + b.held()
	capacity := l.capacity(own, k)
	if k.silent && d.Open {
		capacity = max(capacity, max(limit/k.share(), 1))
	}
	missing := inUse + need - capacity
	reserved := int64(0) // granted for those that asked, and not for one that has just come
	if d.asked == 0 && !k.silent {
		reserved = l.waiting
	}
	at := now.UnixNano() + k.skew*int64(time.Millisecond)
	switch {
	case missing+reserved <= 0:
		return verdict{left: float64(b.remaining(limit)) / float64(limit), local: k.silent && d.Open}
	case k.silent && d.Open:
		return b.refuse(at, need <= capacity-b.net())
	case k.silent:
		return verdict{outcome: Unreachable}
	case k.trusts(own) && l.freeAt != 0 && own >= l.freeAt && own-l.freeAt <= fresh && missing > l.free:
		return b.refuse(at, need <= limit-max(l.total, b.net())) // of its own use the allocator hears at the next tick
	}
	return verdict{outcome: Dry}
}

// remaining is what is left of an account, of all proxies' if it is shared.
func (b *bucket) remaining(limit int64) int64 {
	l := &b.lease
	if l.freeAt == 0 {
		return max(limit-b.net()-b.held(), 0)
	}
	own := max(l.granted-l.confirmed, l.said) // what the allocator had set aside for this proxy when it said what was left besides
	return min(limit, max(l.free+own-b.net()-b.held(), 0))
}

// standing is how the account, which is prepared, stands.
func (b *bucket) standing(now time.Time, d *Demand, k *link) Standing {
	s := Standing{Limit: clamp(d.Limit)}
	own := now.UnixMilli()
	switch {
	case d.Spike:
		s.Reset = time.Duration(b.due(now, d, proxiesOf(d, k)))
		if s.Reset == 0 {
			s.Remaining = min(1, s.Limit)
		}
		return s
	case d.Shared:
		s.Limit = clamp(s.Limit + b.lease.credit)
		s.Held, s.Remaining = b.held(), b.remaining(s.Limit)
		s.Used = max(b.lease.total, b.net())
		own = k.now(own)
	default:
		s.Used, s.Held, s.Remaining = b.net(), b.held(), max(s.Limit-b.net()-b.held(), 0)
	}
	if b.end != 0 {
		s.Reset = max(time.Duration(b.end-own)*time.Millisecond, 0)
	}
	return s
}

// rank orders outcomes: one of a higher rank decides about the whole request.
var rank = [...]uint8{Admitted: 0, Dry: 1, Unreachable: 2, Refused: 3, TooLarge: 4, Busy: 5, Full: 6, Failed: 7}

// tally joins the verdicts on the demands of one request.
type tally struct {
	Result
	left float64
}

func newTally() tally { return tally{Result: Result{At: -1}} }

func (t *tally) add(i int, v verdict) {
	t.Local = (t.Local || v.local) && v.outcome == Admitted && (t.At < 0 || t.Outcome == Admitted)
	switch {
	case t.At >= 0 && rank[v.outcome] < rank[t.Outcome]:
		return
	case t.At >= 0 && v.outcome == t.Outcome:
		if v.outcome == Refused && v.wait <= t.Wait || v.outcome == Admitted && v.left >= t.left || v.outcome > Refused {
			return
		}
	}
	t.Result = Result{Outcome: v.outcome, At: i, Wait: v.wait, Held: v.held, Local: t.Local}
	t.left = v.left
}

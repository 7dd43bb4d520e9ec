package picker

import "time"

// poolState is what is learnt of a pool; it needs the lock of the fleet.
type poolState struct {
	turn       uint64        // of round robin
	duration   time.Duration // mean time from pick to end of a request, weighted towards the latest; 0: unknown
	firstBytes firstBytes
	misrouted  time.Time // when Envoy last sent a request elsewhere at the first attempt
}

// state returns what is learnt of a pool; it needs the lock.
func (f *fleet) state(pool string) *poolState {
	p := f.pools[pool]
	if p == nil {
		p = &poolState{}
		f.pools[pool] = p
	}
	return p
}

// noteMisrouted notes that Envoy did not send a request of a pool to the picked replica.
func (f *fleet) noteMisrouted(pool string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state(pool).misrouted = now
}

// misroutes reports whether that happened lately.
func (f *fleet) misroutes(pool string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.state(pool).misrouted
	return !last.IsZero() && now.Sub(last) < time.Minute
}

// noteDuration notes how long a request of a pool took.
func (f *fleet) noteDuration(pool string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.state(pool)
	if p.duration == 0 {
		p.duration = d
	}
	p.duration += (d - p.duration) / 16
}

// meanDuration returns the mean duration of a request of a pool, 0 if it is unknown.
func (f *fleet) meanDuration(pool string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state(pool).duration
}

// nextTurn returns 0, 1, 2 … for one request of a pool after the other, from a random
// number on.
func (f *fleet) nextTurn(pool string, random func() uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.state(pool)
	if p.turn == 0 {
		p.turn = random() >> 1 // workers do not begin with the same replica
	}
	p.turn++
	return p.turn
}

// firstBytes is what is known of the first bytes of a pool's responses.
type firstBytes struct {
	mean   time.Duration // from pick to first byte, weighted towards the latest; 0: unknown
	who    *member       // sent the latest
	latest time.Time
	others time.Time // the latest of any other
}

func (b *firstBytes) note(m *member, took time.Duration, now time.Time) {
	if b.mean == 0 {
		b.mean = took
	}
	b.mean += (took - b.mean) / 16
	if b.who != m {
		b.who, b.others = m, b.latest
	}
	b.latest = now
}

// notBy is when any replica but m sent the latest; zero: never.
func (b *firstBytes) notBy(m *member) time.Time {
	if b.who == m {
		return b.others
	}
	return b.latest
}

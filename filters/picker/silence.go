package picker

import "time"

// A replica can hang while its metrics answer and say that nothing is going on. All
// that shows it are requests that end without a byte of an answer: it was waited for in
// vain. But a client may leave for reasons of its own, so it takes that
//
//   - it waited long: longer than health.silence, and much longer than replicas of this
//     pool take to their first byte;
//   - the replica gave nobody a first byte in that time;
//   - others did, since the first of some such requests in a row was sent.
//
// The first of them makes this worker hold back for a while, so that the client's next
// try goes elsewhere.
//
// A replica whose metrics say that it is at work may be computing a very long prompt, or
// an answer that is not streamed, and clients that give up meanwhile say little. An engine
// that hangs says the same, so it is only a matter of time: workFactor.

// silenceFactor is how many times the mean time to the first byte is long.
const silenceFactor = 4

// workFactor is how many times health.silence a replica that is at work may give nobody a
// first byte.
const workFactor = 20

// firstBytes is what is known of the first bytes of a pool, by the lock of the fleet.
type firstBytes struct {
	mean   time.Duration // from pick to first byte, weighted towards the latest; 0: unknown
	who    *member       // gave the latest
	latest time.Time
	others time.Time // the latest of anybody else
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

// notBy is when somebody other than m gave the latest; zero: never.
func (b *firstBytes) notBy(m *member) time.Time {
	if b.who == m {
		return b.others
	}
	return b.latest
}

// answered notes the first byte of an answer to a request that was sent at a time.
func (f *fleet) answered(m *member, pool string, sent, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state(pool).first.note(m, max(0, now.Sub(sent)), now)
	m.health.answered = now
	f.sound(m)
}

// silent notes a request that ended without a first byte. It reports whether that was in
// vain after a long time, and whether it is a failure.
func (f *fleet) silent(m *member, s *state, now time.Time, bounds *healthSettings, atWork bool) (long, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, first := &m.health, &f.state(s.pool).first
	if now.Sub(s.start) < max(bounds.silence, silenceFactor*first.mean) || h.answered.After(s.start) {
		return false, false
	}
	if h.silent++; h.silent == 1 {
		h.since = s.start
	}
	if h.ejected {
		return true, h.trying && m == s.trying
	}
	if atWork && now.Sub(h.since) < workFactor*bounds.silence {
		return false, false
	}
	others := first.notBy(m)
	if others.IsZero() {
		return true, false
	}
	f.holdBack(m, now.Add(bounds.eject))
	if h.silent < bounds.failures || !others.After(h.since) {
		return true, false
	}
	h.silent, h.failures = 0, max(h.failures, bounds.failures-1) // with this one it is as many
	return true, true
}

package picker

import "time"

// A replica can hang while its metrics are scraped and say that nothing is going on. All
// that shows it are requests that end without a first byte of a response. But a client
// may leave for reasons of its own, so such a request counts only if
//
//   - it waited for long: longer than health.firstByte, and much longer than replicas of
//     this pool take to their first byte;
//   - the replica sent no first byte at all in that time;
//   - others did, since the first of several such requests in a row was sent.
//
// The first of them makes this worker back off for a while, so that the client's next
// attempt goes elsewhere.
//
// A replica whose metrics say that it is busy may be computing a very long prompt, or a
// response that is not streamed. Clients that give up meanwhile say little. An engine that
// hangs says the same, so it is only a matter of time: busyFactor.

// timeoutFactor is how many times the mean time to the first byte is long.
const timeoutFactor = 4

// busyFactor is how many times health.firstByte a busy replica may send no first byte at
// all.
const busyFactor = 20

// firstByte notes the first byte of the response to a request that was sent at a time.
func (f *fleet) firstByte(m *member, pool string, sent, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state(pool).firstBytes.note(m, max(0, now.Sub(sent)), now)
	m.health.firstByte = now
	f.sound(m)
}

// timedOut notes a request that ended without a first byte. It reports whether it waited
// for so long that nothing can be concluded from the cache any more, and whether that is
// a failure.
func (f *fleet) timedOut(m *member, s *state, now time.Time, bounds *healthSettings, busy bool) (long, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, first := &m.health, &f.state(s.poolName).firstBytes
	if now.Sub(s.sentAt) < max(bounds.firstByte, timeoutFactor*first.mean) || h.firstByte.After(s.sentAt) {
		return false, false
	}
	// Requests that were sent at once end in any order.
	if h.timeouts++; h.timeouts == 1 || s.sentAt.Before(h.since) {
		h.since = s.sentAt
	}
	if h.ejected {
		return true, h.probing && m == s.probing
	}
	if busy && now.Sub(h.since) < busyFactor*bounds.firstByte {
		return false, false
	}
	others := first.notBy(m)
	if others.IsZero() {
		return true, false
	}
	f.startBackoff(m, now.Add(bounds.eject))
	if h.timeouts < bounds.failures || !others.After(h.since) {
		return true, false
	}
	h.timeouts, h.failures = 0, max(h.failures, bounds.failures-1) // with this one it is as many
	return true, true
}

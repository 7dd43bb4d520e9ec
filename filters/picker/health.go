package picker

import "time"

// Envoy's override_host gives a request to the replica that it is told, however
// sick Envoy knows it to be. So the picker goes by what it sees itself: a replica
// that failed some times in a row gets nothing for a while, the longer the more
// often that happens; then one request at a time tries it, with the next ones of
// the ranked list behind it, until one succeeds.
//
// What one worker sees, the others hear of by the counter of the replica: none
// of them sends there as long as one of them has it ejected. The worker that
// ejected it is the one to try.

// healthSettings are bounds of that.
type healthSettings struct {
	failures int           // in a row, that eject
	eject    time.Duration // first time out; it doubles …
	maxEject time.Duration // … up to this
	share    float64       // of the ready replicas of a pool that may be out, at most
	silence  time.Duration // without a byte of an answer that is no failure yet, however soon others answer
}

// health is what this worker has seen of one replica.
type health struct {
	failures int       // in a row
	ejected  bool      // by this worker
	until    time.Time // when it is to be tried
	trying   bool      // a request is on its way
	times    int       // how often it was ejected lately

	full     time.Time // until when this worker holds back from it; zero: it does not
	answered time.Time // the latest first byte of an answer
	silent   int       // requests in a row that ended without one after a long time
	since    time.Time // when the first of these was sent
}

// failed notes a failure, and reports whether the replica is ejected for it.
func (f *fleet) failed(m *member, s *healthSettings, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &m.health
	h.failures++
	switch {
	case h.ejected && h.trying:
		h.trying = false
	case h.ejected || h.failures < s.failures:
		return false
	default:
		if now.Sub(h.until) > s.maxEject {
			h.times = 0
		}
		h.ejected = true
		m.ejected.Add(1)
		f.ejected.Add(1)
	}
	h.until = now.Add(timeOut(s, h.times))
	h.times++
	// Mostly it was started anew, and what it had computed is lost.
	f.index.Empty(m.slot)
	return true
}

// timeOut returns how long a replica stays out after it was ejected so often.
func timeOut(s *healthSettings, times int) time.Duration {
	d := s.eject
	for range times {
		if d >= s.maxEject/2 {
			return s.maxEject
		}
		d *= 2
	}
	return min(d, s.maxEject)
}

// succeeded notes an answer that is no failure.
func (f *fleet) succeeded(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sound(m)
}

// sound needs the lock.
func (f *fleet) sound(m *member) {
	m.health.failures, m.health.silent, m.health.trying = 0, 0, false
	if m.health.ejected {
		f.readmit(m)
	}
}

// readmit needs the lock.
func (f *fleet) readmit(m *member) {
	m.health.ejected = false
	m.ejected.Add(-1)
	f.ejected.Add(-1)
}

// try reports whether a request may go to an ejected replica to see how it is.
// Whoever is told so reports the end of it.
func (f *fleet) try(m *member, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &m.health
	if !h.ejected || h.trying || now.Before(h.until) {
		return false
	}
	h.trying = true
	return true
}

// tried ends a try of which nothing was learnt: the client went away.
func (f *fleet) tried(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.health.trying = false
}

// isFailure reports whether a status says that the replica is at fault, whatever else
// is known. 503 may also say that it is full.
func isFailure(status int) bool { return status == 500 || status == 502 || status == 504 }

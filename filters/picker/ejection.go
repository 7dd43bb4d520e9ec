package picker

import (
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Envoy's override_host sends a request to the replica that the header names, whether
// Envoy knows it to be healthy or not. So the picker uses what it sees itself. A replica that
// failed several times in a row is ejected: it gets nothing for a while, the longer the
// more often that happens. Then it is half-open: one request at a time probes it, with
// the next ones of the ranked list behind it, until one succeeds.
//
// What one worker sees, the others learn from the counter of the replica: none of them
// sends there as long as one of them has it ejected. The worker that ejected it probes it.

// healthSettings are the bounds of that.
type healthSettings struct {
	failures  int           // in a row, that eject
	eject     time.Duration // duration of the first ejection; it doubles …
	maxEject  time.Duration // … up to this
	share     float64       // of the ready replicas of a pool that may be ejected, at most
	firstByte time.Duration // a request that waits for less is no failure, however soon others respond
}

// health is what this worker has seen of one replica.
type health struct {
	failures  int       // in a row
	reason    string    // of these; reasonMixed if they differ
	ejected   bool      // by this worker
	until     time.Time // when it is to be probed
	probing   bool      // a probe is on its way
	ejections int       // lately

	backoffUntil time.Time // until when this worker backs off from it; zero: it does not
	firstByte    time.Time // the latest first byte of a response
	timeouts     int       // requests in a row that ended without one after a long time
	since        time.Time // when the first of these was sent
}

// ejection is what is said of one.
type ejection struct {
	duration time.Duration
	failures int
	reason   string
	probe    bool // the half-open probe failed
}

// failed notes a failure of a replica.
func (f *Filter) failed(m *member, pool, reason string) {
	e, ejected := f.fleet.failed(m, &f.health, reason, f.deps.Now())
	if ejected {
		f.metrics.ejections.Record(1, filter.Values{pool, reason})
		f.deps.Log(filter.Warn, "ejecting endpoint "+m.address+" for "+e.duration.String()+": "+e.cause()+", in pool "+pool)
	}
}

// cause says why a replica is ejected, such as "3 consecutive 5xx responses".
func (e *ejection) cause() string {
	one, many := "failure", "failures"
	switch e.reason {
	case reasonStatus:
		one, many = "5xx response", "5xx responses"
	case reasonConnect:
		one, many = "attempt that Envoy retried elsewhere", "attempts that Envoy retried elsewhere"
	case reasonTimeout:
		one, many = "request that ended without a first byte", "requests that ended without a first byte"
	}
	switch {
	case e.probe:
		return "the half-open probe failed (" + one + ")"
	case e.failures == 1:
		return "1 " + one
	}
	return strconv.Itoa(e.failures) + " consecutive " + many
}

// failed notes a failure, and reports whether the replica is ejected for it.
func (f *fleet) failed(m *member, s *healthSettings, reason string, now time.Time) (e ejection, ejected bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &m.health
	h.failures++
	if h.reason == "" {
		h.reason = reason
	} else if h.reason != reason {
		h.reason = reasonMixed
	}
	switch {
	case h.ejected && h.probing:
		h.probing, e.probe = false, true
		h.reason = reason
	case h.ejected || h.failures < s.failures:
		return e, false
	default:
		if now.Sub(h.until) > s.maxEject {
			h.ejections = 0
		}
		h.ejected = true
		m.ejected.Add(1)
		f.ejected.Add(1)
	}
	e.duration, e.failures, e.reason = ejectFor(s, h.ejections), h.failures, h.reason
	h.until = now.Add(e.duration)
	h.ejections++
	// Mostly it was restarted, and what it had cached is lost.
	f.index.Empty(m.slot)
	return e, true
}

// ejectFor returns how long a replica is ejected that was ejected so often before.
func ejectFor(s *healthSettings, ejections int) time.Duration {
	d := s.eject
	for range ejections {
		if d >= s.maxEject/2 {
			return s.maxEject
		}
		d *= 2
	}
	return min(d, s.maxEject)
}

// succeeded notes a response that is no failure.
func (f *fleet) succeeded(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sound(m)
}

// sound needs the lock.
func (f *fleet) sound(m *member) {
	h := &m.health
	h.failures, h.reason, h.timeouts, h.probing = 0, "", 0, false
	if h.ejected {
		f.readmit(m)
	}
}

// readmit needs the lock.
func (f *fleet) readmit(m *member) {
	m.health.ejected = false
	m.ejected.Add(-1)
	f.ejected.Add(-1)
}

// startProbe reports whether a request may go to an ejected replica as its half-open
// probe. The caller reports the end of it.
func (f *fleet) startProbe(m *member, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &m.health
	if !h.ejected || h.probing || now.Before(h.until) {
		return false
	}
	h.probing = true
	return true
}

// endProbe ends a probe of which nothing was learnt: the client went away.
func (f *fleet) endProbe(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.health.probing = false
}

// endProbe ends the request's probe, if it is one and nothing was learnt.
func (f *Filter) endProbe(s *state) {
	if s.probing != nil {
		f.fleet.endProbe(s.probing)
		s.probing = nil
	}
}

// isFailure reports whether a status says that the replica failed, whatever else is
// known. 503 may also say that it is saturated.
func isFailure(status int) bool { return status == 500 || status == 502 || status == 504 }

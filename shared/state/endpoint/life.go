package endpoint

import "time"

// lostAfter is shorter than the start of any model server, and longer than a replica is missing after a failed scrape.
const lostAfter = 2 * time.Second

// StartJitter is by how many seconds the reported times of one start may differ: some metrics libraries compute it each time from a clock
// that may be adjusted, and each companion keeps the first that it read.
const StartJitter = 2

// Life tracks whether a replica is still the same process: if not, what the previous one had computed is gone. If the metrics have the start of
// the process, that decides. A later start is another process. An earlier one is another process only if the replica was away in between:
// otherwise it comes from a companion that restarted and does not know that the replica was put to sleep since, or from one of several processes
// that share a port. Without a start in the metrics, a replica is another process after it was not ready for lostAfter, or was not
// listed at all; a single missed scrape is neither. The zero value has seen nothing.
type Life struct {
	started int64     // the latest that was seen; 0: none
	ready   bool      // as last seen
	left    time.Time // when it was first not; zero: it has lost nothing
	gone    bool      // it was not listed since
}

// See takes the replica's state in a snapshot (Snapshot.Process), and reports whether it is another process than before.
func (l *Life) See(ready bool, started int64, now time.Time) (another bool) {
	told := l.started != 0 && started != 0
	another = told && (started > l.started+StartJitter || started < l.started-StartJitter && !l.left.IsZero())
	if another || l.started == 0 {
		l.started = started
	}
	if l.ready && !ready {
		l.left = now
	}
	if l.ready = ready; l.ready && !l.left.IsZero() {
		another = another || !told && (l.gone || now.Sub(l.left) >= lostAfter)
		l.left, l.gone = time.Time{}, false
	}
	return another
}

// Miss notes that the replica is no longer listed.
func (l *Life) Miss(now time.Time) {
	if l.ready {
		l.ready, l.left = false, now
	}
	l.gone = true
}

// Ready reports whether it was ready when it was last seen.
func (l *Life) Ready() bool { return l.ready }

package endpoint

import "time"

// lostAfter is shorter than any model server takes to start, and longer than a replica is away for a scrape that failed.
const lostAfter = 2 * time.Second

// StartJitter is by how many seconds what is told of one start may differ: some clients compute it anew each time from a clock that is set,
// and each companion goes by what it was told first.
const StartJitter = 2

// Life tells whether a replica that is seen again is the same process: if it is not, what the one before had computed is gone. Where metrics say
// when the process was started, that decides. A later start is another process. An earlier one is only if the replica was away in between: else
// a companion tells it that does not know, since it was started anew, that the replica was put to sleep meanwhile; or several processes answer
// at one port. Where metrics do not tell, it is taken for another one if it was not ready for lostAfter, or was not listed at all; a scrape that is
// missed once is neither. The zero value has seen nothing.
type Life struct {
	started int64     // the latest that was told; 0: none
	ready   bool      // as told last
	left    time.Time // when it was first not; zero: it has lost nothing
	gone    bool      // it was not listed since
}

// See takes in what a snapshot says of the replica (Snapshot.Process), and reports whether it is another process than before.
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

// Miss takes in that the replica is not listed any more.
func (l *Life) Miss(now time.Time) {
	if l.ready {
		l.ready, l.left = false, now
	}
	l.gone = true
}

// Ready reports whether it was ready when it was seen last.
func (l *Life) Ready() bool { return l.ready }

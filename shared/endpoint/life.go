package endpoint

import "time"

// lostAfter is shorter than any model server takes to start, and longer than a replica is away for a scrape that failed.
const lostAfter = 2 * time.Second

// Life tells whether a replica that is seen again is the same process: if it is not, what the one before had computed is gone. Where metrics say
// when the process was started, that decides. Where they do not, it is taken for another one if it was not ready for lostAfter, or was not listed
// at all; a scrape that is missed once is neither. The zero value has seen nothing.
type Life struct {
	started int64     // as told last; 0: never
	ready   bool      // as told last
	left    time.Time // when it was first not; zero: it has lost nothing
	gone    bool      // it was not listed since
}

// See takes in what a snapshot says of the replica, and reports whether it is another process than before.
func (l *Life) See(e *Endpoint, now time.Time) (another bool) {
	told := l.started != 0 && e.Started != 0
	another = told && e.Started != l.started
	if e.Started != 0 {
		l.started = e.Started
	}
	if l.ready && !e.Ready {
		l.left = now
	}
	if l.ready = e.Ready; l.ready && !l.left.IsZero() {
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

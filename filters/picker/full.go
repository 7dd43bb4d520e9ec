package picker

import (
	"slices"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// A replica that says itself that it takes nothing more now, while its metrics answer,
// is busy and not broken: it gets nothing for as long as it says, or a second, and then
// all as before. Nothing doubles, and what it has computed is still there.
//
// What one worker holds back from, the others do, by a counter of the replica.

const (
	defaultBackOff = time.Second
	minBackOff     = 100 * time.Millisecond
	maxBackOff     = time.Minute
)

// isFull reports whether a status says that there is no room. 503 says so too, of a
// replica whose metrics answer.
func isFull(status int) bool { return status == 429 || status == 529 }

// retryAfter returns how long an answer asks to wait: seconds, or a date, which is
// compared with the same server's own.
func retryAfter(h filter.Headers, now time.Time) time.Duration {
	wait := defaultBackOff
	if v, ok := headerOf(h, "retry-after"); ok {
		if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
			wait = time.Duration(seconds) * time.Second
		} else if date, err := time.Parse(dateFormat, v); err == nil {
			if v, ok := headerOf(h, "date"); ok {
				if its, err := time.Parse(dateFormat, v); err == nil {
					now = its
				}
			}
			wait = date.Sub(now)
		}
	}
	return min(max(wait, minBackOff), maxBackOff)
}

func headerOf(h filter.Headers, name string) (string, bool) {
	if h == nil {
		return "", false
	}
	return h.Get(name)
}

// dateFormat is that of dates in headers (RFC 9110 5.6.7).
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// backOff holds back from a replica until a time.
func (f *fleet) backOff(m *member, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holdBack(m, until)
}

// holdBack needs the lock.
func (f *fleet) holdBack(m *member, until time.Time) {
	switch h := &m.health; {
	case h.full.IsZero():
		m.full.Add(1)
		f.full.Add(1)
		f.held = append(f.held, m)
		h.full = until
	case until.After(h.full):
		h.full = until
	}
}

// holdsBack reports whether any worker holds back from any replica. Those times of this
// one that are over end here.
func (f *fleet) holdsBack(now time.Time) bool {
	if f.full.Value() <= 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = slices.DeleteFunc(f.held, func(m *member) bool {
		if now.Before(m.health.full) {
			return false
		}
		f.letGo(m)
		return true
	})
	return f.full.Value() > 0
}

// release ends what is held back from a replica; it needs the lock.
func (f *fleet) release(m *member) {
	if i := slices.Index(f.held, m); i >= 0 {
		f.held = slices.Delete(f.held, i, i+1)
		f.letGo(m)
	}
}

func (f *fleet) letGo(m *member) {
	m.health.full = time.Time{}
	m.full.Add(-1)
	f.full.Add(-1)
}

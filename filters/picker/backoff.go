package picker

import (
	"slices"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// A replica that says itself that it takes nothing more now, while its metrics are fresh,
// is busy and not broken. It gets nothing for as long as it says, or a second, and then
// everything as before. Nothing doubles, and its cached prompts are not forgotten.
//
// When one worker backs off, so do the others: by a counter of the replica.

const (
	defaultBackoff = time.Second
	minBackoff     = 100 * time.Millisecond
	maxBackoff     = time.Minute
)

// isOverloaded reports whether a status says that the replica takes nothing more. 503
// says so too, of a replica whose metrics are fresh.
func isOverloaded(status int) bool { return status == 429 || status == 529 }

// retryAfter returns how long a response asks to wait: in seconds, or by a date, which is
// compared with the same server's own.
func retryAfter(h filter.Headers, now time.Time) time.Duration {
	wait := defaultBackoff
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
	return min(max(wait, minBackoff), maxBackoff)
}

func headerOf(h filter.Headers, name string) (string, bool) {
	if h == nil {
		return "", false
	}
	return h.Get(name)
}

// dateFormat is that of dates in headers (RFC 9110 5.6.7).
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// backOff backs off from a replica until a time.
func (f *fleet) backOff(m *member, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.startBackoff(m, until)
}

// startBackoff needs the lock.
func (f *fleet) startBackoff(m *member, until time.Time) {
	switch h := &m.health; {
	case h.backoffUntil.IsZero():
		m.backingOff.Add(1)
		f.backingOff.Add(1)
		f.backoffs = append(f.backoffs, m)
		h.backoffUntil = until
	case until.After(h.backoffUntil):
		h.backoffUntil = until
	}
}

// isBackingOff reports whether any worker backs off from any replica. Those back-offs of
// this worker end here that are over.
func (f *fleet) isBackingOff(now time.Time) bool {
	if f.backingOff.Value() <= 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backoffs = slices.DeleteFunc(f.backoffs, func(m *member) bool {
		if now.Before(m.health.backoffUntil) {
			return false
		}
		f.noBackoff(m)
		return true
	})
	return f.backingOff.Value() > 0
}

// endBackoff ends the back-off of a replica; it needs the lock.
func (f *fleet) endBackoff(m *member) {
	if i := slices.Index(f.backoffs, m); i >= 0 {
		f.backoffs = slices.Delete(f.backoffs, i, i+1)
		f.noBackoff(m)
	}
}

func (f *fleet) noBackoff(m *member) {
	m.health.backoffUntil = time.Time{}
	m.backingOff.Add(-1)
	f.backingOff.Add(-1)
}

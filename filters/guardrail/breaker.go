package guardrail

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// breaker keeps requests from waiting for a service that does not answer. After some failures in a row it is open, and nobody is
// asked. After a while it is half open: one request asks, and its outcome closes or opens it again.
//
// A native module has one for all its threads. Each worker of the wasm build has its own: it learns from its own calls, and each
// lets one request through.
type breaker struct {
	mutex    filter.Mutex
	failures int       // in a row
	until    time.Time // open until then; half open after; zero: closed
	trial    time.Time // half open, and a request asks: the next one may then
	trials   int       // so far; the number of the last one
	alarmed  bool      // somebody was told that the service will not take what it is asked
}

// breakerOf returns the breaker of a provider, which outlives configurations.
func breakerOf(d *filter.Deps, cluster, name string) *breaker {
	return d.Kept("guardrail/breaker/"+cluster+"/"+name, func() any { return &breaker{mutex: d.Mutex()} }).(*breaker)
}

// lets reports whether the service may be asked now, and if not, after which time it may. A call that is let through is followed
// by succeeded, failed or gone. One that is a trial has a number.
func (b *breaker) lets(now time.Time, timeout time.Duration) (trial int, wait time.Duration, ok bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	switch {
	case b.until.IsZero():
		return 0, 0, true
	case now.Before(b.until):
		return 0, b.until.Sub(now), false
	case now.Before(b.trial):
		return 0, b.trial.Sub(now), false
	}
	b.trial = now.Add(timeout)
	b.trials++
	return b.trials, 0, true
}

// succeeded notes that the service has answered. It reports whether that closes the breaker.
func (b *breaker) succeeded() (closed bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	closed = !b.until.IsZero()
	b.failures, b.until, b.trial = 0, time.Time{}, time.Time{}
	return closed
}

// failed notes that it has not. If that opens the breaker, it returns how many calls in a row have failed; else 0.
func (b *breaker) failed(now time.Time, most int, open time.Duration) (opened int) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.failures++
	switch {
	case most == 0 || now.Before(b.until):
		return 0 // it was open before, and the call is an old one
	case b.until.IsZero() && b.failures < most:
		return 0
	}
	b.until, b.trial = now.Add(open), time.Time{}
	return b.failures
}

// gone notes that nobody waits any more for a call that was let through. If it is the trial that others wait for, the next one may try.
func (b *breaker) gone(trial int) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if trial == b.trials {
		b.trial = time.Time{}
	}
}

// alarm notes whether the service takes what it is asked. It reports whether it is new that it does not.
func (b *breaker) alarm(refuses bool) (news bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	news = refuses && !b.alarmed
	b.alarmed = refuses
	return news
}

package kv

import (
	"encoding/binary"
	"errors"
	"time"
)

// Lease lets one of several workers do a job: the worker that holds it, until it releases it or is silent for the time to live. The workers of
// one Envoy read one clock, so the expiry is a point in time of that clock.
type Lease struct {
	store      Store
	key, owner string
	now        func() time.Time
	ttl        time.Duration
	scratch    []byte
}

// NewLease returns the view that owner has of the lease called key. Owners are unique among those who want the lease.
func NewLease(s Store, key, owner string, now func() time.Time, ttl time.Duration) *Lease {
	return &Lease{store: s, key: key, owner: owner, now: now, ttl: ttl}
}

// Hold reports whether the owner holds the lease, taking it if it is free or expired and renewing it if half of it is over: so it is
// called at each tick, and costs one Get on most. The answer is good for at least half the time to live from now if Hold is not called
// again, and a holder that was away for longer must ask before it goes on.
func (l *Lease) Hold() (bool, error) {
	now := l.now()
	value, cas, err := l.store.Get(l.key)
	if errors.Is(err, ErrNotFound) {
		return l.write(now.Add(l.ttl), Create)
	}
	if err != nil {
		return false, err
	}
	owner, expiry := decodeLease(value)
	left := expiry.Sub(now)
	switch {
	case owner == l.owner && left > l.ttl/2 && left <= l.ttl:
		return true, nil
	case owner != l.owner && left > 0 && left <= l.ttl:
		return false, nil
	}
	// Free, expired, due for renewal, or further ahead than any holder can have written (the clock was set back).
	return l.write(now.Add(l.ttl), cas)
}

// Release frees the lease if the owner holds it.
func (l *Lease) Release() error {
	value, cas, err := l.store.Get(l.key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if owner, _ := decodeLease(value); owner != l.owner {
		return nil
	}
	_, err = l.write(time.Unix(0, 0), cas)
	return err
}

// write reports whether this owner's write was the one that counted: losing against another worker is an answer, not an error.
func (l *Lease) write(expiry time.Time, cas uint32) (bool, error) {
	l.scratch = append(l.scratch[:0], format)
	l.scratch = binary.LittleEndian.AppendUint64(l.scratch, uint64(expiry.UnixNano()))
	l.scratch = append(l.scratch, l.owner...)
	err := l.store.Set(l.key, l.scratch, cas)
	if errors.Is(err, ErrMismatch) {
		return false, nil
	}
	return err == nil, err
}

// decodeLease reads a lease; what it cannot read is free.
func decodeLease(b []byte) (owner string, expiry time.Time) {
	if len(b) < 9 || b[0] != format {
		return "", time.Unix(0, 0)
	}
	return string(b[9:]), time.Unix(0, int64(binary.LittleEndian.Uint64(b[1:])))
}

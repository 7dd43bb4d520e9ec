package kv_test

import (
	"encoding/binary"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// What no lease can be, short or of another form, is free; what one is, is not.
func TestForeignLeaseValues(t *testing.T) {
	const ttl = time.Second
	c := newClock()
	form := func(format byte, expiry time.Time, owner string) []byte {
		return append(binary.LittleEndian.AppendUint64([]byte{format}, uint64(expiry.UnixNano())), owner...)
	}
	soon := c.now().Add(ttl / 2)
	for _, test := range []struct {
		name  string
		value []byte
		free  bool
	}{
		{"empty", nil, true},
		{"one byte", []byte{1}, true},
		{"half an expiry", form(1, soon, "")[:5], true},
		{"one byte less", form(1, soon, "")[:8], true},
		{"another form", form(2, soon, "other"), true},
		{"another's", form(1, soon, "other"), false},
		{"nobody's, but a lease", form(1, soon, ""), false},
		{"another's, just over", form(1, c.now(), "other"), true},
		{"another's, not quite over", form(1, c.now().Add(1), "other"), false},
		{"another's, as long as can be", form(1, c.now().Add(ttl), "other"), false},
		{"another's, longer than can be", form(1, c.now().Add(ttl+1), "other"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := mem.NewStore()
			require.NoError(t, store.Set("job", test.value, 0))
			l := kv.NewLease(store, "job", "own", c.now, ttl)
			require.NoError(t, l.Release(), "not the holder")
			held, err := l.Hold()
			require.NoError(t, err)
			require.Equal(t, test.free, held)
		})
	}
}

// A holder asks at each tick, and writes when half of its time is over.
func TestALeaseIsRenewedAtHalf(t *testing.T) {
	const ttl = 100 * time.Millisecond
	store, c := &spy{Store: mem.NewStore()}, newClock()
	l := kv.NewLease(store, "job", "own", c.now, ttl)
	for _, step := range []struct {
		after time.Duration
		sets  int
	}{{0, 1}, {0, 0}, {ttl/2 - 1, 0}, {1, 1}, {ttl/2 - 1, 0}, {ttl, 1}} {
		c.advance(step.after)
		store.reset()
		held, err := l.Hold()
		require.NoError(t, err)
		require.True(t, held)
		require.Equal(t, step.sets, store.sets)
	}
}

// What is free is free by any clock, one that has just begun, too.
func TestAFreeLeaseByAnyClock(t *testing.T) {
	for _, now := range []time.Time{time.Unix(0, 0), time.Unix(0, 1), time.Unix(1, 0), time.Unix(1_000_000, 0)} {
		store, c := mem.NewStore(), &clock{now}
		a, b := kv.NewLease(store, "job", "a", c.now, time.Hour), kv.NewLease(store, "job", "b", c.now, time.Hour)
		require.NoError(t, store.Set("job", []byte("nonsense"), 0))
		for _, l := range []*kv.Lease{a, b} {
			held, err := l.Hold()
			require.NoError(t, err)
			require.True(t, held, now)
			require.NoError(t, l.Release())
		}
	}
}

// Names may lie in memory that is somebody else's afterwards.
func TestCountersOwnTheirNames(t *testing.T) {
	store, c := mem.NewStore(), newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	name := []byte("replica")
	a.Open(unsafe.String(&name[0], len(name))).Add(1)
	copy(name, "another")
	tickAll(t, a)
	b.Open("replica")
	tickAll(t, b)
	require.EqualValues(t, 1, value(b, "replica"))
	require.EqualValues(t, 1, value(a, "replica"))
	require.Zero(t, value(a, "another"))
}

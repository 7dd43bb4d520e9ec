package kv_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// outage is a store one of whose next calls fails.
type outage struct {
	kv.Store
	in     int // calls until then; negative: none fails
	failed bool
}

func (o *outage) fails() bool {
	o.in--
	o.failed = o.failed || o.in == -1
	return o.in == -1
}

func (o *outage) Get(key string) ([]byte, uint32, error) {
	if o.fails() {
		return nil, 0, errHost
	}
	return o.Store.Get(key)
}

func (o *outage) Set(key string, value []byte, cas uint32) error {
	if o.fails() {
		return errHost
	}
	return o.Store.Set(key, value, cas)
}

// Whichever call of the store fails in a tick: the tick says so, own counts are exact, and later ticks do what this one left.
func TestAnyCallMayFail(t *testing.T) {
	for name, c := range map[string]struct {
		before func(a, b *kv.Ledger, c *clock) // the tick that fails
		a, all int64                           // what a counts itself, and what all do in the end
	}{
		"nothing to do":  {func(*kv.Ledger, *kv.Ledger, *clock) {}, 3, 10},
		"a count":        {func(a, _ *kv.Ledger, _ *clock) { a.Open("x").Add(2) }, 5, 12},
		"a renewal":      {func(_, _ *kv.Ledger, c *clock) { c.advance(lease / 2) }, 3, 10},
		"no counts":      {func(a, _ *kv.Ledger, _ *clock) { a.Open("x").Add(-3) }, 0, 7},
		"a new counter":  {func(a, _ *kv.Ledger, _ *clock) { a.Open("y") }, 3, 10},
		"another counts": {func(_, b *kv.Ledger, _ *clock) { b.Open("x").Add(1); _ = b.Tick() }, 3, 11},
	} {
		for call := 0; ; call++ {
			now, store := newClock(), &outage{Store: mem.NewStore(), in: -2}
			a, b := kv.NewLedger(store, "a", now.now, lease), kv.NewLedger(store.Store, "b", now.now, lease)
			a.Open("x").Add(3)
			b.Open("x").Add(7)
			tickAll(t, a, b, a)
			c.before(a, b, now)
			store.in = call
			err := a.Tick()
			if !store.failed {
				require.NoError(t, err)
				require.Positive(t, call)
				break
			}
			require.ErrorIs(t, err, errHost, "%s, call %d", name, call)
			for range 3 {
				now.advance(tick)
				tickAll(t, a, b)
			}
			require.Equal(t, c.all, value(a, "x"), "%s, call %d", name, call)
			require.Equal(t, c.all, value(b, "x"), "%s, call %d", name, call)
			require.NoError(t, b.Close())
			tickAll(t, a)
			require.Equal(t, c.a, value(a, "x"), "%s, call %d", name, call)
		}
	}
}

// The counts of a dead worker expire, and it is taken off the list, whichever call fails meanwhile.
func TestAnyCallOfABurialMayFail(t *testing.T) {
	for call := 0; ; call++ {
		now, store := newClock(), &outage{Store: mem.NewStore(), in: -2}
		dead := kv.NewLedger(store, "dead", now.now, lease)
		a := kv.NewLedger(store, "a", now.now, lease)
		dead.Open("x").Add(7)
		a.Open("x")
		tickAll(t, dead, a)
		require.EqualValues(t, 7, value(a, "x"))
		for elapsed := time.Duration(0); elapsed < lease-tick; elapsed += tick {
			now.advance(tick)
			tickAll(t, a)
		}
		now.advance(tick)
		store.in = call
		err := a.Tick()
		if !store.failed {
			require.NoError(t, err)
			require.Greater(t, call, 3)
			break
		}
		require.ErrorIs(t, err, errHost, "call %d", call)
		for range 3 {
			now.advance(tick)
			tickAll(t, a)
		}
		require.Zero(t, value(a, "x"), "call %d", call)
		directory, _, err := store.Store.Get("inlet.ledger.1")
		require.NoError(t, err)
		require.NotContains(t, string(directory), "dead", "call %d", call)
	}
}

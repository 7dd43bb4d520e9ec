package kv_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// A worker that is being taken off the list turns out to be alive, and rewrites its record before it can be emptied: the new
// record is spared, whether it comes before the old one is looked at or after.
func TestARecordThatItsOwnerHasJustRewritten(t *testing.T) {
	const record = "inlet.ledger.1/slow"
	for _, moment := range []string{"get", "set"} {
		t.Run("before the "+moment, func(t *testing.T) {
			store, c := &spy{Store: mem.NewStore()}, newClock()
			slow, a, b := kv.NewLedger(store, "slow", c.now, lease), kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
			slow.Open("x").Add(7)
			a.Open("x").Add(1)
			b.Open("x")
			tickAll(t, slow, a, b)
			for range 2 {
				c.advance(tick)
				tickAll(t, a)
			}
			c.advance(tick)
			store.between = func(op, key string) {
				if op == moment && key == record {
					store.between = nil
					tickAll(t, slow)
				}
			}
			tickAll(t, a)
			require.Nil(t, store.between, "the burial was in progress")
			value0, _, err := store.Get(record)
			require.NoError(t, err)
			require.Greater(t, len(value0), 9, "the record is spared")
			tickAll(t, a, b)
			for _, l := range []*kv.Ledger{slow, a, b} {
				require.EqualValues(t, 8, value(l, "x"))
			}
		})
	}
}

// Several workers that die at once are buried at one tick.
func TestSeveralDeadWorkers(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	a := kv.NewLedger(store, "a", c.now, lease)
	a.Open("x").Add(1)
	for i := range 3 {
		dead := kv.NewLedger(store, worker(i), c.now, lease)
		dead.Open("x").Add(10)
		tickAll(t, dead)
	}
	tickAll(t, a)
	require.EqualValues(t, 31, value(a, "x"))
	for range 3 {
		c.advance(tick)
		tickAll(t, a)
	}
	require.EqualValues(t, 1, value(a, "x"))
	directory, _, err := store.Get("inlet.ledger.1")
	require.NoError(t, err)
	for i := range 3 {
		require.NotContains(t, string(directory), worker(i))
	}
	c.advance(lease / 2)
	tickAll(t, a)
	store.reset()
	for range 10 { // and not again
		tickAll(t, a)
	}
	require.Equal(t, [2]int{10, 0}, [2]int{store.gets, store.sets})
}

// A worker that leaves costs the others nothing from then on.
func TestWhoLeftIsForgotten(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	a.Open("x").Add(7)
	b.Open("x")
	tickAll(t, a, b)
	require.NoError(t, a.Close())
	tickAll(t, b)
	require.EqualValues(t, 0, value(b, "x"))
	store.reset()
	for range 10 {
		c.advance(tick)
		tickAll(t, b)
	}
	require.Equal(t, [2]int{10, 0}, [2]int{store.gets, store.sets})
}

// A record was written, and the directory could not be; meanwhile what it says is over. It is rewritten all the same: who
// reads it for another reason must not find what is over.
func TestAPublicationThatWasCutShort(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	a.Open("x").Add(1)
	b.Open("x")
	tickAll(t, a, b)
	inner := store.Store
	store.between = func(op, key string) {
		if op == "set" && key == "inlet.ledger.1" {
			value, _, err := inner.Get(key)
			require.NoError(t, err)
			require.NoError(t, inner.Set(key, value, 0))
		}
	}
	a.Open("x").Add(4)
	require.ErrorIs(t, a.Tick(), kv.ErrBusy)
	store.between = nil
	a.Open("x").Add(-4)
	tickAll(t, a, b)
	b.Open("y") // has the records read again
	tickAll(t, b)
	require.EqualValues(t, 1, value(b, "x"))
}

// The first record has whatever number the clock gives it, a small one, too.
func TestAClockThatHasJustBegun(t *testing.T) {
	for nanos := range int64(300) {
		store, c := mem.NewStore(), &clock{time.Unix(0, nanos)}
		a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
		a.Open("x").Add(7)
		b.Open("x").Add(1)
		tickAll(t, a, b, a)
		require.EqualValues(t, 8, value(a, "x"))
		require.EqualValues(t, 8, value(b, "x"))
	}
}

// Who never counted leaves no trace, and none by leaving.
func TestCloseOfWhoNeverCounted(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	a := kv.NewLedger(store, "a", c.now, lease)
	a.Open("x")
	tickAll(t, a)
	require.NoError(t, a.Close())
	require.Zero(t, store.sets)
}

// Two workers that find no directory make one, with both of them in it.
func TestTwoBeginTheDirectory(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	a.Open("x").Add(1)
	b.Open("x").Add(2)
	store.between = func(op, key string) {
		if op == "set" && key == "inlet.ledger.1" {
			store.between = nil
			tickAll(t, b)
		}
	}
	tickAll(t, a)
	require.Nil(t, store.between)
	directory, _, err := store.Get("inlet.ledger.1")
	require.NoError(t, err)
	require.Contains(t, string(directory), "\x01a")
	require.Contains(t, string(directory), "\x01b")
	require.EqualValues(t, 3, value(a, "x"))
}

// A worker whose entry others dropped although it lives, since their clocks run faster, enters again as soon as it sees that: nothing has
// to be counted for it.
func TestAWorkerThatWasBuriedAlive(t *testing.T) {
	store, slow, fast := mem.NewStore(), newClock(), newClock()
	a, b := kv.NewLedger(store, "a", slow.now, lease), kv.NewLedger(store, "b", fast.now, lease)
	a.Open("x").Add(1)
	b.Open("x")
	tickAll(t, a, b)
	require.EqualValues(t, 1, value(b, "x"))
	for range 4 {
		fast.advance(tick)
		tickAll(t, b)
	}
	require.Zero(t, value(b, "x"), "it is taken for dead")
	tickAll(t, a, a, b)
	require.EqualValues(t, 1, value(b, "x"))
}

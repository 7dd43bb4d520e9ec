package kv_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/kv"
	"github.com/inlet-proxy/inlet/shared/kv/mem"
)

// A worker that is being taken off the list turns out to be alive, and writes its record anew before it can be emptied: the new
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
			require.Nil(t, store.between, "the burial was under way")
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

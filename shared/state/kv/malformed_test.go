package kv_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// endless is a varint that does not end within 64 bits.
var endless = strings.Repeat("\xff", 11)

// named is a name as directories and records have it.
func named(name string) string { return string(rune(len(name))) + name }

// A directory that cannot be read is an error, and changes nothing of what is known; the next worker that writes starts it again.
func TestMalformedDirectories(t *testing.T) {
	for name, directory := range map[string]string{
		"another form":       "\x02" + named("b") + "\x01\x01",
		"a name cut off":     "\x01\x05b",
		"no sequence number": "\x01" + named("b"),
		"an endless one":     "\x01" + named("b") + endless,
		"no beat":            "\x01" + named("b") + "\x01",
		"an endless beat":    "\x01" + named("b") + "\x01" + endless,
		"a cut second entry": "\x01" + named("b") + "\x01\x01" + "\x09c",
		"... of a stranger":  "\x01" + named("c") + "\x01\x01" + "\x09c",
	} {
		t.Run(name, func(t *testing.T) {
			store, c := mem.NewStore(), newClock()
			a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
			a.Open("x")
			b.Open("x").Add(2)
			tickAll(t, b, a)
			require.EqualValues(t, 2, value(a, "x"))
			require.NoError(t, store.Set("inlet.ledger.1", []byte(directory), 0))
			require.ErrorContains(t, a.Tick(), "malformed ledger")
			require.EqualValues(t, 2, value(a, "x"), "as before")
			b.Open("x").Add(1)
			tickAll(t, b, a)
			require.EqualValues(t, 3, value(a, "x"))
			written, _, err := store.Get("inlet.ledger.1")
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(string(written), "\x01"+named("b")), "%q", written)
			require.NotContains(t, string(written), "c")
		})
	}
}

// A record that cannot be read is an error, and hides no other worker's.
func TestMalformedRecords(t *testing.T) {
	header := "\x01" + strings.Repeat("\x07", 8)
	for name, record := range map[string]string{
		"another form":     "\x02" + strings.Repeat("\x07", 8) + named("x") + "\x02",
		"short":            "\x01\x07\x07",
		"one byte short":   header[:8],
		"number 0":         "\x01" + strings.Repeat("\x00", 8) + named("x") + "\x02",
		"a name cut off":   header + "\x09x",
		"a lone byte":      header + "\x05",
		"an endless name":  header + endless,
		"no count":         header + named("x"),
		"an endless count": header + named("x") + endless,
	} {
		t.Run(name, func(t *testing.T) {
			store, c := mem.NewStore(), newClock()
			a, b, d := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease), kv.NewLedger(store, "d", c.now, lease)
			b.Open("x").Add(2)
			d.Open("x").Add(4)
			tickAll(t, b, d)
			require.NoError(t, store.Set("inlet.ledger.1/b", []byte(record), 0))
			a.Open("x")
			require.ErrorContains(t, a.Tick(), "malformed ledger")
			require.EqualValues(t, 4, value(a, "x"), "the other one counts")
			b.Open("x").Add(1)
			tickAll(t, b, a)
			require.EqualValues(t, 7, value(a, "x"))
		})
	}
	for name, record := range map[string]string{"tombstone": "\x01", "empty": "", "nothing counted": header} {
		store, c := mem.NewStore(), newClock()
		a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
		b.Open("x").Add(2)
		tickAll(t, b)
		require.NoError(t, store.Set("inlet.ledger.1/b", []byte(record), 0))
		a.Open("x")
		require.NoError(t, a.Tick(), name)
		require.Zero(t, value(a, "x"), name)
	}
	require.Len(t, binary.AppendUvarint(nil, 1<<63), 10, "the longest that ends")
}

// A record that cannot be read is read, and reported, once: until it is another one, or a further counter is opened. Nothing of it counts,
// not even what stands before the fault, and its worker dies like any other.
func TestAMalformedRecordIsReadOnce(t *testing.T) {
	store, c := &spy{Store: mem.NewStore()}, newClock()
	reads := 0
	store.between = func(op, key string) {
		if op == "get" && key == "inlet.ledger.1/b" {
			reads++
		}
	}
	ticked := func(l *kv.Ledger) (int, error) {
		reads = 0
		err := l.Tick()
		return reads, err
	}
	a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
	b.Open("x").Add(2)
	tickAll(t, b)
	fault := "\x01" + strings.Repeat("\x07", 8) + named("x") + "\x08" + named("y")
	require.NoError(t, store.Set("inlet.ledger.1/b", []byte(fault), 0))
	for _, opened := range []string{"x", "z"} {
		a.Open(opened)
		n, err := ticked(a)
		require.ErrorContains(t, err, "record of worker b: kv: malformed ledger")
		require.Equal(t, 1, n)
		require.Zero(t, value(a, "x"))
		for range 2 {
			n, err = ticked(a)
			require.NoError(t, err)
			require.Zero(t, n)
			require.Zero(t, value(a, "x"))
		}
	}
	b.Open("x").Add(1)
	tickAll(t, b)
	n, err := ticked(a)
	require.NoError(t, err)
	require.Equal(t, 1, n, "another record")
	require.EqualValues(t, 3, value(a, "x"))

	require.NoError(t, store.Set("inlet.ledger.1/b", []byte(fault), 0))
	a.Open("w")
	require.Error(t, a.Tick())
	for range 4 {
		c.advance(tick)
		tickAll(t, a)
	}
	directory, _, err := store.Get("inlet.ledger.1")
	require.NoError(t, err)
	require.NotContains(t, string(directory), "b", "buried")
}

// unsure is a store that fails for one kind of call.
type unsure struct {
	kv.Store
	fails func(op, key string) bool
}

func (s *unsure) Get(key string) ([]byte, uint32, error) {
	if s.fails("get", key) {
		return nil, 0, errHost
	}
	return s.Store.Get(key)
}

func (s *unsure) Set(key string, value []byte, cas uint32) error {
	if s.fails("set", key) {
		return errHost
	}
	return s.Store.Set(key, value, cas)
}

// Whichever call of the store fails, it is told; what others count stays as it was, what is counted here is exact, and the next tick
// does what this one left.
func TestAStoreThatFailsNowAndThen(t *testing.T) {
	for _, op := range []string{"get", "set"} {
		for _, key := range []string{"inlet.ledger.1", "inlet.ledger.1/a", "inlet.ledger.1/b"} {
			c := newClock()
			failing := false
			hit := false
			store := &unsure{Store: mem.NewStore()}
			store.fails = func(o, k string) bool {
				hit = hit || failing && o == op && k == key
				return failing && o == op && k == key
			}
			a, b := kv.NewLedger(store, "a", c.now, lease), kv.NewLedger(store, "b", c.now, lease)
			a.Open("x").Add(1)
			b.Open("x").Add(2)
			tickAll(t, a, b, a)
			b.Open("x").Add(10)
			tickAll(t, b)
			a.Open("x").Add(100)
			failing = true
			err := a.Tick()
			failing = false
			require.Equal(t, hit, err != nil, "%s %s", op, key)
			if err != nil {
				require.ErrorIs(t, err, errHost)
				require.Contains(t, []int64{103, 113}, value(a, "x"), "%s %s", op, key)
			}
			tickAll(t, a, b, a)
			require.EqualValues(t, 113, value(a, "x"), "%s %s", op, key)
			require.EqualValues(t, 113, value(b, "x"), "%s %s", op, key)
		}
	}
}

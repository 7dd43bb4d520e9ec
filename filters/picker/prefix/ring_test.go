package prefix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// learnt is what a worker was told, by replica.
type learnt map[uint64][]uint64

func (l learnt) note(replica uint64, chain []uint64) { l[replica] = append(l[replica], chain...) }

func (l learnt) learn(notes []byte) {
	for n, rest, ok := endpoint.CutNote(notes); ok; n, rest, ok = endpoint.CutNote(rest) {
		l.note(n.Replica, n.AppendChain(nil))
	}
}

func ignore([]byte) {}

func exchange(t require.TestingT, r *Ring, into learnt) {
	require.NoError(t, r.Exchange(into.learn, ignore))
}

func TestRing(t *testing.T) {
	store := mem.NewStore()
	a, b := NewRing(store, "a"), NewRing(store, "b")
	fromA, fromB := learnt{}, learnt{}
	exchange(t, a, fromB)
	a.Report(1, []uint64{10, 11, 12})
	a.Report(2, []uint64{20})
	exchange(t, b, fromA)
	require.Empty(t, fromA, "not told before the tick")
	exchange(t, a, fromB)
	exchange(t, b, fromA)
	exchange(t, b, fromA)
	require.Equal(t, learnt{1: {10, 11, 12}, 2: {20}}, fromA)
	require.Empty(t, fromB, "nobody learns from himself")

	late := NewRing(store, "late")
	fromAll := learnt{}
	exchange(t, late, fromAll)
	require.Equal(t, fromA, fromAll)
}

// What any worker learnt itself goes to the other proxies, by whichever worker tells them; what came from there goes to the workers alone.
func TestRingTellsAndPasses(t *testing.T) {
	store := mem.NewStore()
	a, b := NewRing(store, "a"), NewRing(store, "b")
	told, heard := learnt{}, learnt{}
	b.Report(102, []uint64{20})
	exchange(t, b, learnt{})
	a.Report(101, []uint64{10})
	require.NoError(t, a.Exchange(learnt{}.learn, told.learn))
	require.Equal(t, learnt{101: {10}, 102: {20}}, told)
	exchange(t, b, learnt{})

	notes := []byte{}
	want := learnt{}
	for i := range uint64(50) {
		chain := make([]uint64, 100*i%3000+1)
		chain[0] = i
		notes = endpoint.AppendNote(notes, i, chain)
		want.note(i, chain)
	}
	require.Greater(t, len(notes), 3*batchBytes)
	require.NoError(t, a.Forward(notes))
	told = learnt{}
	require.NoError(t, a.Exchange(heard.learn, told.learn))
	require.Empty(t, heard)
	require.NoError(t, b.Exchange(heard.learn, told.learn))
	require.Empty(t, told)
	require.Equal(t, want, heard)
}

// counting counts the calls of the store.
type counting struct {
	kv.Store
	gets, sets int
}

func (c *counting) Get(key string) ([]byte, uint32, error) { c.gets++; return c.Store.Get(key) }
func (c *counting) Set(key string, v []byte, cas uint32) error {
	c.sets++
	return c.Store.Set(key, v, cas)
}

// Silence costs one look at the head, also for who has told something before.
func TestRingIsQuiet(t *testing.T) {
	store := &counting{Store: mem.NewStore()}
	a, b := NewRing(store, "a"), NewRing(store, "b")
	a.Report(1, []uint64{10})
	exchange(t, a, learnt{})
	exchange(t, b, learnt{})
	for name, r := range map[string]*Ring{"the teller": a, "the reader": b} {
		store.gets, store.sets = 0, 0
		exchange(t, r, learnt{})
		require.Equal(t, 1, store.gets, name)
		require.Zero(t, store.sets, name)
	}
	_, cas, err := store.Store.Get(ringHeadKey)
	require.NoError(t, err)
	require.Equal(t, cas, a.seen)
	b.Report(2, []uint64{20})
	exchange(t, b, learnt{})
	got := learnt{}
	exchange(t, a, got)
	require.Equal(t, learnt{2: {20}}, got)
}

// However much is told and by however many, the others learn all of it as long
// as nobody falls behind by a whole ring, and each in an order that keeps the end
// of a prompt before its beginning.
func TestRingProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := mem.NewStore()
		n := rapid.IntRange(2, 4).Draw(t, "workers")
		rings := make([]*Ring, n)
		got, want := make([]learnt, n), make([]learnt, n)
		for i := range rings {
			rings[i], got[i], want[i] = NewRing(store, fmt.Sprint(i)), learnt{}, learnt{}
		}
		for step := range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "worker")
			if rapid.Bool().Draw(t, "tick") {
				for j := range rings { // all, so that nobody falls behind
					exchange(t, rings[(i+j)%n], got[(i+j)%n])
				}
				continue
			}
			if len(rings[i].queue) > queueBytes/2 {
				continue
			}
			chain := make([]uint64, rapid.IntRange(1, 9000).Draw(t, "blocks"))
			for k := range chain {
				chain[k] = uint64(step)<<32 | uint64(k)
			}
			replica := rapid.Uint64Range(0, 3).Draw(t, "replica")
			rings[i].Report(replica, chain)
			for j := range want {
				if j != i {
					want[j].note(replica, chain)
				}
			}
		}
		for range 2 {
			for i := range rings {
				exchange(t, rings[i], got[i])
			}
		}
		for i := range rings {
			require.Zero(t, rings[i].Lost())
			require.Len(t, got[i], len(want[i]))
			for replica := range want[i] {
				a, b := slices.Sorted(slices.Values(want[i][replica])), slices.Sorted(slices.Values(got[i][replica]))
				require.Equal(t, a, b)
			}
		}
	})
}

// What nobody reads is written over, and the ring stays at its size.
func TestRingIsBounded(t *testing.T) {
	store := mem.NewStore()
	a, b := NewRing(store, "a"), NewRing(store, "b")
	chain := make([]uint64, 1000)
	for i := range 10 * ringSlots {
		chain[0] = uint64(i)
		a.Report(1, chain)
		exchange(t, a, learnt{})
	}
	for i := range ringSlots {
		value, _, err := store.Get(fmt.Sprint(ringSlotsKeys, i))
		require.NoError(t, err)
		require.LessOrEqual(t, len(value), batchBytes)
	}
	got := learnt{}
	exchange(t, b, got)
	require.Len(t, got[1], ringSlots*1000)

	for range 1000 { // no tick
		a.Report(1, chain)
	}
	require.LessOrEqual(t, len(a.queue), queueBytes)
	require.Positive(t, a.Lost())
	require.Zero(t, a.Lost())
}

// failing is a store that fails on command.
type failing struct {
	kv.Store
	set error
	of  string // "": every key
}

func (f *failing) Set(key string, v []byte, cas uint32) error {
	if f.set != nil && (f.of == "" || f.of == key) {
		return f.set
	}
	return f.Store.Set(key, v, cas)
}

func TestRingKeepsWhatItCouldNotTell(t *testing.T) {
	for _, e := range []error{kv.ErrMismatch, errors.New("broken")} {
		store := &failing{Store: mem.NewStore(), set: e}
		a, b := NewRing(store, "a"), NewRing(store, "b")
		a.Report(1, []uint64{10})
		require.Error(t, a.Exchange(learnt{}.learn, ignore))
		store.set = nil
		a.Report(1, []uint64{11})
		exchange(t, a, learnt{})
		got := learnt{}
		exchange(t, b, got)
		require.Equal(t, learnt{1: {10, 11}}, got)
	}
}

// A writer between taking its number and writing keeps nobody from reading on,
// and is read when it has written, unless its place was taken by then.
func TestALateWriter(t *testing.T) {
	for _, after := range []int{1, ringSlots - 1, ringSlots} {
		store := &failing{Store: mem.NewStore()}
		a, b, c := NewRing(store, "a"), NewRing(store, "b"), NewRing(store, "c")
		store.set, store.of = errors.New("slow"), ringSlotsKeys+"0"
		a.Report(1, []uint64{10})
		require.Error(t, a.Exchange(learnt{}.learn, ignore))
		late := batchOf(0, a.worker, 1, 10)
		store.set = nil
		got := learnt{}
		for i := range after {
			b.Report(2, []uint64{uint64(i)})
			exchange(t, b, learnt{})
			exchange(t, c, got)
		}
		require.Len(t, got[2], after, "nobody waits")
		require.Empty(t, got[1])
		require.NoError(t, store.Set(ringSlotsKeys+"0", late, 0))
		exchange(t, c, got)
		exchange(t, c, got)
		if after < ringSlots {
			require.Equal(t, []uint64{10}, got[1])
		} else {
			require.Empty(t, got[1])
		}
	}
}

// Of two late writers, one was written over: the other is still read when it has written.
func TestALostBatchDoesNotStopTheOthers(t *testing.T) {
	store := &failing{Store: mem.NewStore()}
	b, c := NewRing(store, "b"), NewRing(store, "c")
	got := learnt{}
	told := 0
	upTo := func(head int) {
		for ; told < head; told++ {
			b.Report(2, []uint64{uint64(told)})
			exchange(t, b, learnt{})
			exchange(t, c, got)
		}
	}
	fail := func(slot int) {
		upTo(slot)
		late := NewRing(store, fmt.Sprint("late", slot))
		store.set, store.of = errors.New("slow"), fmt.Sprint(ringSlotsKeys, slot)
		late.Report(1, []uint64{uint64(100 + slot)})
		require.Error(t, late.Exchange(learnt{}.learn, ignore))
		store.set = nil
		told++
	}
	fail(0)
	fail(3)
	fail(5)
	upTo(ringSlots + 1)
	for _, slot := range []int{5, 3} {
		require.NoError(t, store.Set(fmt.Sprint(ringSlotsKeys, slot), batchOf(uint64(slot), 99, 1, uint64(100+slot)), 0))
		exchange(t, c, got)
	}
	require.Equal(t, []uint64{105, 103}, got[1])
	require.Len(t, got[2], ringSlots+1-3)
}

// batchOf is a batch with one note of one block.
func batchOf(number, worker, replica, block uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, number)
	b = append(binary.LittleEndian.AppendUint64(b, worker), 0)
	return endpoint.AppendNote(b, replica, []uint64{block})
}

// What lies in the store from elsewhere does no harm.
func TestRingReadsAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := mem.NewStore()
		head := rapid.OneOf(rapid.Just(binary.LittleEndian.AppendUint64(nil, 5)), rapid.SliceOfN(rapid.Byte(), 0, 10)).Draw(t, "head")
		require.NoError(t, store.Set(ringHeadKey, head, 0))
		for i := range ringSlots {
			slot := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "slot")
			if len(slot) >= 8 && rapid.Bool().Draw(t, "right number") {
				binary.LittleEndian.PutUint64(slot, uint64(i))
			}
			require.NoError(t, store.Set(fmt.Sprint(ringSlotsKeys, i), slot, 0))
		}
		r := NewRing(store, "r")
		for range 3 {
			exchange(t, r, learnt{})
			r.Report(1, []uint64{1})
		}
	})
}

// Threads of Envoy write at the same time.
func TestRingAmongThreads(t *testing.T) {
	store := mem.NewStore()
	var wg sync.WaitGroup
	got := make([]learnt, 4)
	var ready sync.WaitGroup
	ready.Add(len(got))
	for i := range got {
		got[i] = learnt{}
		r := NewRing(store, fmt.Sprint(i))
		wg.Go(func() {
			for k := range 10 {
				r.Report(uint64(i), []uint64{uint64(k)})
				for r.Exchange(got[i].learn, ignore) != nil {
					continue
				}
			}
			ready.Done()
			ready.Wait()
			for range 3 {
				_ = r.Exchange(got[i].learn, ignore)
			}
		})
	}
	wg.Wait()
	for i := range got {
		require.Len(t, got[i], len(got)-1)
		for _, blocks := range got[i] {
			require.Len(t, blocks, 10)
		}
	}
}

// What other proxies told is passed on as far as it can be read, and the rest is let go.
func TestRingPassesWhatCanBeRead(t *testing.T) {
	note := endpoint.AppendNote(nil, 7, []uint64{1, 2})
	for name, c := range map[string]struct {
		notes []byte
		want  learnt
	}{
		"nothing":            {nil, learnt{}},
		"no note":            {[]byte("x"), learnt{}},
		"a note cut off":     {note[:len(note)-1], learnt{}},
		"a note and no note": {append(slices.Clone(note), 'x'), learnt{7: {1, 2}}},
		"one of no blocks":   {endpoint.AppendNote(nil, 7, nil), learnt{}},
	} {
		store := mem.NewStore()
		a, b := NewRing(store, "a"), NewRing(store, "b")
		got := learnt{}
		exchange(t, b, got)
		require.NoError(t, a.Forward(c.notes), name)
		exchange(t, b, got)
		require.Equal(t, c.want, got, name)
	}
}

// unreadable is a store that cannot be read at one key.
type unreadable struct {
	kv.Store
	at string
}

func (u *unreadable) Get(key string) ([]byte, uint32, error) {
	if key == u.at {
		return nil, 0, errors.New("broken")
	}
	return u.Store.Get(key)
}

// What cannot be read is told, and read with the next exchange.
func TestRingReadsWhatItCouldNotRead(t *testing.T) {
	for slot := range 3 {
		store := mem.NewStore()
		failing := &unreadable{Store: store}
		a, b := NewRing(store, "a"), NewRing(failing, "b")
		for i := range uint64(3) {
			a.Report(1, []uint64{i})
			exchange(t, a, learnt{})
		}
		got := learnt{}
		failing.at = ringSlotsKeys + fmt.Sprint(slot)
		for range 2 {
			require.Error(t, b.Exchange(got.learn, ignore))
			require.Len(t, got[1], slot, "those before it")
		}
		failing.at = ""
		exchange(t, b, got)
		require.Equal(t, learnt{1: {0, 1, 2}}, got)
	}
}

// Without its head the ring can neither be written nor read: nothing is lost of it.
func TestRingWithoutItsHead(t *testing.T) {
	store := mem.NewStore()
	failing := &unreadable{Store: store, at: ringHeadKey}
	a, b := NewRing(failing, "a"), NewRing(store, "b")
	note := endpoint.AppendNote(nil, 2, []uint64{20})
	a.Report(1, []uint64{10})
	require.ErrorContains(t, a.Exchange(learnt{}.learn, ignore), "broken")
	require.ErrorContains(t, a.Forward(note), "broken")
	failing.at = ""
	exchange(t, a, learnt{})
	require.NoError(t, a.Forward(note))
	got := learnt{}
	exchange(t, b, got)
	require.Equal(t, learnt{1: {10}, 2: {20}}, got)
}

// Late batches that cannot be read when they are there are read with a later exchange.
func TestRingReadsLateBatchesThatItCouldNotRead(t *testing.T) {
	store := &failing{Store: mem.NewStore()}
	reading := &unreadable{Store: store}
	b, c := NewRing(store, "b"), NewRing(reading, "c")
	got := learnt{}
	for slot := range uint64(3) {
		store.set, store.of = errors.New("slow"), fmt.Sprint(ringSlotsKeys, slot)
		late := NewRing(store, fmt.Sprint("late", slot))
		late.Report(1, []uint64{100 + slot})
		require.Error(t, late.Exchange(learnt{}.learn, ignore))
		store.set = nil
		exchange(t, c, got)
	}
	require.Empty(t, got)
	for slot := range uint64(3) {
		require.NoError(t, store.Set(fmt.Sprint(ringSlotsKeys, slot), batchOf(slot, 99, 1, 100+slot), 0))
	}
	reading.at = ringSlotsKeys + "1"
	require.Error(t, c.Exchange(got.learn, ignore))
	require.Equal(t, []uint64{100}, got[1])
	reading.at = ""
	b.Report(2, []uint64{20})
	exchange(t, b, learnt{})
	exchange(t, c, got)
	exchange(t, c, got)
	require.Equal(t, learnt{1: {100, 101, 102}, 2: {20}}, got)
}

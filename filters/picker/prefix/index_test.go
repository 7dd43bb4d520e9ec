package prefix

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// prompts makes chains that share their beginnings, as conversations do.
type prompts struct{ rng *rand.Rand }

func (p prompts) fresh(n int) []uint64 {
	chain := make([]uint64, n)
	for i := range chain {
		chain[i] = p.rng.Uint64()
	}
	return chain
}

func newPrompts(seed uint64) prompts { return prompts{rand.New(rand.NewPCG(seed, 1))} }

func matched(x *Index, r Replica, chain []uint64) int {
	var m Matches
	x.Match(chain, &m)
	return m.Of(r)
}

func TestMatchIsTheLongestPrefixOfEachReplica(t *testing.T) {
	x := New(1 << 20)
	p := newPrompts(1)
	a, b, c := x.Add(0), x.Add(0), x.Add(0)
	chain := p.fresh(100)
	x.Insert(a, chain[:40])
	x.Insert(b, chain)
	other := append(slices.Clone(chain[:70]), p.fresh(30)...)
	x.Insert(a, append(slices.Clone(chain[:10]), p.fresh(50)...))
	for _, test := range []struct {
		chain []uint64
		want  [3]int
	}{{chain, [3]int{40, 100, 0}}, {other, [3]int{40, 70, 0}}, {chain[:1], [3]int{1, 1, 0}}, {chain[:0], [3]int{}}, {p.fresh(10), [3]int{}}} {
		var got Matches
		x.Match(test.chain, &got)
		require.Equal(t, test.want, [3]int{got.Of(a), got.Of(b), got.Of(c)})
		require.Zero(t, got.Of(None))
		require.Zero(t, got.Of(99))
	}
}

// As long as nothing has to be forgotten, the index knows what a list of everything knows.
func TestMatchProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := New(1 << 16) // 4096 entries; fewer than 1000 are used, so no bucket overflows but by bad luck
		const replicas = 5
		var rs [replicas]Replica
		for i := range rs {
			rs[i] = x.Add(0)
		}
		var known [replicas][][]uint64
		// A tree: each prompt goes on from some length of an earlier one.
		seed := rapid.Uint64().Draw(t, "seed")
		p := newPrompts(seed)
		chains := [][]uint64{p.fresh(10)}
		var m Matches
		for range rapid.IntRange(1, 15).Draw(t, "prompts") {
			base := rapid.SampledFrom(chains).Draw(t, "base")
			keep := rapid.IntRange(0, len(base)).Draw(t, "keep")
			chain := append(slices.Clone(base[:keep]), p.fresh(rapid.IntRange(0, 12).Draw(t, "more"))...)
			chains = append(chains, chain)
			r := rapid.IntRange(0, replicas-1).Draw(t, "replica")
			x.Insert(rs[r], chain)
			known[r] = append(known[r], chain)

			asked := rapid.SampledFrom(chains).Draw(t, "asked")
			x.Match(asked, &m)
			for i, r := range rs {
				want := 0
				for _, c := range known[i] {
					n := 0
					for n < min(len(c), len(asked)) && c[n] == asked[n] {
						n++
					}
					want = max(want, n)
				}
				if got := m.Of(r); got != want {
					t.Fatalf("replica %d holds %d blocks, the index says %d", i, want, got)
				}
			}
		}
	})
}

// Whatever is done, the index stays at its size and never says more than it was told. (Prefix tries that grew without bounds have
// brought down routers of this field.)
func TestNeverGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 16<<10).Draw(t, "bytes")
		x := New(size)
		entries := x.Size()
		require.LessOrEqual(t, int64(entries)*entryBytes, max(size, MinBytes))
		p := newPrompts(rapid.Uint64().Draw(t, "seed"))
		var rs []Replica
		told := map[Replica]map[uint64]bool{}
		var all [][]uint64
		var m Matches
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 9).Draw(t, "op"); {
			case op == 0 || len(rs) == 0:
				r := x.Add(rapid.IntRange(0, 2000).Draw(t, "capacity"))
				rs = append(rs, r)
				told[r] = map[uint64]bool{}
			case op == 1:
				i := rapid.IntRange(0, len(rs)-1).Draw(t, "gone")
				x.Remove(rs[i])
				delete(told, rs[i])
				rs = slices.Delete(rs, i, i+1)
			case op == 2 && len(all) > 0:
				x.Empty(rapid.SampledFrom(rs).Draw(t, "restarted"))
				x.Forget(rapid.SampledFrom(rs).Draw(t, "replica"), rapid.SampledFrom(all).Draw(t, "chain"))
			default:
				chain := p.fresh(rapid.IntRange(1, 100).Draw(t, "blocks"))
				if len(all) > 0 && rapid.Bool().Draw(t, "again") {
					chain = rapid.SampledFrom(all).Draw(t, "chain")
				}
				all = append(all, chain)
				r := rapid.SampledFrom(rs).Draw(t, "replica")
				x.Insert(r, chain)
				for _, b := range chain {
					told[r][b] = true
				}
			}
			require.Equal(t, entries, x.Size())
			require.LessOrEqual(t, x.Len(), entries)
			if len(all) == 0 {
				continue
			}
			asked := rapid.SampledFrom(all).Draw(t, "asked")
			x.Match(asked, &m)
			for r := range Replica(len(x.replicas)) {
				if n := m.Of(r); n > 0 && !told[r][asked[n-1]] {
					t.Fatalf("replica %d is said to hold block %d and never got it, or is gone", r, n-1)
				}
			}
		}
		used := 0
		for _, b := range x.blocks {
			if b != 0 {
				used++
			}
		}
		require.Equal(t, used, x.Len())
	})
}

func TestAReplicaHoldsNoMoreThanItsCache(t *testing.T) {
	x := New(1 << 20)
	p := newPrompts(2)
	r, large := x.Add(100), x.Add(0)
	old := p.fresh(60)
	x.Insert(r, old)
	x.Insert(large, old)
	require.Equal(t, 60, matched(x, r, old))
	x.Insert(r, p.fresh(40))
	require.Equal(t, 60, matched(x, r, old), "there is room for both")
	x.Insert(r, p.fresh(40))
	require.Equal(t, 20, matched(x, r, old), "the end of a prompt goes first")
	x.Insert(r, p.fresh(20))
	require.Zero(t, matched(x, r, old))
	require.Equal(t, 60, matched(x, large, old))

	// What is used stays, what is not goes, as in the cache itself.
	used, unused := p.fresh(30), p.fresh(30)
	x.Insert(r, unused)
	for range 20 {
		x.Insert(r, used)
		x.Insert(r, p.fresh(10))
	}
	require.Equal(t, 30, matched(x, r, used))
	require.Zero(t, matched(x, r, unused))

	x.Resize(r, 5)
	require.Zero(t, matched(x, r, used))
	x.Resize(r, 0)
	require.Equal(t, 30, matched(x, r, used))
}

// A full table forgets what was not used for longest, and shares itself among replicas by their use.
func TestEviction(t *testing.T) {
	x := New(64 << 10) // 4096 entries
	p := newPrompts(3)
	busy, quiet := x.Add(0), x.Add(0)
	quietly, hot := p.fresh(500), p.fresh(500)
	x.Insert(quiet, quietly)
	for range 100 {
		x.Insert(busy, hot)
		x.Insert(busy, p.fresh(200))
	}
	require.Equal(t, 500, matched(x, busy, hot))
	require.Zero(t, matched(x, quiet, quietly))
	require.Greater(t, x.Len(), x.Size()*9/10)
}

func TestOnePromptDoesNotDriveOutOthers(t *testing.T) {
	x := New(MinBytes) // one bucket
	p := newPrompts(4)
	first := x.Add(0)
	mine := p.fresh(10)
	x.Insert(first, mine)
	everybodys := p.fresh(1)
	var holders []Replica
	for range 100 {
		r := x.Add(0)
		holders = append(holders, r)
		x.Insert(r, everybodys)
	}
	require.Equal(t, 10, matched(x, first, mine))
	require.Equal(t, mostHolders, x.Len()-10)
	known := func() (known []int) {
		for i, r := range holders {
			if matched(x, r, everybodys) > 0 {
				known = append(known, i)
			}
		}
		return known
	}
	latest := make([]int, mostHolders)
	for i := range latest {
		latest[i] = 100 - mostHolders + i
	}
	require.Equal(t, latest, known(), "the oldest holder is replaced")

	x.Insert(holders[latest[0]], everybodys) // used again: now it is the latest
	x.Insert(holders[0], everybodys)
	require.Equal(t, append([]int{0, latest[0]}, latest[2:]...), known())
}

// What a replica held that is gone makes room first, however long ago the rest was used.
func TestWhoIsGoneMakesRoomFirst(t *testing.T) {
	x := New(MinBytes)
	p := newPrompts(11)
	quiet, gone, busy := x.Add(0), x.Add(0), x.Add(0)
	old := p.fresh(3)
	x.Insert(quiet, old)
	x.Insert(gone, p.fresh(x.Size()-len(old)-1))
	for range 40_000 { // there is room for one more, so nothing is driven out meanwhile
		fleeting := p.fresh(1)
		x.Insert(busy, fleeting)
		x.Forget(busy, fleeting)
	}
	x.Remove(gone)
	x.Insert(busy, p.fresh(10))
	require.Equal(t, len(old), matched(x, quiet, old))
}

func TestARestartedReplicaHoldsNothing(t *testing.T) {
	x := New(1 << 16)
	p := newPrompts(9)
	a, b := x.Add(0), x.Add(0)
	chain := p.fresh(20)
	x.Insert(a, chain)
	x.Insert(b, chain)
	x.Empty(a)
	require.Zero(t, matched(x, a, chain))
	require.Equal(t, 20, matched(x, b, chain))
	x.Insert(a, chain[:8])
	require.Equal(t, 8, matched(x, a, chain))
	x.Insert(a, p.fresh(50))
	require.Equal(t, 8, matched(x, a, chain))
	require.Zero(t, matched(x, a, chain[8:]))
}

func TestSetSizeForgetsWhatWasHeld(t *testing.T) {
	x := New(1 << 16)
	p := newPrompts(10)
	a := x.Add(0)
	chain := p.fresh(20)
	require.Zero(t, matched(x, a, chain))
	x.Forget(a, chain)
	x.Insert(a, chain)
	x.SetSize(1 << 17)
	require.Zero(t, x.Len())
	require.Equal(t, 1<<17/entryBytes, x.Size())
	require.Zero(t, matched(x, a, chain))
	x.Insert(a, chain)
	require.Equal(t, 20, matched(x, a, chain), "replicas keep their numbers")
}

func TestForget(t *testing.T) {
	x := New(1 << 16)
	p := newPrompts(5)
	a, b := x.Add(0), x.Add(0)
	chain := p.fresh(20)
	x.Insert(a, chain)
	x.Insert(b, chain)
	x.Forget(a, chain[15:])
	require.Equal(t, 15, matched(x, a, chain))
	require.Equal(t, 20, matched(x, b, chain))
	require.Equal(t, 35, x.Len())
}

// Blocks whose beginning is forgotten are of no use: nothing can be computed from them.
func TestWithoutItsBeginningAPromptIsNotHeld(t *testing.T) {
	x := New(1 << 16)
	a, chain := x.Add(0), newPrompts(5).fresh(20)
	x.Insert(a, chain)
	x.Forget(a, chain[:1])
	require.Zero(t, matched(x, a, chain))
	require.Equal(t, 19, matched(x, a, chain[1:]))
}

// What a replica has begun an answer with is not taken back, until it is emptied.
func TestForgetKeepsWhatWasAnswered(t *testing.T) {
	x := New(1 << 16)
	p := newPrompts(5)
	a, b := x.Add(0), x.Add(0)
	chain := p.fresh(20)
	require.Zero(t, x.Forget(a, chain), "before there is anything")
	x.Insert(a, chain)
	x.Insert(b, chain)
	require.False(t, x.Computed(a, chain[:10]))
	require.True(t, x.Computed(a, chain[:12]), "10 were noted before")
	require.Equal(t, 12, x.Forget(a, chain))
	require.Equal(t, 12, matched(x, a, chain))
	x.Insert(a, chain)
	require.Equal(t, 12, x.Forget(a, chain), "used again, it is what it was")
	require.Zero(t, x.Forget(b, chain))
	require.Zero(t, matched(x, b, chain))

	x.Empty(a)
	x.Insert(a, chain)
	require.Equal(t, 20, matched(x, a, chain))
	require.Zero(t, x.Forget(a, chain), "emptied, it has to respond again")
	require.Zero(t, matched(x, a, chain))
}

// Numbers are used again only when nothing of their last owner is left.
func TestReplicasComeAndGo(t *testing.T) {
	x := New(1 << 16)
	p := newPrompts(6)
	chain := p.fresh(3)
	var m Matches // one for all, as in use: it is large
	matched := func(r Replica) int {
		x.Match(chain, &m)
		return m.Of(r)
	}
	seen := map[Replica]int{}
	for i := range 3 * maxReplicas {
		r := x.Add(0)
		require.NotEqual(t, None, r, i)
		seen[r]++
		require.Zero(t, matched(r))
		x.Insert(r, chain)
		require.Equal(t, 3, matched(r))
		x.Remove(r)
		x.Insert(r, chain) // a request that was still in progress
		require.Zero(t, matched(r))
	}
	require.Less(t, len(seen), maxReplicas)
	require.LessOrEqual(t, len(x.replicas), maxReplicas)
}

func TestTooManyReplicas(t *testing.T) {
	x := New(MinBytes)
	for range maxReplicas - 1 {
		require.NotEqual(t, None, x.Add(0))
	}
	require.Equal(t, None, x.Add(0))
	x.Insert(None, []uint64{1})
	x.Remove(None)
	x.Resize(None, 1)
	x.Resize(maxReplicas+1, 1)
	x.Empty(maxReplicas + 1)
	require.Zero(t, matched(x, None, []uint64{1}))
	x.Remove(7)
	require.Equal(t, Replica(7), x.Add(0))
}

// What a replica is told to have a second time takes no second entry, wherever in its bucket the first one stands.
func TestWhatIsKnownTakesNoSecondEntry(t *testing.T) {
	x := New(1 << 20)
	chain := newPrompts(9).fresh(50)
	var rs []Replica
	for i := range 4 {
		rs = append(rs, x.Add(0))
		x.Insert(rs[i], chain)
		require.Equal(t, (i+1)*len(chain), x.Len())
	}
	for _, r := range rs {
		x.Insert(r, chain)
		require.Equal(t, len(rs)*len(chain), x.Len())
		require.Equal(t, len(chain), matched(x, r, chain))
	}
}

// The hash 0 stands for an empty entry and is not lost for that.
func TestZeroHash(t *testing.T) {
	x := New(MinBytes)
	r := x.Add(0)
	require.Zero(t, matched(x, r, []uint64{0}))
	x.Insert(r, []uint64{0})
	require.Equal(t, 1, matched(x, r, []uint64{0}))
}

// full is an index as after some hours: all entries in use, by replicas of all sizes.
func full(replicas int) (*Index, []Replica, prompts) {
	x := New(32 << 20)
	p := newPrompts(7)
	var rs []Replica
	for range replicas {
		rs = append(rs, x.Add(0))
	}
	for i := 0; x.Len() < x.Size()*99/100; i++ {
		x.Insert(rs[i%len(rs)], p.fresh(256))
	}
	return x, rs, p
}

func BenchmarkMatch(b *testing.B) {
	x, rs, p := full(1000)
	for _, blocks := range []int{16, 256, 2048} {
		shared := p.fresh(blocks)
		for _, r := range rs {
			x.Insert(r, shared[:blocks/8]) // a system prompt that everybody has
		}
		// Many conversations, so that the processor's caches do not hold the one that is asked for.
		var chains [][]uint64
		for i := range 512 {
			chain := append(slices.Clone(shared[:blocks/8]), p.fresh(blocks-blocks/8)...)
			x.Insert(rs[i%len(rs)], chain[:blocks*3/4])
			chains = append(chains, chain)
		}
		unknown := p.fresh(blocks * 64)
		b.Run(fmt.Sprintf("blocks=%d/known", blocks), func(b *testing.B) {
			var m Matches
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Match(chains[i%len(chains)], &m)
			}
		})
		b.Run(fmt.Sprintf("blocks=%d/unknown", blocks), func(b *testing.B) {
			var m Matches
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i % 63 * blocks
				x.Match(unknown[at:at+blocks], &m)
			}
		})
	}
}

func BenchmarkInsert(b *testing.B) {
	x, rs, p := full(1000)
	for _, blocks := range []int{16, 256, 2048} {
		again := p.fresh(blocks)
		x.Insert(rs[0], again)
		b.Run(fmt.Sprintf("blocks=%d/again", blocks), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x.Insert(rs[0], again)
			}
		})
		fresh := p.fresh(1 << 20)
		b.Run(fmt.Sprintf("blocks=%d/new", blocks), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i * blocks % (len(fresh) - blocks)
				x.Insert(rs[i%len(rs)], fresh[at:at+blocks])
			}
		})
	}
}

func TestAllocatesNothing(t *testing.T) {
	x := New(1 << 20)
	p := newPrompts(8)
	r := x.Add(0)
	chain := p.fresh(2048)
	var m Matches
	x.Match(chain, &m)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		x.Insert(r, chain)
		x.Match(chain, &m)
		x.Forget(r, chain)
	}))
}

// Matches that are used again are as large as the number of replicas, however often.
func TestMatchesDoNotGrow(t *testing.T) {
	x := New(1 << 16)
	chain := newPrompts(12).fresh(10)
	for range 5 {
		x.Insert(x.Add(0), chain)
	}
	var m Matches
	for range 10_000 {
		x.Match(chain, &m)
	}
	require.Len(t, m.listed, 5)
	require.Less(t, cap(m.listed), 100)
}

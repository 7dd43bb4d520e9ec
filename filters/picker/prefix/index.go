// Package prefix remembers which replica has which prompt prefixes in its cache, as far as that can be concluded from the requests that it
// was sent.
//
// An [Index] has a fixed size. It is one array of fixed-size entries without pointers, so it costs the garbage collector nothing and
// never grows: what is new replaces what was not used for longest.
package prefix

import "math/bits"

// ways is the number of entries of a bucket. An entry can stand nowhere but in the bucket of its block, as in a processor's cache: a
// look-up reads 256 bytes in a row, nothing is ever moved, and a full table degrades by forgetting.
const ways = 32

// mostHolders bounds how many entries of a bucket may say that one block is in the caches of different replicas, so that a prompt that
// everybody uses does not drive the others out. Of more holders the latest are known.
const mostHolders = ways / 2

// entryBytes is the size of an entry: 8 for the block, 8 for who holds it and since when.
const entryBytes = 16

const (
	// MinBytes is the smallest size of an index: one bucket.
	MinBytes = ways * entryBytes
	// maxReplicas bounds the numbers that are handed out to replicas, see Add.
	maxReplicas = 1 << 14
	// None is the number of no replica.
	None Replica = 0
)

// Replica is the number by which an Index knows a replica.
type Replica uint16

// Index is the memory of one proxy. Match may run on many threads at once, everything else alone.
type Index struct {
	buckets uint64
	blocks  []uint64 // by bucket, ways each; 0: the entry is empty. Nil before the first Insert
	marks   []mark
	mask    uint64 // number of buckets - 1

	// The table's own time: it moves on by one with every epochLength new entries.
	epoch, epochLength uint32
	sinceEpoch         uint32

	replicas []replica // by number; that of None is never used
	fresh    Replica   // the lowest number that was never handed out
	free     []Replica

	used int    // entries
	read uint64 // see warm
}

// mark is the other half of an entry: the replica in the upper 16 bits, the table's time (16 bits) and the replica's own time (32 bits)
// at which the block was used last.
type mark uint64

// computed is the bit of a mark that says that the replica has begun a response to a prompt with the block. Numbers of replicas leave it
// free: see maxReplicas.
const computed mark = 1 << 63

func (m mark) replica() Replica { return Replica(m &^ computed >> 48) }
func (m mark) epoch() uint16    { return uint16(m >> 32) }
func (m mark) time() uint32     { return uint32(m) }

// replica is what the index knows of one replica.
type replica struct {
	present bool
	// time is how many blocks its cache took in. What was used last more than capacity blocks ago has left the cache.
	time     uint32
	capacity uint32
	since    uint32 // how many blocks it took in since it was empty, or the largest number
}

// advance lets one more block into the cache.
func (r *replica) advance() {
	r.time++
	r.since += min(1, ^r.since)
}

// unknownCapacity is larger than any cache.
const unknownCapacity = 1 << 31

// New makes an index of at most the given size in bytes, see SetSize.
func New(size int64) *Index {
	x := &Index{replicas: make([]replica, 1, 64), fresh: 1}
	x.SetSize(size)
	return x
}

// SetSize empties the index and gives it another size: the largest power of two of buckets that fits into so many bytes, at least one
// bucket. The memory is taken with the first Insert.
func (x *Index) SetSize(size int64) {
	buckets := max(1, uint64(size)/MinBytes)
	x.buckets = 1 << (bits.Len64(buckets) - 1)
	x.blocks, x.marks, x.used = nil, nil, 0
}

// allocate takes the memory. What of it is not used is not touched.
func (x *Index) allocate() {
	n := int(x.buckets) * ways
	x.blocks, x.marks, x.mask = make([]uint64, n), make([]mark, n), x.buckets-1
	// Some tens of epochs are in the table at any time: fine enough to tell what to forget, and 16 bits last for long.
	x.epochLength = uint32(max(1, n/32))
}

// Size is the number of entries that fit into the index, Len that of those in use.
func (x *Index) Size() int { return int(x.buckets) * ways }

// Len is the number of entries in use. Some of them may be out of date.
func (x *Index) Len() int { return x.used }

// Add takes in a replica and returns its number, None if there are too many. capacity is the number of prefix blocks that fit
// into its cache, 0 if it is unknown.
func (x *Index) Add(capacity int) Replica {
	if x.fresh == maxReplicas && len(x.free) == 0 {
		x.sweep()
	}
	var r Replica
	switch n := len(x.free); {
	case n > 0:
		r, x.free = x.free[n-1], x.free[:n-1]
	case x.fresh < maxReplicas:
		r = x.fresh
		x.fresh++
		x.replicas = append(x.replicas, replica{})
	default:
		return None
	}
	x.replicas[r] = replica{present: true}
	x.Resize(r, capacity)
	return r
}

// Resize changes the capacity of a replica.
func (x *Index) Resize(r Replica, capacity int) {
	if !x.has(r) {
		return
	}
	if capacity <= 0 || capacity > unknownCapacity {
		capacity = unknownCapacity
	}
	x.replicas[r].capacity = uint32(capacity)
}

// Empty notes that the cache of a replica is empty: it was restarted.
func (x *Index) Empty(r Replica) {
	if x.has(r) {
		x.replicas[r].since = 0
	}
}

// Remove forgets a replica and what it holds. Its number is not used again before its entries are gone: see sweep.
func (x *Index) Remove(r Replica) {
	if x.has(r) {
		x.replicas[r].present = false
	}
}

func (x *Index) has(r Replica) bool { return int(r) < len(x.replicas) && x.replicas[r].present }

// sweep empties the entries of replicas that are gone, and takes their numbers back. It reads the whole table, once in 16,000 replicas
// that come and go.
func (x *Index) sweep() {
	for i, m := range x.marks {
		if x.blocks[i] != 0 && !x.replicas[m.replica()].present {
			x.clear(i)
		}
	}
	for r := Replica(1); r < x.fresh; r++ {
		if !x.replicas[r].present {
			x.free = append(x.free, r)
		}
	}
}

func (x *Index) clear(i int) {
	x.blocks[i] = 0
	x.used--
}

// live reports whether an entry still says something.
func (x *Index) live(m mark) bool {
	r := &x.replicas[m.replica()]
	return r.present && r.time-m.time() < min(r.capacity, r.since)
}

// bucket returns where the entries of a block stand.
func (x *Index) bucket(block uint64) (first int) { return int(block&x.mask) * ways }

// homeOf returns the place in its bucket where a block is put if nothing stands there yet, and looked for first.
func homeOf(block uint64) int { return int(block>>32) % ways }

// Insert notes that a replica has a prompt's blocks in its cache, or will have in a moment. The blocks are those of a prefix from its
// beginning.
//
// The last ones are noted first, so that they are the oldest and the first to go: engines free a prompt's blocks in that order too, and
// who holds a block holds those before.
func (x *Index) Insert(r Replica, chain []uint64) {
	if !x.has(r) {
		return
	}
	if x.blocks == nil {
		x.allocate()
	}
	owner := &x.replicas[r]
	for rest := chain; len(rest) > 0; {
		from := max(0, len(rest)-stretch)
		x.warm(rest[from:])
		for i := len(rest) - 1; i >= from; i-- {
			x.insert(r, owner, nonzero(rest[i]))
		}
		rest = rest[:from]
	}
}

// stretch is how many blocks are warmed at a time: their buckets fit into the smallest cache of a processor with space to spare.
const stretch = 32

// warm reads what insert will read. Blocks lie anywhere in memory, and insert has to know what stands in one bucket before it goes on to the
// next; here no read waits for another, so that the processor waits for many at once.
func (x *Index) warm(chain []uint64) {
	const line = 8 // entries in a line of the processor's cache
	var read uint64
	for _, block := range chain {
		block = nonzero(block)
		first := x.bucket(block)
		home := first + homeOf(block)
		read += uint64(x.marks[home])
		if x.blocks[home] == block {
			continue // it is known, and mostly nothing else is looked at
		}
		for i := first; i < first+ways; i += line {
			read += x.blocks[i]
		}
	}
	x.read = read // or the compiler would leave the reading out
}

func (x *Index) insert(r Replica, owner *replica, block uint64) {
	first := x.bucket(block)
	row := x.blocks[first : first+ways]
	home := first + homeOf(block)
	if x.stands(home, r, block) {
		x.touch(home, r, owner)
		return
	}
	var others holders
	empty := -1
	for i, b := range row {
		if b == 0 {
			empty = first + i
		}
		if b != block {
			continue
		}
		if x.marks[first+i].replica() == r {
			x.touch(first+i, r, owner)
			return
		}
		others.add(x, first+i)
	}
	at := empty
	switch {
	case others.n >= mostHolders:
		at = others.oldest
	case x.blocks[home] == 0:
		at = home
	case empty < 0:
		at = x.victim(home)
	}
	if x.blocks[at] == 0 {
		x.used++
	}
	x.blocks[at] = block
	owner.advance()
	x.stamp(at, r, owner)
	if x.sinceEpoch++; x.sinceEpoch >= x.epochLength {
		x.sinceEpoch = 0
		x.epoch++
	}
}

// holders are the entries of one block for different replicas.
type holders struct{ n, oldest int }

func (h *holders) add(x *Index, at int) {
	if h.n == 0 || x.age(at) > x.age(h.oldest) {
		h.oldest = at
	}
	h.n++
}

// touch notes that a block that is known was used again. Others that were used since before it was are now older than it: the replica's
// time moves on if that is likely to be many, which it is for blocks that were not used for long.
func (x *Index) touch(at int, r Replica, owner *replica) {
	was := x.marks[at]
	if !x.live(was) {
		was = 0
	}
	if age := owner.time - x.marks[at].time(); age > owner.capacity/2 || age >= owner.since {
		owner.advance()
	}
	x.stamp(at, r, owner)
	x.marks[at] |= was & computed
}

func (x *Index) stamp(at int, r Replica, owner *replica) {
	x.marks[at] = mark(r)<<48 | mark(uint16(x.epoch))<<32 | mark(owner.time)
}

// age is how long ago an entry was used, in epochs; the largest number for one that says nothing.
func (x *Index) age(at int) uint32 {
	if !x.live(x.marks[at]) {
		return 1 << 16
	}
	return uint32(uint16(x.epoch) - x.marks[at].epoch())
}

// samples is the number of entries among which victim looks: their marks lie in one line of the processor's cache.
const samples = 8

// victim returns the entry of a full bucket that is to be forgotten: the oldest of those whose marks lie in a line with that of a block's home, which
// has been read. Homes are spread evenly, and so are those that are looked at.
func (x *Index) victim(home int) int {
	first := home &^ (samples - 1)
	best, age := first, x.age(first)
	for i := first + 1; i < first+samples; i++ {
		if a := x.age(i); a > age {
			best, age = i, a
		}
	}
	return best
}

// Computed notes that a replica has begun a response to a prompt with these blocks, so it has computed them. It reports whether it came to
// one that was noted before: then those in front of it were too.
func (x *Index) Computed(r Replica, chain []uint64) (known bool) {
	for i := len(chain) - 1; i >= 0; i-- {
		at := x.find(r, nonzero(chain[i]))
		if at < 0 {
			continue
		}
		if x.marks[at]&computed != 0 && x.live(x.marks[at]) {
			return true
		}
		x.marks[at] |= computed
	}
	return false
}

// Forget takes back that a replica holds these blocks, except those that it has begun a response with. It returns how many of them, from the
// first, are not taken back.
func (x *Index) Forget(r Replica, chain []uint64) (kept int) {
	for i, block := range chain {
		switch at := x.find(r, nonzero(block)); {
		case at < 0:
		case x.marks[at]&computed != 0 && x.live(x.marks[at]):
			kept = i + 1
		default:
			x.clear(at)
		}
	}
	return kept
}

// find returns where a block of a replica stands, -1 if it is not known.
func (x *Index) find(r Replica, block uint64) int {
	if x.blocks == nil {
		return -1
	}
	first := x.bucket(block)
	if home := first + homeOf(block); x.stands(home, r, block) {
		return home
	}
	for i := first; i < first+ways; i++ {
		if x.stands(i, r, block) {
			return i
		}
	}
	return -1
}

// stands reports whether an entry is that of a block of a replica.
func (x *Index) stands(at int, r Replica, block uint64) bool {
	return x.blocks[at] == block && x.marks[at].replica() == r
}

// Matches says how much of one prompt each replica holds. The zero value is empty; one that is used again allocates nothing.
type Matches struct {
	blocks []uint16 // by replica
	listed []Replica
}

// Of returns how many blocks of the prompt, from its beginning, a replica holds.
func (m *Matches) Of(r Replica) int {
	if int(r) >= len(m.blocks) {
		return 0
	}
	return int(m.blocks[r])
}

// Reset empties the matches.
func (m *Matches) Reset() {
	for _, r := range m.listed {
		m.blocks[r] = 0
	}
	m.listed = m.listed[:0]
}

func (m *Matches) note(r Replica, blocks int) {
	if m.blocks[r] == 0 {
		m.listed = append(m.listed, r)
	}
	m.blocks[r] = max(m.blocks[r], uint16(blocks))
}

// Match finds for every replica how many blocks of the chain, from its beginning, it holds.
//
// It does not read all blocks: who holds a block holds those before. So where as many hold the last block of a stretch as the first, the
// blocks between need no look; else the stretch is halved.
func (x *Index) Match(chain []uint64, m *Matches) {
	m.Reset()
	if n := len(x.replicas) - len(m.blocks); n > 0 {
		m.blocks = append(m.blocks, make([]uint16, n)...)
	}
	chain = chain[:min(len(chain), 1<<16-1)]
	if len(chain) == 0 || x.blocks == nil {
		return
	}
	last := len(chain) - 1
	if first := x.look(chain, 0, m); first > 0 && last > 0 {
		x.between(chain, 0, first, last, x.look(chain, last, m), m)
	}
}

// between looks at the blocks between two, of which it is known how many replicas hold them.
func (x *Index) between(chain []uint64, from, holdFrom, to, holdTo int, m *Matches) {
	for holdFrom != holdTo && to-from > 1 {
		middle := (from + to) / 2
		hold := x.look(chain, middle, m)
		x.between(chain, middle, hold, to, holdTo, m)
		to, holdTo = middle, hold
	}
}

// look notes who holds block i, and returns how many they are.
func (x *Index) look(chain []uint64, i int, m *Matches) (n int) {
	block := nonzero(chain[i])
	first := x.bucket(block)
	for j, b := range x.blocks[first : first+ways] {
		if b == block && x.live(x.marks[first+j]) {
			m.note(x.marks[first+j].replica(), i+1)
			n++
		}
	}
	return n
}

// nonzero makes the one hash that stands for "empty" another.
func nonzero(block uint64) uint64 {
	if block == 0 {
		return 1
	}
	return block
}

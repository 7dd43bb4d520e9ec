package engine

import "hash/maphash"

// cache is the paged KV cache of one engine with automatic prefix caching, like vLLM's: a full block is found by the hash
// of all tokens up to its end; a block without running requests stays cached until it is the least recently used one and
// its memory is needed.
//
// Blocks are created when they are first needed: an engine costs as much memory as the tokens that it has seen, so that
// thousands of engines fit into one process.
type cache struct {
	limit int              // blocks
	table map[uint64]int32 // hash of everything up to a block's end -> block
	block []cacheBlock     // [0] is the head of the free list, not a real block
	idle  int              // blocks in the free list
}

type cacheBlock struct {
	hash       uint64 // 0: cannot be found
	users      int32
	prev, next int32 // free list, next to be reused first; valid while users == 0
}

func newCache(blocks int) cache {
	return cache{limit: blocks, table: map[uint64]int32{}, block: make([]cacheBlock, 1)}
}

// seed is the same for the whole process, so that all engines in it agree on the hashes of a prompt.
var seed = maphash.MakeSeed()

// Hashes appends one hash per whole block of text, each over all text up to that block's end, as Request.Hashes needs it.
// Texts with different salts (model, adapter, cache_salt) share nothing. The values are valid only in this process.
func Hashes(dst []uint64, salt string, text []byte, blockBytes int) []uint64 {
	h := maphash.String(seed, salt)
	for len(text) >= blockBytes {
		h = Chain(h, maphash.Bytes(seed, text[:blockBytes]))
		dst = append(dst, h)
		text = text[blockBytes:]
	}
	return dst
}

// Chain returns the hash of a prefix that is one block longer, for callers whose blocks are ids, as in traces. The hash
// of nothing may be any number; another number is another salt.
func Chain(prefix, block uint64) uint64 {
	h := (prefix ^ block) * 0x9E3779B97F4A7C15 // golden ratio: order matters, bits spread
	return max(h^h>>29, 1)                     // 0 means no hash
}

// free returns how many blocks have no users, cached or not.
func (c *cache) free() int { return c.limit - (len(c.block) - 1) + c.idle }

// find returns how many blocks of a prefix are cached, at most limit, and how many of these are in the free list.
func (c *cache) find(hashes []uint64, limit int) (cached, idle int) {
	for _, hash := range hashes[:min(limit, len(hashes))] {
		id, found := c.table[hash]
		if !found {
			break
		}
		if c.block[id].users == 0 {
			idle++
		}
		cached++
	}
	return cached, idle
}

// share appends the blocks of a cached prefix to ids and adds a user to each.
func (c *cache) share(ids []int32, hashes []uint64) []int32 {
	for _, hash := range hashes {
		id := c.table[hash]
		if c.block[id].users == 0 {
			c.unlink(id)
		}
		c.block[id].users++
		ids = append(ids, id)
	}
	return ids
}

// take appends n blocks without content to ids: new ones as long as there are any, then the least recently used ones. The
// caller has checked that there are enough.
func (c *cache) take(ids []int32, n int) []int32 {
	for range n {
		if len(c.block) <= c.limit {
			ids = append(ids, int32(len(c.block)))
			c.block = append(c.block, cacheBlock{users: 1})
			continue
		}
		id := c.block[0].next
		c.unlink(id)
		if hash := c.block[id].hash; hash != 0 {
			delete(c.table, hash)
		}
		c.block[id] = cacheBlock{users: 1}
		ids = append(ids, id)
	}
	return ids
}

// remember registers a block under its hash. If another block has this hash already (the end of a prompt is computed
// again although it is cached, and two parallel requests may compute the same), the block with users stays registered,
// since it will be evicted later. vLLM keeps both.
func (c *cache) remember(id int32, hash uint64) {
	if other, known := c.table[hash]; known {
		if c.block[other].users > 0 {
			return
		}
		c.block[other].hash = 0
	}
	c.block[id].hash = hash
	c.table[hash] = id
}

// release frees a request's blocks. The end is freed first, so that it is also evicted first.
func (c *cache) release(ids []int32) {
	for i := len(ids) - 1; i >= 0; i-- {
		id := ids[i]
		if c.block[id].users--; c.block[id].users == 0 {
			c.link(id)
		}
	}
}

// forget removes all blocks from the cache, including those in use.
func (c *cache) forget() {
	clear(c.table)
	for i := range c.block {
		c.block[i].hash = 0
	}
}

func (c *cache) link(id int32) {
	last := c.block[0].prev
	c.block[id].prev, c.block[id].next = last, 0
	c.block[last].next, c.block[0].prev = id, id
	c.idle++
}

func (c *cache) unlink(id int32) {
	prev, next := c.block[id].prev, c.block[id].next
	c.block[prev].next, c.block[next].prev = next, prev
	c.idle--
}

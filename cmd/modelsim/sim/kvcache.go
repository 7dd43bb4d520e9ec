package sim

import "hash/maphash"

// kvCache is the paged KV cache of one replica with automatic prefix caching, in the manner of vLLM: a block that
// holds a whole block of prompt is found again by the hash of everything up to its end; a block that no running
// request uses stays cached until it is the least recently used one and somebody needs room.
type kvCache struct {
	seed  maphash.Seed
	table map[uint64]int32 // hash of a prompt up to a block's end -> block
	block []kvBlock        // the last element is the head of the free list, no real block
	free  int              // blocks with no users, cached or not
}

type kvBlock struct {
	hash       uint64 // 0: holds no whole block of prompt
	users      int32
	prev, next int32 // free list, next to be reused first; valid while users == 0
}

func newKVCache(blocks int) *kvCache {
	c := &kvCache{seed: maphash.MakeSeed(), table: make(map[uint64]int32), block: make([]kvBlock, blocks+1)}
	head := c.head()
	c.block[head] = kvBlock{prev: head, next: head}
	for id := range int32(blocks) {
		c.pushFree(id)
	}
	return c
}

// hashes appends one hash per whole block of the prompt, each over all of the prompt up to that block's end.
// Prompts under different salts (model, adapter, cache_salt) share nothing.
func (c *kvCache) hashes(dst []uint64, salt string, prompt []byte, blockBytes int) []uint64 {
	h := maphash.String(c.seed, salt)
	for len(prompt) >= blockBytes {
		h = (h ^ maphash.Bytes(c.seed, prompt[:blockBytes])) * 0x9E3779B97F4A7C15 // golden ratio: order matters, bits spread
		h = max(h^h>>29, 1)                                                       // 0 means no hash
		dst = append(dst, h)
		prompt = prompt[blockBytes:]
	}
	return dst
}

// allocate gives a request its blocks: cached ones for the longest known prefix, at most limit of them, fresh ones
// for the rest. It appends total block ids to dst and tells how many were cached; false when there is no room.
func (c *kvCache) allocate(dst []int32, hashes []uint64, limit, total int) (ids []int32, cached int, ok bool) {
	idle := 0 // cached blocks that are now in the free list and will leave it
	for cached < min(limit, len(hashes)) {
		id, found := c.table[hashes[cached]]
		if !found {
			break
		}
		if c.block[id].users == 0 {
			idle++
		}
		cached++
	}
	if c.free-idle < total-cached {
		return dst, 0, false
	}
	// All cached blocks are taken before the first fresh one, which might otherwise evict one of them.
	for _, hash := range hashes[:cached] {
		id := c.table[hash]
		if c.block[id].users == 0 {
			c.unlink(id)
		}
		c.block[id].users++
		dst = append(dst, id)
	}
	for i := cached; i < total; i++ {
		id := c.block[c.head()].next
		c.unlink(id)
		c.evict(id)
		c.block[id].users = 1
		if i < len(hashes) {
			c.remember(id, hashes[i])
		}
		dst = append(dst, id)
	}
	return dst, cached, true
}

// release gives blocks back. The end of a prompt is freed first, so that it is also evicted first.
func (c *kvCache) release(ids []int32) {
	for i := len(ids) - 1; i >= 0; i-- {
		id := ids[i]
		if c.block[id].users--; c.block[id].users == 0 {
			c.pushFree(id)
		}
	}
}

// usage is the share of blocks that running requests hold, 0..1; cached blocks without users count as free.
func (c *kvCache) usage() float64 {
	total := len(c.block) - 1
	return float64(total-c.free) / float64(total)
}

func (c *kvCache) remember(id int32, hash uint64) {
	if _, known := c.table[hash]; known {
		return // the block that must be computed again although it is cached (see engine.admit)
	}
	c.block[id].hash = hash
	c.table[hash] = id
}

func (c *kvCache) evict(id int32) {
	if c.block[id].hash != 0 {
		delete(c.table, c.block[id].hash)
		c.block[id].hash = 0
	}
}

func (c *kvCache) head() int32 { return int32(len(c.block) - 1) }

func (c *kvCache) pushFree(id int32) {
	head := c.head()
	last := c.block[head].prev
	c.block[id].prev, c.block[id].next = last, head
	c.block[last].next, c.block[head].prev = id, id
	c.free++
}

func (c *kvCache) unlink(id int32) {
	prev, next := c.block[id].prev, c.block[id].next
	c.block[prev].next, c.block[next].prev = next, prev
	c.free--
}

package sim

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestKVCacheAgainstModel drives the cache at random beside a plain model of it: nobody shares what differs, what was
// just used is found again, blocks neither leak nor serve two prompts.
func TestKVCacheAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 4
		blocks := rapid.IntRange(1, 12).Draw(t, "blocks")
		c := newKVCache(blocks)
		type held struct {
			ids    []int32
			prompt string
		}
		var live []held
		content := map[int32]string{} // what a block holds, for those that hold prompt
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(live) > 0 && rapid.Bool().Draw(t, "release") {
				i := rapid.IntRange(0, len(live)-1).Draw(t, "which")
				c.release(live[i].ids)
				live = append(live[:i], live[i+1:]...)
			} else {
				prompt := rapid.StringMatching(`[ab]{0,20}`).Draw(t, "prompt")
				extra := rapid.IntRange(0, 3).Draw(t, "extra")
				hashes := c.hashes(nil, "", []byte(prompt), size)
				limit := max(len(prompt)-1, 0) / size
				total := len(hashes) + extra
				free := c.free
				ids, cached, ok := c.allocate(nil, hashes, limit, total)
				if !ok {
					if free >= total {
						t.Fatalf("refused %d blocks with %d free", total, free)
					}
					if c.free != free || len(ids) != 0 {
						t.Fatalf("a refusal took blocks: %d free before, %d after", free, c.free)
					}
					continue
				}
				if len(ids) != total || cached > limit {
					t.Fatalf("%d ids for %d blocks, %d cached of at most %d", len(ids), total, cached, limit)
				}
				for i, id := range ids {
					if id < 0 || int(id) >= blocks {
						t.Fatalf("there is no block %d", id)
					}
					prefix := ""
					if i < len(hashes) {
						prefix = prompt[:(i+1)*size]
					}
					if i < cached && content[id] != prefix {
						t.Fatalf("block %d holds %q, was found for %q", id, content[id], prefix)
					}
					content[id] = prefix
				}
				live = append(live, held{ids, prompt})
			}
			users := map[int32]int32{}
			for _, h := range live {
				for _, id := range h.ids {
					users[id]++
				}
			}
			for id := range int32(blocks) {
				if c.block[id].users != users[id] {
					t.Fatalf("block %d has %d users, should have %d", id, c.block[id].users, users[id])
				}
			}
			for id := range int32(blocks) {
				if hash := c.block[id].hash; hash != 0 && c.table[hash] != id {
					t.Fatalf("block %d has the hash of block %d", id, c.table[hash])
				}
			}
			if c.free != blocks-len(users) {
				t.Fatalf("%d blocks free, should be %d", c.free, blocks-len(users))
			}
			if len(c.table) > blocks {
				t.Fatalf("%d hashes for %d blocks", len(c.table), blocks)
			}
		}
	})
}

func TestKVCacheEvictsLeastRecentlyUsed(t *testing.T) {
	const size = 4
	c := newKVCache(4)
	use := func(prompt string) (cached int) {
		hashes := c.hashes(nil, "", []byte(prompt), size)
		ids, cached, ok := c.allocate(nil, hashes, len(hashes), len(hashes))
		require.True(t, ok)
		c.release(ids)
		return cached
	}
	require.Equal(t, 0, use("aaaabbbb"))
	require.Equal(t, 0, use("ccccdddd"))
	require.Equal(t, 2, use("aaaabbbb"), "still cached")
	require.Equal(t, 0, use("eeee"), "evicts the end of the least recently used prompt")
	require.Equal(t, 1, use("cccc"), "its beginning is still there")
	require.Equal(t, 2, use("aaaabbbb"))
	require.Equal(t, 1, use("aaaaxxxx"), "a common prefix is shared")
	require.Zero(t, c.usage(), "cached blocks without users count as free")
}

func TestKVCacheSalt(t *testing.T) {
	c := newKVCache(4)
	require.Equal(t, c.hashes(nil, "x", []byte("aaaabbbb"), 4), c.hashes(nil, "x", []byte("aaaabbbbc"), 4))
	require.NotEqual(t, c.hashes(nil, "x", []byte("aaaa"), 4), c.hashes(nil, "y", []byte("aaaa"), 4))
	swapped := c.hashes(nil, "", []byte("bbbbaaaa"), 4)
	require.NotEqual(t, c.hashes(nil, "", []byte("aaaabbbb"), 4)[1], swapped[1], "order of the blocks matters")
}

package scorer

// KVCache prefers replicas with free space in the KV cache, as their metrics said when
// they were last scraped.
type KVCache struct{}

// Name is "kv-cache".
func (KVCache) Name() string { return "kv-cache" }

// Needs nothing special.
func (KVCache) Needs() Needs { return 0 }

// Score is the share of the cache that is free.
func (KVCache) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = min(1, max(0, 1-rs[i].Gauges.KVUse))
	}
	Trusted(rs, out, neutral)
}

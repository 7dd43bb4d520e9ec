package scorer

// KVCache prefers replicas whose KV cache has room, as their metrics said when
// they were last read.
type KVCache struct{}

// Name is "kv-cache".
func (KVCache) Name() string { return "kv-cache" }

// Score is the share of the cache that is free.
func (KVCache) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = min(1, max(0, 1-rs[i].Gauges.KVUse))
	}
	Trusted(rs, out, neutral)
}

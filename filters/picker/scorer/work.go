package scorer

// Work prefers replicas where the fewest tokens are to be computed before the first
// token of the response: those of other requests, and those of this prompt that are
// not cached. It uses what this proxy knows exactly and at once, the tokens in
// flight. Gauges are a scrape late, so they only add what other clients sent there.
//
// A cached token counts more than one to wait for (Input.CachedWeight). What is computed
// a second time delays everybody behind it, and evicts from the cache what others need,
// which is then computed a second time too. If each request looked at its own wait
// alone, it would rather move, and all would wait longer for it.
type Work struct{}

// Name is "work".
func (Work) Name() string { return "work" }

// Needs the work, and what it depends on.
func (Work) Needs() Needs { return NeedWork | NeedPrefix | NeedAdapter }

// Standalone: the scores are tokens.
func (Work) Standalone() {}

// Score is the number of tokens, negative.
func (Work) Score(in *Input, rs []Replica, out []float64) {
	prompt := float64(in.Tokens)
	for i := range rs {
		r := &rs[i]
		out[i] = -(r.Work + prompt*(1-r.Hit)) / r.WarmUp
		if r.Affinity == Attracts {
			out[i] += (in.CachedWeight - 1) * prompt * r.Hit
		}
	}
}

package scorer

// Prefix prefers replicas that have the beginning of the prompt in their prefix cache, as
// far as this proxy knows.
type Prefix struct{}

// Name is "prefix".
func (Prefix) Name() string { return "prefix" }

// Needs the hits.
func (Prefix) Needs() Needs { return NeedPrefix }

// Score is the share of the prompt that the replica need not compute.
func (Prefix) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = min(1, max(0, rs[i].Hit))
	}
}

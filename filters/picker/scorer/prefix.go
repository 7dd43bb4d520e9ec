package scorer

// Prefix prefers replicas that have computed the beginning of the prompt before
// and, as far as this proxy knows, still have it.
type Prefix struct{}

// Name is "prefix".
func (Prefix) Name() string { return "prefix" }

// Score is the share of the prompt that the replica need not compute.
func (Prefix) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = min(1, max(0, rs[i].Hit))
	}
}

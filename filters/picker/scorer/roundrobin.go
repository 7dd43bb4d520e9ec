package scorer

// RoundRobin takes one replica after the other, in the order of the list.
type RoundRobin struct{}

// Name is "round-robin".
func (RoundRobin) Name() string { return "round-robin" }

// Needs the turn.
func (RoundRobin) Needs() Needs { return NeedTurn }

// Standalone: the order is all that it says.
func (RoundRobin) Standalone() {}

// Score falls from the replica whose turn it is to the one before it.
func (RoundRobin) Score(in *Input, rs []Replica, out []float64) {
	n := uint64(len(rs))
	for i := range rs {
		out[i] = -float64((uint64(i) + n - in.Turn%n) % n)
	}
}

package scorer

// Requests prefers replicas with few requests: those that are in flight from this
// Envoy, counted exactly and at once, and those that the replica had besides when
// its metrics were last read.
type Requests struct{}

// Name is "requests".
func (Requests) Name() string { return "requests" }

// Score falls with the sum. It is one number that both go into: were they two
// scores, the one from the gauges would count for ever while the other is used up.
func (Requests) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = float64(rs[i].Others())
	}
	Trusted(rs, out, 0)
	for i := range rs {
		out[i] = falling(float64(max(0, rs[i].InFlight))+out[i], halfQueue)
	}
}

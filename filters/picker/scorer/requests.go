package scorer

// Requests prefers replicas with few requests: those in flight from known proxies, and
// the others that the replica had when its metrics were last scraped.
type Requests struct{}

// Name is "requests".
func (Requests) Name() string { return "requests" }

// Needs nothing special.
func (Requests) Needs() Needs { return 0 }

// Score falls with the sum of both. As two separate scores they would count requests
// twice that are in flight from here and in the gauges.
func (Requests) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = float64(rs[i].Others())
	}
	Trusted(rs, out, 0)
	for i := range rs {
		out[i] = falling(float64(max(0, rs[i].InFlight))+out[i], halfQueue)
	}
}

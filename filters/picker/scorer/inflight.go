package scorer

// halfInFlight is the number of requests in flight at which a replica scores
// ½. It sets only how InFlight weighs against other scorers, since the order of
// replicas is the same for every value: a request in flight here is about as
// bad as one that waits there.
const halfInFlight = halfQueue

// InFlight prefers replicas with few requests in flight from this Envoy. The
// count is exact and immediate, so that a burst within one scrape spreads.
type InFlight struct{}

// Name is "in-flight".
func (InFlight) Name() string { return "in-flight" }

// Score falls with the requests in flight.
func (InFlight) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = falling(float64(rs[i].InFlight), halfInFlight)
	}
}

package scorer

// halfInFlight is the number of requests in flight at which a replica scores ½. It
// only sets how InFlight compares with other scorers, since the order of the replicas is
// the same for every value: one request in flight is about as bad as one in the queue.
const halfInFlight = halfQueue

// InFlight prefers replicas with few requests in flight, from this Envoy and from the
// other proxies. This Envoy's own count is exact and immediate, so that a burst within
// one scrape spreads.
type InFlight struct{}

// Name is "in-flight".
func (InFlight) Name() string { return "in-flight" }

// Needs nothing special.
func (InFlight) Needs() Needs { return 0 }

// Score falls with the requests in flight.
func (InFlight) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = falling(float64(rs[i].InFlight), halfInFlight)
	}
}

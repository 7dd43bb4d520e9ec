package scorer

// halfQueue is the queue length at which a replica scores ½: the depth at
// which the endpoint picker of the Gateway API Inference Extension takes a replica for
// saturated (queueDepthThreshold 5).
const halfQueue = 5

// Queue prefers replicas with few waiting requests, as their metrics said when they
// were last scraped.
type Queue struct{}

// Name is "queue".
func (Queue) Name() string { return "queue" }

// Needs nothing special.
func (Queue) Needs() Needs { return 0 }

// Score falls with the queue's length.
func (Queue) Score(_ *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = falling(float64(rs[i].Gauges.Waiting), halfQueue)
	}
	Trusted(rs, out, neutral)
}

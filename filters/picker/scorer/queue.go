package scorer

import "github.com/inlet-proxy/inlet/shared/endpoint"

// halfQueue is the queue length at which a replica scores ½: the depth that
// the field takes for saturated (queueDepthThreshold 5 of the endpoint picker
// of the Gateway API Inference Extension).
const halfQueue = 5

// Queue prefers replicas with few waiting requests, as their metrics said when
// they were last read. The older a gauge is, the nearer its score comes to the
// mean of those that are known: unknown is neither idle nor saturated.
type Queue struct{}

// Name is "queue".
func (Queue) Name() string { return "queue" }

// Score falls with the queue's length.
func (Queue) Score(in Input, eps []*endpoint.Endpoint, out []float64) {
	var sum, weight float64
	for i, e := range eps {
		trust := e.Gauges.Trust(in.SinceReceived, in.Stale)
		out[i] = falling(float64(e.Gauges.Waiting), halfQueue)
		sum += trust * out[i]
		weight += trust
	}
	mean := 0.5
	if weight > 0 {
		mean = sum / weight
	}
	for i, e := range eps {
		trust := e.Gauges.Trust(in.SinceReceived, in.Stale)
		out[i] = trust*out[i] + (1-trust)*mean
	}
}

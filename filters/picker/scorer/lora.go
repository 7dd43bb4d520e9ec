package scorer

import (
	"math"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// LoRA prefers replicas that have the request's adapter at work, then those that
// can take it up at once: the ladder of the endpoint picker of the Gateway API
// Inference Extension.
type LoRA struct{}

// Steps of the ladder.
const (
	adapterRunning = 1.0 // requests of this adapter are being worked on
	adapterFits    = 0.8 // there is room for one more adapter
	adapterWaiting = 0.6 // requests of this adapter wait for room
	adapterNoRoom  = 0.0
)

// Name is "lora".
func (LoRA) Name() string { return "lora" }

// Score is the replica's step of the ladder; the same for all if the request
// asks for no adapter.
func (LoRA) Score(in *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = neutral
		if in.Adapter {
			out[i] = ladder(rs[i].LoRA, in.Model)
		}
	}
	Trusted(rs, out, neutral)
}

// ladder returns the step of a replica, NaN if it does not say.
func ladder(l *endpoint.LoRA, adapter string) float64 {
	switch {
	case l == nil || l.Max == 0:
		return math.NaN()
	case among(l.Running, adapter):
		return adapterRunning
	case len(l.Running)+len(l.Waiting) < l.Max:
		return adapterFits
	case among(l.Waiting, adapter):
		return adapterWaiting
	}
	return adapterNoRoom
}

// among reports whether an adapter is listed by its name, or by what stands behind
// its parent's: SGLang's "parent:adapter".
func among(sorted []string, name string) bool {
	if _, found := slices.BinarySearch(sorted, name); found {
		return true
	}
	_, own, both := strings.Cut(name, ":")
	if !both {
		return false
	}
	_, found := slices.BinarySearch(sorted, own)
	return found
}

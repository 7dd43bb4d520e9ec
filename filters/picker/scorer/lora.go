package scorer

import (
	"math"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// LoRA prefers replicas that run the request's adapter, then those that can load it at
// once: the tiers of the endpoint picker of the Gateway API Inference Extension.
type LoRA struct{}

// Scores of the tiers.
const (
	adapterRunning = 1.0 // requests of this adapter are running
	adapterFits    = 0.8 // one more adapter can be loaded
	adapterWaiting = 0.6 // requests of this adapter wait for a free slot
	adapterNoSlot  = 0.0 // all slots are taken by other adapters
)

// Name is "lora".
func (LoRA) Name() string { return "lora" }

// Needs the adapter that is asked for.
func (LoRA) Needs() Needs { return NeedAdapter }

// Score depends on the replica's tier. It is the same for all if the request asks for no
// adapter.
func (LoRA) Score(in *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = neutral
		if in.Adapter {
			out[i] = tierOf(rs[i].LoRA, in.Model)
		}
	}
	Trusted(rs, out, neutral)
}

// tierOf returns the score of a replica's tier, NaN if its metrics do not say.
func tierOf(l *endpoint.LoRA, adapter string) float64 {
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
	return adapterNoSlot
}

// among reports whether an adapter is listed, by its whole name or, for SGLang's
// "parent:adapter", by the part after the colon.
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

package picker

import (
	"math"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// objectiveHeaders say what a request is for: the name of an InferenceObjective of
// the Gateway API Inference Extension. The newer spelling comes first.
var objectiveHeaders = filter.ObjectiveHeaders

// objectives are the priorities of those that the configuration knows, by name.
// Requests below 0 are refused when every replica is saturated. The number comes from the
// configuration alone: a client can name an objective, and make none up.
type objectives map[string]int

// priority of a request: 0 if it names no objective, or one that is not known.
func (o objectives) priority(h filter.Headers) int {
	if len(o) == 0 {
		return 0
	}
	for _, header := range objectiveHeaders {
		if name, ok := h.Get(header); ok && name != "" {
			return o[name]
		}
	}
	return 0
}

func readObjectives(o *conf.Object) objectives {
	var known objectives
	o.List("objectives", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			var name string
			var priority int
			o.Required("name", "priority")
			o.String("name", &name, conf.NotEmpty)
			o.Int("priority", &priority, math.MinInt32, math.MaxInt32)
			if _, twice := known[name]; twice {
				o.Errorf("name", "%q is listed twice", name)
			}
			if known == nil {
				known = objectives{}
			}
			known[name] = priority
		})
	})
	return known
}

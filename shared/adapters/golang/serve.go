package golang

import (
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// PluginName is the plugin_name under which Envoy finds Inlet, with all filters. Each of them is also found alone, by its own
// name. With any other name Envoy lets all requests pass.
const PluginName = "inlet"

// Serve makes the known filters available to Envoy. Call it once, from an init function of the plugin's main package.
func Serve(register func(name string, f api.StreamFilterFactory, p api.StreamFilterConfigParser), known ...filter.Factory) {
	native.BoundThreads()
	native.BoundGarbage()
	process, totals := native.NewProcess(), newTotals()
	register(PluginName, newFilter, &parser{known, process, totals})
	for i := range known {
		register(known[i].Name, newFilter, &parser{known[i : i+1], process, totals})
	}
}

// newFilter makes the filter of one exchange. A panic here would end Envoy, and there is no filter
// that is none: one that cannot be made is replaced by one that refuses.
func newFilter(of any, envoy api.FilterCallbackHandler) (f api.StreamFilter) {
	c := configOf(of)
	if c == nil || c.Config == nil {
		return &refuser{envoy: envoy}
	}
	defer func() {
		if p := recover(); p != nil {
			c.Panicked(p)
			f = &refuser{envoy: envoy}
		}
	}()
	s := c.streams.Get().(*stream)
	s.attach(envoy)
	return s
}

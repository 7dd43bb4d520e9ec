package golang

import (
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// PluginName is the plugin_name under which Envoy finds Inlet. Envoy lets all requests pass that name another.
const PluginName = "inlet"

// Plugin returns what the main package of a plugin registers. Call it once.
func Plugin(known ...filter.Factory) (api.StreamFilterFactory, api.StreamFilterConfigParser) {
	native.BoundThreads()
	return newFilter, &parser{known: known, process: native.NewProcess()}
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

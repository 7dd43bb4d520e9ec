// Package filters lists the filters that Inlet has.
package filters

import (
	"github.com/inlet-proxy/inlet/filters/bbr"
	"github.com/inlet-proxy/inlet/filters/guardrail"
	"github.com/inlet-proxy/inlet/filters/picker"
	"github.com/inlet-proxy/inlet/filters/quota"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// All is every filter, in the order in which a chain usually has them. A new
// filter is its own folder and one entry here.
var All = []filter.Factory{bbr.Factory, quota.Factory, guardrail.Factory, picker.Factory}

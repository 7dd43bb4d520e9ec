// Package filters lists Inlet's filters.
package filters

import (
	"github.com/inlet-proxy/inlet/filters/bbr"
	"github.com/inlet-proxy/inlet/filters/guardrail"
	"github.com/inlet-proxy/inlet/filters/picker"
	"github.com/inlet-proxy/inlet/filters/quota"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// All lists every filter, in the usual order of a chain. To add a filter, add its
// folder and one entry here (docs/writing-a-filter.md).
var All = []filter.Factory{
	bbr.Factory,
	quota.Factory,
	guardrail.Factory,
	picker.Factory,
}

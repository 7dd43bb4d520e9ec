// Command empty-module is a native dynamic module whose filter does nothing: the
// baseline of every measurement of the module build.
package main

import (
	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	_ "github.com/inlet-proxy/inlet/shared/adapters/module/export" // the entry points, and Go's runtime configured as in Inlet
)

func init() {
	sdk.RegisterHttpFilterConfigFactories(map[string]shared.HttpFilterConfigFactory{"inlet": &factory{}})
}

func main() {}

type factory struct {
	shared.EmptyHttpFilterConfigFactory
}

func (*factory) Create(shared.HttpFilterConfigHandle, []byte) (shared.HttpFilterFactory, error) {
	return &shared.EmptyHttpFilterFactory{}, nil
}

// Command empty-module is a native dynamic module whose filter does nothing:
// the floor under every figure of the module build.
package main

import (
	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	_ "github.com/inlet-proxy/inlet/shared/adapters/module/export" // the entry points, and Go's runtime as Inlet has it
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

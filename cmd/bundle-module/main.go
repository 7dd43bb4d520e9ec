// Command bundle-module is Inlet as a native dynamic module of Envoy, with all filters.
package main

import (
	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/adapters/module"
	_ "github.com/inlet-proxy/inlet/shared/adapters/module/export"
)

func init() { module.Serve(filters.All...) } // Envoy loads a library: main never runs

func main() {}

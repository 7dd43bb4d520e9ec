// Command bundle-golang is Inlet as a plugin of Envoy's contrib filter envoy.filters.http.golang, with all filters.
package main

import (
	"github.com/envoyproxy/envoy/contrib/golang/filters/http/source/go/pkg/http"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/adapters/golang"
)

func init() { // Envoy loads a library: main never runs
	factory, parser := golang.Plugin(filters.All...)
	http.RegisterHttpFilterFactoryAndConfigParser(golang.PluginName, factory, parser)
}

func main() {}

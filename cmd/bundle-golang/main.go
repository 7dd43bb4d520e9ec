// Command bundle-golang is Inlet as a plugin of Envoy's contrib filter envoy.filters.http.golang, with all filters.
package main

import (
	"github.com/envoyproxy/envoy/contrib/golang/filters/http/source/go/pkg/http"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/adapters/golang"
)

func init() { golang.Serve(http.RegisterHttpFilterFactoryAndConfigParser, filters.All...) } // Envoy loads a library: main never runs

func main() {}

// Command bundle-golang is the contrib plugin of every filter and the probe, for tests.
package main

import (
	"github.com/envoyproxy/envoy/contrib/golang/filters/http/source/go/pkg/http"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/scenarios/probe"
	"github.com/inlet-proxy/inlet/shared/adapters/golang"
)

func init() {
	golang.Serve(http.RegisterHttpFilterFactoryAndConfigParser, append(filters.All, probe.Factory)...)
}

func main() {}

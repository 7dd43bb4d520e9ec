// Command bundle-wasm is the wasm build of every filter and the probe, for
// tests.
package main

import (
	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/scenarios/probe"
	"github.com/inlet-proxy/inlet/shared/adapters/wasm"
)

func init() { wasm.Serve(append(filters.All, probe.Factory)...) }

func main() {}

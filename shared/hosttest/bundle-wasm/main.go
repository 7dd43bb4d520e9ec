// Command bundle-wasm is the wasm build of every filter and the probe, for
// tests.
package main

import (
	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/abi/wasm"
	"github.com/inlet-proxy/inlet/shared/hosttest/probe"
)

func init() { wasm.Serve(append(filters.All, probe.Factory)...) }

func main() {}

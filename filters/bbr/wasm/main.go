// Command wasm is the filter bbr alone as a proxy-wasm module. Filters that are
// loaded apart share no state; cmd/bundle-wasm has all of them in one module.
package main

import (
	"github.com/inlet-proxy/inlet/filters/bbr"
	"github.com/inlet-proxy/inlet/shared/adapters/wasm"
)

func init() { wasm.Serve(bbr.Factory) }

func main() {}

// Command bundle-wasm is Inlet as one proxy-wasm module with all its filters:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o dist/inlet.wasm ./cmd/bundle-wasm
package main

import (
	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/adapters/wasm"
)

func init() { wasm.Serve(filters.All...) }

func main() {}

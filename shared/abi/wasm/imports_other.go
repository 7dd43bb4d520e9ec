//go:build !wasip1

package wasm

import "github.com/inlet-proxy/inlet/shared/chain"

// Outside of a wasm VM there is no host: these keep the package buildable for
// its tests.

func setRequestBody(int, []byte) error { panic("not in a wasm VM") }

func setResponseBody(int, []byte) error { panic("not in a wasm VM") }

func sendLocalResponse(*chain.LocalReply) error { panic("not in a wasm VM") }

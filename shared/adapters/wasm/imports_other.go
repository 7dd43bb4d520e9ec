//go:build !wasip1

package wasm

import "github.com/inlet-proxy/inlet/internal/chain"

// Outside of a wasm VM there is no host: these keep the package buildable for
// its tests.

func requestBody(int, int, *[]byte) ([]byte, error) { panic("not in a wasm VM") }

func responseBody(int, *[]byte) ([]byte, error) { panic("not in a wasm VM") }

func headerPairs(mapKind, [][2]string, *[]byte) ([][2]string, error) { panic("not in a wasm VM") }

func property(string, *[]byte) ([]byte, error) { panic("not in a wasm VM") }

func setProperty(string, []byte) error { panic("not in a wasm VM") }

func setRequestBody(int, []byte) error { panic("not in a wasm VM") }

func setResponseBody(int, []byte) error { panic("not in a wasm VM") }

func sendLocalResponse(*chain.LocalReply) error { panic("not in a wasm VM") }

func closeResponse() error { panic("not in a wasm VM") }

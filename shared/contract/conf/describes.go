//go:build !wasip1

package conf

// describes: this build can record what is read. A wasm module is never asked to, and is smaller without.
const describes = true

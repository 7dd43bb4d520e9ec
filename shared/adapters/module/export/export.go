// Package export links the C functions that Envoy looks up in a dynamic module,
// and spares Envoy the wake-ups of Go's runtime. The functions call back into
// symbols that only an Envoy process has, so nothing but the main package of a
// module imports this.
package export

import (
	"C" // compiles naps_linux.c

	_ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/abi" // exports the entry points
)

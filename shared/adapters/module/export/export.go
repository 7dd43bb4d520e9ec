// Package export links the C functions that Envoy looks up in a dynamic module,
// and spares Envoy the wake-ups of Go's runtime. The functions call back into
// symbols that only an Envoy process has, so nothing but the main package of a
// module imports this.
package export

// All functions of Envoy are looked up when Envoy loads the module, which Envoy then refuses if one is missing. By default each would be
// looked up at its first call, and a missing one would end Envoy.

// #cgo linux LDFLAGS: -Wl,-z,now
import "C" // also compiles naps_linux.c

import (
	_ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/abi" // exports the entry points
)

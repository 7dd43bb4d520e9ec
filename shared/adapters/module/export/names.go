package export

/*
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Envoy's, as in its ABI for dynamic modules, v0.1.0.
typedef struct {
	const char *ptr;
	size_t length;
} inlet_text;
extern void envoy_dynamic_module_callback_log(uint32_t level, inlet_text message);

static void inlet_log(char *line, size_t length) {
	envoy_dynamic_module_callback_log(2, (inlet_text){line, length}); // info
	free(line);
}
*/
import "C"

import "github.com/inlet-proxy/inlet/shared/adapters/module"

// Of a filter_name that the module does not have Envoy's log only says that there is none: the SDK looks it up. So the
// names that there are stand in the log whenever the module is loaded.
func init() {
	module.OnServe(func(names string) {
		line := "inlet: loaded; filter names: " + names
		C.inlet_log(C.CString(line), C.size_t(len(line)))
	})
}

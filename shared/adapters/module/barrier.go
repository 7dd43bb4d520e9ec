package module

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// panicked logs and counts a panic. Panics of filters do not come here, the
// chain has its own barrier: this is a defect of the adapter or the chain.
func (c *config) panicked(p any) {
	c.broken.Record(1, filter.Values{"adapter", string(filter.FailClosed)})
	c.log(filter.Critical, describe(p))
}

// describe describes a panic and where it came from. A value that is not a
// runtime error may hold a piece of a prompt, so only its type is told.
func describe(p any) string {
	what := fmt.Sprintf("panic with a %T", p)
	if err, ok := p.(runtime.Error); ok {
		what = "panic: " + err.Error()
	}
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])])
	for panicking := false; ; {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panicking && !inRuntime {
			return fmt.Sprintf("%s at %s:%d", what, frame.Function, frame.Line)
		}
		panicking = panicking || frame.Function == "runtime.gopanic"
		if !more {
			return what
		}
	}
}

// sorry is the answer to a request that met a defect.
func sorry(handle shared.HttpFilterHandle) {
	r := chain.InternalError()
	handle.SendLocalResponse(uint32(r.Status), r.Headers, r.Body, r.Detail)
}

// refuser stands for a filter that could not be made. Without it Envoy would let
// the request pass unseen.
type refuser struct {
	shared.EmptyHttpFilter
	handle shared.HttpFilterHandle
}

func (f *refuser) OnRequestHeaders(shared.HeaderMap, bool) shared.HeadersStatus {
	sorry(f.handle)
	return shared.HeadersStatusStop
}

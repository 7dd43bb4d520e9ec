package native

import (
	"fmt"
	"runtime"
	"strings"
)

// Describe describes a panic and where it came from. A value that is not a
// runtime error may hold a piece of a prompt, so only its type is told.
func Describe(p any) string {
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

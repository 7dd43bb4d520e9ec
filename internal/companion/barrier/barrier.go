// Package barrier keeps a panic in a goroutine from ending the process: the companion's goroutines may run inside Envoy.
package barrier

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// Pauses after consecutive panics double from the first to the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Run runs f. If it panics, that is logged, and it runs again after a pause, until it returns or ctx ends. What names it in the log.
func Run(ctx context.Context, log *slog.Logger, what string, f func()) {
	for pause := firstPause; panics(log, what, f); pause = min(2*pause, lastPause) {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func panics(log *slog.Logger, what string, f func()) (panicked bool) {
	defer func() {
		if v := recover(); v != nil {
			panicked = true
			log.Error("panic; starting again", "in", what, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	f()
	return false
}

// Try runs f. A panic becomes its error.
func Try(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

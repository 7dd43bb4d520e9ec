package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// countSignal asks the baseline loop how much it has read.
const countSignal = syscall.SIGUSR1

// signals yields when countSignal arrives, until ctx ends.
func signals(ctx context.Context) <-chan os.Signal {
	asked, out := make(chan os.Signal, 1), make(chan os.Signal)
	signal.Notify(asked, countSignal)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-asked:
				out <- s
			}
		}
	}()
	return out
}

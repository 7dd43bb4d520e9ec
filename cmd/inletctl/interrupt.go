package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// interrupts are Ctrl-C and SIGTERM: the first asks to finish, the second to stop at once.
type interrupts struct {
	first, second context.Context
	stop          func()
}

func catchInterrupts() *interrupts {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	second, cancelSecond := context.WithCancel(context.Background())
	first, cancelFirst := context.WithCancel(second)
	done := make(chan struct{})
	go func() {
		for _, cancel := range []func(){cancelFirst, cancelSecond} {
			select {
			case <-signals:
				cancel()
			case <-done:
				return
			}
		}
	}()
	return &interrupts{first, second, func() {
		signal.Stop(signals)
		close(done)
		cancelFirst()
		cancelSecond()
	}}
}

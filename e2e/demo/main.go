// Command demo is `make demo`: it starts the whole of Inlet on free ports, sends
// real requests with the official OpenAI client, prints where each went and why,
// and exits with 0 only if each went where it should.
//
// Variables: ABI=wasm|module, WORKERS=<Envoy's threads>, ENVOY=<Envoy's binary>.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	err := demo(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) error {
	o := stack.Options{ABI: os.Getenv("ABI"), Progress: os.Stderr}
	if text := os.Getenv("WORKERS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("WORKERS=%s: it is a number from 1", text)
		}
		o.Workers = n
	}
	s, err := stack.Start(ctx, o)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := warmUp(ctx, s); err != nil {
		return err
	}

	var wrong []error
	var rows [][]string
	var before *answer
	for i := range asks {
		a := &asks[i]
		got, err := a.send(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", a.what, err, s.Logs())
		}
		bad := a.check(s, got, before)
		before = got
		rows = append(rows, a.row(got, bad))
		for _, b := range bad {
			wrong = append(wrong, fmt.Errorf("%s: %s", a.what, b))
		}
	}
	printTable(os.Stdout, []string{"", "request", "asked", "sent", "pool", "replica", "why", "first token", "tokens"}, rows)
	if len(wrong) > 0 {
		return fmt.Errorf("%d of the checks failed:\n%w", len(wrong), errors.Join(wrong...))
	}
	fmt.Printf("\nall %d requests went where they should\n", len(asks))
	return nil
}

// warmUp sends requests until a replica was picked for one: a worker of Envoy
// hears of the replicas at its next tick.
func warmUp(ctx context.Context, s *stack.Stack) error {
	if err := s.WaitForSnapshot(ctx); err != nil {
		return err
	}
	hello := asks[0]
	hello.prompt = "Are you there?"
	for range 100 {
		got, err := hello.send(ctx, s)
		if err != nil {
			return fmt.Errorf("first request: %w\n%s", err, s.Logs())
		}
		if got.access.Picked != "" {
			return nil
		}
	}
	return fmt.Errorf("no replica was picked for 100 requests:\n%s", s.Logs())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// play sends the requests of the demo to a stack with the chain of envoy/static/inlet.yaml, prints a table of them, and returns an
// error if one of them did not go where it should.
func play(ctx context.Context, s *stack.Stack, out io.Writer) error {
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
	printTable(out, []string{"", "request", "asked", "sent", "pool", "replica", "why", "first token", "tokens"}, rows)
	if len(wrong) > 0 {
		return fmt.Errorf("%d of the checks failed:\n%w", len(wrong), errors.Join(wrong...))
	}
	_, _ = fmt.Fprintf(out, "\nall %d requests went where they should\n", len(asks))
	return nil
}

// warmUp sends requests until a replica was picked for one: a worker of Envoy gets the
// snapshot at its next tick.
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

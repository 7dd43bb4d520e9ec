package hosttest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Host is something that Inlet runs in.
type Host interface {
	// Name is by what a scenario's "hosts" calls it: native, wazero,
	// envoy-wasm or envoy-module.
	Name() string
	// Start makes a gateway with the scenario's configuration, pools, services
	// and workers, and returns when every worker knows the replicas. It
	// returns a [*RejectedError] when the configuration is refused.
	Start(s *Scenario) (Gateway, error)
}

// Gateway is one running gateway.
type Gateway interface {
	// Do plays one step, once: it changes the facts about replicas, sends the
	// request, and waits until the request is over, or held, or its client
	// gone. It returns an error when the gateway itself is at fault: the
	// request hangs, the proxy was told nonsense.
	Do(step *Step) (*Outcome, error)
	// Close lets held requests go and takes everything down.
	Close() error
}

// RejectedError says that the gateway refused its configuration.
type RejectedError struct {
	// Message is what an operator gets to read.
	Message string
}

func (e *RejectedError) Error() string { return "the configuration was refused: " + e.Message }

// Plays reports whether the host of that name can play the scenario.
func (s *Scenario) Plays(host string) bool {
	return len(s.Hosts) == 0 || slices.Contains(s.Hosts, host)
}

// Play runs a scenario on a host. The error tells the step and what was
// different from what it expects.
func Play(h Host, s *Scenario) (err error) {
	g, err := h.Start(s)
	if s.Rejected != "" {
		return checkRejected(s, g, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	for i := range s.Steps {
		if err := playStep(g, &s.Steps[i]); err != nil {
			return fmt.Errorf("%s: %w", s.Steps[i].Name, err)
		}
	}
	return nil
}

func checkRejected(s *Scenario, g Gateway, err error) error {
	var rejected *RejectedError
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("the configuration was accepted; want it refused with %q", s.Rejected), g.Close())
	case !errors.As(err, &rejected):
		return err
	case !strings.Contains(rejected.Message, s.Rejected):
		return fmt.Errorf("%w\nwant it refused with %q", err, s.Rejected)
	}
	return nil
}

// playStep does a step as often as it says.
func playStep(g Gateway, step *Step) error {
	hits := map[string]int{}
	for i := range step.Repeat {
		o, err := g.Do(step)
		if err == nil {
			err = Check(step, o)
		}
		if err != nil && step.Repeat > 1 {
			err = fmt.Errorf("time %d of %d: %w", i+1, step.Repeat, err)
		}
		if err != nil {
			return err
		}
		hits[o.Replica]++
	}
	for replica, bounds := range step.Spread {
		if n := hits[replica]; n < bounds[0] || n > bounds[1] {
			return fmt.Errorf("spread: %s got %d of %d requests, want %d to %d (all: %v)", replica, n, step.Repeat, bounds[0], bounds[1], hits)
		}
	}
	return nil
}

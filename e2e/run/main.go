// Command run is `make run`: Envoy with Inlet in it, the companion and six
// simulated replicas in two pools, until Ctrl-C.
//
// Variables: ABI=wasm|module, PORT=8080, CONFIG=<the chain's document>,
// WORKERS=<Envoy's threads>, ENVOY=<Envoy's binary>.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// demoKey is the API key of envoy/static/inlet-keys.yaml.
const demoKey = "inlet-demo-key"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o, err := options()
	if err != nil {
		return err
	}
	// The stack hears of Ctrl-C from this function alone, so that it ends in order.
	s, err := stack.Start(context.WithoutCancel(ctx), o)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.WaitForSnapshot(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	describe(s, o)
	go s.EachAccess(ctx, printAccess)
	select {
	case <-ctx.Done():
		fmt.Println("\nstopping")
		return nil
	case <-s.EnvoyDone():
		return fmt.Errorf("envoy has ended by itself:\n%s", s.Logs())
	}
}

// options reads the variables.
func options() (stack.Options, error) {
	o := stack.Options{ABI: os.Getenv("ABI"), Progress: os.Stderr}
	var err error
	if o.Port, err = number("PORT", 8080, 1, 65535); err != nil {
		return o, err
	}
	if o.Workers, err = number("WORKERS", 2, 1, 1024); err != nil {
		return o, err
	}
	if file := os.Getenv("CONFIG"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return o, fmt.Errorf("CONFIG: %w", err)
		}
		o.Chain = string(text)
	}
	return o, nil
}

func number(name string, value, low, high int) (int, error) {
	text := os.Getenv(name)
	if text == "" {
		return value, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s=%s: it is a number from %d to %d", name, text, low, high)
	}
	return n, nil
}

// describe prints what runs where, and what to try.
func describe(s *stack.Stack, o stack.Options) {
	build := "wasm plugin"
	if o.ABI == stack.Module {
		build = "native module"
	}
	fmt.Printf("\nInlet is running in Envoy (%s, %d workers)\n\n", build, o.Workers)
	fmt.Printf("  gateway    %s\n", s.URL())
	fmt.Printf("  metrics    %s/stats/prometheus?filter=inlet\n", s.AdminURL())
	fmt.Printf("  companion  %s/v1/snapshot.json\n", s.Companion.URL())
	pool := ""
	for _, r := range s.Replicas {
		if r.Pool != pool {
			pool = r.Pool
			fmt.Printf("  pool %s\n", pool)
		}
		fmt.Printf("    %-8s %s\n", r.Name, r.URL())
	}
	fmt.Printf("  logs       %s\n\nTry:\n\n", s.Dir)
	curl := "curl -s " + s.URL() + "/v1/chat/completions -H 'content-type: application/json'"
	if sum := sha256.Sum256([]byte(demoKey)); strings.Contains(o.Chain, hex.EncodeToString(sum[:])) {
		curl += " -H 'x-api-key: " + demoKey + "'"
	}
	fmt.Printf("  %s -i \\\n    -d '{\"model\":\"llama\",\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],\"max_tokens\":20}'\n\n", curl)
	fmt.Printf("  %s -N \\\n    -d '{\"model\":\"gemma-support\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Where is my parcel?\"}],\"max_tokens\":20}'\n\n", curl)
	fmt.Printf("  %s -i \\\n    -d '{\"model\":\"nobody-serves-this\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello?\"}]}'\n\n", curl)
	fmt.Printf("Ctrl-C stops everything. Requests as they come:\n\n")
}

// printAccess shows one line of the access log.
func printAccess(a stack.Access) {
	fmt.Printf("  %d %s %s  model=%s pool=%s replica=%s %dms  %s\n",
		a.Status, a.Method, a.Path, dash(a.Model), dash(a.Pool), dash(a.Replica), a.DurationMS, a.Why)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Command matrix is `make matrix`: it sends large bodies through every Envoy that Inlet supports, in each build that the
// Envoy can load, and compares what arrives with what was sent, byte for byte, in both directions. It prints a table and
// exits with 0 only if nothing differs. It downloads missing Envoys.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overridehostv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// row is one Envoy with one build of Inlet.
type row struct {
	version, abi string
	edit         func(*bootstrapv3.Bootstrap) // changes to the shipped bootstrap for this version; may be nil
}

// rows are the combinations to run. Modules made with this SDK load from 1.38 on. The downloaded Envoy 1.38.3 was built
// without a wasm runtime; the release before it has one.
var rows = []row{
	{version: "1.36.4", abi: stack.Wasm, edit: withoutServedKey},
	{version: "1.38.2", abi: stack.Wasm},
	{version: "1.39.3", abi: stack.Wasm},
	{version: "1.40.0", abi: stack.Wasm},
	{version: "1.38.3", abi: stack.Module},
	{version: "1.39.3", abi: stack.Module},
	{version: "1.40.0", abi: stack.Module},
}

// withoutServedKey removes the metadata key under which the load balancer reports the replica that served, which Envoy
// 1.36 does not know.
func withoutServedKey(b *bootstrapv3.Bootstrap) {
	for _, cluster := range b.GetStaticResources().GetClusters() {
		for _, policy := range cluster.GetLoadBalancingPolicy().GetPolicies() {
			config := policy.GetTypedExtensionConfig().GetTypedConfig()
			override := &overridehostv3.OverrideHost{}
			if err := config.UnmarshalTo(override); err != nil {
				panic(err) // the shipped bootstrap has changed its structure
			}
			override.SelectedHostKey = nil
			if err := config.MarshalFrom(override); err != nil {
				panic(err)
			}
		}
	}
}

// sizes are those of the bodies.
var sizes = []struct {
	name  string
	bytes int
}{
	{"30 KB", 30_000},
	{"130 KB", 130_000},
	{"1 MB", 1_000_000},
	{"8 MB", 8_000_000},
}

// patience is how long one Envoy may take for everything.
const patience = 5 * time.Minute

var version = flag.String("envoy", "", "run this version only")

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var wrong []error
	head := "| Envoy | build |"
	for _, size := range sizes {
		head += " " + size.name + " |"
	}
	fmt.Println(head)
	fmt.Println("| --- | --- |" + strings.Repeat(" --- |", len(sizes)))
	for _, r := range rows {
		if *version != "" && r.version != *version {
			continue
		}
		cells, err := play(ctx, r)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("Envoy %s, %s: %w", r.version, r.abi, err))
		}
		fmt.Printf("| %s | %s | %s |\n", r.version, r.abi, strings.Join(cells, " | "))
	}
	return errors.Join(wrong...)
}

// play sends everything through one Envoy. The cells have one word for each size.
func play(ctx context.Context, r row) (cells []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cells = slices.Repeat([]string{"not run"}, len(sizes))
	envoy, err := envoybin.Find(ctx, envoybin.Options{Version: r.version, Progress: os.Stderr})
	if err != nil {
		return cells, err
	}
	g, err := startGateway(ctx, envoy, r)
	if err != nil {
		return cells, err
	}
	defer g.close()
	var wrong []error
	for i, size := range sizes {
		cells[i] = "same"
		for _, c := range casesOf(size.bytes) {
			if err := g.exchange(ctx, c); err != nil {
				cells[i] = "**differs**"
				wrong = append(wrong, fmt.Errorf("%s, %s: %w", size.name, c.name, err))
			}
		}
	}
	for _, line := range g.stack.EnvoyErrors() {
		wrong = append(wrong, errors.New(line))
	}
	return cells, errors.Join(wrong...)
}

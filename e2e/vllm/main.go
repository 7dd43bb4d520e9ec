// Command vllm is `make e2e-vllm`: two real vLLMs on the CPU behind Envoy with Inlet, used by the official clients. In
// both builds it compares the tokens that Inlet counts, and the picker's estimate of what is cached, with vLLM's own
// numbers, and exits with 0 only if all agree.
//
// It is not part of the tests: vLLM is a download of gigabytes, and takes minutes to start. It is installed into Inlet's
// cache folder at exact versions, checked by hash. The model is generated here: two random layers, and a tokenizer in
// which each byte is a token.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

var (
	abi = flag.String("abi", "", "check this build only: wasm or module")
	at  = flag.String("at", "", "use these running vLLMs (host:port,host:port) instead of starting new ones")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted") // and all else follows from that
	}
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "e2e-vllm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	builds := []string{stack.Wasm, stack.Module}
	if *abi != "" {
		builds = []string{*abi}
	}
	players, err := startPlayers(ctx, os.Stderr)
	defer players.close()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "inlet-vllm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	servers, err := findServers(ctx, dir, os.Stderr)
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	if err != nil {
		return err
	}
	wrong := 0
	for _, build := range builds {
		n, err := check(ctx, build, servers, players, os.Stdout)
		if err != nil {
			return fmt.Errorf("%s: %w", build, err)
		}
		wrong += n
	}
	if wrong > 0 {
		return fmt.Errorf("%d checks failed", wrong)
	}
	return nil
}

// findServers are those of -at, otherwise two that it starts.
func findServers(ctx context.Context, dir string, progress io.Writer) ([]*server, error) {
	if *at != "" {
		var servers []*server
		for i, address := range strings.Split(*at, ",") {
			servers = append(servers, &server{name: fmt.Sprintf("vllm-%d", i+1), address: address})
		}
		return servers, nil
	}
	root, err := stack.Root()
	if err != nil {
		return nil, err
	}
	py, err := installVLLM(ctx, progress)
	if err != nil {
		return nil, err
	}
	model, err := makeModel(ctx, py, root, dir)
	if err != nil {
		return nil, err
	}
	return startServers(ctx, py, model, dir, 2, progress)
}

// startPlayers installs and starts the clients. After an error it also returns those that were started.
func startPlayers(ctx context.Context, progress io.Writer) (p players, err error) {
	root, err := stack.Root()
	if err != nil {
		return p, err
	}
	in := &clients.Installer{Progress: progress}
	python, err := in.Python(ctx)
	if err != nil {
		return p, err
	}
	node, err := in.Node(ctx)
	if err != nil {
		return p, err
	}
	start := func(name string, with *clients.Runtime, script string) (c *client) {
		if err == nil {
			c, err = startClient(ctx, name, with, root+"/e2e/vllm/"+script)
		}
		return c
	}
	p.openAIPython = start("OpenAI, Python", python, "client.py")
	p.openAINode = start("OpenAI, Node", node, "client.cjs")
	p.anthropicPython = start("Anthropic, Python", python, "client.py")
	return p, err
}

func (p *players) close() {
	for _, c := range []*client{p.openAIPython, p.openAINode, p.anthropicPython} {
		if c != nil {
			c.close()
		}
	}
}

// check plays everything through one build and returns how many checks failed.
func check(ctx context.Context, build string, servers []*server, p players, out io.Writer) (int, error) {
	g, err := startGateway(ctx, build, servers, os.Stderr)
	if err != nil {
		return 0, err
	}
	defer g.Close()
	c := &checks{gateway: g, players: p, name: build, seed: fmt.Sprintf("%s %x ", build, rand.Uint64()), out: out}
	for _, part := range []func(context.Context) error{c.tokens, c.growing, c.alternating, c.sharedInstructions, c.companion} {
		if err := part(ctx); err != nil {
			return 0, fmt.Errorf("%w\n%s", err, g.Logs())
		}
	}
	for _, line := range g.EnvoyErrors() {
		c.say(false, "Envoy logged %s", line)
	}
	return c.wrong, nil
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/inlet-proxy/inlet/bench/peers"
	"github.com/inlet-proxy/inlet/bench/upstream"
	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	pool     = "llama"
	key      = "bench-key"
	pageSize = 50_000 // bytes of a replica's metrics
)

// The filters of the chain, as far as each one exists. A client may use the replicas' name for the model, or another one,
// which is then replaced in the request and restored in the response.
var (
	bbrPart = "bbr: {models: [{name: " + upstream.Model + ", targets: [{pool: " + pool + "}]}, " +
		"{name: assistant, targets: [{model: " + upstream.Model + ", pool: " + pool + "}]}]}"
	quotaPart     = "quota: {keys: {header: x-api-key, list: [{name: bench, sha256: " + digest(key) + "}]}}"
	guardrailPart = "guardrail: {providers: [{name: local, local: {patterns: ['launch code']}}], policies: [{on: request, use: [local], action: block}]}"
	pickerPart    = "picker: {profile: sticky, endpoints: 3, pool: " + pool + "}"

	fullChain = document(bbrPart, quotaPart, guardrailPart, pickerPart)
)

func document(filters ...string) string {
	return "filters:\n  - " + strings.Join(filters, "\n  - ") + "\ncompanion: {cluster: inlet-companion}\nlimits: {prompt: 4MiB}\n"
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// spec says how one mode runs Envoy.
type spec struct {
	name    string
	abi     string // of the filter in Envoy
	plugin  *stack.Target
	chain   string   // the chain's configuration; "" if there is none
	extProc bool     // the chain runs in a process next to Envoy
	peers   []string // programs of the extension that Envoy calls, in this order: bbr, epp
	limiter string   // of Envoy itself, see limiterEdits
}

// The modes. The others are compared with the first.
var specs = append([]spec{
	{name: "none", abi: stack.None},
	{name: "empty-wasm", abi: stack.Wasm, plugin: &emptyWasm},
	{name: "empty-module", abi: stack.Module, plugin: &emptyModule},
	{name: "wasm", abi: stack.Wasm, chain: fullChain},
	{name: "module", abi: stack.Module, chain: fullChain},
	{name: "extproc", abi: stack.None, chain: fullChain, extProc: true},
}, alone()...)

// peerSpecs are the modes of the comparison with the Gateway API Inference Extension.
var peerSpecs = []spec{
	{name: "least-request", abi: stack.None}, // Envoy's own
	{name: "wasm", abi: stack.Wasm, chain: fullChain},
	{name: "module", abi: stack.Module, chain: fullChain},
	{name: "epp", abi: stack.None, peers: []string{"epp"}},
	{name: "bbr-epp", abi: stack.None, peers: []string{"bbr", "epp"}},
}

// alone are the single filters.
func alone() (all []spec) {
	for _, part := range []string{bbrPart, quotaPart, guardrailPart, pickerPart} {
		name, _, _ := strings.Cut(part, ":")
		for _, abi := range []string{stack.Wasm, stack.Module} {
			all = append(all, spec{name: name + "-" + abi, abi: abi, chain: document(part)})
		}
	}
	return all
}

// Builds of filters that do nothing, otherwise like Inlet's, and of the server for comparison.
var (
	emptyWasm   = stack.Target{File: "empty.wasm", Module: "bench", Package: "./empty-wasm", Flags: stack.WasmPlugin.Flags, Env: stack.WasmPlugin.Env}
	emptyModule = stack.Target{File: "libempty.so", Module: "bench", Package: "./empty-module", Flags: stack.NativeModule.Flags, Env: stack.NativeModule.Env}
	extProc     = stack.Target{File: "extproc", Module: "bench", Package: "./extproc", Flags: []string{"-trimpath"}}
)

// has reports whether a filter is in the mode's chain.
func (s *spec) has(filter string) bool { return strings.Contains(s.chain, "- "+filter+":") }

// full reports whether the whole chain runs.
func (s *spec) full() bool { return s.chain == fullChain }

// mode is one running mode.
type mode struct {
	spec
	stack   *stack.Stack
	servers []server // that Envoy calls
	beside  []int    // processes of the gateway besides Envoy: the servers, and the companion
	idle    float64  // cores that all of them use without requests
	sent    int      // requests so far
}

// server is a process that Envoy calls.
type server interface {
	PID() int
	Stop()
}

func (m *mode) close() {
	if m.stack != nil {
		m.stack.Close()
	}
	for _, s := range m.servers {
		s.Stop()
	}
}

// bench is everything that runs: the modes, and what they share.
type bench struct {
	replicas *upstream.Replicas
	shared   *stack.Stack     // whose companion scrapes the replicas
	peers    *peers.Peers     // nil until a mode needs them
	limits   *peers.Ratelimit // likewise
	modes    []*mode
}

func (b *bench) close() {
	for _, m := range b.modes {
		m.close()
	}
	if b.shared != nil {
		b.shared.Close()
	}
	if b.peers != nil {
		b.peers.Close()
	}
	if b.limits != nil {
		b.limits.Close()
	}
	if b.replicas != nil {
		b.replicas.Close()
	}
}

// size is the size of the benchmark.
type size struct{ workers, replicas int }

// start starts replicas, a companion, and an Envoy for each mode.
func start(ctx context.Context, wanted []spec, n size) (_ *bench, err error) {
	b := &bench{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.replicas, err = upstream.Start(n.replicas, pageSize); err != nil {
		return nil, err
	}
	for i := range wanted {
		m := &mode{spec: wanted[i]}
		b.modes = append(b.modes, m)
		if err := b.startMode(ctx, m, n); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return b, nil
}

func (b *bench) startMode(ctx context.Context, m *mode, n size) error {
	o := stack.Options{
		ABI: m.abi, Chain: m.chain, Workers: n.workers, Progress: os.Stderr, DefaultPool: pool,
		Pools: []stack.Pool{{Name: pool, Addresses: b.replicas.Addresses}},
		Env:   []string{gcTrace}, Admin: true,
	}
	root, err := stack.Root()
	if err != nil {
		return err
	}
	if m.plugin != nil {
		if err := stack.Build(ctx, root, os.Stderr, *m.plugin); err != nil {
			return err
		}
		o.Plugin = m.plugin.Path(root)
	}
	edits := []edit{discardAccessLog, traceGC}
	if b.shared != nil {
		o.NoCompanion, o.CompanionAddress = true, b.shared.Companion.Address()
	}
	if m.extProc {
		server, err := b.startExtProc(ctx, root, m)
		if err != nil {
			return err
		}
		edits = append(edits, addExtProc(server.Address(), ownProcessing()))
	}
	for _, name := range m.peers {
		add, err := b.startPeer(ctx, root, m, name)
		if err != nil {
			return err
		}
		edits = append(edits, add)
	}
	if m.limiter == "calls" || m.limiter == "tokens" {
		if err := b.startLimits(ctx, root, m); err != nil {
			return err
		}
	}
	edits = append(edits, b.limiterEdits(m.limiter)...)
	if n.replicas > 100 {
		o.Scrape = scrapeMany
	}
	var faults error
	o.Edit = func(bootstrap *bootstrapv3.Bootstrap) { faults = applyAll(edits, bootstrap) }
	m.stack, err = stack.Start(ctx, o)
	if err := errors.Join(err, faults); err != nil {
		return err
	}
	if b.shared == nil {
		b.shared = m.stack
	}
	if m.chain != "" {
		m.beside = append(m.beside, b.shared.Companion.PID())
	}
	return nil
}

// startExtProc starts the server for comparison.
func (b *bench) startExtProc(ctx context.Context, root string, m *mode) (*process.Server, error) {
	if b.shared == nil {
		return nil, errors.New("needs an earlier mode, whose companion it polls")
	}
	if err := stack.Build(ctx, root, os.Stderr, extProc); err != nil {
		return nil, err
	}
	config := filepath.Join(b.shared.Dir, m.name+"-chain.yaml")
	if err := os.WriteFile(config, []byte(m.chain), 0o644); err != nil {
		return nil, err
	}
	s := &process.Server{
		Command: process.Command{
			Name: m.name, Path: extProc.Path(root), Dir: root,
			Log: filepath.Join(b.shared.Dir, m.name+".log"),
		},
		Arguments: func(address string) ([]string, error) {
			return []string{"--listen", address, "--config", config, "--companion", b.shared.Companion.Address()}, nil
		},
	}
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	m.ask(s)
	return s, nil
}

// ask records a server that Envoy calls.
func (m *mode) ask(s server) {
	m.servers = append(m.servers, s)
	m.beside = append(m.beside, s.PID())
}

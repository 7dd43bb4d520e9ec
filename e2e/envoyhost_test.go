package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/shared/hosttest"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// patience is how long anything may take before it counts as hanging.
const patience = 20 * time.Second

// ticks is the time after which every wasm worker knows what another one knew: they
// look every 20 ms, and the machine may be busy. What a worker has read is not visible
// from outside, so there is nothing to poll.
const ticks = 250 * time.Millisecond

// envoyHost plays scenarios in a real Envoy. Scripted replicas and services are
// servers of this process, and so is the companion. Each scenario is an update of a
// running Envoy, with its own listener, VM and store.
type envoyHost struct {
	t      *testing.T
	abi    string
	native bool // the load-balancing policy
	envoys map[envoyKind]kept
	played int
	gone   map[string]bool // pollers of earlier scenarios, which may live on for a moment
}

// kept is a running Envoy.
type kept struct {
	stack  proxy
	keeper *keeper // nil for the native module
}

// envoyKind is what an update cannot change.
type envoyKind struct {
	probed  bool // with the build that has the probe
	workers int
}

func kindOf(s *hosttest.Scenario) envoyKind { return envoyKind{s.NeedsProbe(), s.Workers} }

// newEnvoyHost takes the build and the load-balancing policy of the options.
func newEnvoyHost(t *testing.T, o stack.Options) *envoyHost {
	return &envoyHost{t: t, abi: o.ABI, native: o.NativeLB, envoys: map[envoyKind]kept{}, gone: map[string]bool{}}
}

// Name implements hosttest.Host.
func (h *envoyHost) Name() string {
	if h.abi == contribGolang {
		return contribGolang
	}
	return "envoy-" + h.abi
}

// starting is held by who starts an Envoy: while V8 compiles the plugin, it takes the time of other Envoys' workers.
var starting sync.RWMutex

// play plays a scenario.
func (h *envoyHost) play(s *hosttest.Scenario) error {
	h.envoy(kindOf(s))
	starting.RLock()
	defer starting.RUnlock()
	return hosttest.Play(h, s)
}

// envoy returns a running Envoy of a kind.
func (h *envoyHost) envoy(kind envoyKind) kept {
	if k, ok := h.envoys[kind]; ok {
		return k
	}
	starting.Lock()
	defer starting.Unlock()
	var k kept
	if h.abi == contribGolang {
		k.stack = newGolangProxy(h.t, kind)
		h.envoys[kind] = k
		return k
	}
	if h.abi == stack.Wasm {
		k.keeper = new(keeper)
	}
	o := stack.Options{
		ABI: h.abi, NativeLB: h.native, Workers: kind.workers, Plugin: plugins[h.abi].shipped, NoCompanion: true, Updatable: true, Alone: true,
		Pools: []stack.Pool{{Name: "none"}}, Chain: "filters: [{bbr: {}}]", Edit: (&edits{abi: h.abi, keeper: k.keeper}).apply,
		Drain: time.Millisecond, // Envoy takes whole seconds: none
	}
	if kind.probed {
		o.Plugin = plugins[h.abi].probed
	}
	k.stack = stack.ForTest(h.t, o)
	h.envoys[kind] = k
	return k
}

// gateway is an Envoy with everything around it, for one scenario.
type gateway struct {
	host      *envoyHost
	workers   int
	stack     proxy
	keeper    *keeper
	stop      context.CancelFunc
	relay     *relay.Relay
	servers   []*server
	polled    bool              // the configuration has a companion
	addresses map[string]string // of replicas, by name

	quota hosttest.Quota

	last *hosttest.Step // whose changes are in effect
	held map[string]*exchange

	mu      sync.Mutex
	pools   map[string][]hosttest.Replica
	current *exchange // the current request
}

// Start implements hosttest.Host.
func (h *envoyHost) Start(s *hosttest.Scenario) (hosttest.Gateway, error) {
	ctx, stop := context.WithCancel(context.Background())
	var document struct {
		Companion      any    `yaml:"companion"`
		ControlHeaders string `yaml:"controlHeaders"`
	}
	// Envoy should refuse an invalid configuration.
	_ = yaml.Unmarshal([]byte(s.Config), &document)
	envoy := h.envoy(kindOf(s))
	g := &gateway{
		host: h, workers: s.Workers, stack: envoy.stack, keeper: envoy.keeper, stop: stop,
		relay:  relay.New(relay.Options{Lease: 300 * time.Millisecond}),
		polled: document.Companion != nil, addresses: map[string]string{}, held: map[string]*exchange{}, pools: s.Pools,
	}
	if err := g.start(ctx, s, document.ControlHeaders == "trust"); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *gateway) start(ctx context.Context, s *hosttest.Scenario, trusted bool) error {
	g.host.played++
	edits := &edits{
		abi: g.host.abi, name: fmt.Sprintf("gateway-%d", g.host.played), trusted: trusted,
		pools: map[string][]string{}, services: map[string]string{},
		unfollowed: s.Unfollowed, maxRequests: s.MaxRequests, keeper: g.keeper,
	}
	if err := g.serve(s, edits); err != nil {
		return err
	}
	edits.subset, edits.metadata = s.Subset.With(g.addresses), s.Metadata
	go g.relay.Run(ctx, nil, g.snapshot)
	if p, ok := g.stack.(*golangProxy); ok {
		p.edits = edits
	}
	err := g.stack.Update(ctx, func(o *stack.Options) {
		o.Chain, o.Edit, o.Pools = s.Config, edits.apply, nil
		for _, pool := range slices.Sorted(maps.Keys(s.Pools)) {
			o.Pools = append(o.Pools, stack.Pool{Name: pool})
		}
	})
	var refused *stack.Refused
	if errors.As(err, &refused) {
		return &hosttest.RejectedError{Message: refused.Details}
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if g.host.abi != contribGolang {
		if err := g.drained(ctx); err != nil {
			return err
		}
	}
	return g.spread(ctx)
}

// drained waits until the listener before is gone, and its VMs: some time after the last of them go counters that only
// they have used, in the midst of a step. So all counters start from zero.
func (g *gateway) drained(ctx context.Context) error {
	gone := []string{"listener_manager.total_listeners_draining: 0", "listener_manager.total_filter_chains_draining: 0"}
	if g.keeper != nil {
		// The scenario's and the keeper's have each one for every worker, one for the main thread, and the one that these
		// are copies of.
		gone = append(gone, fmt.Sprintf("wasm.envoy.wasm.runtime.v8.active: %d", 2*(g.workers+2)))
	}
	err := poll(ctx, "the listener before is drained: "+strings.Join(gone, ", "), func() (bool, error) {
		res, err := http.Get(g.stack.AdminURL() + "/stats?filter=_draining|v8.active")
		if err != nil {
			return false, err
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		return !slices.ContainsFunc(gone, func(line string) bool { return !strings.Contains(string(text), line+"\n") }), err
	})
	if err != nil {
		return err
	}
	res, err := http.Post(g.stack.AdminURL()+"/reset_counters", "", nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// serve starts the replicas, the services and the companion.
func (g *gateway) serve(s *hosttest.Scenario, e *edits) error {
	for _, pool := range slices.Sorted(maps.Keys(s.Pools)) {
		e.pools[pool] = nil // a pool may be empty
		for _, r := range s.Pools[pool] {
			address, err := g.listen(&replica{gateway: g, pool: pool, name: r.Name})
			if err != nil {
				return err
			}
			g.addresses[r.Name] = address
			if !r.Unknown {
				e.pools[pool] = append(e.pools[pool], address)
			}
		}
	}
	company := http.NewServeMux()
	company.Handle(endpoint.SnapshotPath, g.relay)
	company.Handle(endpoint.RelayPath, g.relay)
	company.HandleFunc(hosttest.QuotaPath, g.divide)
	for cluster, answers := range s.Services {
		scripted := &service{gateway: g, cluster: cluster, answers: answers}
		if cluster == hosttest.CompanionCluster {
			company.Handle("/", scripted)
			continue
		}
		address, err := g.listen(scripted)
		if err != nil {
			return err
		}
		e.services[cluster] = address
	}
	var err error
	e.services[hosttest.CompanionCluster], err = g.listen(company)
	return err
}

// divide answers who asks the companion for quota.
func (g *gateway) divide(w http.ResponseWriter, req *http.Request) {
	message, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	status, body := g.quota.Answer(time.Now(), message)
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// snapshot returns what the companion knows now.
func (g *gateway) snapshot(time.Time) []endpoint.Pool {
	g.mu.Lock()
	defer g.mu.Unlock()
	var pools []endpoint.Pool
	for name, replicas := range g.pools {
		pool := endpoint.Pool{Name: name}
		for _, r := range replicas {
			pool.Endpoints = append(pool.Endpoints, r.Endpoint(g.addresses[r.Name]))
		}
		pools = append(pools, pool)
	}
	return pools
}

// spread waits until all workers know the companion's newest snapshot and each
// other's requests in flight.
func (g *gateway) spread(ctx context.Context) error {
	if !g.polled {
		return nil
	}
	g.relay.Publish(g.snapshot(time.Now()))
	err := poll(ctx, "the poller has the newest snapshot", func() (bool, error) {
		newest := g.relay.Snapshot().ID()
		return slices.ContainsFunc(g.pollers(), func(w relay.Worker) bool { return w.Has == newest }), nil
	})
	if err != nil || g.host.abi != stack.Wasm {
		return err // the module's workers share their memory
	}
	return pass(ctx, ticks)
}

// pollers are the VMs of this scenario that poll the companion, one at a time. The
// native module polls under one name all the time.
func (g *gateway) pollers() []relay.Worker {
	return slices.DeleteFunc(g.relay.Workers(), func(w relay.Worker) bool { return g.host.gone[w.ID] })
}

// Close implements hosttest.Gateway.
func (g *gateway) Close() error {
	for _, x := range g.held {
		x.leave()
	}
	if g.host.abi == stack.Wasm {
		for _, w := range g.relay.Workers() {
			g.host.gone[w.ID] = true
		}
	}
	g.stop()
	g.relay.Close()
	var errs []error
	for _, s := range g.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// pass waits in real time, for scenarios about time itself.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll asks until the answer is true, an error comes or ctx ends.
func poll(ctx context.Context, what string, ask func() (bool, error)) error {
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		ok, err := ask()
		if ok || err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("did not happen: %s", what)
		}
	}
}

// plugin are the builds of one ABI: the shipped one, and one with all filters and the
// probe.
type plugin struct{ shipped, probed string }

var plugins = map[string]plugin{}

// buildPlugins builds what the tests run, once for all, because even finding out that
// nothing changed takes a second.
func buildPlugins(ctx context.Context) error {
	root, err := stack.Root()
	if err != nil {
		return err
	}
	probedWasm, probedModule := stack.WasmPlugin, stack.NativeModule
	probedWasm.File, probedWasm.Package = "probe.wasm", "./internal/scenarios/bundle-wasm"
	probedModule.File, probedModule.Package = "libprobe.so", "./internal/scenarios/bundle-module"
	plugins[stack.Wasm] = plugin{stack.WasmPlugin.Path(root), probedWasm.Path(root)}
	plugins[stack.Module] = plugin{stack.NativeModule.Path(root), probedModule.Path(root)}
	probedGolang := stack.GolangPlugin
	probedGolang.File, probedGolang.Package = "probe-golang.so", "./internal/scenarios/bundle-golang"
	plugins[contribGolang] = plugin{stack.GolangPlugin.Path(root), probedGolang.Path(root)}
	var progress io.Writer = os.Stderr
	return stack.Build(ctx, root, progress, stack.WasmPlugin, stack.NativeModule, stack.GolangPlugin, probedWasm, probedModule, probedGolang)
}

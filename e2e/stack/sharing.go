package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
)

// Sharing runs the tests of a package, as the last thing that its TestMain does, with few Envoys. V8 compiles the plugin
// in each Envoy, which keeps two cores busy for seven seconds. So the stacks of ForTest take turns at Envoys that have
// it: the listeners and clusters of a stack come with its test and go with it. Only what is the same in all of its life
// must be alike: the rest of the bootstrap, the number of workers, the drain time, and the plugin. Each stack has
// listeners, VMs and a store of its own, and counters that begin at zero; histograms go on.
//
// The native module starts in a moment, so its stacks have Envoys of their own.
func Sharing(m interface{ Run() int }) int {
	sharing.on = true
	code := m.Run()
	for _, e := range sharing.envoys {
		e.stop()
	}
	return code
}

// sharing are the Envoys of this process that tests use in turn.
var sharing struct {
	on     bool
	mu     sync.Mutex
	envoys []*sharedEnvoy
}

// sharedEnvoy is an Envoy with a listener that stays, which keeps what V8 has compiled.
type sharedEnvoy struct {
	kind   string // what an update cannot change
	stack  *Stack
	keeper *listenerv3.Listener
	turns  int

	mu      sync.Mutex
	taken   *turn
	retired bool
}

// turn is the time that an Envoy is with one stack. A nil turn is that of an Envoy that belongs to its stack.
type turn struct {
	envoy   *sharedEnvoy
	number  int
	logged  int // length of Envoy's log before
	access  *accessLog
	spoiled bool
}

// takeEnvoy starts an Envoy, or takes one that has been started for a test before.
func (s *Stack) takeEnvoy(ctx context.Context) error {
	if !sharing.on || s.o.ABI != Wasm || s.o.Alone || s.o.Port != 0 || len(s.o.Env) > 0 {
		return s.startEnvoy(ctx)
	}
	b, err := s.bootstrap()
	if err != nil {
		return err
	}
	if err := s.borrowEnvoy(ctx, b); err != nil {
		return err
	}
	return s.install(ctx, b)
}

// borrowEnvoy finds or starts an Envoy for a bootstrap.
func (s *Stack) borrowEnvoy(ctx context.Context, b *bootstrapv3.Bootstrap) error {
	rest := proto.CloneOf(b)
	rest.StaticResources.Listeners, rest.StaticResources.Clusters = nil, nil
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(rest)
	if err != nil {
		return err
	}
	kind := fmt.Sprint(s.o.Workers, s.o.Drain, s.o.Envoy, s.plugin(WasmPlugin), string(text))
	sharing.mu.Lock()
	defer sharing.mu.Unlock()
	for _, e := range sharing.envoys {
		if e.kind != kind || e.isTaken() {
			continue
		}
		err := e.cleared(ctx)
		if err == nil {
			e.lend(s)
			return nil
		}
		_, _ = fmt.Fprintf(os.Stderr, "another Envoy is started: %v\n", err) // the test need not fail for the one before
		e.retire()
	}
	e, err := s.newSharedEnvoy(kind, rest)
	if err != nil {
		return err
	}
	sharing.envoys = append(sharing.envoys, e)
	e.lend(s)
	return nil
}

// newSharedEnvoy starts an Envoy that outlives the test.
func (s *Stack) newSharedEnvoy(kind string, rest *bootstrapv3.Bootstrap) (*sharedEnvoy, error) {
	dir, err := os.MkdirTemp("", "inlet-")
	if err != nil {
		return nil, err
	}
	base := &Stack{Dir: dir, Root: s.Root, watched: &discovery{dir: dir}, lists: filepath.Join(dir, "eds"), o: Options{
		ABI: Wasm, Plugin: s.o.Plugin, Chain: "filters: [{bbr: {}}]", Workers: s.o.Workers, Drain: s.o.Drain, Envoy: s.o.Envoy, Updatable: true,
	}}
	e := &sharedEnvoy{kind: kind, stack: base}
	b, err := base.bootstrap()
	if err != nil {
		return nil, err
	}
	e.keeper = b.GetStaticResources().GetListeners()[0]
	if err := rename(e.keeper, func(string) string { return "keeper" }); err != nil {
		return nil, err
	}
	rest.StaticResources.Listeners = []*listenerv3.Listener{e.keeper}
	if err := base.makeUpdatable(rest); err != nil {
		return nil, err
	}
	if err := base.runEnvoy(context.Background(), rest, e.logAccess); err != nil {
		err = fmt.Errorf("%w\n%s", err, base.whyNot())
		e.stop()
		return nil, err
	}
	return e, nil
}

// logAccess gives a line of the access log to the stack that has the Envoy.
func (e *sharedEnvoy) logAccess(line string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.taken != nil {
		e.taken.access.add(line)
	}
}

// isTaken reports whether nobody else may have the Envoy.
func (e *sharedEnvoy) isTaken() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.taken != nil || e.retired
}

// retire ends an Envoy before the tests end.
func (e *sharedEnvoy) retire() {
	e.mu.Lock()
	e.retired = true
	e.mu.Unlock()
	e.stop()
}

// lend gives the Envoy to a stack.
func (e *sharedEnvoy) lend(s *Stack) {
	text, _ := os.ReadFile(e.stack.EnvoyLog())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.turns++
	e.taken = &turn{envoy: e, number: e.turns, logged: len(text), access: s.access}
	s.shared, s.envoy, s.admin, s.watched = e.taken, e.stack.envoy, e.stack.admin, e.stack.watched
}

// cleared waits until nothing is left of the stack before, and sets the counters to zero.
func (e *sharedEnvoy) cleared(ctx context.Context) error {
	version := strconv.Quote(e.stack.version())
	gone := []string{
		"cluster_manager.cds.version_text: " + version, "listener_manager.lds.version_text: " + version, "listener_manager.total_listeners_active: 1\n",
		"listener_manager.total_listeners_draining: 0\n", "listener_manager.total_filter_chains_draining: 0\n",
		// The keeper's: one for every worker, one for the main thread, and the one that these are copies of.
		fmt.Sprintf("wasm.envoy.wasm.runtime.v8.active: %d\n", e.stack.o.Workers+2),
	}
	err := e.stack.envoy.Until(ctx, e.stack.o.Drain+20*time.Second, "free of the stack before", func() bool {
		stats, err := e.stack.get(ctx, "/stats?filter=ds.version_text|total_listeners_active|_draining|v8.active")
		for _, line := range gone {
			if err != nil || !strings.Contains(string(stats), line) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.stack.AdminURL()+"/reset_counters", nil)
	if err != nil {
		return err
	}
	res, err := adminClient.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// stop ends the Envoy.
func (e *sharedEnvoy) stop() {
	if e.stack.envoy != nil {
		e.stack.envoy.Stop(5 * time.Second)
	}
	_ = os.RemoveAll(e.stack.Dir)
}

// name is the name that a listener of the stack has in Envoy.
func (t *turn) name(of string) string {
	if t == nil {
		return of
	}
	return fmt.Sprintf("%s, turn %d", of, t.number)
}

// claim gives a stack's listeners and VMs names of its own, and adds the listener that stays.
func (t *turn) claim(b *bootstrapv3.Bootstrap) error {
	if t == nil {
		return nil
	}
	for _, l := range b.GetStaticResources().GetListeners() {
		if err := rename(l, t.name); err != nil {
			return err
		}
	}
	b.StaticResources.Listeners = append(b.GetStaticResources().GetListeners(), t.envoy.keeper)
	return nil
}

// rename gives a listener and the VMs of its plugins other names. VMs of one name are one VM, with one store.
func rename(l *listenerv3.Listener, as func(string) string) error {
	l.Name = as(l.GetName())
	for _, chain := range l.GetFilterChains() {
		for _, network := range chain.GetFilters() {
			if !network.GetTypedConfig().MessageIs(&hcmv3.HttpConnectionManager{}) {
				continue
			}
			err := edit(network.GetTypedConfig(), func(m *hcmv3.HttpConnectionManager) error {
				for _, f := range m.GetHttpFilters() {
					if !f.GetTypedConfig().MessageIs(&wasmv3.Wasm{}) {
						continue
					}
					err := edit(f.GetTypedConfig(), func(w *wasmv3.Wasm) error {
						vm := w.GetConfig().GetVmConfig()
						vm.VmId = as(vm.GetVmId())
						return nil
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// spoil keeps the Envoy from being used again.
func (t *turn) spoil() {
	if t != nil {
		t.spoiled = true
	}
}

// end takes the stack's listeners and clusters out of the Envoy, and gives it back.
func (t *turn) end() {
	e := t.envoy
	err := errors.Join(
		e.stack.writeClusters(nil),
		e.stack.writeListeners([]*listenerv3.Listener{e.keeper}),
	)
	if err != nil || t.spoiled {
		e.retire()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taken = nil
}

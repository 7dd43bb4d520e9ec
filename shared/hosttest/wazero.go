package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// BuildWasm compiles a main package of this module to a proxy-wasm plugin, with
// further flags of go build. Go's own cache makes a second time cheap.
func BuildWasm(pkg string, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "inlet-wasm")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "plugin.wasm")
	// Without the revision in it the same code gives the same bytes, which the
	// cache of compiled code knows again.
	args := append([]string{"build", "-buildvcs=false", "-trimpath", "-buildmode=c-shared", "-o", file}, flags...)
	build := exec.Command("go", append(args, pkg)...)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return os.ReadFile(file)
}

// WazeroHost runs a compiled proxy-wasm plugin: several VMs on one store, as in
// Envoy. It is for one thread.
type WazeroHost struct {
	ctx      context.Context
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// Wazero returns the host that runs the plugin. The compiled code of the last
// few plugins is cached on disk, in the user's cache directory.
func Wazero(ctx context.Context, plugin []byte) (*WazeroHost, error) {
	config := wazero.NewRuntimeConfig()
	if dir, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(dir, "inlet", "wazero")
		prune(dir)
		cache, err := wazero.NewCompilationCacheWithDir(dir)
		if err != nil {
			return nil, err
		}
		config = config.WithCompilationCache(cache)
	}
	h := &WazeroHost{ctx: ctx, runtime: wazero.NewRuntimeWithConfig(ctx, config)}
	if err := h.prepare(plugin); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// keptPlugins is how many compiled plugins stay in the cache, of about 20 MB
// each. wazero itself would keep all forever.
const keptPlugins = 6

// prune deletes the oldest files of the cache. A process that misses one compiles it again, so mistakes do no harm.
func prune(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	age := map[string]time.Time{}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			age[f] = info.ModTime()
		}
	}
	slices.SortFunc(files, func(a, b string) int { return age[b].Compare(age[a]) })
	for _, f := range files[min(keptPlugins, len(files)):] {
		os.Remove(f)
	}
}

func (h *WazeroHost) prepare(plugin []byte) error {
	if _, err := wasi_snapshot_preview1.Instantiate(h.ctx, h.runtime); err != nil {
		return err
	}
	if err := exportABI(h.ctx, h.runtime); err != nil {
		return err
	}
	var err error
	h.compiled, err = h.runtime.CompileModule(h.ctx, plugin)
	return err
}

// Close frees the compiled plugin and every VM.
func (h *WazeroHost) Close() error { return h.runtime.Close(h.ctx) }

// Name is "wazero".
func (h *WazeroHost) Name() string { return "wazero" }

// Start implements [Host].
func (h *WazeroHost) Start(s *Scenario) (Gateway, error) {
	return start(s, func(g *gateway, w *worker) (guest, error) {
		p := &wasmGuest{host: h, g: g, w: w, config: []byte(s.Config)}
		return p, p.boot()
	})
}

// wasmGuest is the plugin in one worker. A VM that died is replaced at the
// next request, as with Envoy's failure_policy FAIL_RELOAD.
type wasmGuest struct {
	host   *WazeroHost
	g      *gateway
	w      *worker
	config []byte
	vm     *vm
	boots  int
}

func (p *wasmGuest) boot() error {
	p.boots++
	var seed [32]byte
	seed[0], seed[1] = byte(p.w.id), byte(p.boots)
	v := &vm{guest: p, g: p.g, streams: map[uint32]*wasmStream{}, stderr: &logWriter{g: p.g}}
	v.ctx = context.WithValue(p.host.ctx, vmKey{}, v)
	clock := p.g.clock
	config := wazero.NewModuleConfig().WithName("").
		WithStartFunctions("_initialize").
		WithStdout(v.stderr).WithStderr(v.stderr).
		WithRandSource(rand.NewChaCha8(seed)).
		WithWalltime(func() (int64, int32) {
			v.count("clock_time_get")
			return clock.now.Unix(), int32(clock.now.Nanosecond())
		}, 1).
		// The monotonic clock moves a little with every look at it: Go's garbage
		// collector divides by the time that it took.
		WithNanotime(func() int64 {
			v.count("clock_time_get")
			v.looks++
			return clock.now.Sub(epoch).Nanoseconds() + v.looks
		}, 1)
	var err error
	if v.module, err = p.host.runtime.InstantiateModule(v.ctx, p.host.compiled, config); err != nil {
		return fmt.Errorf("start the VM: %w", err)
	}
	p.vm = v
	return v.configure(true)
}

// update gives the plugin another document, as Envoy does with one whose code and vm_id stay: a new context in the same VM, and
// then the end of the old one.
func (p *wasmGuest) update(config []byte) error {
	v, old := p.vm, p.vm.root
	p.config = config
	if err := v.configure(false); err != nil {
		return err
	}
	v.call(old, "proxy_on_done", uint64(old))
	v.call(old, "proxy_on_delete", uint64(old))
	return nil
}

// configure makes a context for the plugin's configuration, in a VM that is new or runs already.
func (v *vm) configure(fresh bool) error {
	v.lastContext++
	v.root = v.lastContext
	v.call(v.root, "proxy_on_context_create", uint64(v.root), 0)
	started := uint64(1)
	if fresh {
		started = v.call(v.root, "proxy_on_vm_start", uint64(v.root), 0)
	}
	if started == 1 {
		started = v.call(v.root, "proxy_on_configure", uint64(v.root), uint64(len(v.guest.config)))
	}
	switch {
	case v.dead:
		return errors.New("the VM died at start: " + v.g.trap)
	case started != 1:
		return &RejectedError{strings.Join(v.g.log, "\n")}
	}
	return nil
}

func (p *wasmGuest) newStream(x *exchange) (stream, error) {
	if p.vm.dead {
		if err := p.boot(); err != nil {
			return nil, err
		}
	}
	v := p.vm
	v.lastContext++
	s := &wasmStream{vm: v, x: x, id: v.lastContext}
	v.streams[s.id] = s
	v.call(s.id, "proxy_on_context_create", uint64(s.id), uint64(v.root))
	return s, nil
}

func (p *wasmGuest) close() error {
	v := p.vm
	if v == nil {
		return nil
	}
	v.call(v.root, "proxy_on_done", uint64(v.root))
	v.call(v.root, "proxy_on_delete", uint64(v.root))
	dead := v.dead
	v.dead = true // no tick from now on
	if err := v.module.Close(v.ctx); err != nil || dead {
		return err
	}
	return nil
}

// vm is one wasm VM with one plugin in it.
type vm struct {
	guest  *wasmGuest
	g      *gateway
	ctx    context.Context // carries the vm, see vmOf
	module api.Module
	stderr *logWriter
	looks  int64 // at the monotonic clock

	streams     map[uint32]*wasmStream
	root        uint32 // context of the plugin's configuration
	lastContext uint32
	current     uint32 // context whose callback runs
	effective   uint32 // context that the plugin set instead; 0 none
	lastCall    uint32
	answer      *reply // during proxy_on_http_call_response
	metrics     []wasmMetric
	tick        time.Duration
	dead        bool
}

type vmKey struct{}

func vmOf(ctx context.Context) *vm { return ctx.Value(vmKey{}).(*vm) }

// call calls a function that the plugin exports, on behalf of a context. A
// trap kills the VM; a dead one returns 0.
func (v *vm) call(context uint32, name string, args ...uint64) uint64 {
	if v.dead {
		return 0
	}
	current, effective := v.current, v.effective
	v.current, v.effective = context, 0
	defer func() { v.current, v.effective = current, effective }()
	f := v.module.ExportedFunction(name)
	if f == nil {
		return 0 // like Envoy: a callback that is not exported does nothing
	}
	results, err := f.Call(v.ctx, args...)
	if err != nil {
		v.dead = true
		v.stderr.flush()
		v.g.trap = fmt.Sprintf("%s: %v", name, err)
		return 0
	}
	if len(results) == 0 {
		return 0
	}
	return results[0]
}

// setTick makes the VM's timer run.
func (v *vm) setTick(period time.Duration) {
	running := v.tick > 0
	v.tick = period
	if !running && period > 0 {
		v.g.clock.after(period, v.onTick)
	}
}

func (v *vm) onTick() {
	if v.dead || v.tick == 0 {
		return
	}
	v.guest.w.enter(func() { v.call(v.root, "proxy_on_tick", uint64(v.root)) })
	v.g.clock.after(v.tick, v.onTick)
}

// wasmStream is the plugin's context for one exchange.
type wasmStream struct {
	vm *vm
	x  *exchange
	id uint32
	// released: the request's headers have gone on, from when on Envoy no
	// longer shows them to the plugin (until the access log).
	released bool
	logging  bool
	replied  bool // the plugin, or its death, has answered
}

func (s *wasmStream) requestHeaders(end bool) bool {
	n := len(s.x.request.headers)
	hold := s.request(s.vm.call(s.id, "proxy_on_request_headers", uint64(s.id), uint64(n), truth(end)))
	s.released = s.released || !hold
	return hold
}

func (s *wasmStream) requestBody(end bool) bool {
	n := len(s.x.request.body)
	return s.request(s.vm.call(s.id, "proxy_on_request_body", uint64(s.id), uint64(n), truth(end)))
}

func (s *wasmStream) requestTrailers() bool {
	n := len(s.x.request.trailers)
	return s.request(s.vm.call(s.id, "proxy_on_request_trailers", uint64(s.id), uint64(n)))
}

// request turns the plugin's action into what happens to the request.
func (s *wasmStream) request(action uint64) (hold bool) {
	if s.vm.dead && !s.replied {
		s.replied = true
		s.vm.guest.w.later(func() { s.x.reply(503, nil, nil) })
	}
	return s.replied || action != 0
}

func (s *wasmStream) responseHeaders(end bool) bool {
	n := len(s.x.response.headers)
	return s.response(s.vm.call(s.id, "proxy_on_response_headers", uint64(s.id), uint64(n), truth(end)))
}

func (s *wasmStream) responseBody(end bool) bool {
	n := len(s.x.response.body)
	action := s.vm.call(s.id, "proxy_on_response_body", uint64(s.id), uint64(n), truth(end))
	if action == stopAndWatermark {
		s.x.response.keep()
	}
	return s.response(action)
}

// stopAndWatermark is Envoy's FilterDataStatus::StopIterationAndWatermark.
const stopAndWatermark = 2

func (s *wasmStream) responseTrailers() bool {
	n := len(s.x.response.trailers)
	return s.response(s.vm.call(s.id, "proxy_on_response_trailers", uint64(s.id), uint64(n)))
}

func (s *wasmStream) response(action uint64) (hold bool) {
	if s.vm.dead && !s.replied {
		s.replied = true
		s.vm.guest.w.later(func() { s.x.reply(503, nil, nil) })
		return true
	}
	return action != 0
}

// done tells the access log first, then that the context ends.
func (s *wasmStream) done() {
	s.logging = true
	s.vm.call(s.id, "proxy_on_log", uint64(s.id))
	s.vm.call(s.id, "proxy_on_done", uint64(s.id))
	s.vm.call(s.id, "proxy_on_delete", uint64(s.id))
	delete(s.vm.streams, s.id)
}

func truth(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// logWriter puts what the plugin prints into the gateway's log, line by line.
// A Go runtime that dies prints the reason there.
type logWriter struct {
	g    *gateway
	rest []byte
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.g.logf("stderr: %s", line)
		w.rest = rest
	}
}

func (w *logWriter) flush() {
	if len(w.rest) > 0 {
		w.g.logf("stderr: %s", w.rest)
		w.rest = nil
	}
}

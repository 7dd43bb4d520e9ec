// Package stack runs the whole of Inlet on this machine: Envoy with a build of Inlet,
// the companion, and pools of simulated replicas, each in its own process on its own
// port. The demo, the tests and the benchmarks use it.
//
// It runs what is shipped: Envoy's configuration is envoy/static/wasm.yaml or
// module.yaml, with other ports, pools and chain configuration.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/process"
)

// The builds of Inlet.
const (
	Wasm   = "wasm"   // proxy-wasm plugin
	Module = "module" // native dynamic module
	None   = "none"   // Envoy without Inlet, for comparison
)

// Options say what to run. The zero value is what `make run` runs, on free ports.
type Options struct {
	// ABI is Wasm, Module or None. Empty means Wasm.
	ABI string
	// Chain is the chain's configuration. Empty means envoy/static/inlet.yaml.
	Chain string
	// Pools are the pools of replicas. Empty means DefaultPools.
	Pools []Pool
	// DefaultPool serves requests for which no pool was selected. Empty means that they
	// get 404, or with ABI None that the first pool serves them.
	DefaultPool string
	// Workers is the number of Envoy's worker threads. 0 means 2.
	Workers int
	// Port is the gateway's port on 127.0.0.1. 0 means a free one.
	Port int
	// Envoy is the path of the binary. Empty means what envoybin.Find finds.
	Envoy string
	// Plugin is another build of Inlet than that of this tree: the path of a
	// .wasm or .so file.
	Plugin string
	// Check says what is wrong with a build of Inlet and the Envoy that is to load it, before Envoy starts. Nil checks nothing.
	Check func(ctx context.Context, plugin, envoy string) error
	// NoCompanion runs without a companion: its cluster then leads to CompanionAddress, or to a closed port.
	NoCompanion bool
	// Embedded runs the companion inside Envoy; with Module only. It takes the place of the cluster inlet-companion in Chain.
	Embedded bool
	// CompanionAddress is the ip:port of a companion that is already running.
	CompanionAddress string
	// Quota are the companion's settings for quotas, such as its store. Nil means counters in memory.
	Quota map[string]any
	// Admin makes the companion serve its admin API: see AskAdmin.
	Admin bool
	// Scrape is how often the companion reads a replica's metrics. 0 means 100 ms.
	Scrape time.Duration
	// Env is added to Envoy's environment.
	Env []string
	// NativeLB uses the module's own load-balancing policy instead of override_host. It needs ABI Module.
	NativeLB bool
	// Updatable makes Envoy watch files for its listener and clusters, so that Update can change them. A configuration
	// that Envoy refuses then does not end it: it waits for a better one.
	Updatable bool
	// Drain is Envoy's drain time: how long connections of an earlier listener live on. 0 means 1 s.
	Drain time.Duration
	// HotRestart lets StartNext replace Envoy; it needs Port. ParentShutdown is how long the replaced one then lives.
	HotRestart     bool
	ParentShutdown time.Duration
	// Recipes are uncommented in the shipped bootstrap: the lines that begin with #name, such as those of "cors".
	Recipes []string
	// Edit changes Envoy's configuration last.
	Edit func(*bootstrapv3.Bootstrap)
	// Alone keeps ForTest from using an Envoy that other tests have used: see Sharing.
	Alone bool
	// Progress gets one line for each slow step. Nil is silent.
	Progress io.Writer
}

// Pool is a pool of simulated replicas.
type Pool struct {
	// Name is the pool's name, and that of its cluster.
	Name string
	// Replicas is how many there are, called <name>-1, <name>-2, ...
	Replicas int
	// Args are further arguments of modelsim.
	Args []string
	// Addresses are the ip:port of replicas that are already running.
	Addresses []string
}

// DefaultPools are the pools of envoy/static/inlet.yaml, with three replicas each.
func DefaultPools() []Pool {
	return []Pool{
		{Name: "llama", Replicas: 3, Args: []string{"--model", "llama-3-8b"}},
		{Name: "gemma", Replicas: 3, Args: []string{"--model", "gemma", "--lora", "gemma-support"}},
	}
}

// Stack is a running system.
type Stack struct {
	// Dir holds the configuration files and logs; Close removes it.
	Dir string
	// Replicas are all replicas, pool by pool.
	Replicas []*Replica
	// Companion is nil with NoCompanion and Embedded.
	Companion *Companion
	// Root is the root of the repository.
	Root string

	o       Options
	envoy   *process.Process
	epoch   int // of envoy, with HotRestart
	access  *accessLog
	gateway string // address
	admin   string // address
	watched *discovery
	lists   string // folder of the pools' lists of replicas
	others  []*Envoy
	shared  *turn // nil if the Envoy is the stack's own
	byName  bool  // this Envoy finds the module of a policy by name only

	quotaAdmin string // address of the companion's admin API

	close sync.Once
}

// Start builds what is needed and starts the system. When it returns without error,
// Envoy serves. The system ends with Close or with ctx.
func Start(ctx context.Context, o Options) (*Stack, error) { return start(ctx, o, (*Stack).startEnvoy) }

func start(ctx context.Context, o Options, startEnvoy func(*Stack, context.Context) error) (_ *Stack, err error) {
	s := &Stack{o: o, access: newAccessLog()}
	if err := s.o.setDefaults(); err != nil {
		return nil, err
	}
	if err := portIsFree(o.Port); err != nil {
		return nil, err
	}
	if s.Root, err = Root(); err != nil {
		return nil, err
	}
	if s.o.Envoy == "" {
		if s.o.Envoy, err = envoybin.Find(ctx, envoybin.Options{Progress: o.Progress}); err != nil {
			return nil, err
		}
	}
	if s.o.NativeLB {
		if s.byName, err = findsByName(ctx, s.o.Envoy); err != nil {
			return nil, err
		}
	}
	if err := Build(ctx, s.Root, o.Progress, s.targets()...); err != nil {
		return nil, err
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if s.Dir, err = os.MkdirTemp("", "inlet-"); err != nil {
		return nil, err
	}
	s.lists, s.watched = filepath.Join(s.Dir, "eds"), &discovery{dir: s.Dir}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, s.whyNot())
			s.Close()
		}
	}()
	if err := s.startReplicas(ctx); err != nil {
		return nil, err
	}
	if err := s.startCompanion(ctx); err != nil {
		return nil, err
	}
	if err := startEnvoy(s, ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (o *Options) setDefaults() error {
	if o.ABI == "" {
		o.ABI = Wasm
	}
	if o.ABI != Wasm && o.ABI != Module && o.ABI != None {
		return fmt.Errorf("ABI=%s: it is %s, %s or %s", o.ABI, Wasm, Module, None)
	}
	if o.Embedded && o.ABI != Module {
		return errors.New("an embedded companion needs the native module (ABI=module): a wasm plugin has no threads and no sockets of its own")
	}
	if o.NativeLB && o.ABI != Module {
		return fmt.Errorf("NativeLB with ABI=%s: the policy is in the native module", o.ABI)
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.Scrape == 0 {
		o.Scrape = 100 * time.Millisecond
	}
	if o.Drain == 0 {
		o.Drain = time.Second
	}
	if len(o.Pools) == 0 {
		o.Pools = DefaultPools()
	}
	if o.ABI == None && o.DefaultPool == "" {
		o.DefaultPool = o.Pools[0].Name
	}
	return nil
}

// targets are the builds that the options need.
func (s *Stack) targets() []Target {
	var targets []Target
	if slices.ContainsFunc(s.o.Pools, func(p Pool) bool { return p.Replicas > 0 }) {
		targets = append(targets, ModelSim)
	}
	if !s.o.NoCompanion && !s.o.Embedded {
		targets = append(targets, CompanionProgram)
	}
	if s.o.Plugin == "" {
		switch s.o.ABI {
		case Wasm:
			targets = append(targets, WasmPlugin)
		case Module:
			targets = append(targets, NativeModule)
		}
	}
	return targets
}

// portIsFree reports a port that another program uses. Envoy itself would not notice
// another Envoy there, since both would share the port.
func portIsFree(port int) error {
	if port == 0 {
		return nil
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("port %d is taken: choose another with PORT=%d or --port, or end the program that listens on it (%w)", port, port+1, err)
	}
	return l.Close()
}

// check has the options' check look at the build and at Envoy.
func (s *Stack) check(ctx context.Context) error {
	builds := map[string]Target{Wasm: WasmPlugin, Module: NativeModule}
	build, ok := builds[s.o.ABI]
	if s.o.Check == nil || !ok {
		return nil
	}
	if err := s.o.Check(ctx, s.plugin(build), s.o.Envoy); err != nil {
		return fmt.Errorf("this Envoy cannot run Inlet (%s)\n%w", s.o.Envoy, err)
	}
	return nil
}

func (s *Stack) startEnvoy(ctx context.Context) error {
	b, err := s.bootstrap()
	if err != nil {
		return err
	}
	if s.o.Updatable {
		if err := s.makeUpdatable(b); err != nil {
			return err
		}
	}
	return s.runEnvoy(ctx, b, s.access.add)
}

// runEnvoy starts Envoy, and waits until it serves.
func (s *Stack) runEnvoy(ctx context.Context, b *bootstrapv3.Bootstrap, onAccess func(line string)) error {
	config, err := s.writeBootstrap(b)
	if err != nil {
		return err
	}
	adminFile := filepath.Join(s.Dir, fmt.Sprintf("admin-address-%d", s.epoch))
	restart, err := s.restartArgs()
	if err != nil {
		return err
	}
	s.envoy, err = process.Start(ctx, process.Command{
		Name: "envoy",
		Path: s.o.Envoy,
		Args: append([]string{
			"-c", config,
			"--concurrency", fmt.Sprint(s.o.Workers),
			"--admin-address-path", adminFile,
			"--file-flush-interval-msec", "20", // the access log is read while it is written
			"--drain-time-s", fmt.Sprint(int(s.o.Drain.Seconds())), "-l", "info",
		}, restart...),
		Dir:    s.Root,
		Env:    append(s.searchPath(), s.o.Env...),
		Log:    s.EnvoyLog(),
		OnLine: onAccess,
	})
	if err != nil {
		return err
	}
	return s.envoy.Until(ctx, 3*time.Minute, "ready", func() bool {
		if s.admin == "" {
			b, err := os.ReadFile(adminFile)
			if err != nil || !strings.Contains(string(b), ":") {
				return false
			}
			s.admin = strings.TrimSpace(string(b))
		}
		if _, err := s.get(ctx, "/ready"); err != nil {
			return false
		}
		s.gateway, err = s.listenerAddress(ctx, "")
		return err == nil
	})
}

// URL is the gateway's base URL, without a slash at its end.
func (s *Stack) URL() string { return "http://" + s.gateway }

// AdminURL is the base URL of Envoy's admin interface.
func (s *Stack) AdminURL() string { return "http://" + s.admin }

// ABI is the build of Inlet that runs.
func (s *Stack) ABI() string { return s.o.ABI }

// EnvoyPID is Envoy's process id, to measure it.
func (s *Stack) EnvoyPID() int { return s.envoy.PID() }

// EnvoyLog is the file that Envoy logs to.
func (s *Stack) EnvoyLog() string { return filepath.Join(s.watched.dir, "envoy.log") }

// envoyLog is the text of that file, without what was logged for the tests before.
func (s *Stack) envoyLog() (string, error) {
	text, err := os.ReadFile(s.EnvoyLog())
	if err == nil && s.shared != nil {
		text = text[min(s.shared.logged, len(text)):]
	}
	return string(text), err
}

// EnvoyDone is closed when Envoy has ended.
func (s *Stack) EnvoyDone() <-chan struct{} { return s.envoy.Done() }

// Close ends all processes and removes Dir. It may be called more than once.
func (s *Stack) Close() {
	s.close.Do(func() {
		for _, e := range s.others {
			e.Close()
		}
		switch {
		case s.shared != nil:
			s.shared.end()
		case s.envoy != nil:
			s.envoy.Stop(5 * time.Second)
		}
		s.access.end()
		if s.Companion != nil {
			s.Companion.Stop()
		}
		for _, r := range s.Replicas {
			r.Stop()
		}
		_ = os.RemoveAll(s.Dir)
	})
}

// Logs is the end of every process's output, for a failed test.
func (s *Stack) Logs() string {
	var b strings.Builder
	add := func(name, text string, err error) {
		if err == nil && text != "" {
			fmt.Fprintf(&b, "--- %s\n%s\n", name, lastLines(withoutBuild(text), 80))
		}
	}
	if s.shared != nil {
		text, err := s.envoyLog()
		add("envoy.log, of an Envoy that other tests use too", text, err)
	}
	for _, name := range s.logFiles() {
		text, err := os.ReadFile(name)
		add(filepath.Base(name), string(text), err)
	}
	return b.String()
}

// withoutBuild drops what Envoy says at each start of the extensions that it was built with: long, and the same each time.
func withoutBuild(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "][main] [source/server/server.cc") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// EnvoyErrors are the lines of Envoy's log at level error or critical.
func (s *Stack) EnvoyErrors() []string {
	text, err := s.envoyLog()
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, noAttempts) {
			continue
		}
		if strings.Contains(line, "][error]") || strings.Contains(line, "][critical]") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// noAttempts is logged by Envoy 1.38 when the module asks for the number of attempts, which that version has in a header only.
const noAttempts = "Unsupported attribute ID 53 as int"

func (s *Stack) logFiles() []string {
	files, err := filepath.Glob(filepath.Join(s.Dir, "*.log"))
	if err != nil {
		return nil
	}
	for _, e := range s.others {
		files = append(files, e.logFiles()...)
	}
	return files
}

// whyNot returns the logs of a failed start: Envoy's errors, otherwise the end of all logs.
func (s *Stack) whyNot() string {
	if s.envoy != nil {
		if errs := s.EnvoyErrors(); len(errs) > 0 {
			return strings.Join(errs, "\n")
		}
	}
	return lastLines(s.Logs(), 60)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

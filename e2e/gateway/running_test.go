package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/kubebin"
	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// running is a set of manifests that a real Envoy Gateway serves, with a companion and replicas.
type running struct {
	*host
	dir      string // of everything that it writes
	gateway  *process.Process
	replicas map[string][]*process.Server // by Service
	objects  []object                     // as Envoy Gateway has them
}

// service is a Service with simulated replicas.
type service struct {
	name     string
	replicas int
	args     []string // of modelsim
}

// standard are the Services of the base.
var standard = []service{
	{"llama", 2, []string{"--model", "llama-3-8b"}},
	{"gemma", 2, []string{"--model", "gemma", "--lora", "gemma-support"}},
}

// start serves manifests. Everything ends with the test.
func start(t *testing.T, all []object, services []service) *running {
	t.Helper()
	return startAt(t, all, services, nil)
}

// startAt also knows the addresses of Services that are there already.
func startAt(t *testing.T, all []object, services []service, there map[string][]string) *running {
	t.Helper()
	repository := build(t, stack.ModelSim, stack.CompanionProgram, stack.NativeModule, stack.WasmPlugin)
	onlyOne(t)
	r := &running{dir: t.TempDir(), replicas: map[string][]*process.Server{}}
	r.host = &host{
		port: freePort(t), services: map[string][]string{}, envoy: envoybin.DefaultVersion,
		module: stack.NativeModule.Path(repository), plugin: stack.WasmPlugin.Path(repository), log: filepath.Join(r.dir, "access.json"),
	}
	maps.Copy(r.services, there)
	r.certificate(t)
	// t.Context ends before the cleanups, which need what runs.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.logs())
		}
	})
	for _, s := range services {
		r.startReplicas(ctx, t, s)
	}
	if len(ofKind(all, "Deployment")) > 0 {
		r.startCompanion(ctx, t, all)
	}
	if len(ofKind(all, "EnvoyExtensionPolicy")) > 0 && at(ofKind(all, "EnvoyExtensionPolicy")[0], "spec", "wasm") != nil {
		r.startRegistry(ctx, t)
	}
	r.objects = hostForm(t, all, r.host)
	r.startGateway(ctx, t)
	return r
}

// onlyOne waits until no other test runs Envoy Gateway, some of whose ports are fixed.
func onlyOne(t *testing.T) {
	t.Helper()
	dir := envoybin.CacheDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".envoy-gateway.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
}

func (r *running) startServer(ctx context.Context, t *testing.T, s *process.Server) {
	t.Helper()
	s.Command.Log = filepath.Join(r.dir, s.Command.Name+".log")
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
}

func (r *running) startReplicas(ctx context.Context, t *testing.T, s service) {
	t.Helper()
	for i := range s.replicas {
		name := fmt.Sprintf("%s-%d", s.name, i+1)
		server := &process.Server{
			Command: process.Command{Name: name, Path: stack.ModelSim.Path(root(t))},
			Arguments: func(address string) ([]string, error) {
				// No delays, and room for large bodies.
				return append([]string{"--name", name, "--listen", address, "--drain", "1s", "--speed", "0", "--kv-blocks", "1000000"}, s.args...), nil
			},
		}
		r.startServer(ctx, t, server)
		r.replicas[s.name] = append(r.replicas[s.name], server)
		r.services[s.name] = append(r.services[s.name], server.Address())
	}
}

// startCompanion starts the companion with the configuration of its ConfigMap, with addresses for the names of Services.
func (r *running) startCompanion(ctx context.Context, t *testing.T, all []object) {
	t.Helper()
	var config object
	if err := yaml.Unmarshal([]byte(at(find(t, all, "ConfigMap", "inlet-companion"), "data", "companion.yaml").(string)), &config); err != nil {
		t.Fatal(err)
	}
	config["scrape"] = object{"interval": "100ms"}
	for _, p := range config["pools"].([]any) {
		pool := p.(object)
		service, _, _ := strings.Cut(at(pool, "dns", "host").(string), ".")
		delete(pool, "dns")
		pool["static"] = r.services[service]
	}
	file := filepath.Join(r.dir, "companion.json")
	server := &process.Server{
		Command: process.Command{Name: "companion", Path: stack.CompanionProgram.Path(root(t))},
		Arguments: func(address string) ([]string, error) {
			config["listen"] = address
			text, err := json.Marshal(config)
			if err != nil {
				return nil, err
			}
			return []string{"--config", file}, os.WriteFile(file, text, 0o644)
		},
	}
	r.startServer(ctx, t, server)
	r.services["inlet-companion"] = []string{server.Address()}
}

// startRegistry starts a registry with the plugin's image.
func (r *running) startRegistry(ctx context.Context, t *testing.T) {
	t.Helper()
	path, err := builtRenderer()
	if err != nil {
		t.Fatal(err)
	}
	server := &process.Server{
		Command:   process.Command{Name: "registry", Path: path},
		Arguments: func(address string) ([]string, error) { return []string{"registry", r.plugin, address}, nil },
	}
	r.startServer(ctx, t, server)
	r.image = server.Address() + "/inlet-wasm:dev"
}

func (r *running) startGateway(ctx context.Context, t *testing.T) {
	t.Helper()
	path := program(t, kubebin.EnvoyGateway)
	envoy, err := envoybin.Find(ctx, envoybin.Options{Version: r.envoy, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(r.dir, "home")
	if _, err := run(ctx, path, "certgen", "--local", "--config-home", home); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(home, "data", "envoy-versions", r.envoy, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(envoy, filepath.Join(bin, "envoy")); err != nil {
		t.Fatal(err)
	}
	r.apply(t)
	config := filepath.Join(r.dir, "envoy-gateway.yaml")
	text := marshal(t, []object{gatewayConfig(t, root(t), home, r.resources())})
	if err := os.WriteFile(config, text, 0o644); err != nil {
		t.Fatal(err)
	}
	r.gateway, err = process.Start(ctx, process.Command{
		Name: "envoy-gateway", Path: path, Args: []string{"server", "--config-path", config}, Dir: r.dir, Log: filepath.Join(r.dir, "envoy-gateway.log"),
		Env: []string{"HOME=" + r.dir}, // where it keeps plugins
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.gateway.Stop(10 * time.Second) })
}

// gatewayConfig is the configuration of Envoy Gateway: what the shipped values say, in Host mode.
func gatewayConfig(t *testing.T, repository, home, resources string) object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "envoy", "gateway", "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := at(documents(t, text)[0], "config", "envoyGateway").(object)
	config["apiVersion"], config["kind"] = "gateway.envoyproxy.io/v1alpha1", "EnvoyGateway"
	config["gateway"] = object{"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"}
	config["provider"] = object{"type": "Custom", "custom": object{
		"resource": object{"type": "File", "file": object{"paths": []any{resources}}},
		"infrastructure": object{"type": "Host", "host": object{
			// Four folders: if all are the same, func-e takes it for one of its earlier versions, and looks for Envoy elsewhere.
			"configHome": home, "dataHome": filepath.Join(home, "data"), "stateHome": filepath.Join(home, "state"), "runtimeDir": filepath.Join(home, "run"),
		}},
	}}
	config["logging"] = object{"level": object{"default": "info"}}
	return config
}

func (r *running) resources() string { return filepath.Join(r.dir, "resources") }

// apply hands the objects to Envoy Gateway, as `kubectl apply` would.
func (r *running) apply(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(r.resources(), 0o755); err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(r.dir, "objects.new")
	if err := os.WriteFile(temp, marshal(t, r.objects), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(r.resources(), "objects.yaml")); err != nil {
		t.Fatal(err)
	}
}

// until waits until ok, and fails the test if that takes too long or Envoy Gateway ends.
func (r *running) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if err := r.gateway.Until(t.Context(), 90*time.Second, what, ok); err != nil {
		t.Fatal(err)
	}
}

func (r *running) logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(r.dir, "*.log")) // the pattern is right
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil || len(text) == 0 {
			continue
		}
		lines := strings.Split(string(text), "\n")
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(name), strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
	return b.String()
}

package gateway

import (
	"context"
	"crypto/tls"
	"embed"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/process"
)

// pins are the exact versions of Ray Serve and what it needs, with hashes.
//
//go:embed requirements.txt
var pins embed.FS

// ray is a Python that can import Ray Serve.
var ray = sync.OnceValues(func() (env struct{ python, lib string }, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	path, version, err := clients.FindPython(ctx)
	if err != nil {
		return env, err
	}
	in := &clients.Installer{CacheDir: filepath.Join(envoybin.CacheDir(), "ray"), Pins: pins, Progress: os.Stderr}
	dir, err := in.Install("python", version, []string{"requirements.txt"}, "Ray Serve (470 MB on the disk; a minute or two)", func(dir string) error {
		return clients.Pip(ctx, path, filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "lib"))
	})
	env.python, env.lib = path, filepath.Join(dir, "lib")
	return env, err
})

// startRay starts a Ray Serve and returns its ip:port.
func startRay(t *testing.T) string {
	t.Helper()
	env, err := ray()
	if err != nil {
		t.Fatal(err)
	}
	// Ray has sockets in its folder, whose names must be short.
	dir, err := os.MkdirTemp("", "ray-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	log := filepath.Join(t.TempDir(), "ray.log")
	ports := make(chan string, 1)
	var once sync.Once
	p, err := process.Start(context.WithoutCancel(t.Context()), process.Command{
		Name: "Ray Serve", Path: env.python, Args: []string{"testdata/ray_serve.py", dir}, Log: log,
		Env:    []string{"PYTHONPATH=" + env.lib, "PYTHONNOUSERSITE=1", "PYTHONUNBUFFERED=1", "RAY_USAGE_STATS_ENABLED=0"},
		OnLine: func(line string) { once.Do(func() { ports <- line }) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop(20 * time.Second) // Ray ends its processes
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s", text)
		}
	})
	var port string
	if err := p.Until(t.Context(), 3*time.Minute, "serving", func() bool {
		select {
		case port = <-ports:
			return true
		default:
			return false
		}
	}); err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + port
}

// TestRecipeRayServe has a real Ray Serve behind the recipe, by two Services.
func TestRecipeRayServe(t *testing.T) {
	address := startRay(t)
	r := startAt(t, recipeObjects(t, "ray-serve"), nil, map[string][]string{"gemma-serve-svc": {address}, "mistral-serve-svc": {address}})
	// What the official clients do with a CA of their own.
	before := client.Transport
	client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: r.authority, MinVersion: tls.VersionTLS12}}
	t.Cleanup(func() { client.Transport = before })
	r.serves(t, "gemma-2b-it")
	for _, c := range []struct{ path, model, cluster string }{
		{"/v1/chat/completions", "gemma-2b-it", "httproute/inlet/gemma/rule/1"},
		{"/v1/chat/completions", "mistral-7b", "httproute/inlet/mistral/rule/1"},
		{"/gemma/v1/chat/completions", "gemma-2b-it", "httproute/inlet/gemma/rule/0"},
		{"/mistral/v1/chat/completions", "mistral-7b", "httproute/inlet/mistral/rule/0"},
	} {
		got := r.send(t, http.MethodPost, c.path, chat(c.model, "Hello"), "x-gateway-model-name", "forged")
		var said struct {
			Model, Path string
			Headers     map[string]string
		}
		if err := json.Unmarshal([]byte(got.body), &said); err != nil || got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", c.path, got.status, got.body)
		}
		if said.Model != c.model || said.Path != "/v1/chat/completions" || said.Headers["x-gateway-model-name"] != c.model {
			t.Errorf("%s: Ray Serve got %+v", c.path, said)
		}
		if a := r.logged(t, got); a.Cluster != c.cluster {
			t.Errorf("%s: went to the cluster %s, want %s", c.path, a.Cluster, c.cluster)
		}
	}
	if got := r.chat(t, "unknown", "Hello"); got.status != http.StatusNotFound || got.code() != "no_pool" {
		t.Errorf("a model without a route: %d %s", got.status, got.body)
	}
}

package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/internal/companion/kube"
	"github.com/inlet-proxy/inlet/internal/companion/quota"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/internal/companion/scrape"
	"github.com/inlet-proxy/inlet/internal/companion/tokens"
)

var update = flag.Bool("update", false, "rewrite the .err files")

func TestConfig(t *testing.T) {
	c, err := readConfig("testdata/full.yaml")
	require.NoError(t, err)
	const secrets = "/run/secrets/scrape/"
	plan := scrape.Plan{
		Engine: "vllm", Path: "/metrics", Health: "/health", Port: 9100, Models: "/v1/models",
		Access: http1.Access{TokenFile: secrets + "token", TLS: &http1.TLS{
			CAFile: secrets + "ca.pem", CertFile: secrets + "cert.pem", KeyFile: secrets + "key.pem", ServerName: "replicas.example",
		}},
	}
	sglang, triton, own := plan, plan, plan
	sglang.Engine, triton.Engine, own.Engine = "sglang", "triton-tensorrt-llm", scrape.Custom
	triton.Port, triton.Access.TLS = 8002, &http1.TLS{InsecureSkipVerify: true}
	own.Custom = scrape.Engine{
		Waiting:     []scrape.Metric{{Name: "requests", Label: "state", Value: "queued"}},
		Running:     []scrape.Metric{{Name: "requests", Label: "state", Value: "running"}},
		KVUse:       []scrape.Metric{{Name: "cache_use"}},
		BlockTokens: []scrape.Metric{{Name: "cache_block_tokens"}},
		Blocks:      []scrape.Metric{{Name: "cache_blocks"}},
		LoRA:        "adapters_info",
	}
	require.Equal(t, &Config{
		Listen: "127.0.0.1:9002",
		XDS:    "127.0.0.1:18000",
		Memory: 64 << 20,
		Quota: &QuotaConfig{
			Dir: "/var/lib/inlet/quota", Keys: "/etc/inlet/keys.yaml",
			Admin: &AdminConfig{Listen: "127.0.0.1:9003", TokenFile: "/run/secrets/quota/admin-token"},
		},
		Tokens: []TokenConfig{
			{Name: "google", File: "/run/inlet/secrets/google.json", Google: &tokens.Google{
				KeyFile: "/etc/inlet/service-account.json", Scopes: []string{"https://www.googleapis.com/auth/cloud-platform"},
			}},
			{Name: "google-machine", File: "/run/inlet/secrets/google-machine.json", Google: &tokens.Google{
				Metadata: true, Scopes: []string{"https://www.googleapis.com/auth/cloud-platform"},
			}},
		},
		Kubernetes: &KubernetesConfig{
			Kubeconfig: "/etc/inlet/kubeconfig", Namespace: "models",
			Gateway: &kube.Gateway{Name: "inlet", Namespace: "infra", Controller: "inlet-proxy.github.io/companion"},
		},
		Config: replicas.Config{
			Scrape:  replicas.Scrape{Interval: 100 * time.Millisecond, Timeout: time.Second, Models: 10 * time.Second, Plan: plan},
			Publish: 10 * time.Millisecond,
			Stale:   2 * time.Second,
			Pools: []replicas.Pool{
				{Name: "llama", EDS: "envoy/static/eds/llama.yaml", Plan: plan},
				{Name: "gemma", Cluster: "gemma-replicas", Plan: sglang, DNS: &discover.Name{
					Pool: "gemma", Host: "gemma.models.svc.cluster.local", Port: 8000, Family: "auto", Interval: 5 * time.Second,
				}},
				{Name: "qwen", Plan: triton, DNS: &discover.Name{
					Pool: "qwen", SRV: "_http._tcp.qwen.models.svc.cluster.local", Family: "auto", Interval: 5 * time.Second,
				}},
				{Name: "own", Static: []string{"10.0.0.7:8000", "[2001:db8::7]:8000"}, Plan: own},
				{Name: "mixtral", Plan: plan, Kubernetes: &replicas.Kubernetes{
					Namespace: "serving", InferencePool: "mixtral", Group: replicas.PoolGroup, Family: "auto",
				}},
				{Name: "phi", Plan: plan, Kubernetes: &replicas.Kubernetes{Service: "phi", Port: "http", Group: replicas.PoolGroup, Family: "auto"}},
			},
		},
	}, c)
}

// A companion without pools needs something else to do.
func TestPoolsAreRequiredWithoutTokens(t *testing.T) {
	_, err := parseConfig([]byte("tokens: [{name: google, file: google.json, google: {}}]"))
	require.NoError(t, err)
	for _, text := range []string{"{}", "tokens: []", "stale: 3s"} {
		_, err := parseConfig([]byte(text))
		require.ErrorContains(t, err, `missing key "pools"`, text)
	}
}

// What the full file says is what a file with pools alone means, where it does not say that its default is another.
func TestDefaults(t *testing.T) {
	full, err := readConfig("testdata/full.yaml")
	require.NoError(t, err)
	short, err := parseConfig([]byte(`{"pools": [{"name": "llama", "eds": "envoy/static/eds/llama.yaml"}]}`))
	require.NoError(t, err)
	full.XDS, full.Quota, full.Tokens, full.Kubernetes = "", nil, nil, nil
	full.Scrape.Plan = scrape.Plan{Engine: "vllm", Models: "/v1/models"}
	full.Pools = full.Pools[:1]
	full.Pools[0].Plan = full.Scrape.Plan
	require.Equal(t, full, short)
}

func TestQuotaConfig(t *testing.T) {
	const pools = "pools: [{name: a, eds: a.yaml}]\n"
	for text, want := range map[string]*QuotaConfig{
		"":                                 nil,
		"quota: {}":                        {},
		"quota: {store: {dir: q}}":         {Dir: "q"},
		"quota: {admin: {tokenFile: t}}":   {Admin: &AdminConfig{Listen: "127.0.0.1:9003", TokenFile: "t"}},
		"quota: {kubernetes: {secret: s}}": {Kubernetes: &kube.DirectorySource{Secret: "s"}},
		"quota: {kubernetes: {configMap: c, secret: s, namespace: n}}\nkubernetes: {namespace: x}": {
			Kubernetes: &kube.DirectorySource{Namespace: "n", ConfigMap: "c", Secret: "s"}, cluster: &KubernetesConfig{Namespace: "x"},
		},
		"quota: {store: {redis: {addresses: [\"r:6379\"]}}}": {Redis: &quota.RedisOptions{Addresses: []string{"r:6379"}, Prefix: "inlet"}},
		"quota: {store: {redis: {addresses: [\"r:1\", \"r:2\"], username: u, passwordFile: p, tls: {ca: c}, prefix: x}}}": {Redis: &quota.RedisOptions{
			Addresses: []string{"r:1", "r:2"}, Username: "u", PasswordFile: "p", TLS: &http1.TLS{CAFile: "c"}, Prefix: "x",
		}},
	} {
		c, err := parseConfig([]byte(pools + text))
		require.NoError(t, err, text)
		require.Equal(t, want, c.Quota, text)
	}
}

func TestAnIntervalThatFitsItsStale(t *testing.T) {
	c, err := parseConfig([]byte("{scrape: {interval: 15s}, stale: 1m, pools: [{name: a, eds: a.yaml}]}"))
	require.NoError(t, err)
	require.Equal(t, 15*time.Second, c.Heartbeat())
}

// One bad file for each rule, with the exact text.
func TestBadConfig(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			doc, err := os.ReadFile(file)
			require.NoError(t, err)
			_, err = parseConfig(doc)
			require.Error(t, err)
			errFile := strings.TrimSuffix(file, ".yaml") + ".err"
			if *update {
				require.NoError(t, os.WriteFile(errFile, []byte(err.Error()+"\n"), 0o644))
			}
			want, readErr := os.ReadFile(errFile)
			require.NoError(t, readErr)
			require.Equal(t, string(want), err.Error()+"\n")
		})
	}
}

// README.md shows the file with every key, so it cannot rot.
func TestReadmeShowsTheFullFile(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	full, err := os.ReadFile("testdata/full.yaml")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```yaml\n"+string(full)+"```\n")
}

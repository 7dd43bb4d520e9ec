package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointgrpc "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// replica stands for a model server: it is a fake that has vLLM's metric names and a health check, and nothing else.
type replica struct {
	*httptest.Server
	waiting, running atomic.Int64
}

func newReplica(t *testing.T) *replica {
	r := new(replica)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/metrics":
			fmt.Fprintf(w, "vllm:num_requests_waiting{engine=\"0\"} %d.0\nvllm:num_requests_running{engine=\"0\"} %d.0\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n", r.waiting.Load(), r.running.Load())
		case "/health":
		case "/v1/models":
			_, _ = io.WriteString(w, `{"data":[{"id":"llama"},{"id":"sql","parent":"llama"}]}`)
		default:
			http.NotFound(w, req)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *replica) address() string { return r.Listener.Addr().String() }

// writeEDS replaces the file at once, as Envoy wants it.
func writeEDS(t *testing.T, path string, replicas ...*replica) {
	t.Helper()
	var b strings.Builder
	b.WriteString("resources:\n- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  cluster_name: c\n  endpoints:\n  - lb_endpoints:\n")
	for _, r := range replicas {
		host, port, err := net.SplitHostPort(r.address())
		require.NoError(t, err)
		fmt.Fprintf(&b, "    - endpoint: {address: {socket_address: {address: %q, port_value: %s}}}\n", host, port)
	}
	require.NoError(t, os.WriteFile(path+".new", []byte(b.String()), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// companion is one that runs, with a proxy's view of it.
type companion struct {
	t    *testing.T
	url  string
	have *endpoint.Snapshot
	stop func() error
}

func startCompanion(t *testing.T, pools map[string]string) *companion {
	cfg := defaultConfig()
	cfg.Scrape.Interval = 20 * time.Millisecond
	for name, eds := range pools {
		cfg.Pools = append(cfg.Pools, replicas.Pool{Name: name, EDS: eds, Plan: cfg.Scrape.Plan})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, cfg, listeners{proxies: listener}, sharedQuota{}, nil, slog.New(slog.DiscardHandler))
	}()
	c := &companion{t: t, url: "http://" + listener.Addr().String()}
	stopped := false
	c.stop = func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		return <-done
	}
	t.Cleanup(func() { require.NoError(t, c.stop()) })
	return c
}

func (c *companion) get(path string) (int, string) {
	c.t.Helper()
	resp, err := http.Get(c.url + path)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return resp.StatusCode, string(body)
}

// until polls as a proxy does until the snapshot is as wanted.
func (c *companion) until(what string, wanted func(*endpoint.Snapshot) bool) {
	c.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for c.have == nil || !wanted(c.have) {
		require.True(c.t, time.Now().Before(deadline), "not seen: %s; last: %+v", what, c.have)
		status, body := c.get(endpoint.Path(c.have, "test", time.Second))
		switch status {
		case http.StatusOK:
			var err error
			c.have, err = endpoint.Apply(c.have, []byte(body))
			require.NoError(c.t, err)
		case http.StatusNotModified, http.StatusServiceUnavailable:
		default:
			require.Fail(c.t, "status", "%d: %s", status, body)
		}
	}
}

// only returns the endpoint of that address, the zero value if there is none.
func only(s *endpoint.Snapshot, pool string, r *replica) (e endpoint.Endpoint) {
	if p := s.Pool(pool); p != nil {
		for _, e := range p.Endpoints {
			if e.Address == r.address() {
				return e
			}
		}
	}
	return e
}

// From the replicas' metrics and Envoy's files to the proxy, through all of the companion.
func TestCompanion(t *testing.T) {
	a, b, g := newReplica(t), newReplica(t), newReplica(t)
	a.waiting.Store(3)
	dir := t.TempDir()
	llama, gemma := filepath.Join(dir, "llama.yaml"), filepath.Join(dir, "gemma.yaml")
	writeEDS(t, llama, a)

	c := startCompanion(t, map[string]string{"llama": llama, "gemma": gemma})
	status, body := c.get("/healthz")
	require.Equal(t, http.StatusOK, status, body)
	status, body = c.get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status, "the file of a pool is missing")
	require.Contains(t, body, "pool gemma: its list of endpoints could not be read yet")

	writeEDS(t, gemma, g)
	c.until("first gauges", func(s *endpoint.Snapshot) bool { return only(s, "llama", a).Gauges.Waiting == 3 })
	require.True(t, only(c.have, "llama", a).Ready)
	require.True(t, only(c.have, "gemma", g).Gauges.Known)
	require.Equal(t, "gemma", c.have.Pools[0].Name)
	require.InDelta(t, 0.25, only(c.have, "llama", a).Gauges.KVUse, 1e-4)
	status, _ = c.get("/readyz")
	require.Equal(t, http.StatusOK, status)

	a.waiting.Store(5)
	a.running.Store(7)
	c.until("a change", func(s *endpoint.Snapshot) bool {
		g := only(s, "llama", a).Gauges
		return g.Waiting == 5 && g.Running == 7
	})

	writeEDS(t, llama, a, b)
	c.until("a replica more", func(s *endpoint.Snapshot) bool { return only(s, "llama", b).Ready })

	require.NoError(t, os.WriteFile(llama, []byte("resources: ["), 0o600))
	a.waiting.Store(6)
	c.until("a change while the file is bad", func(s *endpoint.Snapshot) bool { return only(s, "llama", a).Gauges.Waiting == 6 })
	require.Len(t, c.have.Pool("llama").Endpoints, 2, "the last good list stays")

	b.CloseClientConnections()
	b.Close()
	c.until("a dead replica", func(s *endpoint.Snapshot) bool { return !only(s, "llama", b).Ready })
	require.True(t, only(c.have, "llama", a).Ready)

	writeEDS(t, llama, b)
	c.until("a replica less", func(s *endpoint.Snapshot) bool { return len(s.Pool("llama").Endpoints) == 1 })

	_, body = c.get("/v1/snapshot.json")
	var twin struct {
		Workers []struct{ ID string }
	}
	require.NoError(t, json.Unmarshal([]byte(body), &twin))
	require.Equal(t, "test", twin.Workers[0].ID)
}

func TestMetrics(t *testing.T) {
	a, b := newReplica(t), newReplica(t)
	a.waiting.Store(3)
	a.running.Store(10)
	b.waiting.Store(2)
	b.running.Store(20)
	dir := t.TempDir()
	llama, empty := filepath.Join(dir, "llama.yaml"), filepath.Join(dir, "empty.yaml")
	writeEDS(t, llama, a, b)
	writeEDS(t, empty)
	c := startCompanion(t, map[string]string{"llama": llama, "empty": empty})
	c.until("gauges and models", func(s *endpoint.Snapshot) bool {
		return only(s, "llama", b).Ready && only(s, "llama", a).Models != nil && only(s, "llama", b).Models != nil
	})

	_, text := c.get("/metrics")
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			require.NotContains(t, values, name, "twice")
			values[name] = value
		}
	}
	for name, want := range map[string]string{
		`inlet_companion_endpoints{pool="llama"}`:                                                     "2",
		`inlet_companion_endpoints{pool="empty"}`:                                                     "0",
		`inlet_companion_late_scrapes_total{pool="llama"}`:                                            "0",
		`inlet_companion_stale_endpoints{pool="llama"}`:                                               "0",
		`inference_pool_ready_pods{name="llama"}`:                                                     "2",
		`inference_pool_average_queue_size{name="llama"}`:                                             "2.5",
		`inference_pool_average_kv_cache_utilization{name="llama"}`:                                   "0.25",
		`inlet_companion_average_running_requests{pool="llama"}`:                                      "15",
		`llm_d_epp_ready_endpoints{name="llama"}`:                                                     "2",
		`llm_d_epp_average_queue_size{name="llama"}`:                                                  "2.5",
		`llm_d_epp_average_running_requests{name="llama"}`:                                            "15",
		`llm_d_epp_average_kv_cache_utilization{name="llama"}`:                                        "0.25",
		`inference_pool_per_pod_queue_size{model_server_pod="` + a.address() + `",name="llama"}`:      "3",
		`llm_d_epp_per_endpoint_queue_size{model_server_endpoint="` + b.address() + `",name="llama"}`: "2",
		`inlet_companion_waiting_requests{pool="llama"}`:                                              "5",
		`inlet_companion_running_requests{pool="llama"}`:                                              "30",
		`inlet_companion_models`:                                                                      "2",
		`inlet_companion_model_ready_replicas{model="sql"}`:                                           "2",
		`inlet_companion_model_waiting_requests{model="llama"}`:                                       "5",
		`inlet_companion_model_running_requests{model="sql"}`:                                         "30",
		`inlet_companion_model_average_kv_cache_utilization{model="sql"}`:                             "0.25",
		`inlet_companion_pollers`:                                                                     "2",
		`inlet_companion_scrapes_total{pool="llama",result="failed"}`:                                 "0",
		`inlet_companion_scrapes_total{pool="llama",result="incomplete"}`:                             "0",
		`inlet_companion_endpoint_lists_total{result="loaded"}`:                                       "2",
		`inlet_companion_endpoint_lists_total{result="failed"}`:                                       "0",
		`inlet_companion_workers`:                                                                     "1",
		`inlet_companion_open_calls`:                                                                  "0",
	} {
		require.Equal(t, want, values[name], name)
	}
	require.NotEqual(t, "0", values[`inlet_companion_scrapes_total{pool="llama",result="ok"}`])
	require.NotContains(t, values, `inlet_companion_waiting_requests{pool="empty"}`)
	require.Equal(t, "0", values[`llm_d_epp_ready_endpoints{name="empty"}`])
	require.NotContains(t, values, `inference_pool_average_queue_size{name="empty"}`, "a pool that says nothing is not idle")
	for family := range strings.SplitSeq(text, "# HELP ") {
		if family != "" {
			require.Contains(t, family, "\n# TYPE "+strings.Fields(family)[0]+" ")
		}
	}
}

// A model counts each replica once, whatever pools it is in, and says nothing about load that it does not know.
func TestModelLoads(t *testing.T) {
	fresh, old := endpoint.Gauges{Known: true, Waiting: 1, Running: 2, KVUse: 0.5}, endpoint.Gauges{Known: true, Age: time.Minute, Waiting: 99}
	llama := &endpoint.Models{Names: []string{"llama"}}
	both := &endpoint.Models{Names: []string{"llama"}, Adapters: []endpoint.Adapter{{Name: "sql", Parent: "llama"}}}
	a := endpoint.Endpoint{Address: "a", Ready: true, Gauges: fresh, Models: both}
	got := modelLoads([]endpoint.Pool{
		{Name: "x", Endpoints: []endpoint.Endpoint{a, {Address: "b", Gauges: old, Models: llama}}},
		{Name: "y", Endpoints: []endpoint.Endpoint{a, {Address: "c", Ready: true, Gauges: fresh}}},
	}, time.Second)
	require.Equal(t, map[string]*replicas.Load{
		"llama": {Replicas: 2, Ready: 1, Fresh: 1, Waiting: 1, Running: 2, KV: 0.5},
		"sql":   {Replicas: 1, Ready: 1, Fresh: 1, Waiting: 1, Running: 2, KV: 0.5},
	}, got)
}

// A fixed list, a custom engine, and EDS served: the replicas of a pool that no file names.
func TestStaticPoolAndServedEDS(t *testing.T) {
	a := newReplica(t)
	file := filepath.Join(t.TempDir(), "companion.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
serve: {xds: "127.0.0.1:0"}
pools:
- name: own
  static: [%q]
  engine: custom
  metrics: {waiting: "vllm:num_requests_waiting{engine=0}"}
  cluster: inlet-own
`, a.address()), 0o600))
	out, _, err := execute(t.Context(), "--config", file, "--check")
	require.NoError(t, err)
	require.Equal(t, "pool own: static, 1 endpoint\n", out)

	a.waiting.Store(4)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	cmd := command()
	cmd.SetOut(write)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"--config", file, "--listen", "127.0.0.1:0"})
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	lines := bufio.NewReader(read)
	address := func(before string) string {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		address, ok := strings.CutPrefix(strings.TrimSpace(line), before)
		require.True(t, ok, line)
		return address
	}
	c := &companion{t: t, url: "http://" + address("companion listening on ")}
	conn, err := grpc.NewClient("passthrough:///"+address("companion serving EDS on "), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	stream, err := endpointgrpc.NewEndpointDiscoveryServiceClient(conn).StreamEndpoints(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{ResourceNames: []string{"inlet-own"}}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, answer.Resources, 1)
	c.until("gauges", func(s *endpoint.Snapshot) bool { return only(s, "own", a).Gauges.Waiting == 4 })
	cancel()
	require.NoError(t, <-done)
	_, err = stream.Recv()
	require.Error(t, err, "the stream ended with the companion")
}

// A shutdown answers the proxies that wait, and does not take long.
func TestShutdownWithOpenCalls(t *testing.T) {
	a := newReplica(t)
	llama := filepath.Join(t.TempDir(), "llama.yaml")
	writeEDS(t, llama, a)
	c := startCompanion(t, map[string]string{"llama": llama})
	c.until("gauges", func(s *endpoint.Snapshot) bool { return only(s, "llama", a).Ready })

	calls := make(chan int)
	for i := range 4 {
		go func() {
			have := c.have
			for {
				resp, err := http.Get(c.url + endpoint.Path(have, fmt.Sprint("w", i), time.Minute))
				if err != nil {
					calls <- 0
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					calls <- resp.StatusCode
					return
				}
				have, _ = endpoint.Apply(have, body)
			}
		}()
	}
	for open := ""; !strings.Contains(open, "inlet_companion_open_calls 4\n"); {
		_, open = c.get("/metrics")
	}
	ahead, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://")) // opened ahead of need: nobody waits for that
	require.NoError(t, err)
	defer ahead.Close()
	after := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a new connection, accepted after that one
	resp, err := after.Get(c.url + "/healthz")
	require.NoError(t, err)
	resp.Body.Close()
	began := time.Now()
	require.NoError(t, c.stop())
	require.Less(t, time.Since(began), lastCalls)
	answered := 0
	for range 4 {
		if status := <-calls; status == http.StatusNotModified {
			answered++
		} else {
			require.Zero(t, status, "refused, if it called again a moment too late")
		}
	}
	require.NotZero(t, answered)
}

// A companion that restarts says nothing until it knows: a proxy keeps what it has.
func TestNothingIsSaidBeforeEveryReplicaWasTried(t *testing.T) {
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(release)
	good := newReplica(t)
	llama := filepath.Join(t.TempDir(), "llama.yaml")
	writeEDS(t, llama, good, &replica{Server: slow})
	c := startCompanion(t, map[string]string{"llama": llama})

	status, body := c.get(endpoint.Path(&endpoint.Snapshot{Source: 1, Version: 9}, "w", 10*time.Millisecond))
	require.Equal(t, http.StatusServiceUnavailable, status, body)
	c.until("the slow one was given up", func(s *endpoint.Snapshot) bool { return true })
	require.True(t, only(c.have, "llama", good).Ready)
	require.False(t, only(c.have, "llama", &replica{Server: slow}).Ready)
}

// execute runs the command as from a shell.
func execute(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, log bytes.Buffer
	cmd := command()
	cmd.SetOut(&out)
	cmd.SetErr(&log)
	cmd.SetArgs(append([]string{}, args...)) // nil would mean those of the test itself
	err = cmd.ExecuteContext(ctx)
	return out.String(), log.String(), err
}

func TestCheck(t *testing.T) {
	a := newReplica(t)
	dir := t.TempDir()
	llama, gemma, file := filepath.Join(dir, "llama.yaml"), filepath.Join(dir, "gemma.yaml"), filepath.Join(dir, "companion.yaml")
	writeEDS(t, llama, a)
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "pools: [{name: llama, eds: %q}, {name: gemma, eds: %q}]", llama, gemma), 0o600))

	out, _, err := execute(t.Context(), "--config", file, "--check")
	require.ErrorContains(t, err, "pool gemma: "+gemma)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, "pool llama: "+llama+": cluster c, 1 endpoint\n", out)

	writeEDS(t, gemma)
	out, _, err = execute(t.Context(), "--config", file, "--check")
	require.NoError(t, err)
	require.Contains(t, out, "pool gemma: "+gemma+": cluster c, 0 endpoints\n")
}

func TestCommandErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "companion.yaml")
	require.NoError(t, os.WriteFile(file, []byte("pools: [{name: a, static: [\"127.0.0.1:9\"]}]"), 0o600))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no config":     {nil, `required flag(s) "config" not set`},
		"no such file":  {[]string{"--config", "testdata/none.yaml"}, "no such file"},
		"bad config":    {[]string{"--config", "testdata/bad/no-pools.yaml"}, "testdata/bad/no-pools.yaml:\n"},
		"bad listen":    {[]string{"--config", file, "--listen", "nowhere"}, "address nowhere: missing port"},
		"bad log level": {[]string{"--config", "testdata/full.yaml", "--log-level", "loud"}, "--log-level: "},
		"bad format":    {[]string{"--config", "testdata/full.yaml", "--log-format", "xml"}, `--log-format: "xml" is neither text nor json`},
		"unknown flag":  {[]string{"--config", "testdata/full.yaml", "--chekc"}, "unknown flag: --chekc"},
		"an argument":   {[]string{"--config", "testdata/full.yaml", "more"}, "unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := execute(t.Context(), c.args...)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// The line that scripts wait for, and a clean end.
func TestCommandServes(t *testing.T) {
	a := newReplica(t)
	dir := t.TempDir()
	llama, file := filepath.Join(dir, "llama.yaml"), filepath.Join(dir, "companion.yaml")
	writeEDS(t, llama, a)
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "listen: 127.0.0.1:1\npools: [{name: llama, eds: %q}]", llama), 0o600))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	cmd := command()
	cmd.SetOut(write)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"--config", file, "--listen", "127.0.0.1:0"})
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()

	line, err := bufio.NewReader(read).ReadString('\n')
	require.NoError(t, err)
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "companion listening on ")
	require.True(t, ok, line)
	c := &companion{t: t, url: "http://" + address}
	c.until("gauges", func(s *endpoint.Snapshot) bool { return only(s, "llama", a).Ready })
	cancel()
	require.NoError(t, <-done)
}

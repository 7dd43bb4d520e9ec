package scrape

import (
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

func TestAReplicaInTwoPoolsIsScrapedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		for _, a := range []string{"a:1", "b:1", "c:1"} {
			f.set(a+"/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		}
		vllm := Plan{Engine: "vllm"}
		s := startPlans(t, f.dial, map[string]Plan{"x": vllm, "y": vllm, "other": {Engine: "vllm", Path: "/elsewhere"}})
		s.SetTargets("x", targets("a:1", "b:1"))
		s.SetTargets("y", []Target{{Address: "b:1"}, {Address: "c:1", Usable: true}})
		s.SetTargets("other", targets("a:1"))
		<-s.Tried()
		require.Equal(t, 4, s.Pollers(), "a, b, c, and a once more for the pool that asks elsewhere")
		f.count("b:1/metrics")
		time.Sleep(100 * interval)
		require.InDelta(t, 100, f.count("b:1/metrics"), 5)

		pools := s.Pools(time.Now())
		require.Equal(t, "x", pools[1].Name)
		require.True(t, pools[1].Endpoints[1].Ready)
		require.False(t, pools[2].Endpoints[0].Ready, "y's source says that it drains")
		require.Equal(t, pools[1].Endpoints[1].Gauges, pools[2].Endpoints[0].Gauges)
		stats := s.Stats()
		require.InDelta(t, stats["x"].OK, stats["y"].OK, 10, "b counts for both")

		s.SetTargets("x", nil)
		time.Sleep(time.Second)
		require.Equal(t, 3, s.Pollers())
		f.count("b:1/metrics")
		time.Sleep(10 * interval)
		require.InDelta(t, 10, f.count("b:1/metrics"), 2, "one pool still has it")
		s.SetTargets("y", nil)
		s.SetTargets("other", nil)
		require.Zero(t, s.Pollers())
	})
}

func recording(t *testing.T, file string) answer {
	text, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(t, err)
	return answer{status: 200, body: string(text)}
}

// What the source of replicas says about an engine counts more than the pool, unless it says something unknown.
func TestEngineOfAnEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", recording(t, "vllm.txt"))
		f.set("b:1/metrics", recording(t, "sglang.txt"))
		f.set("c:1/prometheus/metrics", recording(t, "trtllm-serve.txt"))
		f.set("d:1/metrics", recording(t, "vllm.txt"))
		s := start(t, f)
		s.SetTargets("llama", []Target{
			{Address: "a:1", Usable: true},
			{Address: "b:1", Usable: true, Engine: "sglang"},
			{Address: "c:1", Usable: true, Engine: "trtllm"},
			{Address: "d:1", Usable: true, Engine: "ollama"},
		})
		<-s.Tried()
		endpoints := s.Pools(time.Now())[0].Endpoints
		for i, want := range []int{17, 161, 8, 17} {
			require.Equal(t, want, endpoints[i].Gauges.Running, endpoints[i].Address)
		}
		require.Equal(t, endpoint.Cache{BlockTokens: 1, Blocks: 442000}, endpoints[1].Cache)

		f.set("a:1/metrics", recording(t, "sglang.txt"))
		s.SetTargets("llama", []Target{{Address: "a:1", Usable: true, Engine: "sglang"}})
		require.Equal(t, endpoint.Endpoint{Address: "a:1"}, only(t, s), "another engine: nothing known of it yet")
		time.Sleep(2 * interval)
		require.Equal(t, 161, only(t, s).Gauges.Running)
	})
}

func TestAutoFindsTheEngine(t *testing.T) {
	for _, r := range recordings {
		if r.engine == Custom {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			path := engines[r.engine].Path
			if path == "" {
				path = "/metrics"
			} else {
				f.set("a:1/metrics", answer{status: 200, body: `[{"iter": 1}]`})
			}
			s := startPlans(t, f.dial, map[string]Plan{"p": {Engine: Auto}})
			s.SetTargets("p", targets("a:1"))
			<-s.Tried()
			require.False(t, only(t, s).Gauges.Known)

			f.set("a:1"+path, recording(t, r.file))
			time.Sleep(2 * longestPause)
			require.Equal(t, r.want.Gauges.Waiting, only(t, s).Gauges.Waiting, r.file)
			f.count("a:1/metrics")
			f.count("a:1/prometheus/metrics")
			time.Sleep(10 * interval)
			require.InDelta(t, 10, f.count("a:1"+path), 2, "from then on, that path alone is asked")
			require.Zero(t, f.count("a:1/metrics")+f.count("a:1/prometheus/metrics"))

			f.set("a:1/metrics", recording(t, "sglang.txt"))
			if path == "/metrics" {
				time.Sleep(longestPause)
				require.Equal(t, 2826, only(t, s).Gauges.Waiting, "another server came up there")
			}
		})
	}
}

func TestAutoWithNothingKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, body: "go_goroutines 7\n"})
		f.set("a:1/health", answer{status: 200})
		f.set("b:1/metrics", answer{status: 500})
		s := startPlans(t, f.dial, map[string]Plan{"p": {Engine: Auto}})
		s.SetTargets("p", targets("a:1", "b:1"))
		<-s.Tried()
		endpoints := s.Pools(time.Now())[0].Endpoints
		require.Equal(t, endpoint.Endpoint{Address: "a:1", Ready: true}, endpoints[0], "its health is well, so it is there")
		require.False(t, endpoints[1].Ready)
		require.EqualValues(t, 1, s.Stats()["p"].Incomplete)
		require.EqualValues(t, 1, s.Stats()["p"].Failed)
	})
}

func TestCustomMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:9/stats", recording(t, "custom.txt"))
		f.set("a:1/alive", answer{status: 200})
		s := startPlans(t, f.dial, map[string]Plan{"p": {Engine: Custom, Custom: custom, Port: 9, Path: "/stats", Health: "/alive"}})
		s.SetTargets("p", targets("a:1"))
		<-s.Tried()
		require.Equal(t, 7, only(t, s).Gauges.Waiting)
		f.set("a:9/stats", answer{status: 500})
		time.Sleep(time.Minute)
		require.True(t, only(t, s).Ready)
		require.NotZero(t, f.count("a:1/alive"), "health is asked at the replica's own port")
	})
}

const twoModels = `{"object":"list","data":[
	{"id":"llama","object":"model","parent":null,"max_model_len":8192},
	{"id":"sql","parent":"llama"},{"id":"law","root":"/adapters/law","parent":"llama"}]}`

func TestModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		plan := Plan{Engine: "vllm", Models: "/v1/models"}
		for _, a := range []string{"a:1", "b:1"} {
			f.set(a+"/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
			f.set(a+"/v1/models", answer{status: 200, body: twoModels})
		}
		s := startPlans(t, f.dial, map[string]Plan{"p": plan})
		s.SetTargets("p", targets("a:1", "b:1"))
		<-s.Tried()
		synctest.Wait()
		endpoints := s.Pools(time.Now())[0].Endpoints
		want := &endpoint.Models{Names: []string{"llama"}, Adapters: []endpoint.Adapter{{Name: "law", Parent: "llama"}, {Name: "sql", Parent: "llama"}}}
		require.Equal(t, want, endpoints[0].Models)
		require.Same(t, endpoints[0].Models, endpoints[1].Models)

		f.count("a:1/v1/models")
		time.Sleep(100 * time.Second)
		require.InDelta(t, 10, f.count("a:1/v1/models"), 2, "slowly")

		<-s.Changed()
		f.set("a:1/v1/models", answer{status: 200, body: `{"data":[{"id":"gemma"}]}`})
		<-s.Changed()
		endpoints = s.Pools(time.Now())[0].Endpoints
		require.Equal(t, &endpoint.Models{Names: []string{"gemma"}}, endpoints[0].Models)
		require.Equal(t, want, endpoints[1].Models)

		f.set("a:1/v1/models", answer{status: 404})
		time.Sleep(20 * time.Second)
		require.Equal(t, []string{"gemma"}, s.Pools(time.Now())[0].Endpoints[0].Models.Names, "the last list stays")

		// Down and up again: asked at once, not after the rest of ten seconds.
		f.set("a:1/metrics", answer{cut: true})
		time.Sleep(5 * time.Second)
		require.False(t, s.Pools(time.Now())[0].Endpoints[0].Ready)
		f.count("a:1/v1/models")
		time.Sleep(time.Minute)
		require.Zero(t, f.count("a:1/v1/models"), "one that is down is not asked")
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		f.set("a:1/v1/models", answer{status: 200, body: `{"data":[]}`})
		time.Sleep(longestPause * 11 / 10)
		require.Equal(t, &endpoint.Models{}, s.Pools(time.Now())[0].Endpoints[0].Models)
	})
}

// A list of models is read up to 1 MiB; what is longer is none.
func TestLongListsOfModels(t *testing.T) {
	for size, read := range map[int]bool{1 << 20: true, 1<<20 + 1: false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
			const list = `{"data":[{"id":"a"}]}`
			f.set("a:1/v1/models", answer{status: 200, body: list + strings.Repeat(" ", size-len(list))})
			s := startPlans(t, f.dial, map[string]Plan{"p": {Engine: "vllm", Models: "/v1/models"}})
			s.SetTargets("p", targets("a:1"))
			<-s.Tried()
			synctest.Wait()
			require.Equal(t, read, s.Pools(time.Now())[0].Endpoints[0].Models != nil, size)
		})
	}
}

func TestReadModels(t *testing.T) {
	got, err := readModels([]byte(`{"data":[{"id":"b"},{"id":"a"},{"id":"a"},{"id":"x","parent":"b"},{"id":"x","parent":"a"}]}`))
	require.NoError(t, err)
	require.Equal(t, &endpoint.Models{Names: []string{"a", "b"}, Adapters: []endpoint.Adapter{{Name: "x", Parent: "a"}}}, got)
	for text, want := range map[string]string{
		"":                     "list of models: unexpected end of JSON input",
		"{}":                   "list of models: it has no data",
		`{"data":null}`:        "list of models: it has no data",
		`{"data":[{"id":""}]}`: `list of models: "" is no name`,
		`{"data":[{"id":1}]}`:  "list of models: json: cannot unmarshal number into Go struct field .data.id of type string",
		`{"data":[` + strings.Repeat(`{"id":"a"},`, 1000) + `{"id":"a"}]}`:  "list of models: 1001, over 1000",
		`{"data":[{"id":"` + strings.Repeat("n", 513) + `"}]}`:              `list of models: "` + strings.Repeat("n", 40) + `" is no name`,
		`{"data":[{"id":"a","parent":"` + strings.Repeat("n", 513) + `"}]}`: `list of models: "a" is no name`,
	} {
		_, err := readModels([]byte(text))
		require.EqualError(t, err, want)
	}
	for _, text := range []string{
		`{"data":[` + strings.Repeat(`{"id":"a"},`, 999) + `{"id":"a"}]}`,
		`{"data":[{"id":"` + strings.Repeat("n", 512) + `"}]}`,
		`{"data":[{"id":"a","parent":"` + strings.Repeat("n", 512) + `"}]}`,
	} {
		got, err := readModels([]byte(text))
		require.NoError(t, err, "at the bound")
		require.Equal(t, 1, len(got.Names)+len(got.Adapters))
	}
}

// The plan's TLS and token are what its replicas are scraped with; a plan that cannot work is refused at once.
func TestAccess(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, exposition("1", "2", "0.5"))
	}))
	defer server.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	require.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	access := http1.Access{TLS: &http1.TLS{CAFile: ca}, TokenFile: token}
	s, err := New(map[string]Plan{"p": {Engine: "vllm", Access: access}}, Options{Interval: interval, Timeout: 5 * time.Second})
	require.NoError(t, err)
	defer s.Close()
	s.SetTargets("p", targets(server.Listener.Addr().String()))
	<-s.Tried()
	require.True(t, only(t, s).Ready)

	access.TokenFile = filepath.Join(dir, "none")
	_, err = New(map[string]Plan{"p": {Engine: "vllm", Access: access}}, Options{})
	require.ErrorContains(t, err, "pool p: ")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestInsecureIsLogged(t *testing.T) {
	var log strings.Builder
	s, err := New(map[string]Plan{"p": {Engine: "vllm", Access: http1.Access{TLS: &http1.TLS{InsecureSkipVerify: true}}}},
		Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	s.Close()
	require.Contains(t, log.String(), "level=WARN msg=\"insecureSkipVerify is set:")
}

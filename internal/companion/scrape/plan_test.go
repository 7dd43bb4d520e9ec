package scrape

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

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

// authority makes certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a.key = key
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.write("ca.pem", "CERTIFICATE", a.sign(a.cert, &key.PublicKey))
	return a
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PublicKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key, a.key)
	require.NoError(a.t, err)
	return der
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	require.NoError(a.t, os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// issue writes name.pem and name-key.pem, a certificate for a host name or an IP address.
func (a *authority) issue(name, host string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	a.write(name+".pem", "CERTIFICATE", a.sign(c, &key.PublicKey))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	a.write(name+"-key.pem", "PRIVATE KEY", der)
	pair, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+"-key.pem"))
	require.NoError(a.t, err)
	return pair
}

// secured is a replica behind TLS that says what it was shown.
func secured(t *testing.T, config *tls.Config) (address string, seen func() string) {
	var mu sync.Mutex
	var authorization string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		authorization = r.Header.Get("Authorization")
		mu.Unlock()
		_, _ = io.WriteString(w, exposition("1", "2", "0.5"))
	}))
	server.TLS = config
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), func() string {
		mu.Lock()
		defer mu.Unlock()
		return authorization
	}
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	byIP, byName := ca.issue("ip", "127.0.0.1"), ca.issue("name", "replica.example")
	ca.issue("client", "companion")
	clients := x509.NewCertPool()
	clients.AddCert(func() *x509.Certificate {
		block, _ := pem.Decode(func() []byte { b, _ := os.ReadFile(ca.file("ca.pem")); return b }())
		c, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		return c
	}())
	plain := &tls.Config{Certificates: []tls.Certificate{byIP}}
	named := &tls.Config{Certificates: []tls.Certificate{byName}}
	mutual := &tls.Config{Certificates: []tls.Certificate{byIP}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	pem, key := ca.file("client.pem"), ca.file("client-key.pem")
	for name, c := range map[string]struct {
		server *tls.Config
		access TLS
		reason string // "": it works
	}{
		"authority":          {plain, TLS{CAFile: ca.file("ca.pem")}, ""},
		"verified":           {plain, TLS{}, "certificate signed by unknown authority"},
		"another authority":  {plain, TLS{CAFile: other.file("ca.pem")}, "certificate signed by unknown authority"},
		"a name":             {named, TLS{CAFile: ca.file("ca.pem"), ServerName: "replica.example"}, ""},
		"no name":            {named, TLS{CAFile: ca.file("ca.pem")}, "cannot validate certificate for 127.0.0.1"},
		"not verified":       {named, TLS{InsecureSkipVerify: true}, ""},
		"client certificate": {mutual, TLS{CAFile: ca.file("ca.pem"), CertFile: pem, KeyFile: key}, ""},
		"none":               {mutual, TLS{CAFile: ca.file("ca.pem")}, "certificate required"},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := secured(t, c.server)
			s, err := New(map[string]Plan{"p": {Engine: "vllm", Access: Access{TLS: &c.access}}}, Options{Interval: interval, Timeout: 5 * time.Second})
			require.NoError(t, err)
			defer s.Close()
			s.SetTargets("p", targets(address))
			<-s.Tried()
			s.mu.Lock()
			reason := s.pools["p"].members[address].poller.reason
			s.mu.Unlock()
			if c.reason == "" {
				require.Empty(t, reason)
				require.True(t, only(t, s).Ready)
			} else {
				require.Contains(t, reason, c.reason)
				require.False(t, only(t, s).Ready)
			}
		})
	}
}

// Certificates and tokens are renewed in place: a connection that begins later takes the new ones.
func TestRenewedFiles(t *testing.T) {
	ca := newAuthority(t)
	address, authorization := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("ip", "127.0.0.1")}})
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	access := Access{TLS: &TLS{CAFile: ca.file("ca.pem")}, TokenFile: file}
	s, err := New(map[string]Plan{"p": {Engine: "vllm", Access: access}}, Options{Interval: interval, Timeout: 5 * time.Second})
	require.NoError(t, err)
	defer s.Close()
	s.SetTargets("p", targets(address))
	<-s.Tried()
	require.Equal(t, "Bearer first", authorization())

	require.NoError(t, os.WriteFile(file, []byte("second"), 0o600))
	tk := &token{file: file, value: "Bearer first", read: time.Now()}
	got, err := tk.header()
	require.NoError(t, err)
	require.Equal(t, "Bearer first", got, "not read for every request")
	tk.read = time.Now().Add(-tokenTime)
	got, err = tk.header()
	require.NoError(t, err)
	require.Equal(t, "Bearer second", got)

	require.NoError(t, os.Remove(ca.file("ca.pem")))
	_, err = access.TLS.config()
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAccessCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	for name, c := range map[string]struct {
		access Access
		want   string
	}{
		"no such token":   {Access{TokenFile: filepath.Join(dir, "none")}, "no such file"},
		"an empty token":  {Access{TokenFile: write("empty", " \n")}, "empty: it is empty"},
		"two tokens":      {Access{TokenFile: write("two", "a\nb")}, "two: not a token: it has blanks or characters that are not ASCII"},
		"no such CA":      {Access{TLS: &TLS{CAFile: filepath.Join(dir, "none")}}, "no such file"},
		"a CA of nothing": {Access{TLS: &TLS{CAFile: write("ca", "x")}}, "ca: no certificate in it"},
		"a bad pair":      {Access{TLS: &TLS{CertFile: write("cert", "x"), KeyFile: write("key", "x")}}, "failed to find any PEM data"},
	} {
		_, err := New(map[string]Plan{"p": {Engine: "vllm", Access: c.access}}, Options{})
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "pool p: ")
	}
}

func TestInsecureIsLogged(t *testing.T) {
	var log strings.Builder
	s, err := New(map[string]Plan{"p": {Engine: "vllm", Access: Access{TLS: &TLS{InsecureSkipVerify: true}}}},
		Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	s.Close()
	require.Contains(t, log.String(), "level=WARN msg=\"insecureSkipVerify:")
}

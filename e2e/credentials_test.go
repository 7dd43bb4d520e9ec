package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// armorHost is Model Armor's host in the shipped clusters.
const armorHost = "modelarmor.us-central1.rep.googleapis.com"

// issuer stands for Google's metadata server, and for the token endpoint of a service account. Its tokens live for two seconds.
type issuer struct {
	*httptest.Server
	word string // in its tokens

	mu     sync.Mutex
	down   bool
	issued int
}

// newIssuer starts an issuer that does not respond with tokens yet.
func newIssuer(t *testing.T, word string) *issuer {
	i := &issuer{word: word, down: true}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) set(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// last is the last token that was issued.
func (i *issuer) last() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return fmt.Sprintf("Bearer %s-%d", i.word, i.issued)
}

// ServeHTTP issues a token.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	byMachine := r.Header.Get("metadata-flavor") == "Google" && r.URL.Path == "/computeMetadata/v1/instance/service-accounts/default/token"
	byKey := r.FormValue("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer" && strings.Count(r.FormValue("assertion"), ".") == 2
	if i.down || !byMachine && !byKey {
		http.Error(w, "no tokens", http.StatusServiceUnavailable)
		return
	}
	i.issued++
	w.Header().Set("content-type", "application/json")
	fmt.Fprintf(w, `{"access_token":"%s-%d","expires_in":2,"token_type":"Bearer"}`, i.word, i.issued)
}

// serviceAccount writes the key file of an account whose tokens come from the issuer.
func serviceAccount(t *testing.T, from *issuer) string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "inlet@p.iam.example", "private_key_id": "1", "token_uri": from.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

// providerServer is a provider over TLS, with a certificate of its own, and what arrived there.
type providerServer struct {
	*httptest.Server
	mu     sync.Mutex
	tokens []string
}

func (p *providerServer) arrived() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tokens
}

// startProvider starts a provider with a certificate for a host, and returns the certificate's PEM.
func startProvider(t *testing.T, host string) (*providerServer, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	p := &providerServer{}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.tokens = append(p.tokens, r.Header.Get("authorization"))
		_, _ = io.WriteString(w, fmt.Sprintf(`{"protocol":%q,"sni":%q}`, r.Proto, r.TLS.ServerName))
	}))
	p.EnableHTTP2 = true
	p.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that Envoy is right to end
	p.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// providerClusters are the shipped clusters of providers with other words in their text.
func providerClusters(t *testing.T, words ...string) *bootstrapv3.Bootstrap {
	t.Helper()
	b := &bootstrapv3.Bootstrap{}
	require.NoError(t, stack.UnmarshalYAML([]byte(providerText(t, words...)), b))
	return b
}

// providerText is the file of the shipped clusters with other words.
func providerText(t *testing.T, words ...string) string {
	t.Helper()
	text, err := os.ReadFile("../envoy/static/guardrail-providers.yaml")
	require.NoError(t, err)
	for i := 0; i+1 < len(words); i += 2 {
		require.Contains(t, string(text), words[i])
		text = bytes.ReplaceAll(text, []byte(words[i]), []byte(words[i+1]))
	}
	return string(text)
}

// providerSecrets writes the secrets of the shipped clusters into a folder.
func providerSecrets(t *testing.T, dir string) {
	for _, name := range []string{"google", "openai", "screening"} {
		secret := strings.ReplaceAll(providerSecret, "provider-key", name)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), []byte(secret), 0o600))
	}
}

// TestProviderClusters: Envoy accepts the shipped clusters of providers, if their secrets exist.
func TestProviderClusters(t *testing.T) {
	_, authority := startProvider(t, armorHost)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(ca, authority, 0o600))
	words := []string{"/run/inlet/secrets", dir, "/etc/ssl/certs/ca-certificates.crt", ca, "/etc/inlet/ca.pem", ca}
	b := providerClusters(t, words...)
	log, err := validate(t, b)
	require.Error(t, err)
	require.Contains(t, log, "google.json' does not exist", "as the file says")

	providerSecrets(t, dir)
	log, err = validate(t, b)
	require.NoError(t, err, log)
	require.NotContains(t, log, "deprecated")

	// A user of one cluster copies its lines and no others.
	before, clusters, _ := strings.Cut(providerText(t, words...), "  clusters:\n")
	const first = "    - name: "
	all := strings.Split(clusters, "\n"+first)[1:]
	require.Len(t, all, len(b.GetStaticResources().GetClusters()))
	for _, lines := range all {
		alone := &bootstrapv3.Bootstrap{}
		require.NoError(t, stack.UnmarshalYAML([]byte(before+"  clusters:\n"+first+lines), alone), lines)
		require.Len(t, alone.GetStaticResources().GetClusters(), 1)
		log, err := validate(t, alone)
		require.NoError(t, err, "%s\n%s", lines, log)
	}
}

// TestProvidersOnThisMachine: the clusters of services at localhost reach one that listens on IPv4 only.
func TestProvidersOnThisMachine(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-reply", r.Header.Get("x-probe-reply"))
	}))
	t.Cleanup(server.Close)
	address := server.Listener.Addr().(*net.TCPAddr)
	require.NotNil(t, address.IP.To4())
	var clusters []*clusterv3.Cluster
	for _, c := range providerClusters(t).GetStaticResources().GetClusters() {
		a := c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
		if a.GetAddress() == "localhost" {
			a.PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: uint32(address.Port)}
			clusters = append(clusters, c)
		}
	}
	require.Len(t, clusters, 3)
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Plugin: plugins[abi].probed, NoCompanion: true,
				Chain: "filters: [{bbr: {models: [{name: llama, targets: [{pool: llama}]}]}}, {probe: {needs: [request], timeout: 5s}}]",
				Pools: []stack.Pool{{Name: "llama", Addresses: []string{address.String()}}},
				Edit: func(b *bootstrapv3.Bootstrap) {
					b.StaticResources.Clusters = append(b.StaticResources.Clusters, clusters...)
				},
			})
			for _, c := range clusters {
				a := post(t.Context(), s, chatPath, smallChat, "x-probe-call", c.GetName())
				require.True(t, a.ok(), "%d %s %v", a.status, a.body, a.err)
				require.Equal(t, "200", a.header.Get("x-reply"), c.GetName())
			}
		})
	}
}

// credentials are a companion that keeps two tokens, their issuers, and providers.
type credentials struct {
	machine, account   *issuer
	companion          *process.Server
	log                string // of the companion
	provider, impostor *providerServer
	clusters           []*clusterv3.Cluster
}

// startCredentials starts them. No token is issued yet.
func startCredentials(t *testing.T) *credentials {
	dir := t.TempDir()
	ca, config := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "companion.yaml")
	c := &credentials{machine: newIssuer(t, "by-machine"), account: newIssuer(t, "by-key"), log: filepath.Join(dir, "companion.log")}
	var right, wrong []byte
	c.provider, right = startProvider(t, armorHost)
	c.impostor, wrong = startProvider(t, "modelarmor.example.com")
	require.NoError(t, os.WriteFile(ca, append(right, wrong...), 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `tokens:
  - {name: google, file: %[1]s/google.json, google: {metadata: true}}
  - {name: google-key, file: %[1]s/google-key.json, google: {keyFile: %[2]s}}
`, dir, serviceAccount(t, c.account)), 0o600))
	root, err := stack.Root()
	require.NoError(t, err)
	require.NoError(t, stack.Build(t.Context(), root, nil, stack.CompanionProgram))
	c.companion = &process.Server{
		Command: process.Command{
			Name: "companion", Path: stack.CompanionProgram.Path(root), Dir: dir, Log: c.log,
			Env: []string{"GCE_METADATA_HOST=" + c.machine.Listener.Addr().String()},
		},
		Arguments: func(address string) ([]string, error) { return []string{"--config", config, "--listen", address}, nil },
	}
	require.NoError(t, c.companion.Start(t.Context()))
	t.Cleanup(c.companion.Stop)

	words := []string{"/etc/ssl/certs/ca-certificates.crt", ca, "/etc/inlet/ca.pem", ca}
	byMachine := providerClusters(t, append(words, "/run/inlet/secrets", dir)...)
	byKey := providerClusters(t, append(words, "name: google #", "name: google-key #", "/run/inlet/secrets/google.json", dir+"/google-key.json", "/run/inlet/secrets", dir)...)
	add := func(b *bootstrapv3.Bootstrap, name string, p *providerServer) {
		cluster := b.GetStaticResources().GetClusters()[0]
		require.Equal(t, "model-armor", cluster.GetName())
		cluster.Name = name
		setEndpoints(cluster, p.Listener.Addr().String())
		c.clusters = append(c.clusters, cluster)
	}
	add(byMachine, "model-armor", c.provider)
	add(byKey, "by-key", c.provider)
	add(providerClusters(t, append(words, "/run/inlet/secrets", dir)...), "impostor", c.impostor)
	return c
}

// failed reports whether the companion has failed to renew both tokens since then.
func (c *credentials) failed(since int) (bool, int, error) {
	res, err := http.Get(c.companion.URL() + "/metrics")
	if err != nil {
		return false, 0, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return false, 0, err
	}
	least := 1 << 30
	for _, name := range []string{"google", "google-key"} {
		_, value, _ := strings.Cut(string(text), `inlet_companion_token_renewals_total{result="failed",token="`+name+`"} `)
		var n int
		if _, err := fmt.Sscan(value, &n); err != nil {
			return false, 0, err
		}
		least = min(least, n)
	}
	return least > since, least, nil
}

// TestProviderCredentials: a filter's call gets the companion's token from its cluster, over TLS to the right host only. A new token needs
// no restart; without a token no call leaves Envoy; while none is issued the old one stays.
func TestProviderCredentials(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("x-reply", r.Header.Get("x-probe-reply"))
			}))
			t.Cleanup(replica.Close)
			c := startCredentials(t)
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Plugin: plugins[abi].probed, NoCompanion: true,
				Chain: "filters: [{bbr: {models: [{name: llama, targets: [{pool: llama}]}]}}, {probe: {needs: [request], timeout: 5s}}]",
				Pools: []stack.Pool{{Name: "llama", Addresses: []string{replica.Listener.Addr().String()}}},
				Edit: func(b *bootstrapv3.Bootstrap) {
					b.StaticResources.Clusters = append(b.StaticResources.Clusters, c.clusters...)
				},
			})
			// call has a filter call a cluster, and returns what the filter got as reply.
			call := func(cluster string) string {
				a := post(t.Context(), s, chatPath, smallChat, "x-probe-call", cluster)
				require.True(t, a.ok(), "%d %s %v", a.status, a.body, a.err)
				return a.header.Get("x-reply")
			}
			issuers := map[string]*issuer{"model-armor": c.machine, "by-key": c.account}

			for cluster := range issuers {
				require.Equal(t, "failed", call(cluster), "Envoy sends nothing without a token")
			}
			require.Empty(t, c.provider.arrived())

			// Started again, the companion asks for tokens at once: its next attempt may be half a minute away, so long does a wasm VM take to start.
			c.companion.Stop()
			c.machine.set(false)
			c.account.set(false)
			require.NoError(t, c.companion.Start(t.Context()))
			for cluster, from := range issuers {
				seen := map[string]bool{}
				eventually(t, "three tokens one after the other", func() (bool, error) {
					if reply := call(cluster); reply != "200" {
						require.Equal(t, "failed", reply)
						require.Empty(t, seen, "once there is a token there is one")
						return false, nil
					}
					arrived := c.provider.arrived()
					seen[arrived[len(arrived)-1]] = true
					return len(seen) == 3, nil
				})
				for token := range seen {
					require.True(t, strings.HasPrefix(token, "Bearer "+from.word+"-"), token)
				}
			}

			c.machine.set(true)
			c.account.set(true)
			_, before, err := c.failed(0)
			require.NoError(t, err)
			eventually(t, "no token can be renewed", func() (bool, error) {
				failed, _, err := c.failed(before)
				return failed, err
			})
			for cluster, from := range issuers {
				eventually(t, "the last token arrives, though nobody renews it", func() (bool, error) {
					require.Equal(t, "200", call(cluster))
					arrived := c.provider.arrived()
					return arrived[len(arrived)-1] == from.last(), nil
				})
			}
			c.companion.Stop()
			require.Equal(t, "200", call("by-key"), "the companion is not in the way of a call")

			require.Equal(t, "failed", call("impostor"), "its certificate is for another host")
			require.Empty(t, c.impostor.arrived())
			res, err := http.Get(s.AdminURL() + "/stats?filter=impostor.ssl.fail_verify_san")
			require.NoError(t, err)
			stats, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, "cluster.impostor.ssl.fail_verify_san: 1\n", string(stats))

			text, err := os.ReadFile(c.log)
			require.NoError(t, err)
			require.Contains(t, string(text), "cannot renew the token")
			for _, from := range issuers {
				require.NotContains(t, string(text), from.word+"-", "the companion logs no token")
				require.NotContains(t, s.Logs(), from.word+"-")
			}
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

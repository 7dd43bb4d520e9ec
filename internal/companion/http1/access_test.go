package http1

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
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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

// secured is a server behind TLS whose responses contain the Authorization header that it received.
func secured(t *testing.T, config *tls.Config) (address string) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	server.TLS = config
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// get sends one request by a client of its own.
func get(t *testing.T, o Options) (body string, err error) {
	c := New(t.Context(), o)
	defer c.Close()
	var b strings.Builder
	err = c.Get("/metrics", time.Now().Add(time.Minute), &b)
	return b.String(), err
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	byIP, byName := ca.issue("ip", "127.0.0.1"), ca.issue("name", "replica.example")
	ca.issue("client", "companion")
	clients := x509.NewCertPool()
	authority, err := os.ReadFile(ca.file("ca.pem"))
	require.NoError(t, err)
	require.True(t, clients.AppendCertsFromPEM(authority))
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
			_, err := get(t, Options{Address: secured(t, c.server), Access: &Access{TLS: &c.access}})
			if c.reason == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.reason)
			}
		})
	}
}

// Certificates and tokens are renewed in place: a later connection takes the new certificate, a later request the new token.
func TestRenewedFiles(t *testing.T) {
	ca := newAuthority(t)
	address := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("ip", "127.0.0.1")}})
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	access := Access{TLS: &TLS{CAFile: ca.file("ca.pem")}, TokenFile: file}
	token := access.Token()
	seen := func() string {
		body, err := get(t, Options{Address: address, Access: &access, Token: token})
		require.NoError(t, err)
		return body
	}
	require.Equal(t, "Bearer first", seen())
	require.NoError(t, os.WriteFile(file, []byte("second"), 0o600))
	require.Equal(t, "Bearer first", seen(), "the file is not read for every request")
	token.read = token.read.Add(-tokenTime)
	require.Equal(t, "Bearer second", seen())

	require.NoError(t, os.Remove(file))
	token.read = token.read.Add(-tokenTime)
	_, err := get(t, Options{Address: address, Access: &access, Token: token})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.Remove(ca.file("ca.pem")))
	_, err = get(t, Options{Address: address, Access: &access})
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
		"an empty token":  {Access{TokenFile: write("empty", " \n")}, "empty: the token file is empty"},
		"two tokens":      {Access{TokenFile: write("two", "a\nb")}, "two: not a bearer token: it contains white space or non-ASCII characters"},
		"no such CA":      {Access{TLS: &TLS{CAFile: filepath.Join(dir, "none")}}, "no such file"},
		"a CA of nothing": {Access{TLS: &TLS{CAFile: write("ca", "x")}}, "ca: contains no certificate"},
		"a bad pair":      {Access{TLS: &TLS{CertFile: write("cert", "x"), KeyFile: write("key", "x")}}, "failed to find any PEM data"},
	} {
		require.ErrorContains(t, c.access.Check(), c.want, name)
	}
	require.NoError(t, Access{}.Check())
	require.NoError(t, Access{TLS: new(TLS), TokenFile: write("token", "one\n")}.Check())
	require.Nil(t, Access{}.Token())
}

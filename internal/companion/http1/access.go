package http1

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// Access is how servers are reached. The zero value is plain HTTP without credentials.
type Access struct {
	TLS       *TLS   // nil: plain HTTP
	TokenFile string // of a bearer token, sent with every request; "" for none
}

// TLS is how connections are secured. Certificates are verified unless InsecureSkipVerify is set.
type TLS struct {
	CAFile             string // PEM; "" for the system's certificate authorities
	CertFile, KeyFile  string // PEM, of the client certificate; "" for none
	ServerName         string // that the servers' certificates are for; "" for their IP address
	InsecureSkipVerify bool
}

// Check reads all files once, so that a wrong path is an error at startup and not a series of failed requests.
func (a Access) Check() error {
	var errs []error
	if a.TLS != nil {
		_, err := a.TLS.Config()
		errs = append(errs, err)
	}
	if a.TokenFile != "" {
		_, err := ReadToken(a.TokenFile)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Token returns the bearer token for any number of clients, nil if there is none.
func (a Access) Token() *Token {
	if a.TokenFile == "" {
		return nil
	}
	return &Token{file: a.TokenFile}
}

// Config reads the files again for each connection, so that a renewed certificate needs no restart.
func (t *TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: contains no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", t.CertFile, t.KeyFile, err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// connect opens a connection, and secures it if so configured.
func (a *Access) connect(ctx context.Context, dial DialFunc, address string) (net.Conn, error) {
	conn, err := dial(ctx, "tcp", address)
	if err != nil || a.TLS == nil {
		return conn, err
	}
	config, err := a.TLS.Config()
	if err == nil && config.ServerName == "" {
		config.ServerName, _, err = net.SplitHostPort(address)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// tokenTime is how long a token is used before its file is read again: Kubernetes renews tokens in place.
const tokenTime = 10 * time.Second

// Token is a bearer token in a file. Its methods are safe for concurrent use.
type Token struct {
	file string

	mu    sync.Mutex
	value string
	read  time.Time
}

// header returns the value of the Authorization header.
func (t *Token) header() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value != "" && time.Since(t.read) < tokenTime {
		return t.value, nil
	}
	text, err := ReadToken(t.file)
	if err != nil {
		return "", err
	}
	t.value, t.read = "Bearer "+text, time.Now()
	return t.value, nil
}

// ReadToken reads the bearer token in a file.
func ReadToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return "", fmt.Errorf("%s: the token file is empty", file)
	}
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("%s: not a bearer token: it contains white space or non-ASCII characters", file)
		}
	}
	return string(text), nil
}

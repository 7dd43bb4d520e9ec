package scrape

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

// Access is how replicas are reached. The zero value is plain HTTP.
type Access struct {
	TLS       *TLS   // nil: plain HTTP
	TokenFile string // of a bearer token, sent with every request; "" for none
}

// TLS says how connections are secured. Certificates are verified unless that is switched off in so many words.
type TLS struct {
	CAFile             string // PEM; "" for the system's authorities
	CertFile, KeyFile  string // PEM, of the certificate that is shown to the replicas; "" for none
	ServerName         string // that their certificates are for; "" for their IP address
	InsecureSkipVerify bool
}

// Check reads all files once, so that a wrong path is told at once and not as many failed scrapes.
func (a Access) Check() error {
	var errs []error
	if a.TLS != nil {
		_, err := a.TLS.config()
		errs = append(errs, err)
	}
	if a.TokenFile != "" {
		_, err := readToken(a.TokenFile)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// config reads the files anew, so that a certificate that was renewed needs no restart.
func (t *TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", t.CAFile)
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

// connect opens a connection to a replica, and secures it if that is asked for.
func (a *Access) connect(ctx context.Context, dial dialFunc, address string) (net.Conn, error) {
	conn, err := dial(ctx, "tcp", address)
	if err != nil || a.TLS == nil {
		return conn, err
	}
	config, err := a.TLS.config()
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

// tokenTime is for how long a token is used before its file is read again: Kubernetes renews them in place.
const tokenTime = 10 * time.Second

// token is a bearer token in a file. Its methods are safe for concurrent use.
type token struct {
	file string

	mu    sync.Mutex
	value string
	read  time.Time
}

// header returns the value of the Authorization header.
func (t *token) header() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value != "" && time.Since(t.read) < tokenTime {
		return t.value, nil
	}
	text, err := readToken(t.file)
	if err != nil {
		return "", err
	}
	t.value, t.read = "Bearer "+text, time.Now()
	return t.value, nil
}

func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return "", fmt.Errorf("%s: it is empty", file)
	}
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("%s: not a token: it has blanks or characters that are not ASCII", file)
		}
	}
	return string(text), nil
}

package golang

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Limits of the calls to one cluster. The first is that of Envoy's own clusters.
const (
	maxCalls = 1024
	maxIdle  = 64
	idleTime = time.Minute
	maxReply = 16 << 20 // bytes of a body
)

// cluster is a service that the document names. The contrib filter makes no calls, so the
// plugin does, over connections of its own: Envoy's cluster of that name is not asked.
type cluster struct {
	base   *url.URL
	client http.Client
	open   atomic.Int64 // calls
}

// readCluster reads a URL, or an object that says more.
func readCluster(v *conf.Value) *cluster {
	c := &cluster{base: &url.URL{}}
	var address, ca string
	v.Either(func(o *conf.Object) {
		o.Required("url")
		o.String("url", &address, isURL)
		o.String("ca", &ca, conf.NotEmpty)
	}, func(v *conf.Value) { v.String(&address, isURL) })
	if u, err := url.Parse(address); err == nil {
		c.base = u
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		if err := trust(secure, ca); err != nil {
			v.Errorf("%v", err)
		}
	}
	c.client = http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // no proxy of the environment: Envoy knows of none either
			TLSClientConfig: secure, ForceAttemptHTTP2: true, DisableCompression: true,
			MaxIdleConnsPerHost: maxIdle, MaxConnsPerHost: maxCalls, IdleConnTimeout: idleTime,
		},
	}
	return c
}

// isURL accepts http://host:port and https://host:port.
func isURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "is not a URL such as http://127.0.0.1:9002: scheme, host and port, no path"
	}
	return ""
}

// trust has servers checked against the certificates in a file instead of the system's.
func trust(c *tls.Config, file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("its ca cannot be read: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("its ca, %s, has no certificate in PEM", file)
	}
	return nil
}

// call starts a call; done runs with its reply on a goroutine, also when ctx is over. Nothing of what is given is used after
// the return. An error means that done will not run.
func (c *cluster) call(ctx context.Context, headers [][2]string, body []byte, timeout time.Duration, done func(filter.Reply)) error {
	if c.open.Add(1) > maxCalls {
		c.open.Add(-1)
		return filter.ErrNotStarted
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	req, err := c.request(ctx, headers, body)
	if err != nil {
		cancel()
		c.open.Add(-1)
		return filter.ErrNotStarted
	}
	go func() {
		r := c.reply(req)
		cancel()
		c.open.Add(-1)
		done(r)
	}()
	return nil
}

// request makes a request of headers, pseudo headers first.
func (c *cluster) request(ctx context.Context, headers [][2]string, body []byte) (*http.Request, error) {
	method, path := headers[0][1], headers[1][1]
	req, err := http.NewRequestWithContext(ctx, strings.Clone(method), c.base.Scheme+"://"+c.base.Host+path, bytes.NewReader(bytes.Clone(body)))
	if err != nil {
		return nil, err
	}
	req.Host = strings.Clone(headers[2][1])
	req.Header.Set("User-Agent", "inlet")
	for _, h := range headers[3:] {
		req.Header.Set(h[0], "") // one that stands above
	}
	for _, h := range headers[3:] {
		if req.Header.Get(h[0]) == "" {
			req.Header.Set(h[0], strings.Clone(h[1]))
		} else {
			req.Header.Add(h[0], strings.Clone(h[1]))
		}
	}
	return req, nil
}

// reply makes the call.
func (c *cluster) reply(req *http.Request) (r filter.Reply) {
	defer func() {
		if p := recover(); p != nil {
			r = filter.Reply{Err: errors.New(native.Describe(p))}
		}
	}()
	res, err := c.client.Do(req)
	if err != nil {
		var around *url.Error
		if errors.As(err, &around) {
			err = around.Err // it would tell the address
		}
		return filter.Reply{Err: fmt.Errorf("no reply: %w", err)}
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	switch {
	case err != nil:
		return filter.Reply{Err: chain.ErrReset}
	case len(body) > maxReply:
		return filter.Reply{Err: filter.ErrTooLong}
	}
	return filter.Reply{Status: res.StatusCode, Body: body}
}

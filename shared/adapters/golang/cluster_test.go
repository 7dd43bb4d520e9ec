package golang

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// service is a server, and the cluster that leads to it.
func service(t *testing.T, serve http.HandlerFunc) *cluster {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return clusterAt(t, s.URL)
}

func clusterAt(t *testing.T, what any) *cluster {
	t.Helper()
	set, err := readSettings(message(t, policyOnly, map[string]any{"a": what}))
	require.NoError(t, err)
	t.Cleanup(set.clusters["a"].client.CloseIdleConnections)
	return set.clusters["a"]
}

// ask makes a call and waits for its reply.
func ask(t *testing.T, c *cluster, call filter.Call) filter.Reply {
	t.Helper()
	if call.Timeout == 0 {
		call.Timeout = 10 * time.Second
	}
	replies := make(chan filter.Reply, 1)
	require.NoError(t, c.call(t.Context(), chain.CallHeaders(&call), call.Body, call.Timeout, func(r filter.Reply) { replies <- r }))
	return <-replies
}

func TestCallsArriveAsTheyAre(t *testing.T) {
	var got *http.Request
	var body []byte
	c := service(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short")
	})
	r := ask(t, c, filter.Call{
		Cluster: "a", Host: "armor.example", Path: "/v1/x?y=%2F", Body: []byte("{}"),
		Headers: [][2]string{{"content-type", "application/json"}, {"x-two", "1"}, {"x-two", "2"}},
	})
	require.Equal(t, filter.Reply{Status: http.StatusTeapot, Body: []byte("short")}, r)
	require.Equal(t, "POST", got.Method)
	require.Equal(t, "/v1/x?y=%2F", got.RequestURI)
	require.Equal(t, "armor.example", got.Host)
	require.Equal(t, []string{"1", "2"}, got.Header["X-Two"])
	require.Equal(t, []string{"application/json"}, got.Header["Content-Type"])
	require.Equal(t, "{}", string(body))
	require.Empty(t, got.Header["Accept-Encoding"])
	require.Zero(t, c.open.Load())
}

func TestRepliesThatAreNone(t *testing.T) {
	t.Run("timeout", func(t *testing.T) {
		c := service(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		r := ask(t, c, filter.Call{Path: "/", Timeout: 10 * time.Millisecond})
		require.ErrorIs(t, r.Err, context.DeadlineExceeded)
		require.NotContains(t, r.Err.Error(), "127.0.0.1", "the address stays here")
	})
	t.Run("broken", func(t *testing.T) {
		c := service(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-length", "9")
			_, _ = io.WriteString(w, "x")
		})
		require.ErrorIs(t, ask(t, c, filter.Call{Path: "/"}).Err, chain.ErrReset)
	})
	t.Run("too long", func(t *testing.T) {
		c := service(t, func(w http.ResponseWriter, _ *http.Request) {
			for range maxReply>>20 + 1 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
			}
		})
		require.ErrorIs(t, ask(t, c, filter.Call{Path: "/"}).Err, filter.ErrTooLong)
	})
	t.Run("nobody", func(t *testing.T) {
		require.ErrorContains(t, ask(t, clusterAt(t, "http://127.0.0.1:1"), filter.Call{Path: "/"}).Err, "no reply: ")
	})
	t.Run("a redirect is a reply", func(t *testing.T) {
		c := service(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
		require.Equal(t, http.StatusFound, ask(t, c, filter.Call{Path: "/"}).Status)
	})
}

// More calls than the limit are not started, and neither is one that is none.
func TestCallsThatAreNotStarted(t *testing.T) {
	c := clusterAt(t, "http://127.0.0.1:1")
	c.open.Store(maxCalls)
	headers := chain.CallHeaders(&filter.Call{Path: "/"})
	require.ErrorIs(t, c.call(t.Context(), headers, nil, time.Second, nil), filter.ErrNotStarted)
	require.EqualValues(t, maxCalls, c.open.Load())
	c.open.Store(0)
	require.ErrorIs(t, c.call(t.Context(), [][2]string{{":method", "A B"}, {":path", "/"}, {":authority", "a"}}, nil, time.Second, nil), filter.ErrNotStarted)
	require.Zero(t, c.open.Load())
}

// A server with a certificate is trusted by the file that says so, and only by that.
func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	require.Equal(t, http.StatusNoContent, ask(t, clusterAt(t, map[string]any{"url": s.URL, "ca": file}), filter.Call{Path: "/"}).Status)
	require.ErrorContains(t, ask(t, clusterAt(t, s.URL), filter.Call{Path: "/"}).Err, "certificate")
}

func TestClustersThatAreNone(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, what := range []any{
		"", "a:80", "ftp://a", "http://", "http://a/b", "http://a?b", "http://a#b", "http://u:p@a", "%", 7.0,
		[]any{"http://a"},
		map[string]any{},
		map[string]any{"ca": "x"},
		map[string]any{"url": "http://a", "other": "x"},
		map[string]any{"url": "https://a", "ca": empty},
	} {
		_, err := readSettings(message(t, policyOnly, map[string]any{"a": what}))
		require.Error(t, err, "%v", what)
		require.ErrorContains(t, err, "clusters.a", "%v", what)
	}
	for _, what := range []any{"http://a", "http://a/", "https://a:443", "http://[::1]:80"} {
		_, err := readSettings(message(t, policyOnly, map[string]any{"a": what}))
		require.NoError(t, err)
	}
}

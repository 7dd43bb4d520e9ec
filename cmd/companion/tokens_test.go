package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// metadataServer stands for Google's metadata server. While it is closed, it holds requests.
func metadataServer(t *testing.T) (open func(), status *atomic.Int64) {
	status = new(atomic.Int64)
	status.Store(http.StatusOK)
	gate := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, `{"access_token":"ya29.c.secret","expires_in":3599,"token_type":"Bearer"}`)
	}))
	t.Cleanup(s.Close)
	t.Setenv("GCE_METADATA_HOST", s.Listener.Addr().String())
	return func() { close(gate) }, status
}

// tokenConfig writes a configuration with a token and nothing else, and returns it and the token's file.
func tokenConfig(t *testing.T, google string) (config, file string) {
	dir := t.TempDir()
	config, file = filepath.Join(dir, "companion.yaml"), filepath.Join(dir, "google.json")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "tokens: [{name: google, file: %q, google: %s}]\n", file, google), 0o600))
	return config, file
}

// The file is there before the ports, ready means that the token was asked for, and the metrics tell how old it is.
func TestTokens(t *testing.T) {
	open, _ := metadataServer(t)
	config, file := tokenConfig(t, "{metadata: true}")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	var log bytes.Buffer
	cmd := command()
	cmd.SetOut(write)
	cmd.SetErr(&log)
	cmd.SetArgs([]string{"--config", config, "--listen", "127.0.0.1:0"})
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	line, err := bufio.NewReader(read).ReadString('\n')
	require.NoError(t, err)
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "companion listening on ")
	require.True(t, ok, line)
	c := &companion{t: t, url: "http://" + address}

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), `"inline_string": ""`)
	require.Eventually(t, func() bool {
		_, body := c.get("/readyz")
		return body == "not ready\ntoken google: no response yet\n"
	}, 20*time.Second, time.Millisecond)
	open()
	require.Eventually(t, func() bool {
		status, _ := c.get("/readyz")
		return status == http.StatusOK
	}, 20*time.Second, time.Millisecond)
	text, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), `"inline_string": "Bearer ya29.c.secret"`)

	_, body := c.get("/metrics")
	require.Contains(t, body, `inlet_companion_token_renewals_total{result="renewed",token="google"} 1`+"\n")
	require.Contains(t, body, `inlet_companion_token_renewals_total{result="failed",token="google"} 0`+"\n")
	require.Contains(t, body, `inlet_companion_token_age_seconds{token="google"} `)
	require.Regexp(t, `\ninlet_companion_token_expiry_seconds\{token="google"\} 35[0-9][0-9]\.`, body)
	cancel()
	require.NoError(t, <-done)
	require.Contains(t, log.String(), `msg="renewed the token" token=google`)
	require.NotContains(t, log.String(), "ya29")
}

func TestCheckOfTokens(t *testing.T) {
	open, status := metadataServer(t)
	open()
	config, file := tokenConfig(t, "{metadata: true}")
	out, _, err := execute(t.Context(), "--config", config, "--check")
	require.NoError(t, err)
	require.Equal(t, "token google: expires in 1h0m0s\n", out)
	require.NoFileExists(t, file)

	status.Store(http.StatusForbidden)
	_, _, err = execute(t.Context(), "--config", config, "--check")
	require.EqualError(t, err, "token google: the metadata server responded with status 403")

	config, _ = tokenConfig(t, "{keyFile: missing.json}")
	_, _, err = execute(t.Context(), "--config", config, "--check")
	require.EqualError(t, err, "token google: open missing.json: no such file or directory")
}

// Without the folder Envoy would find no file: that is an error at the start, not a failure in the log.
func TestTokenWithoutAFolder(t *testing.T) {
	config, file := tokenConfig(t, "{metadata: true}")
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, bytes.ReplaceAll(text, []byte(file), []byte(file+".d/google.json")), 0o600))
	_, _, err = execute(t.Context(), "--config", config, "--listen", "127.0.0.1:0")
	require.ErrorContains(t, err, "token google: cannot write the file of the secret: ")
}

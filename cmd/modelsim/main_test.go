package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestServeAndDrain: the command prints its address, serves, and finishes a stream in flight when it gets the signal to
// stop.
func TestServeAndDrain(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stdout, stdoutWriter := io.Pipe()
	var stderr bytes.Buffer
	cmd := command()
	cmd.SetArgs([]string{"--listen", "127.0.0.1:0", "--name", "a1", "--overhead", "0", "--token-time", "5ms", "--log-format", "json"})
	cmd.SetOut(stdoutWriter)
	cmd.SetErr(&stderr)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()

	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Regexp(t, regexp.MustCompile(`^modelsim a1 listening on 127\.0\.0\.1:\d+\n$`), line)
	url := "http://" + strings.Fields(line)[4]

	res, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"x","stream":true,"max_tokens":20}`))
	require.NoError(t, err)
	defer res.Body.Close()
	stop()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(answer), "data: [DONE]")
	require.NoError(t, <-ended)
	require.Contains(t, stderr.String(), `"msg":"draining","replica":"a1"`)
}

// TestDrainLimit: requests that take too long are cut, and the error says so.
func TestDrainLimit(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stdout, stdoutWriter := io.Pipe()
	cmd := command()
	cmd.SetArgs([]string{"--listen", "127.0.0.1:0", "--context-time", "1h", "--drain", "1ms"})
	cmd.SetOut(stdoutWriter)
	cmd.SetErr(io.Discard)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)

	res, err := http.Post("http://"+strings.Fields(line)[4]+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"`+strings.Repeat("x", 4000)+`","stream":true}`))
	require.NoError(t, err)
	defer res.Body.Close()
	stop()
	require.EqualError(t, <-ended, "requests were cut off after 1ms: context deadline exceeded")
	_, err = io.ReadAll(res.Body)
	require.Error(t, err)
}

func TestFlagsRefused(t *testing.T) {
	for args, want := range map[string]string{
		"--speed -1":         "speed is -1, must be 0 or more",
		"--kv-blocks 0":      "--kv-blocks must be at least 1",
		"--engines 0":        "--engines must be at least 1",
		"--dialect tgi":      `dialect "tgi" is not one of [vllm sglang trtllm triton jetstream]`,
		"--log-level loud":   `log level: slog: level string "loud": unknown name`,
		"--log-format xml":   `log format "xml": must be text or json`,
		"--fault explode":    `fault "explode": unknown fault`,
		"--listen 127.0.0.1": "listen tcp: address 127.0.0.1: missing port in address",
		"extra":              `unknown command "extra" for "modelsim"`,
	} {
		cmd := command()
		cmd.SetArgs(strings.Fields(args))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		require.EqualError(t, cmd.ExecuteContext(t.Context()), want, args)
	}
}

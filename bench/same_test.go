package main

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/bench/upstream"
)

// TestSameJob sends the same requests through both builds and through the ext_proc server with the same chain, and
// expects the same to arrive at the replica and at the client: only then can their costs be compared.
func TestSameJob(t *testing.T) {
	names := []string{"wasm", "module", "extproc"}
	wanted := []spec{}
	for _, s := range specs {
		if slices.Contains(names, s.name) {
			wanted = append(wanted, s)
		}
	}
	b, err := start(t.Context(), wanted, size{workers: 1, replicas: 4})
	require.NoError(t, err)
	t.Cleanup(b.close)
	for i := range cases {
		for _, m := range b.modes {
			if cases[i].events <= 200 {
				_, err := b.check(t.Context(), m, &cases[i])
				require.NoError(t, err, "%s %s", cases[i].name, m.name)
			}
		}
	}

	body := func(model, prompt string) []byte {
		return []byte(`{"messages":[{"role":"user","content":"` + prompt + `"}],"n": 9007199254740993, "model": "` + model + `"}`)
	}
	asks := []struct {
		name    string
		method  string
		path    string
		body    []byte
		headers map[string]string
		status  int
	}{
		{name: "chat", body: body(upstream.Model, "hello"), status: 200},
		{name: "renamed", body: body("assistant", "hello"), status: 200},
		{name: "renamed and large", body: body("assistant", strings.Repeat("word ", 100_000)), status: 200},
		{name: "streamed", body: body("assistant", "hello"), headers: map[string]string{upstream.Events: "5"}, status: 200},
		{name: "forged headers", body: body(upstream.Model, "hello"), headers: map[string]string{"x-gateway-model-name": "forged", "accept-encoding": "gzip"}, status: 200},
		{name: "compressed", body: compressed(t, body("assistant", "hello")), headers: map[string]string{"content-encoding": "gzip"}, status: 200},
		{name: "no key", body: body(upstream.Model, "hello"), headers: map[string]string{"x-api-key": "other"}, status: 401},
		{name: "unknown model", body: body("nobody", "hello"), status: 404},
		{name: "what no prompt may hold", body: body(upstream.Model, "the launch code"), status: 400},
		{name: "not JSON", body: []byte(`{"model"`), status: 400},
		{name: "list of models", method: http.MethodGet, path: "/v1/models", status: 200},
		{name: "unknown path", path: "/v1/other", body: []byte(`{}`), status: 404},
	}
	for _, ask := range asks {
		t.Run(ask.name, func(t *testing.T) {
			if ask.method == "" {
				ask.method = http.MethodPost
			}
			if ask.path == "" {
				ask.path = "/v1/chat/completions"
			}
			headers := map[string]string{"x-api-key": key}
			for name, value := range ask.headers {
				headers[name] = value
			}
			var first *outcome
			for _, m := range b.modes {
				o, err := b.send(t.Context(), m, ask.method, ask.path, ask.body, headers)
				require.NoError(t, err)
				if first == nil {
					first = o
					require.Equal(t, ask.status, o.status, "%s", o.body)
					continue
				}
				require.Equal(t, first.status, o.status, m.name)
				require.Equal(t, string(first.body), string(o.body), m.name)
				for _, name := range []string{"Content-Type", "X-Inlet-Reason", "Retry-After"} {
					require.Equal(t, first.header.Get(name), o.header.Get(name), "%s of %s", name, m.name)
				}
				if first.arrived == nil {
					require.Nil(t, o.arrived, m.name)
					continue
				}
				require.NotNil(t, o.arrived, m.name)
				require.Equal(t, headersOf(first.arrived.Header), headersOf(o.arrived.Header), m.name)
				require.Equal(t, string(first.arrived.Body), string(o.arrived.Body), m.name)
			}
		})
	}
}

func compressed(t *testing.T, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(body)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

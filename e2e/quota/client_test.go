package quota_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// fresh sends each request on a new connection, so that all workers get some.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// post sends a body with the headers given as names and values.
func post(ctx context.Context, client *http.Client, url, body string, headers ...string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("content-type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return send(client, req)
}

// send sends a request and reads the whole response.
func send(client *http.Client, req *http.Request) (*answer, error) {
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return &answer{res.StatusCode, res.Header, string(text)}, err
}

// must is post for a test that expects a response.
func must(t *testing.T, url, body string, headers ...string) *answer {
	t.Helper()
	a, err := post(t.Context(), fresh, url, body, headers...)
	require.NoError(t, err)
	return a
}

const (
	chatPath = "/v1/chat/completions"
	chat     = `{"model":"llama","messages":[{"role":"user","content":"hello"}],"max_tokens":4}`
)

// recorder is a replica that keeps what it got.
type recorder struct {
	server *httptest.Server
	mu     sync.Mutex
	got    []recorded
}

// recorded is one request as the replica got it.
type recorded struct{ head, body string }

func newRecorder(t *testing.T) *recorder {
	r := &recorder{}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *recorder) address() string { return r.server.Listener.Addr().String() }

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var head bytes.Buffer
	head.WriteString(req.Method + " " + req.RequestURI + "\n")
	_ = req.Header.Write(&head) // into memory
	body, _ := io.ReadAll(req.Body)
	if req.Method == http.MethodPost {
		r.mu.Lock()
		r.got = append(r.got, recorded{head.String(), string(body)})
		r.mu.Unlock()
	}
	w.Header().Set("content-type", "application/json")
	_, _ = io.WriteString(w, `{"object":"chat.completion","model":"seen","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}`)
}

// take returns what arrived since the last call.
func (r *recorder) take() []recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := slices.Clone(r.got)
	r.got = nil
	return got
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, ask func() (bool, error)) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); ; <-again.C {
		ok, err := ask()
		if ok && err == nil {
			return
		}
		if time.Now().After(end) {
			require.FailNow(t, "did not happen: "+what, "%v", err)
		}
	}
}

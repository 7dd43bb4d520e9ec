package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	chatPath = "/v1/chat/completions"
	picked   = "x-gateway-destination-endpoint"
)

// gateway is an Envoy with the shipped configuration, the companion, and a replica of this process.
type gateway struct {
	stack   *stack.Stack
	replica *httptest.Server

	mu      sync.Mutex
	current *testCase
	arrived []byte // body of the last request
	picked  string // replica that Inlet picked for it
}

func startGateway(ctx context.Context, envoy string, r row) (*gateway, error) {
	g := &gateway{}
	g.replica = httptest.NewServer(g)
	var err error
	g.stack, err = stack.Start(ctx, stack.Options{
		ABI: r.abi, Envoy: envoy, Progress: os.Stderr, Edit: r.edit,
		Pools: []stack.Pool{{Name: "llama"}, {Name: "gemma"}},
	})
	if err == nil {
		err = g.ready(ctx)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *gateway) close() {
	if g.stack != nil {
		g.stack.Close()
	}
	g.replica.Close()
}

// ready puts the replica into both pools, and waits until Inlet picks it in each.
func (g *gateway) ready(ctx context.Context) error {
	cases := casesOf(1000)
	for _, pool := range []string{"llama", "gemma"} {
		if err := g.stack.SetEndpoints(pool, g.replica.Listener.Addr().String()); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// Both workers must know it, and a random one handles each request.
	var last error
	for inRow := 0; inRow < 20; {
		err := g.exchange(ctx, cases[inRow%len(cases)])
		if inRow++; err != nil {
			inRow = 0
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not ready: %w", last)
		}
		last = err
	}
	return nil
}

// idle are the metrics of a replica that has nothing to do.
const idle = `vllm:num_requests_running{model_name="any"} 0.0
vllm:num_requests_waiting{model_name="any"} 0.0
vllm:kv_cache_usage_perc{model_name="any"} 0.0
`

// ServeHTTP is the replica.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/metrics":
		w.Header().Set("content-type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, idle)
	case chatPath:
		g.chat(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (g *gateway) chat(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the gateway has gone
	}
	g.mu.Lock()
	g.arrived, g.picked = body, r.Header.Get(picked)
	c := g.current
	g.mu.Unlock()
	if !c.stream {
		w.Header().Set("content-type", "application/json")
		w.Header().Set("content-length", strconv.Itoa(len(c.response)))
		_, _ = w.Write(c.response)
		return
	}
	w.Header().Set("content-type", "text/event-stream")
	for event := range bytes.SplitAfterSeq(c.response, []byte("\n\n")) {
		_, _ = w.Write(event)
		_ = http.NewResponseController(w).Flush()
	}
}

// exchange plays a case and returns what differs. Each uses its own connection, so that the kernel chooses a worker.
func (g *gateway) exchange(ctx context.Context, c *testCase) error {
	g.mu.Lock()
	g.current, g.arrived, g.picked = c, nil, ""
	g.mu.Unlock()
	var body io.Reader = bytes.NewReader(c.request)
	if c.stream {
		body = struct{ io.Reader }{body} // of unknown length: it is sent in chunks
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.stack.URL()+chatPath, body)
	if err != nil {
		return err
	}
	req.Header.Set("content-type", "application/json")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("the response broke off after %d bytes: %w", len(answer), err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.200q", resp.Status, answer)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.picked == "" {
		return errors.New("no replica was chosen by Inlet")
	}
	return errors.Join(difference("request", g.arrived, c.wantRequest), difference("answer", answer, c.wantResponse))
}

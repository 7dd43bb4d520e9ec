package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/e2e/bench/load"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	pool     = "llama"
	replicas = 8
	key      = "bench-key"
	// clockTick is the unit of the CPU times in /proc/PID/stat: 1/100 s on
	// every Linux that Go runs on.
	clockTick = 10 * time.Millisecond
)

// document is the full chain as far as it exists.
var document = fmt.Sprintf(`filters:
  - bbr: {models: [{name: llama, targets: [{pool: %s}]}]}
  - quota: {keys: {header: x-api-key, list: [{name: bench, sha256: %s}]}}
  - guardrail: {providers: [{name: local, local: {patterns: ['launch code']}}], policies: [{on: request, use: [local], action: block}]}
  - picker: {profile: least-request, endpoints: 3}
companion: {cluster: inlet-companion}
`, pool, digest(key))

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Builds of filters that do nothing; for the rest as the ones of Inlet.
func emptyBuilds() (wasm, module stack.Target) {
	wasm, module = stack.WasmPlugin, stack.NativeModule
	wasm.File, wasm.Package = "empty.wasm", "./e2e/bench/empty-wasm"
	module.File, module.Package = "libempty.so", "./e2e/bench/empty-module"
	return wasm, module
}

// mode is one way to run Envoy.
type mode struct {
	name  string
	full  bool // it runs the full chain
	stack *stack.Stack
}

type modes []*mode

func (ms modes) close() {
	for _, m := range ms {
		m.stack.Close()
	}
}

// startModes starts an Envoy for each mode; all share the replicas of the first.
func startModes(ctx context.Context) (modes, error) {
	root, err := stack.Root()
	if err != nil {
		return nil, err
	}
	emptyWasm, emptyModule := emptyBuilds()
	if err := stack.Build(ctx, root, os.Stderr, emptyWasm, emptyModule); err != nil {
		return nil, err
	}
	var started modes
	for _, m := range []struct {
		name string
		full bool
		o    stack.Options
	}{
		{"none", false, stack.Options{ABI: stack.None}},
		{"empty-wasm", false, stack.Options{ABI: stack.Wasm, Plugin: emptyWasm.Path(root)}},
		{"empty-module", false, stack.Options{ABI: stack.Module, Plugin: emptyModule.Path(root)}},
		{"wasm", true, stack.Options{ABI: stack.Wasm}},
		{"module", true, stack.Options{ABI: stack.Module}},
	} {
		o := m.o
		o.Chain, o.Workers, o.NoCompanion, o.Progress, o.DefaultPool = document, 1, !m.full, os.Stderr, pool
		o.Pools = []stack.Pool{{Name: pool, Args: []string{"--speed", "0", "--model", "llama"}}}
		if len(started) == 0 {
			o.Pools[0].Replicas = replicas
		}
		s, err := stack.Start(ctx, o)
		if err != nil {
			return started, fmt.Errorf("%s: %w", m.name, err)
		}
		started = append(started, &mode{m.name, m.full, s})
		if err := share(started[0].stack, s); err != nil {
			return started, err
		}
	}
	return started, nil
}

// share points a stack at the replicas of another.
func share(owner, s *stack.Stack) error {
	var addresses []string
	for _, r := range owner.Replicas {
		addresses = append(addresses, r.Address())
	}
	return s.SetEndpoints(pool, addresses...)
}

// chatCase is one kind of request.
type chatCase struct {
	name  string
	conns int
	body  []byte
}

func chatCases() []chatCase {
	small, large := chat(4<<10), chat(64<<10)
	return []chatCase{
		{"chat-4k-c1", 1, small},
		{"chat-4k-c16", 16, small},
		{"chat-64k-c1", 1, large},
		{"chat-64k-c16", 16, large},
	}
}

// chat makes a chat body of about n bytes, with the model after the messages,
// where a reader finds it last.
func chat(n int) []byte {
	const line = `She said: \"the quick brown fox jumps over the lazy dog\", and it was so.\n`
	var b bytes.Buffer
	b.WriteString(`{"messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"`)
	for b.Len() < n-100 {
		b.WriteString(line)
	}
	b.WriteString(`"}],"max_tokens":1,"temperature":0.7,"model":"llama"}`)
	return b.Bytes()
}

var headers = [][2]string{{"x-api-key", key}}

// check sends requests until the mode serves as it should, and holds the
// answers: the same bytes reach the replica, and the full chain picks it.
func (m *mode) check(ctx context.Context, c chatCase) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	wants := digest(string(c.body))
	for good := 0; good < 20; {
		h, err := m.send(ctx, c)
		if err != nil {
			return err
		}
		if got := h.Get("x-modelsim-body-sha256"); h.Get("x-modelsim-replica") != "" && got != wants {
			return fmt.Errorf("another body reached the replica: %s bytes", h.Get("x-modelsim-body-bytes"))
		}
		arrived := h.Get("x-modelsim-headers")
		if h.Get("x-modelsim-replica") == "" || m.full != strings.Contains(arrived, "x-gateway-destination-endpoint") {
			good = 0 // the replicas are not known yet
			continue
		}
		if m.full == strings.Contains(arrived, "x-api-key") {
			return errors.New("the key check did not run as it should")
		}
		good++
	}
	return nil
}

func (m *mode) send(ctx context.Context, c chatCase) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.stack.URL()+"/v1/chat/completions", bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("content-type", "application/json")
	for _, h := range headers {
		req.Header.Set(h[0], h[1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.Header, errors.Join(err, res.Body.Close())
}

// measure runs one cell once.
func (m *mode) measure(ctx context.Context, c chatCase, d time.Duration) (sample, error) {
	pid := m.stack.EnvoyPID()
	before, err := cpuTime(pid)
	if err != nil {
		return sample{}, err
	}
	address := strings.TrimPrefix(m.stack.URL(), "http://")
	r, err := load.Run(ctx, address, load.Request("/v1/chat/completions", c.body, headers...), c.conns, d)
	if err != nil {
		return sample{}, err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return sample{}, err
	}
	rss, err := residentBytes(pid)
	return sample{
		rps: r.Rate(),
		p50: micros(r.Percentile(0.5)),
		p99: micros(r.Percentile(0.99)),
		cpu: micros(after-before) / float64(r.Requests),
		rss: rss / 1e6,
	}, err
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// cpuTime is the user and system time that a process has used (proc(5), stat).
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the command in parentheses, which may hold spaces.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// residentBytes is the memory that a process occupies (proc(5), statm).
func residentBytes(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()), err
}

package filters_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const fullChain = `filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: p}]}]}
  - quota: {keys: {list: [{name: demo, sha256: 2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea}]}}
  - guardrail: {providers: [{name: local, local: {patterns: ['launch code']}}], policies: [{on: request, use: [local], action: block}]}
  - picker: {}
limits: {prompt: 15MiB}
`

// envoy is a host that does nothing, so that the benchmark measures only Inlet.
type envoy struct {
	request, response pairs
	released          int
	refused           *chain.LocalReply
}

type pairs [][2]string

func (p pairs) Get(name string) (string, bool) {
	for i := range p {
		if p[i][0] == name {
			return p[i][1], true
		}
	}
	return "", false
}

func (p pairs) At(name string, n int) (string, bool) {
	if n > 0 {
		return "", false // no header is repeated here
	}
	return p.Get(name)
}

func (p pairs) Line(n int) (name, value string, ok bool) {
	if n >= len(p) {
		return "", "", false
	}
	return p[n][0], p[n][1], true
}

func (e *envoy) RequestHeaders() filter.Headers  { return e.request }
func (e *envoy) ResponseHeaders() filter.Headers { return e.response }
func (e *envoy) ApplyRequest([]filter.HeaderEdit, []filter.BodyEdit) error {
	e.released++
	return nil
}
func (e *envoy) ApplyResponse([]filter.HeaderEdit)    {}
func (e *envoy) Reply(r *chain.LocalReply)            { e.refused = r }
func (e *envoy) Call(int, *filter.Call) error         { panic("nobody calls") }
func (e *envoy) ResumeRequest()                       {}
func (e *envoy) ResumeResponse([]byte)                {}
func (e *envoy) EndResponse()                         {}
func (e *envoy) Subset(dst []string) ([]string, bool) { return dst, false }
func (e *envoy) Metadata(string, string) string       { return "" }
func (e *envoy) Client() string                       { return "" }
func (e *envoy) Mark(uint64)                          {}
func (e *envoy) Marked(uint64) bool                   { return false }
func (e *envoy) RequestNow() filter.Headers           { return nil }
func (e *envoy) Stamp() (uint64, bool)                { return 0, false }
func (e *envoy) Served() string                       { return "" }
func (e *envoy) Details() string                      { return "" }
func (e *envoy) Attempts() int                        { return 1 }
func (e *envoy) Cluster() string                      { return "" }
func (e *envoy) Explain([]byte)                       {}

// BenchmarkChain runs the whole chain on one request, over 8 replicas, with the body
// in chunks of 16 KiB as Envoy reads them. The model is the last member of the body.
func BenchmarkChain(b *testing.B) {
	for _, request := range []struct{ name, body string }{
		{"body=1KB", chat(1 << 10)},
		{"body=4KB", chat(4 << 10)},
		{"body=64KB", chat(64 << 10)},
		{"body=1MB", chat(1 << 20)},
		{"body=8MB", chat(8 << 20)},
		{"body=nested64KB", `{"messages":[{"role":"user","content":"hello"}],"tools":[` + strings.Repeat(nested+",", 64<<10/len(nested)) + nested + `],"model":"llama"}`},
		{"body=image8MB", `{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,` +
			strings.Repeat("iVBORw0KGgoAAAANSUhEUgAA", 8<<20/24) + `"}}]}],"model":"llama"}`},
	} {
		b.Run(request.name, func(b *testing.B) {
			d := deps()
			snapshot := &endpoint.Snapshot{Received: time.Now(), Pools: []endpoint.Pool{{Name: "p"}}}
			for i := range 8 {
				snapshot.Pools[0].Endpoints = append(snapshot.Pools[0].Endpoints, endpoint.Endpoint{
					Address: fmt.Sprintf("10.0.0.%d:8000", i), Ready: true,
				})
			}
			snapshot.Attach(d.Counters, nil)
			d.Snapshot = func() *endpoint.Snapshot { return snapshot }
			c, err := chain.New([]byte(fullChain), filters.All, d)
			require.NoError(b, err)
			body := []byte(request.body)
			host := &envoy{
				request: pairs{
					{":method", "POST"},
					{":path", "/v1/chat/completions"},
					{"content-type", "application/json"},
					{"content-length", fmt.Sprint(len(body))},
					{"x-api-key", "demo"},
				},
				response: pairs{{":status", "200"}, {"content-type", "application/json"}},
			}
			s := c.NewStream()
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				s.Begin(host)
				s.RequestHeaders(false)
				for at := 0; at < len(body); at += 16 << 10 {
					end := min(len(body), at+16<<10)
					s.RequestBody(body[at:end], end == len(body))
				}
				s.ResponseHeaders(false)
				s.ResponseBody(nil, true)
				s.Done()
			}
			require.Nil(b, host.refused)
			require.Positive(b, host.released)
		})
	}
}

func chat(size int) string {
	const line = `She said: \"the quick brown fox\", and it was so.\n`
	return `{"messages":[{"role":"user","content":"` + strings.Repeat(line, size/len(line)) + `"}],"model":"llama"}`
}

// nested is a tool whose parameters are objects nested 28 deep.
var nested = `{"type":"function","function":{"name":"f","parameters":` +
	strings.Repeat(`{"type":"object","properties":{"a":`, 12) + `{"type":"string"}` + strings.Repeat("}}", 12) + `}}`

// BenchmarkEvent runs the whole chain on one event of a streamed response and counts
// its tokens; with target=public the model's name stays unchanged.
func BenchmarkEvent(b *testing.B) {
	for _, target := range []string{"public", "other"} {
		b.Run("target="+target, func(b *testing.B) {
			document := fullChain
			if target == "public" {
				document = strings.Replace(document, "model: llama-3-8b, ", "", 1)
			}
			c, err := chain.New([]byte(strings.Replace(document, "limits:", "  - usage: {}\nlimits:", 1)), append([]filter.Factory{usage}, filters.All...), deps())
			require.NoError(b, err)
			host := &envoy{
				request:  pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"x-api-key", "demo"}},
				response: pairs{{":status", "200"}, {"content-type", "text/event-stream"}},
			}
			event := []byte(`data: {"id":"chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1767225600,` +
				`"model":"llama-3-8b","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}` + "\n\n")
			s := c.NewStream()
			s.Begin(host)
			s.RequestHeaders(false)
			s.RequestBody([]byte(`{"model":"llama","stream":true}`), true)
			s.ResponseHeaders(false)
			changed, n := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				if k, _ := s.ResponseBody(event, false); k > 0 {
					changed++
				}
				n++
			}
			require.Nil(b, host.refused)
			require.Equal(b, map[string]int{"public": 0, "other": n}[target], changed)
			s.Done()
		})
	}
}

// usage is a filter that makes the chain count tokens.
var usage = filter.Factory{Name: "usage", FailureMode: filter.FailClosed, New: func(*conf.Object, *filter.Deps) filter.Filter { return counting{} }}

type counting struct{ filter.Base }

func (counting) Needs() filter.Needs { return filter.NeedUsage }

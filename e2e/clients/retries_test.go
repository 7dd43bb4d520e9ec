package clients_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// limitedChain gives each key one request in two seconds, or one in ten minutes. The windows begin with the first request.
func limitedChain(keys []string) string {
	var list []string
	for _, key := range keys {
		sum := sha256.Sum256([]byte(key))
		product, _, _ := strings.Cut(key, "-")
		list = append(list, fmt.Sprintf("{name: %s, products: [%s], sha256: %s}", key, product, hex.EncodeToString(sum[:])))
	}
	return `filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}
  - quota:
      keys: {list: [` + strings.Join(list, ", ") + `]}
      products:
        - {name: short, start: flexi, requests: 1/2s}
        - {name: long, start: flexi, requests: 1/10min}
companion: {cluster: inlet-companion}
`
}

// TestRetries: each official client retries by itself after a refusal that is over soon, and succeeds. Where the wait is
// longer than clients wait it does not come again, which OpenAI's for Node would after half a second.
func TestRetries(t *testing.T) {
	in := &clients.Installer{Progress: os.Stderr}
	script := func(install func(context.Context) (*clients.Runtime, error), name string) command {
		runtime, err := install(t.Context())
		require.NoError(t, err)
		return func(ctx context.Context, args ...string) *exec.Cmd { return runtime.Command(ctx, name, args...) }
	}
	languages := map[string]command{
		"Python": script(in.Python, "retries.py"),
		"Node":   script(in.Node, "retries.cjs"),
		"Go":     buildGoClients(t),
	}
	var keys []string
	for language := range languages {
		for _, api := range []string{"openai", "anthropic"} {
			keys = append(keys, "short-"+api+"-"+language, "long-"+api+"-"+language)
		}
	}
	for _, abi := range []string{stack.Wasm, stack.Module} {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{ABI: abi, Pools: echoing(), Chain: limitedChain(keys), Progress: os.Stderr})
			t.Run("clients", func(t *testing.T) {
				for _, key := range keys {
					part := strings.Split(key, "-")
					t.Run(key, func(t *testing.T) {
						t.Parallel()
						if part[0] == "short" {
							retry(t, s, languages[part[2]], part[1], key, []int{200, 429, 200}, "ok", "ok")
						} else {
							retry(t, s, languages[part[2]], part[1], key, []int{200, 429}, "ok", "429")
						}
					})
				}
			})
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// retry runs a client, and compares what it says and what went over the wire. A client may come again more than once: two
// seconds of its clock may be a little less of another's.
func retry(t *testing.T, s *stack.Stack, run command, api, key string, statuses []int, said ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	wire := newWire(t, s.URL())
	cmd := run(ctx, wire.url, api, key)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	out, err := cmd.Output()
	require.NoError(t, err, string(out))
	require.Equal(t, said, strings.Fields(string(out)))
	require.Equal(t, statuses, slices.Compact(wire.statuses()))
	for _, h := range wire.refusals() {
		require.NotEmpty(t, h.Get("retry-after"))
		require.Equal(t, len(statuses) == 2, h.Get("x-should-retry") == "false", "%v", h)
	}
}

// wire is a proxy that notes the responses that pass.
type wire struct {
	url string
	mu  sync.Mutex
	all []*http.Response
}

func newWire(t *testing.T, to string) *wire {
	target, err := url.Parse(to)
	require.NoError(t, err)
	w := &wire{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all = append(w.all, r)
			return nil
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *wire) statuses() (all []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.all {
		all = append(all, r.StatusCode)
	}
	return all
}

func (w *wire) refusals() (all []http.Header) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.all {
		if r.StatusCode == http.StatusTooManyRequests {
			all = append(all, r.Header)
		}
	}
	return all
}

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/shared/adapters/golang/chost"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// contribGolang names the host that runs the plugin for Envoy's contrib filter. It is not an Envoy: see golangProxy.
const contribGolang = "golang"

// TestGolangScenarios plays the scenarios with the plugin for the contrib filter, several at once: they mostly wait.
func TestGolangScenarios(t *testing.T) {
	const shares = 4
	leftOut := map[string]string{} // one needs a VM, one a real Envoy that fails
	relaxed := 0
	var all [shares][]*hosttest.Scenario
	for n, s := range loadScenarios(t) {
		if !s.Plays(contribGolang) {
			leftOut[s.Name] = s.Because
			continue
		}
		relaxed += relax(s)
		all[n%shares] = append(all[n%shares], s)
	}
	require.Len(t, leftOut, 2, "%v", leftOut)
	require.Equal(t, 4, relaxed, "as docs/contrib-golang.md says")
	for n, share := range all {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			host := newEnvoyHost(t, stack.Options{ABI: contribGolang})
			for _, s := range share {
				t.Run(filepath.Base(s.File)+"/"+s.Name, func(t *testing.T) {
					require.NoError(t, hosttest.Play(host, s))
				})
			}
		})
	}
}

// beyond are the steps that the contrib filter cannot play, and why.
var beyond = map[string]string{
	"two requests and three tokens are used": "a response that waits for a call beside the request is not read meanwhile: its tokens are not counted if it is refused then",
}

// relax leaves out what the contrib filter cannot do: those steps; and while a replica has not begun to respond, a call beside the request
// cannot refuse it, so that the replica is not told to stop. It returns of how much.
func relax(s *hosttest.Scenario) (n int) {
	n = len(s.Steps)
	s.Steps = slices.DeleteFunc(s.Steps, func(step hosttest.Step) bool { return beyond[step.Name] != "" })
	n -= len(s.Steps)
	for i := range s.Steps {
		if step := &s.Steps[i]; step.Upstream != nil && step.Upstream.Delay > 0 && step.Expect.Cancelled != nil {
			step.Expect.Cancelled = nil
			n++
		}
	}
	return n
}

// golangProxy stands in for an Envoy with contrib: a listener and a router of this process, and between them the plugin in
// a program that stands in for the contrib filter (package chost).
type golangProxy struct {
	host    *chost.Host
	server  http.Server
	address string
	workers int
	edits   *edits // of the next update

	mu       sync.Mutex
	config   uint64
	now      *edits
	turn     int
	active   int            // requests
	balanced map[string]int // requests by pool that the ranked list did not decide about
	busy     map[string]int // requests in progress by pool
}

// proxy is what scenarios are played in.
type proxy interface {
	Update(context.Context, func(*stack.Options)) error
	Metrics(context.Context) (stack.Metrics, error)
	URL() string
	AdminURL() string
	EnvoyErrors() []string
}

var (
	_ proxy = (*stack.Stack)(nil)
	_ proxy = (*golangProxy)(nil)
)

// standIn is the compiled program.
var standIn = sync.OnceValues(func() (string, error) {
	root, err := stack.Root()
	if err != nil {
		return "", err
	}
	return chost.Build(context.Background(), filepath.Join(root, "dist"))
})

func newGolangProxy(t *testing.T, kind envoyKind) *golangProxy {
	t.Helper()
	program, err := standIn()
	require.NoError(t, err)
	plugin := plugins[contribGolang].shipped
	if kind.probed {
		plugin = plugins[contribGolang].probed
	}
	p := &golangProxy{workers: kind.workers, balanced: map[string]int{}, busy: map[string]int{}}
	p.host, err = chost.Start(program, plugin, kind.workers)
	require.NoError(t, err)
	p.server.Handler = p
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.address = l.Addr().String()
	go func() { _ = p.server.Serve(l) }() // until Close, which is the only error
	t.Cleanup(func() {
		require.NoError(t, p.server.Close())
		require.NoError(t, p.host.Close())
	})
	return p
}

// Update has the plugin read another document.
func (p *golangProxy) Update(_ context.Context, change func(*stack.Options)) error {
	var o stack.Options
	change(&o)
	clusters := map[string]any{}
	for name, address := range p.edits.services {
		clusters[name] = "http://" + address
	}
	for _, name := range clusterNames.FindAllStringSubmatch(o.Chain, -1) {
		if clusters[name[1]] == nil {
			clusters[name[1]] = "http://" + closedPort
		}
	}
	s, err := structpb.NewStruct(map[string]any{"config": o.Chain, "clusters": clusters})
	if err != nil {
		return err
	}
	message, err := anypb.New(s)
	if err != nil {
		return err
	}
	logged := len(p.EnvoyErrors())
	config, err := p.host.Configure(chost.OfFilter, message)
	if errors.Is(err, chost.ErrRefused) {
		return &stack.Refused{Details: strings.Join(p.EnvoyErrors()[logged:], "\n")}
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	old := p.config
	p.config, p.now = config, p.edits
	clear(p.balanced)
	p.mu.Unlock()
	if old != 0 {
		return p.host.Drop(old, false)
	}
	return nil
}

// Metrics are those of the plugin, and how many requests are active, by the name that Envoy has for it.
func (p *golangProxy) Metrics(context.Context) (stack.Metrics, error) {
	p.mu.Lock()
	active := p.active
	p.mu.Unlock()
	m := stack.Metrics{{
		Name: "envoy_http_downstream_rq_active", Labels: map[string]string{"envoy_http_conn_manager_prefix": "gateway"}, Value: float64(active),
	}}
	all, err := p.host.Metrics()
	for name, n := range all {
		parts := strings.Split(name, ";")
		sample := stack.Sample{Name: parts[0], Labels: map[string]string{}, Value: float64(n)}
		for _, tag := range parts[1:] {
			label, value, _ := strings.Cut(tag, "=")
			sample.Labels[label] = value
		}
		m = append(m, sample)
	}
	return m, err
}

// clusterNames finds the clusters in a document. Each must have an address; one that no service of the scenario has is that of nobody.
var clusterNames = regexp.MustCompile(`cluster: *([a-z0-9-]+)`)

const closedPort = "127.0.0.1:1"

// URL is where clients send their requests.
func (p *golangProxy) URL() string { return "http://" + p.address }

// AdminURL is of no server: there is none.
func (p *golangProxy) AdminURL() string { return "" }

// EnvoyErrors are warnings and errors that the plugin has logged, and what it did that Envoy would not have.
func (p *golangProxy) EnvoyErrors() []string {
	lines := slices.DeleteFunc(p.host.Log(), func(line string) bool {
		return !strings.HasPrefix(line, "error ") && !strings.HasPrefix(line, "critical ")
	})
	return append(lines, p.host.Wrong()...)
}

// info is what Envoy knows of a request when it comes.
func (e *edits) info(client string) (map[string]string, error) {
	info := map[string]string{"client": client, "property:request.time": "2026-01-02T03:04:05.123456+00:00"}
	metadata := map[string]map[string]any{}
	for namespace, values := range e.metadata {
		metadata[namespace] = map[string]any{}
		for key, value := range values {
			metadata[namespace][key] = value
		}
	}
	if e.subset != nil {
		var hint any = strings.Join(e.subset.Replicas, ", ")
		if !e.subset.Text {
			var list []any
			for _, address := range e.subset.Replicas {
				list = append(list, address)
			}
			hint = list
		}
		metadata[filter.SubsetNamespace] = map[string]any{filter.SubsetKey: hint}
	}
	for namespace, values := range metadata {
		s, err := structpb.NewStruct(values)
		if err != nil {
			return nil, err
		}
		text, err := marshal(s)
		if err != nil {
			return nil, err
		}
		info["metadata:"+namespace] = text
	}
	return info, nil
}

// balance chooses a replica of a pool: the first one of the ranked list that the pool has, or in turn.
func (p *golangProxy) balance(e *edits, pool, ranked string) (address string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := e.pools[pool]
	if e.unfollowed {
		ranked = ""
	}
	for one := range strings.SplitSeq(ranked, ",") {
		if one = strings.TrimSpace(one); slices.Contains(all, one) {
			address = one
			break
		}
	}
	if address == "" {
		address = all[p.balanced[pool]%len(all)]
		p.balanced[pool]++
	}
	if e.maxRequests > 0 && p.busy[pool] >= e.maxRequests {
		return "", fmt.Errorf("pool %s is busy", pool)
	}
	p.busy[pool]++
	return address, nil
}

func (p *golangProxy) left(pool string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy[pool]--
}

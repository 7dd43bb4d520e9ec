// Package guardrail_test runs the guardrail's providers in a real Envoy, in both builds: against a fake Model Armor, and a real server of
// NeMo Guardrails.
package guardrail_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

var abis = []string{stack.Wasm, stack.Module}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// closedPort is an address at which nobody listens.
const closedPort = "127.0.0.1:1"

// clusters are addresses of services, by the names of their clusters.
type clusters map[string]string

// add adds the clusters to Envoy's configuration.
func (c clusters) add(b *bootstrapv3.Bootstrap) {
	for name, address := range c {
		host, text, _ := net.SplitHostPort(address)
		port, _ := strconv.Atoi(text)
		socket := &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}
		endpoint := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: socket}},
		}}}
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, &clusterv3.Cluster{
			Name: name, ConnectTimeout: durationpb.New(time.Second),
			LoadAssignment: &endpointv3.ClusterLoadAssignment{
				ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{endpoint}}},
			},
		})
	}
}

// gateway is a stack with the guardrail.
type gateway struct {
	*stack.Stack
	t *testing.T
}

// chainOf is the configuration of a chain with the guardrail, for models of these names, which are all the same one.
func chainOf(guardrail string, models ...string) string {
	var list []string
	for _, m := range models {
		list = append(list, fmt.Sprintf("{name: %s, targets: [{model: llama-3-8b, pool: llama}]}", m))
	}
	return "filters:\n  - bbr: {models: [" + strings.Join(list, ", ") + "]}\n  - guardrail:\n" + guardrail +
		"  - picker: {profile: sticky}\ncompanion: {cluster: inlet-companion}\n"
}

// start starts Envoy with one worker, since each has breakers of its own in the wasm build.
func start(t *testing.T, abi string, c clusters, chain string) *gateway {
	return &gateway{stack.ForTest(t, stack.Options{
		ABI: abi, Workers: 1, Chain: chain, Edit: c.add,
		Pools: []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--model", "llama-3-8b", "--speed", "0"}}},
	}), t}
}

// ask is a request.
type ask struct {
	model, prompt string
	says          string // the response; empty: anything
	stream        bool
}

// got is what the client got.
type got struct {
	status   int
	header   http.Header
	body     string
	text     string // of the response
	code     string // of the error
	ended    bool   // a stream, with [DONE]
	reached  string // SHA-256 of the prompt that the replica got
	screened string // what the access log says
	why      string
}

var client = &http.Client{Timeout: patience}

// send sends a request and reads what comes, also of a stream that is cut.
func (g *gateway) send(a ask) (*got, error) {
	content, err := json.Marshal(a.prompt)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest("POST", g.URL()+"/v1/chat/completions", strings.NewReader(fmt.Sprintf(
		`{"model":%q,"stream":%v,"max_tokens":64,"messages":[{"role":"user","content":%s}]}`, a.model, a.stream, content)))
	if err != nil {
		return nil, err
	}
	r.Header.Set("content-type", "application/json")
	if a.says != "" {
		r.Header.Set("x-modelsim-say", base64.StdEncoding.EncodeToString([]byte(a.says)))
		r.Header.Set("x-modelsim-piece", "3")
	}
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil && !a.stream {
		return nil, err
	}
	return read(res, string(body)), nil
}

// must is send for a test that expects a response, with what the access log says of it.
func (g *gateway) must(a ask) *got {
	g.t.Helper()
	r, err := g.send(a)
	require.NoError(g.t, err)
	access, err := g.Access(g.t.Context(), r.header.Get("x-request-id"))
	require.NoError(g.t, err)
	r.why = access.Why
	for part := range strings.FieldsSeq(access.Why) {
		if states, found := strings.CutPrefix(part, "screened="); found {
			r.screened = states
		}
	}
	return r
}

func read(res *http.Response, body string) *got {
	g := &got{status: res.StatusCode, header: res.Header, body: body, reached: res.Header.Get("x-modelsim-prompt-sha256")}
	if !strings.HasPrefix(res.Header.Get("content-type"), "text/event-stream") {
		g.text, g.code = gjson.Get(body, "choices.0.message.content").Str, gjson.Get(body, "error.code").Str
		return g
	}
	for line := range strings.Lines(body) {
		data, found := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !found {
			continue
		}
		g.ended = g.ended || data == "[DONE]"
		g.text += gjson.Get(data, "choices.0.delta.content").Str
		if code := gjson.Get(data, "error.code"); code.Exists() {
			g.code = code.Str
		}
	}
	return g
}

// sha is the SHA-256 of a text, in hex.
func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// sum is a metric of Envoy now.
func (g *gateway) sum(name string, labels ...string) int {
	g.t.Helper()
	m, err := g.Metrics(g.t.Context())
	require.NoError(g.t, err)
	return int(m.Sum(name, labels...))
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); !ok(); <-again.C {
		require.True(t, time.Now().Before(end), "%s", what)
	}
}

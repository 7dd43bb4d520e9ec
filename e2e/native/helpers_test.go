// Package native_test checks what the native module must withstand, in a real Envoy.
package native_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	patience = time.Minute
	chatPath = "/v1/chat/completions"
)

// chat is the body of a small request.
func chat(model string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hello"}],"max_tokens":4}`, model)
}

// answer is a response, or why there was none.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (a answer) String() string {
	return fmt.Sprintf("%d %v %.300s %v", a.status, a.header, a.body, a.err)
}

// ask sends a request; headers are pairs of names and values.
func ask(t *testing.T, url, body string, headers ...string) answer {
	t.Helper()
	return do(t.Context(), http.DefaultClient, url, body, headers...)
}

func do(ctx context.Context, client *http.Client, url, body string, headers ...string) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	return finish(client, req, headers...)
}

// finish adds headers to a request and sends it.
func finish(client *http.Client, req *http.Request, headers ...string) answer {
	req.Header.Set("content-type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

// eventually polls ok until it is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			require.FailNow(t, "not within "+patience.String()+": "+what)
		case <-poll.C:
		}
	}
}

// editAny changes the message inside an Any.
func editAny[T proto.Message](a *anypb.Any, f func(T)) {
	message, err := a.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	f(message.(T))
	if err := a.MarshalFrom(message); err != nil {
		panic(err)
	}
}

// editListener changes the connection manager of a listener.
func editListener(l *listenerv3.Listener, f func(*hcmv3.HttpConnectionManager)) {
	editAny(l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig(), f)
}

func gateway(b *bootstrapv3.Bootstrap) *listenerv3.Listener {
	return b.GetStaticResources().GetListeners()[0]
}

// addListener adds a copy of the gateway's listener under another name, at a port of its own.
func addListener(b *bootstrapv3.Bootstrap, name string, f func(*hcmv3.HttpConnectionManager)) {
	l := proto.CloneOf(gateway(b))
	l.Name = name
	l.GetAddress().GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{}
	editListener(l, f)
	b.StaticResources.Listeners = append(b.GetStaticResources().GetListeners(), l)
}

// inletFilter is the filter's place in the chain.
func inletFilter(m *hcmv3.HttpConnectionManager) (at int) {
	for i, f := range m.GetHttpFilters() {
		if f.GetName() == "inlet" {
			at = i
		}
	}
	return at
}

// entry makes the filter in Envoy's chain one of the given name and document.
func entry(from *hcmv3.HttpFilter, name, document string) *hcmv3.HttpFilter {
	f := proto.CloneOf(from)
	f.Name = name
	editAny(f.GetTypedConfig(), func(m *modulev3.DynamicModuleFilter) {
		m.FilterName = name
		editAny(m.GetFilterConfig(), func(v *wrapperspb.StringValue) { v.Value = document })
	})
	return f
}

// entries replaces Inlet's filter by several.
func entries(m *hcmv3.HttpConnectionManager, documents ...[2]string) {
	i := inletFilter(m)
	shipped := m.GetHttpFilters()[i]
	all := append([]*hcmv3.HttpFilter(nil), m.GetHttpFilters()[:i]...)
	for _, d := range documents {
		all = append(all, entry(shipped, d[0], d[1]))
	}
	m.HttpFilters = append(all, m.GetHttpFilters()[i+1:]...)
}

// perRoute is a document for typed_per_filter_config.
func perRoute(m *hcmv3.HttpConnectionManager, name, document string) *anypb.Any {
	shipped := &modulev3.DynamicModuleFilter{}
	if err := m.GetHttpFilters()[inletFilter(m)].GetTypedConfig().UnmarshalTo(shipped); err != nil {
		panic(err)
	}
	text, err := anypb.New(wrapperspb.String(document))
	if err != nil {
		panic(err)
	}
	packed, err := anypb.New(&modulev3.DynamicModuleFilterPerRoute{
		DynamicModuleConfig: shipped.GetDynamicModuleConfig(), FilterName: name, FilterConfig: text,
	})
	if err != nil {
		panic(err)
	}
	return packed
}

// metric waits until a sum of samples has a value: Envoy shows some of them later.
func metric(t *testing.T, s *stack.Stack, want float64, name string, labels ...string) {
	t.Helper()
	var sum float64
	eventually(t, fmt.Sprintf("%s%v is %v", name, labels, want), func() bool {
		m, err := s.Metrics(t.Context())
		if sum = m.Sum(name, labels...); err == nil && sum != want {
			// Samples wait for an exchange.
			_ = ask(t, s.URL()+"/none", "{}")
		}
		return err == nil && sum == want
	})
}

// logged counts lines of Envoy's log.
func logged(t *testing.T, s *stack.Stack, part string) int {
	t.Helper()
	text, err := os.ReadFile(s.EnvoyLog())
	require.NoError(t, err)
	return bytes.Count(text, []byte(part))
}

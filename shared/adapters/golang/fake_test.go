package golang

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// lines are what the plugin has logged.
var lines struct {
	sync.Mutex
	all []string
}

type commonAPI struct{}

func (commonAPI) Log(level api.LogType, message string) {
	lines.Lock()
	defer lines.Unlock()
	lines.all = append(lines.all, level.String()+" "+message)
}

func (commonAPI) LogLevel() api.LogType { return api.Debug }

func init() { api.SetCommonCAPI(commonAPI{}) }

// logged returns the lines with a text.
func logged(part string) (found []string) {
	lines.Lock()
	defer lines.Unlock()
	for _, line := range lines.all {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

// policy is a filter that does what the test says.
type policy struct {
	filter.Base
	needs    filter.Needs
	headers  func(x *filter.Exchange) filter.Verdict
	request  func(x *filter.Exchange) filter.Verdict
	reply    func(x *filter.Exchange, r *filter.Reply) filter.Verdict
	response func(x *filter.Exchange) filter.Verdict
	unit     func(x *filter.Exchange, u *filter.Unit) filter.Verdict
	screens  bool

	mu   sync.Mutex
	ends []filter.End
}

func (p *policy) Needs() filter.Needs { return p.needs }

func (p *policy) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	if p.headers == nil {
		return filter.Next
	}
	return p.headers(x)
}

func (p *policy) OnRequest(x *filter.Exchange) filter.Verdict {
	if p.screens {
		x.Screen(filter.Screening{Window: 1 << 20})
	}
	if p.request == nil {
		return filter.Next
	}
	return p.request(x)
}

func (p *policy) OnReply(x *filter.Exchange, r *filter.Reply) filter.Verdict {
	if p.reply == nil {
		return filter.Next
	}
	return p.reply(x, r)
}

func (p *policy) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	if p.response == nil {
		return filter.Next
	}
	return p.response(x)
}

func (p *policy) OnResponse(x *filter.Exchange, u *filter.Unit) filter.Verdict {
	if p.unit == nil {
		return filter.Next
	}
	return p.unit(x, u)
}

func (p *policy) OnDone(_ *filter.Exchange, end filter.End) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = append(p.ends, end)
}

func (p *policy) done() []filter.End {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ends)
}

func (p *policy) factory() filter.Factory {
	return filter.Factory{
		Name: "policy", FailureMode: filter.FailClosed,
		New: func(*conf.Object, *filter.Deps) filter.Filter { return p },
	}
}

const policyOnly = "filters: [{policy: {}}]"

// message is a plugin_config.
func message(t *testing.T, document any, clusters map[string]any) *anypb.Any {
	t.Helper()
	s, err := structpb.NewStruct(map[string]any{"config": document, "clusters": clusters})
	require.NoError(t, err)
	m, err := anypb.New(s)
	require.NoError(t, err)
	return m
}

func newParser(p *policy) *parser {
	return &parser{[]filter.Factory{p.factory()}, native.NewProcess(), newTotals()}
}

// load makes a configuration.
func load(t *testing.T, p *policy, document string, clusters map[string]any) (*config, *metrics) {
	t.Helper()
	m := &metrics{values: map[string]int64{}}
	c, err := newParser(p).Parse(message(t, document, clusters), m)
	require.NoError(t, err)
	t.Cleanup(c.(*config).Destroy)
	return c.(*config), m
}

// metrics are Envoy's.
type metrics struct {
	mu      sync.Mutex
	values  map[string]int64
	defined []string
	gone    bool
}

func (m *metrics) DefineCounterMetric(name string) api.CounterMetric { return m.define(name) }
func (m *metrics) DefineGaugeMetric(name string) api.GaugeMetric     { return m.define(name) }

func (m *metrics) define(name string) *sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.defined = append(m.defined, name)
	return &sample{m, name}
}

func (m *metrics) get(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name]
}

type sample struct {
	of   *metrics
	name string
}

func (s *sample) Increment(n int64) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.of.gone {
		panic("request has been finished")
	}
	s.of.values[s.name] += n
}
func (s *sample) Get() uint64 { return uint64(s.of.get(s.name)) }
func (s *sample) Record(n uint64) {
	s.Increment(int64(n) - s.of.get(s.name))
}

// headerMap is one of Envoy's.
type headerMap struct {
	api.RequestHeaderMap
	list  [][2]string
	reads int
}

func (m *headerMap) Range(f func(name, value string) bool) {
	m.reads++
	for _, h := range m.list {
		if !f(h[0], h[1]) {
			return
		}
	}
}

func (m *headerMap) Set(name, value string) {
	m.Del(name)
	m.list = append(m.list, [2]string{name, value})
}

func (m *headerMap) Del(name string) {
	m.list = slices.DeleteFunc(m.list, func(h [2]string) bool { return h[0] == name })
}

func (m *headerMap) value(name string) string {
	for _, h := range m.list {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

// responseMap is one of a response.
type responseMap struct{ *headerMap }

func (responseMap) Status() (int, bool) { return 0, false }

// buffer is one of Envoy's.
type buffer struct {
	api.BufferInstance
	b     []byte
	reads int
}

func (b *buffer) Len() int { return len(b.b) }
func (b *buffer) Bytes() []byte {
	b.reads++
	return slices.Clone(b.b)
}
func (b *buffer) Drain(n int) { b.b = slices.Clone(b.b[min(n, len(b.b)):]) }
func (b *buffer) Prepend(p []byte) error {
	b.b = append(slices.Clone(p), b.b...)
	return nil
}

func (b *buffer) Append(p []byte) error {
	b.b = append(b.b, p...)
	return nil
}

// envoy is one exchange as Envoy has it, and what the filter did to it.
type envoy struct {
	api.FilterCallbackHandler
	t      *testing.T
	filter api.StreamFilter

	request, response *headerMap
	metadata          map[string]map[string]any
	state             map[string]string
	properties        map[string]string
	facts             map[string]string

	mu   sync.Mutex
	did  []string
	gone bool // everything that is asked of Envoy panics
	more chan struct{}
	held bool // reads of facts panic, as while Envoy waits for nothing
}

func (e *envoy) note(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		panic("golang filter has been destroyed")
	}
	e.did = append(e.did, fmt.Sprintf(format, args...))
	select {
	case e.more <- struct{}{}:
	default:
	}
}

func (e *envoy) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.did)
}

// wait waits until the filter has done something.
func (e *envoy) wait(what string) {
	e.t.Helper()
	late := time.After(10 * time.Second)
	for !slices.Contains(e.all(), what) {
		select {
		case <-e.more:
		case <-late:
			require.FailNow(e.t, "the filter did not: "+what, "%q", e.all())
		}
	}
}

func (e *envoy) StreamInfo() api.StreamInfo { return &streamInfo{of: e} }
func (e *envoy) ClearRouteCache()           { e.note("route") }
func (e *envoy) DecoderFilterCallbacks() api.DecoderFilterCallbacks {
	return &side{of: e, name: "request"}
}

func (e *envoy) EncoderFilterCallbacks() api.EncoderFilterCallbacks {
	return &side{of: e, name: "response"}
}

func (e *envoy) GetProperty(key string) (string, error) {
	value, ok := e.properties[key]
	if !ok {
		return "", errors.New("value not found")
	}
	return value, nil
}

type side struct {
	api.DecoderFilterCallbacks
	of   *envoy
	name string
}

func (s *side) Continue(status api.StatusType) { s.of.note("%s continue %d", s.name, status) }
func (s *side) AddData(b []byte, _ bool)       { s.of.note("%s add %s", s.name, b) }
func (s *side) InjectData(b []byte)            { s.of.note("%s inject %s", s.name, b) }
func (s *side) SendLocalReply(code int, body string, headers map[string][]string, grpc int64, details string) {
	s.of.note("%s reply %d %s", s.name, code, details)
}

type streamInfo struct {
	api.StreamInfo
	of *envoy
}

func (i *streamInfo) DynamicMetadata() api.DynamicMetadata { return &dynamicMetadata{i.of} }
func (i *streamInfo) FilterState() api.FilterState         { return &filterState{i.of} }
func (i *streamInfo) DownstreamRemoteAddress() string      { return "[2001:db8::1]:4711" }
func (i *streamInfo) fact(name string) (string, bool) {
	i.of.mu.Lock()
	defer i.of.mu.Unlock()
	if i.of.held {
		panic("Envoy waits for nothing")
	}
	value, ok := i.of.facts[name]
	return value, ok
}
func (i *streamInfo) UpstreamRemoteAddress() (string, bool) { return i.fact("served") }
func (i *streamInfo) ResponseCodeDetails() (string, bool)   { return i.fact("details") }
func (i *streamInfo) UpstreamClusterName() (string, bool)   { return i.fact("cluster") }
func (i *streamInfo) AttemptCount() uint32 {
	if _, ok := i.fact("attempts"); ok {
		return 2
	}
	return 0
}

type dynamicMetadata struct{ of *envoy }

func (m *dynamicMetadata) Get(namespace string) map[string]any { return m.of.metadata[namespace] }
func (m *dynamicMetadata) Set(namespace, key string, value any) {
	m.of.metadata[namespace] = map[string]any{key: value}
}

type filterState struct{ of *envoy }

func (s *filterState) GetString(key string) string { return s.of.state[key] }
func (s *filterState) SetString(key, value string, _ api.StateType, _ api.LifeSpan, _ api.StreamSharing) {
	s.of.state[key] = value
}

// open makes an exchange.
func open(t *testing.T, c any) *envoy {
	t.Helper()
	e := &envoy{
		t: t, request: &headerMap{}, response: &headerMap{}, metadata: map[string]map[string]any{}, state: map[string]string{},
		properties: map[string]string{}, facts: map[string]string{"served": "10.0.0.1:80", "details": "via_upstream"}, more: make(chan struct{}, 1),
	}
	e.filter = newFilter(c, e)
	return e
}

const chat = `{"model":"llama","messages":[{"role":"user","content":"Hello"}]}`

func (e *envoy) begin(end bool, more ...[2]string) api.StatusType {
	e.request.list = append([][2]string{{":method", "POST"}, {":path", "/v1/chat/completions"}}, more...)
	return e.filter.DecodeHeaders(e.request, end)
}

func (e *envoy) respond(end bool, headers ...[2]string) api.StatusType {
	e.response.list = append([][2]string{{":status", "200"}, {"content-type", "application/json"}}, headers...)
	return e.filter.EncodeHeaders(responseMap{e.response}, end)
}

// end ends the exchange as Envoy does.
func (e *envoy) end() {
	e.filter.OnStreamComplete()
	e.filter.OnDestroy(api.Normal)
}

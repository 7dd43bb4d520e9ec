package module

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// buffer is one of Envoy's: memory in pieces, drained at the front, added to at
// the end. Drained memory is overwritten, as freed memory may be.
type buffer struct {
	pieces [][]byte
	most   uint64 // that it ever held
}

func newBuffer(pieces ...string) *buffer {
	b := &buffer{}
	for _, p := range pieces {
		b.Append([]byte(p))
	}
	return b
}

func (b *buffer) GetChunks() []shared.UnsafeEnvoyBuffer {
	var chunks []shared.UnsafeEnvoyBuffer
	for _, p := range b.pieces {
		chunks = append(chunks, view(p))
	}
	return chunks
}

func (b *buffer) GetSize() (n uint64) {
	for _, p := range b.pieces {
		n += uint64(len(p))
	}
	return n
}

func (b *buffer) Drain(n uint64) {
	for n > 0 && len(b.pieces) > 0 {
		k := min(n, uint64(len(b.pieces[0])))
		for i := range b.pieces[0][:k] {
			b.pieces[0][i] = '!'
		}
		b.pieces[0] = b.pieces[0][k:]
		if n -= k; len(b.pieces[0]) == 0 {
			b.pieces = b.pieces[1:]
		}
	}
}

func (b *buffer) Append(data []byte) {
	b.pieces = append(b.pieces, slices.Clone(data))
	b.most = max(b.most, b.GetSize())
}

func (b *buffer) String() string {
	var s strings.Builder
	for _, p := range b.pieces {
		s.Write(p)
	}
	return s.String()
}

// move takes over all bytes of another buffer.
func (b *buffer) move(from *buffer) {
	b.pieces = append(b.pieces, from.pieces...)
	b.most = max(b.most, b.GetSize())
	from.pieces = nil
}

func view(b []byte) shared.UnsafeEnvoyBuffer {
	return shared.UnsafeEnvoyBuffer{Ptr: unsafe.SliceData(b), Len: uint64(len(b))}
}

func viewString(s string) shared.UnsafeEnvoyBuffer { return view([]byte(s)) }

// headerMap is one of Envoy's.
type headerMap struct {
	list [][2]string
	gets int // how often it was read
}

func (m *headerMap) GetAll() (all [][2]shared.UnsafeEnvoyBuffer) {
	m.gets++
	for _, h := range m.list {
		all = append(all, [2]shared.UnsafeEnvoyBuffer{viewString(h[0]), viewString(h[1])})
	}
	return all
}

func (m *headerMap) Get(string) []shared.UnsafeEnvoyBuffer { panic("not used") }
func (m *headerMap) GetOne(name string) shared.UnsafeEnvoyBuffer {
	return viewString(m.value(name))
}
func (m *headerMap) Add(string, string) { panic("not used") }
func (m *headerMap) Set(name, value string) {
	m.Remove(name)
	m.list = append(m.list, [2]string{name, value})
}

func (m *headerMap) Remove(name string) {
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

// recorded are samples by name and tags.
type recorded map[string]int64

// envoyConfig is the configuration's side of Envoy.
type envoyConfig struct {
	shared.HttpFilterConfigHandle

	mu      sync.Mutex
	logs    []string
	names   []string // of metrics, by id
	refused shared.MetricsResult

	tasks []func() // scheduled for the main thread
	polls []poll   // long ones
	tells []poll
	init  shared.HttpCalloutInitResult
}

type poll struct {
	path    string
	body    []byte
	timeout uint64
	done    shared.HttpCalloutCallback
}

func (e *envoyConfig) Log(level shared.LogLevel, format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs = append(e.logs, fmt.Sprintf("%d ", level)+fmt.Sprintf(format, args...))
}

func (e *envoyConfig) define(name string) (shared.MetricID, shared.MetricsResult) {
	e.names = append(e.names, name)
	return shared.MetricID(len(e.names) - 1), e.refused
}

func (e *envoyConfig) DefineCounter(name string, _ ...string) (shared.MetricID, shared.MetricsResult) {
	return e.define(name)
}

func (e *envoyConfig) DefineGauge(name string, _ ...string) (shared.MetricID, shared.MetricsResult) {
	return e.define(name)
}

func (e *envoyConfig) DefineHistogram(name string, _ ...string) (shared.MetricID, shared.MetricsResult) {
	return e.define(name)
}

func (e *envoyConfig) GetScheduler() shared.Scheduler { return e }

func (e *envoyConfig) Schedule(task func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tasks = append(e.tasks, task)
}

// idle reports whether the main thread has nothing to do.
func (e *envoyConfig) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.tasks) == 0
}

// loop runs the main thread until it has nothing to do.
func (e *envoyConfig) loop() {
	for {
		e.mu.Lock()
		tasks := e.tasks
		e.tasks = nil
		e.mu.Unlock()
		if len(tasks) == 0 {
			return
		}
		for _, task := range tasks {
			task()
		}
	}
}

// turn runs the main thread at its next turn.
func (e *envoyConfig) turn() {
	for e.idle() {
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	e.loop()
}

// run runs the main thread for a while.
func (e *envoyConfig) run(d time.Duration) {
	for range d.Milliseconds() {
		time.Sleep(time.Millisecond)
		synctest.Wait()
		e.loop()
	}
}

func (e *envoyConfig) HttpCallout(cluster string, headers [][2]string, body []byte, timeout uint64, cb shared.HttpCalloutCallback) (shared.HttpCalloutInitResult, uint64) {
	p := poll{cluster + headers[1][1], body, timeout, cb}
	switch {
	case e.init != shared.HttpCalloutInitSuccess:
	case headers[0][1] == "POST":
		e.tells = append(e.tells, p)
	default:
		e.polls = append(e.polls, p)
	}
	return e.init, 1
}

// answer ends the oldest poll.
func (e *envoyConfig) answer(status string, body ...[]byte) {
	p := e.polls[0]
	e.polls = e.polls[1:]
	var chunks []shared.UnsafeEnvoyBuffer
	for _, b := range body {
		chunks = append(chunks, view(b))
	}
	p.done.OnHttpCalloutDone(1, shared.HttpCalloutSuccess, [][2]shared.UnsafeEnvoyBuffer{
		{viewString(":status"), viewString(status)},
		{viewString("x-envoy-upstream-service-time"), viewString("1")},
	}, chunks)
	e.loop()
}

// envoyStream is one exchange as Envoy has it, and what the filter did to it.
type envoyStream struct {
	shared.HttpFilterHandle
	config *envoyConfig
	filter shared.HttpFilter

	request, response *headerMap
	buffered, arrived *buffer
	whole             bool

	heldResponse *buffer  // what the filter has had Envoy hold
	client       []string // bytes of the response, as they went on
	tasks        []func() // for the worker's next turn

	did      []string // what the filter did, in order
	reply    string   // body of the local reply
	metadata map[string]string
	hint     any
	state    map[string]string
	metrics  recorded
	calls    []shared.HttpCalloutCallback
	callInit shared.HttpCalloutInitResult
	call     struct {
		headers [][2]string
		body    string
		timeout uint64
	}
	// What Envoy reports about the response; without details, of which there always are some, it
	// is one that tells nothing.
	details  string
	attempts int
	asked    int // how often it was asked for attributes

	route any // the configuration of its route

	// inline: a local reply ends the stream before it returns.
	inline bool
	ended  bool
}

func (e *envoyStream) note(format string, args ...any) {
	e.did = append(e.did, fmt.Sprintf(format, args...))
}

func (e *envoyStream) RequestHeaders() shared.HeaderMap       { return e.request }
func (e *envoyStream) ResponseHeaders() shared.HeaderMap      { return e.response }
func (e *envoyStream) BufferedRequestBody() shared.BodyBuffer { return e.buffered }
func (e *envoyStream) ReceivedBufferedRequestBody() bool      { return e.whole }
func (e *envoyStream) GetMostSpecificConfig() any             { return e.route }
func (e *envoyStream) ClearRouteCache()                       { e.note("route") }
func (e *envoyStream) ContinueRequest()                       { e.note("continue") }

// hint is what stands in Envoy's metadata as the subset hint: nil, a string, a
// list of anything or anything else.
func (e *envoyStream) GetMetadataKeys(_ shared.MetadataSourceType, ns string) []shared.UnsafeEnvoyBuffer {
	if ns == "jwt" {
		return []shared.UnsafeEnvoyBuffer{viewString("sub"), viewString("exp")}
	}
	if ns != "envoy.lb.subset_hint" {
		return nil
	}
	keys := []shared.UnsafeEnvoyBuffer{viewString("another")}
	if e.hint != nil {
		keys = append(keys, viewString("x-gateway-destination-endpoint-subset"))
	}
	return keys
}

func (e *envoyStream) GetMetadataString(_ shared.MetadataSourceType, ns, key string) (shared.UnsafeEnvoyBuffer, bool) {
	if ns == "jwt" {
		return viewString("ann"), key == "sub" // the other is a number
	}
	text, ok := e.hint.(string)
	return viewString(text), ok
}

func (e *envoyStream) GetMetadataListSize(shared.MetadataSourceType, string, string) (int, bool) {
	list, ok := e.hint.([]any)
	return len(list), ok
}

func (e *envoyStream) GetMetadataListString(_ shared.MetadataSourceType, _, _ string, i int) (shared.UnsafeEnvoyBuffer, bool) {
	text, ok := e.hint.([]any)[i].(string)
	return viewString(text), ok
}

func (e *envoyStream) SetMetadata(ns, key string, value any) { e.metadata[ns+"/"+key] = value.(string) }

func (e *envoyStream) SetFilterState(key string, value []byte) {
	if _, twice := e.state[key]; twice {
		panic("filter state is read-only")
	}
	e.state[key] = string(value)
}

func (e *envoyStream) GetFilterState(key string) (shared.UnsafeEnvoyBuffer, bool) {
	value, ok := e.state[key]
	return viewString(value), ok
}

func (e *envoyStream) GetAttributeString(id shared.AttributeID) (shared.UnsafeEnvoyBuffer, bool) {
	e.asked++
	switch {
	case id == shared.AttributeIDSourceAddress:
		return viewString("[2001:db8::1]:4711"), true
	case id == shared.AttributeIDUpstreamAddress:
		return viewString("10.0.0.1:80"), true
	case id == shared.AttributeIDResponseCodeDetails && e.details != "":
		return viewString(e.details), true
	case id == shared.AttributeIDXdsClusterName && e.details != "":
		return viewString("blue"), true
	}
	return shared.UnsafeEnvoyBuffer{}, false
}

func (e *envoyStream) GetAttributeNumber(id shared.AttributeID) (float64, bool) {
	e.asked++
	switch {
	case e.details == "":
	case id == shared.AttributeIDUpstreamRequestAttemptCount:
		return float64(e.attempts), true
	case id == shared.AttributeIDConnectionId:
		return 7, true
	}
	return 0, false
}

func (e *envoyStream) SendLocalResponse(status uint32, headers [][2]string, body []byte, detail string) {
	e.note("reply %d %s", status, detail)
	e.reply = string(body)
	if e.inline {
		e.end()
	}
}

func (e *envoyStream) HttpCallout(cluster string, headers [][2]string, body []byte, timeout uint64, cb shared.HttpCalloutCallback) (shared.HttpCalloutInitResult, uint64) {
	e.note("call %s", cluster)
	e.call.headers, e.call.body, e.call.timeout = headers, string(body), timeout
	if e.callInit == shared.HttpCalloutInitSuccess {
		e.calls = append(e.calls, cb)
	}
	return e.callInit, 1
}

// answer ends the oldest call.
func (e *envoyStream) answer(result shared.HttpCalloutResult, headers [][2]string, body ...string) {
	cb := e.calls[0]
	e.calls = e.calls[1:]
	var list [][2]shared.UnsafeEnvoyBuffer
	for _, h := range headers {
		list = append(list, [2]shared.UnsafeEnvoyBuffer{viewString(h[0]), viewString(h[1])})
	}
	var chunks []shared.UnsafeEnvoyBuffer
	for _, b := range body {
		chunks = append(chunks, viewString(b))
	}
	cb.OnHttpCalloutDone(1, result, list, chunks)
}

func (e *envoyStream) count(id shared.MetricID, n int64, tags []string) shared.MetricsResult {
	if n == 0 && strings.HasSuffix(e.config.names[id], "_total") {
		return shared.MetricsSuccess // it is only shown
	}
	e.metrics[e.config.names[id]+"{"+strings.Join(tags, ",")+"}"] += n
	return shared.MetricsSuccess
}

func (e *envoyStream) IncrementCounterValue(id shared.MetricID, n uint64, tags ...string) shared.MetricsResult {
	return e.count(id, int64(n), tags)
}

func (e *envoyStream) SetGaugeValue(id shared.MetricID, n uint64, tags ...string) shared.MetricsResult {
	e.metrics[e.config.names[id]+"{"+strings.Join(tags, ",")+"}"] = int64(n)
	return shared.MetricsSuccess
}

func (e *envoyStream) RecordHistogramValue(id shared.MetricID, n uint64, tags ...string) shared.MetricsResult {
	return e.count(id, int64(n), tags)
}

// data delivers bytes of the request's body and does with them what Envoy does
// with the status.
func (e *envoyStream) data(end bool, pieces ...string) shared.BodyStatus {
	e.arrived = newBuffer(pieces...)
	status := e.filter.OnRequestBody(e.arrived, end)
	if status != shared.BodyStatusStopNoBuffer {
		e.buffered.move(e.arrived)
	}
	return status
}

func (e *envoyStream) BufferedResponseBody() shared.BodyBuffer { return e.heldResponse }

// ContinueResponse lets go what is held.
func (e *envoyStream) ContinueResponse() {
	e.note("continue response")
	e.client = append(e.client, e.heldResponse.String())
	e.heldResponse = newBuffer()
}

func (e *envoyStream) GetScheduler() shared.Scheduler { return e }

func (e *envoyStream) Schedule(task func()) { e.tasks = append(e.tasks, task) }

// SendResponseData passes the filter as what comes from the replica does.
func (e *envoyStream) SendResponseData(body []byte, end bool) {
	e.note("send %q %t", body, end)
	e.says(string(body), end)
}

// says delivers bytes of the response and does with them what Envoy does with the status.
func (e *envoyStream) says(bytes string, end bool) shared.BodyStatus {
	arrived := newBuffer(bytes)
	status := e.filter.OnResponseBody(arrived, end)
	switch status {
	case shared.BodyStatusContinue:
		e.client = append(e.client, e.heldResponse.String()+arrived.String())
		e.heldResponse = newBuffer()
	case shared.BodyStatusStopAndBuffer, shared.BodyStatusStopAndWatermark:
		e.heldResponse.move(arrived)
	}
	return status
}

// end is the end of the stream.
func (e *envoyStream) end() {
	if !e.ended {
		e.ended = true
		e.filter.OnStreamComplete()
		e.filter.OnDestroy()
	}
}

// respond delivers the head of an answer.
func (e *envoyStream) respond(end bool, headers ...[2]string) shared.HeadersStatus {
	e.response = &headerMap{list: headers}
	return e.filter.OnResponseHeaders(e.response, end)
}

// policy is a filter made of functions.
type policy struct {
	filter.Base
	needs    filter.Needs
	key      string // in the metadata
	headers  func(*filter.Exchange) filter.Verdict
	request  func(*filter.Exchange) filter.Verdict
	reply    func(*filter.Exchange, *filter.Reply) filter.Verdict
	response func(*filter.Exchange) filter.Verdict
	unit     func(*filter.Exchange, *filter.Unit) filter.Verdict
	done     func(*filter.Exchange, filter.End)
}

func (p *policy) Needs() filter.Needs                      { return p.needs }
func (p *policy) Metadata() (namespace string, key string) { return "jwt", p.key }

func (p *policy) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	if p.headers == nil {
		return filter.Next
	}
	return p.headers(x)
}

func (p *policy) OnRequest(x *filter.Exchange) filter.Verdict {
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

func (p *policy) OnResponse(x *filter.Exchange, u *filter.Unit) filter.Verdict { return p.unit(x, u) }

func (p *policy) OnDone(x *filter.Exchange, end filter.End) {
	if p.done != nil {
		p.done(x, end)
	}
}

func (p *policy) factory() filter.Factory {
	return filter.Factory{
		Name: "policy", FailureMode: filter.FailClosed,
		New: func(*conf.Object, *filter.Deps) filter.Filter { return p },
	}
}

const policyOnly = "filters: [{policy: {}}]"

// load makes a config of a document.
func load(t *testing.T, document string, p *policy) (*config, *envoyConfig) {
	t.Helper()
	e := &envoyConfig{}
	c, err := newConfig(e, []byte(document), []filter.Factory{p.factory()}, newProcess(nil))
	require.NoError(t, err)
	return c, e
}

// open begins an exchange with a chat request's headers.
func open(t *testing.T, c *config, e *envoyConfig, headers ...[2]string) *envoyStream {
	t.Helper()
	s := &envoyStream{
		config:   e,
		request:  &headerMap{list: append([][2]string{{":method", "POST"}, {":path", "/v1/chat/completions"}}, headers...)},
		response: &headerMap{},
		buffered: newBuffer(), heldResponse: newBuffer(),
		metadata: map[string]string{}, state: map[string]string{}, metrics: recorded{},
	}
	s.filter = c.Create(s)
	return s
}

package hosttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// nativeTick is how often a worker of the native host publishes its counts and
// looks for a new snapshot.
const nativeTick = 20 * time.Millisecond

// Native returns the host that runs the chain as plain Go, without any ABI in
// between. Its workers share nothing but the store, like wasm VMs.
func Native(known ...filter.Factory) Host { return native{known} }

type native struct{ known []filter.Factory }

func (native) Name() string { return "native" }

func (n native) Start(s *Scenario) (Gateway, error) {
	return start(s, func(g *gateway, w *worker) (guest, error) {
		return newNativeGuest(g, w, n.known, []byte(s.Config))
	})
}

// nativeGuest is the chain in one worker.
type nativeGuest struct {
	g        *gateway
	w        *worker
	chain    *chain.Chain
	ledger   *kv.Ledger
	talks    *feed.Talks
	snapshot *endpoint.Snapshot
	free     []*chain.Stream // to be used again, as the adapters do
	closed   bool
}

func newNativeGuest(g *gateway, w *worker, known []filter.Factory, config []byte) (guest, error) {
	n := &nativeGuest{g: g, w: w}
	now := func() time.Time { return g.clock.now }
	n.ledger = kv.NewLedger(g.store, "worker-"+strconv.Itoa(w.id), now, 3*nativeTick)
	kept := map[string]any{}
	var err error
	n.chain, err = chain.New(config, known, &filter.Deps{
		Now:       now,
		Rand:      rand.NewPCG(uint64(w.id), 1).Uint64,
		Store:     g.store,
		Counters:  n.ledger,
		Snapshot:  func() *endpoint.Snapshot { return n.snapshot },
		Metrics:   nativeMetrics{g.stats},
		Worker:    "worker-" + strconv.Itoa(w.id),
		Companion: &filter.Link{Proxy: "native"},
		Keep: func(name string, create func() any) any {
			if _, ok := kept[name]; !ok {
				kept[name] = create()
			}
			return kept[name]
		},
		Log: func(level filter.Level, message string) {
			g.logf("%s: %s", levelNames[level], message)
		},
	})
	if err != nil {
		return nil, &RejectedError{err.Error()}
	}
	n.talks = feed.NewTalks(CompanionCluster, n.chain.Conversations(), n.chain.Deps(), n.callCompanion)
	n.tick()
	return n, nil
}

var levelNames = []string{"debug", "info", "warn", "error", "critical"}

// tick runs as long as the guest does.
func (n *nativeGuest) tick() {
	if n.closed {
		return
	}
	if err := n.ledger.Tick(); err != nil && !errors.Is(err, kv.ErrBusy) {
		n.g.logf("ledger: %v", err)
	}
	n.refresh()
	n.talks.Tick()
	n.chain.Tick()
	n.g.clock.after(nativeTick, n.tick)
}

// refresh takes over the companion's snapshot, if the configuration has one.
func (n *nativeGuest) refresh() {
	newest := n.g.company.snapshot
	if n.chain.Companion().Cluster != CompanionCluster || n.snapshot != nil && n.snapshot.Version == newest.Version {
		return
	}
	s, err := endpoint.Decode(endpoint.Append(nil, newest))
	if err != nil {
		n.g.logf("snapshot: %v", err)
		return
	}
	s.Received = n.g.clock.now
	s.Attach(n.ledger, n.snapshot)
	n.snapshot = s
}

// callCompanion is a feed.Caller.
func (n *nativeGuest) callCompanion(r *feed.Request, done func(*filter.Reply)) error {
	headers := slices.DeleteFunc(Headers(r.Headers("")), func(h [2]string) bool { return strings.HasPrefix(h[0], ":") })
	call := Call{Cluster: n.chain.Companion().Cluster, Method: r.Method, Path: r.Path, Headers: headers, Body: slices.Clone(r.Body)}
	return n.g.call(call, r.Timeout, func(r *reply) {
		if !n.closed {
			n.w.enter(func() { done(r.read()) })
		}
	})
}

func (n *nativeGuest) close() error {
	n.closed = true
	return n.ledger.Close()
}

func (n *nativeGuest) newStream(x *exchange) (stream, error) {
	s := &nativeStream{guest: n, x: x}
	if last := len(n.free) - 1; last >= 0 {
		s.chain, n.free = n.free[last], n.free[:last]
	} else {
		s.chain = n.chain.NewStream()
	}
	return s, nil
}

// nativeStream is to the chain what an ABI adapter is.
type nativeStream struct {
	guest *nativeGuest
	x     *exchange
	chain *chain.Stream
}

var _ chain.Host = (*nativeStream)(nil)

func (s *nativeStream) requestHeaders(end bool) bool {
	s.chain.Begin(s)
	return s.chain.RequestHeaders(end) != chain.Continue
}

func (s *nativeStream) requestBody(end bool) bool {
	body := s.x.request.body
	return s.chain.RequestBody(body[s.x.request.fresh:], end) != chain.Continue
}

func (s *nativeStream) requestTrailers() bool { return s.chain.RequestEnd() != chain.Continue }

func (s *nativeStream) responseHeaders(end bool) bool {
	return s.chain.ResponseHeaders(end) == chain.Hold
}

func (s *nativeStream) responseBody(end bool) bool {
	var chunk []byte
	if s.chain.WantsResponseBody() {
		chunk = s.x.response.body
	}
	if n, with := s.chain.ResponseBody(chunk, end); n > 0 || len(with) > 0 {
		s.x.response.body = append(slices.Clone(with), chunk[n:]...)
	}
	return s.holds()
}

// holds reports whether a response is held after a callback.
func (s *nativeStream) holds() bool {
	switch {
	case s.chain.HoldsResponse():
		return true
	case s.chain.StopsResponse():
		s.x.response.keep()
		return true
	}
	return false
}

func (s *nativeStream) responseTrailers() bool {
	s.x.response.body = append(s.x.response.body, s.chain.ResponseEnd()...)
	return s.holds()
}

func (s *nativeStream) done() {
	s.chain.Done()
	s.guest.free = append(s.guest.free, s.chain)
	s.chain = nil
}

// RequestHeaders implements chain.Host.
func (s *nativeStream) RequestHeaders() filter.Headers { return liveHeaders{&s.x.request.headers} }

// ResponseHeaders implements chain.Host.
func (s *nativeStream) ResponseHeaders() filter.Headers { return liveHeaders{&s.x.response.headers} }

// liveHeaders reads a header map as it is at that moment.
type liveHeaders struct{ of *Headers }

func (h liveHeaders) Get(name string) (string, bool) { return h.of.Get(name) }

func (h liveHeaders) At(name string, n int) (string, bool) { return h.of.At(name, n) }

func (h liveHeaders) Line(n int) (name, value string, ok bool) { return h.of.Line(n) }

// ApplyRequest implements chain.Host.
func (s *nativeStream) ApplyRequest(headers []filter.HeaderEdit, body []filter.BodyEdit) error {
	h := &s.x.request
	for _, e := range slices.Backward(body) {
		if e.Span.Start < 0 || e.Span.Start > e.Span.End || e.Span.End > int64(len(h.body)) {
			return fmt.Errorf("an edit of %v in a body of %d bytes", e.Span, len(h.body))
		}
		h.body = slices.Replace(slices.Clone(h.body), int(e.Span.Start), int(e.Span.End), e.With...)
	}
	applyEdits(&h.headers, headers)
	return nil
}

// ApplyResponse implements chain.Host.
func (s *nativeStream) ApplyResponse(headers []filter.HeaderEdit) {
	applyEdits(&s.x.response.headers, headers)
}

func applyEdits(h *Headers, edits []filter.HeaderEdit) {
	for _, e := range edits {
		if e.Remove {
			h.Remove(e.Name)
		} else {
			h.Set(e.Name, e.Value)
		}
	}
}

// Reply implements chain.Host.
func (s *nativeStream) Reply(r *chain.LocalReply) {
	s.guest.w.later(func() { s.x.reply(r.Status, slices.Clone(r.Headers), slices.Clone(r.Body)) })
}

// Call implements chain.Host.
func (s *nativeStream) Call(number int, c *filter.Call) error {
	headers := chain.CallHeaders(c)
	call := Call{Cluster: c.Cluster, Method: headers[0][1], Path: c.Path, Headers: slices.Clone(c.Headers), Body: slices.Clone(c.Body)}
	return s.guest.g.call(call, c.Timeout, func(r *reply) {
		if s.chain == nil {
			return // the exchange ended meanwhile
		}
		s.guest.w.enter(func() { s.chain.Reply(number, r.read()) })
	})
}

// read is the reply as a filter sees it.
func (r *reply) read() *filter.Reply {
	if len(r.headers) == 0 {
		return &filter.Reply{Err: chain.ErrReset}
	}
	var head chain.ReplyHead
	for _, h := range r.headers {
		head.Add(h[0], h[1])
	}
	reply := head.Reply(r.body)
	return &reply
}

// ResumeRequest implements chain.Host.
func (s *nativeStream) ResumeRequest() {
	s.guest.w.later(func() { s.x.resume(&s.x.request) })
}

// ResumeResponse implements chain.Host.
func (s *nativeStream) ResumeResponse(body []byte) {
	body = slices.Clone(body)
	s.guest.w.later(func() {
		s.x.response.body = append(s.x.response.body, body...)
		s.x.resume(&s.x.response)
	})
}

// EndResponse implements chain.Host. What goes on now comes before it.
func (s *nativeStream) EndResponse() { s.guest.g.clock.after(0, s.x.endEarly) }

// Subset implements chain.Host.
func (s *nativeStream) Subset(dst []string) ([]string, bool) {
	hint := s.guest.g.subset
	if hint == nil {
		return dst, false
	}
	if hint.Text {
		return chain.AppendAddresses(dst, strings.Join(hint.Replicas, ", ")), true
	}
	return append(dst, hint.Replicas...), true
}

// Metadata implements chain.Host.
func (s *nativeStream) Metadata(namespace, key string) string {
	return s.guest.g.metadata[namespace][key]
}

// clientAddress is the ip:port of every client.
const clientAddress = "127.0.0.1:40000"

// Client implements chain.Host.
func (s *nativeStream) Client() string { return clientAddress }

// Mark implements chain.Host. No chain of this host stands before another.
func (s *nativeStream) Mark(uint64) {}

// Marked implements chain.Host.
func (s *nativeStream) Marked(uint64) bool { return false }

// RequestNow implements chain.Host. The emulated router follows no redirect.
func (s *nativeStream) RequestNow() filter.Headers { return nil }

// Stamp implements chain.Host.
func (s *nativeStream) Stamp() (uint64, bool) { return 0, false }

// Served implements chain.Host.
func (s *nativeStream) Served() string {
	if s.x.upstream == nil {
		return ""
	}
	return s.x.upstream.address
}

// Details implements chain.Host.
func (s *nativeStream) Details() string { return s.x.details }

// Attempts implements chain.Host.
func (s *nativeStream) Attempts() int { return s.x.attempts() }

// Cluster implements chain.Host.
func (s *nativeStream) Cluster() string { return s.x.pool }

// Explain implements chain.Host.
func (s *nativeStream) Explain(why []byte) { s.x.why = string(why) }

// nativeMetrics defines metrics in the proxy's stats.
type nativeMetrics struct{ stats *stats }

// Counter implements filter.Metrics.
func (m nativeMetrics) Counter(name string, labels ...string) filter.Metric {
	return &nativeMetric{m.stats, counter, name, labels}
}

// Gauge implements filter.Metrics.
func (m nativeMetrics) Gauge(name string, labels ...string) filter.Metric {
	return &nativeMetric{m.stats, gauge, name, labels}
}

// Histogram implements filter.Metrics.
func (m nativeMetrics) Histogram(name string, labels ...string) filter.Metric {
	return &nativeMetric{m.stats, histogram, name, labels}
}

type nativeMetric struct {
	stats  *stats
	kind   kind
	name   string
	labels []string
}

// Record implements filter.Metric.
func (m *nativeMetric) Record(n int64, v filter.Values) {
	pairs := make([]string, 0, 2*len(m.labels))
	for i, label := range m.labels {
		pairs = append(pairs, label, v[i])
	}
	m.stats.add(m.kind, n, m.name, pairs...)
}

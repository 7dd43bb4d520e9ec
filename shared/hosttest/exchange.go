package hosttest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// stream is Inlet's filter for one exchange: the callbacks by which Envoy
// feeds an HTTP filter. Each that returns a bool reports whether the filter
// holds what it has.
type stream interface {
	requestHeaders(end bool) (hold bool)
	requestBody(end bool) (hold bool)
	requestTrailers() (hold bool)
	responseHeaders(end bool) (hold bool)
	responseBody(end bool) (hold bool)
	responseTrailers() (hold bool)
	// done is called once, at the end.
	done()
}

// exchange is one request and its answer on the way through the emulated
// proxy: client → filter → router → replica and back. Everything runs on one
// thread; what a filter asks for within a callback is done after it, as Envoy
// does.
type exchange struct {
	g      *gateway
	worker *worker
	step   *Step
	stream stream

	request  half
	response half

	upstream *replica // the replica that the router chose
	arrived  Arrived
	pool     string
	answered bool // the replica has begun to answer, and nobody else has since
	told     bool // the replica has said all
	closed   bool
	details  string // response code details, as Envoy has them
	why      string

	unreadable bool // the chunk of the request that is in progress

	got Outcome // what the client and the replica saw
	err error   // what the proxy was told and makes no sense
}

// half is one direction of an exchange: what has come, what the filter holds
// of it and what has gone on.
type half struct {
	headers  Headers
	body     []byte // what the filter can read and change: what it holds, and the chunk in progress
	fresh    int    // where the chunk in progress begins in body
	kept     []byte // what is held before body, and the filter has let go of
	trailers Headers

	begun   bool // the filter got the headers
	held    bool // the filter holds what there is
	passed  bool // the headers have gone on
	ended   bool // everything has come
	trailed bool // it ended with trailers

	filter callbacks
	next   sink
}

type callbacks struct {
	headers, body func(end bool) bool
	trailers      func() bool
}

// sink takes what the filter lets go.
type sink struct {
	headers  func(end bool)
	data     func(b []byte, end bool)
	trailers func()
}

func newExchange(g *gateway, w *worker, step *Step) *exchange {
	x := &exchange{g: g, worker: w, step: step}
	x.request.next = sink{x.route, x.toReplica, func() { x.arrived.Trailers = x.request.trailers; x.atReplica() }}
	x.response.next = sink{x.toClientHeaders, x.toClient, func() { x.got.Trailers = x.response.trailers; x.complete() }}
	return x
}

// attach puts the filter into the exchange.
func (x *exchange) attach(s stream) {
	x.stream = s
	x.request.filter = callbacks{s.requestHeaders, s.requestBody, s.requestTrailers}
	x.response.filter = callbacks{s.responseHeaders, s.responseBody, s.responseTrailers}
}

// onHeaders, onData and onTrailers bring what comes from outside to the
// filter, and further if it lets it.

func (x *exchange) onHeaders(h *half, headers Headers, end bool) {
	if x.closed {
		return
	}
	h.headers, h.ended, h.begun = headers, end, true
	x.ask(h, func() bool { return h.filter.headers(end) })
}

func (x *exchange) onData(h *half, chunk []byte, end bool) {
	if x.closed {
		return
	}
	h.ended = end
	h.fresh = len(h.body)
	if h.body == nil {
		h.body = []byte{} // there is one within the callback, with bytes or without
	}
	h.body = append(h.body, chunk...)
	x.ask(h, func() bool { return h.filter.body(end) })
}

func (x *exchange) onTrailers(h *half, trailers Headers) {
	if x.closed {
		return
	}
	h.trailers, h.ended, h.trailed = trailers, true, true
	x.ask(h, h.filter.trailers)
}

// ask calls the filter and does what it decides.
func (x *exchange) ask(h *half, callback func() bool) {
	hold := false
	x.worker.enter(func() { hold = callback() })
	if x.closed || x.gone(h) {
		return
	}
	h.fresh = len(h.body)
	if h.held = hold; !hold {
		x.flush(h)
	}
}

// keep is Envoy's StopIterationAndWatermark: what there is stays, and the filter does not see it again.
func (h *half) keep() {
	h.kept = append(h.kept, h.body...)
	h.body = h.body[:0]
}

// gone reports whether nothing of a direction goes on any more: a request that
// was answered by the gateway.
func (x *exchange) gone(h *half) bool { return h == &x.request && x.response.begun && !x.answered }

// flush lets go what there is.
func (x *exchange) flush(h *half) {
	body := append(h.kept, h.body...)
	h.kept, h.body, h.fresh = nil, nil, 0
	if !h.passed {
		h.passed = true
		h.next.headers(h.ended && len(body) == 0 && !h.trailed)
		if h.ended && len(body) == 0 && !h.trailed {
			return
		}
	}
	if len(body) > 0 || h.ended && !h.trailed {
		if x.closed || x.gone(h) {
			return
		}
		h.next.data(body, h.ended && !h.trailed)
	}
	if h.trailed && !x.closed && !x.gone(h) {
		h.next.trailers()
	}
}

// resume lets go what the filter held. Not within a callback.
func (x *exchange) resume(h *half) {
	switch {
	case x.closed || x.gone(h):
	case !h.held:
		x.fail(errors.New("the filter resumes what it does not hold"))
	default:
		h.held = false
		x.flush(h)
	}
}

// fail remembers the first mistake.
func (x *exchange) fail(err error) {
	if x.err == nil {
		x.err = err
	}
}

const noReplica = "The server is overloaded or not ready yet. Please try again later."

// refuse is a refusal of Envoy itself, in the words of the shipped local_reply_config.
func (x *exchange) refuse(status int, code, message string) {
	form := llm.OpenAIForm
	if path, _ := x.request.headers.Get(":path"); strings.Contains(path, "/v1/messages") {
		form = llm.AnthropicForm
	}
	headers := Headers{{"content-type", "application/json"}}
	if status == 503 {
		headers.Add("retry-after", "1")
	}
	x.reply(status, headers, llm.Refusal{Status: status, Code: code, Message: message}.AppendJSON(nil, form))
}

// route is the router: it chooses the pool by one header and the replica by
// another, as the shipped routes and override_host do.
func (x *exchange) route(end bool) {
	pool, _ := x.request.headers.Get("x-gateway-inference-pool")
	replicas, ok := x.g.pools[pool]
	if !ok {
		x.details = "cluster_not_found"
		x.refuse(404, "no_pool", "No pool serves this request.")
		return
	}
	if len(replicas) == 0 {
		x.details = "no_healthy_upstream"
		x.refuse(503, "unavailable", noReplica)
		return
	}
	picked, _ := x.request.headers.Get("x-gateway-destination-endpoint")
	x.pool, x.upstream = pool, x.g.balance(pool, picked)
	x.arrived.Headers = x.request.headers.Clone()
	if x.upstream.active++; x.g.overflows(pool) {
		x.details = "upstream_reset_before_response_started{overflow}"
		x.reply(503, Headers{{"x-envoy-overloaded", "true"}},
			[]byte("upstream connect error or disconnect/reset before headers. reset reason: overflow"))
		return
	}
	if end {
		x.atReplica()
	}
}

// attempts counts how often the request went to a replica.
func (x *exchange) attempts() int {
	if x.upstream == nil {
		return 0
	}
	return 1
}

func (x *exchange) toReplica(b []byte, end bool) {
	x.arrived.Body = append(x.arrived.Body, b...)
	if end {
		x.atReplica()
	}
}

// atReplica is called when the replica has the whole request.
func (x *exchange) atReplica() {
	if v, ok := x.arrived.Headers.Get("content-length"); ok && v != strconv.Itoa(len(x.arrived.Body)) {
		// A real Envoy hangs or breaks the connection here.
		x.fail(fmt.Errorf("the replica got content-length %s and %d bytes", v, len(x.arrived.Body)))
	}
	x.got.Pool, x.got.Replica, x.got.Arrived = x.pool, x.upstream.name, &x.arrived
	switch {
	case x.step.Hold != "":
	case x.step.Request.Cancel != CancelAfterBody:
		x.g.clock.after(x.step.Upstream.Delay, x.answer)
	case x.step.Request.Patience > 0:
		x.g.clock.after(x.step.Request.Patience, x.leave)
	}
}

// leave is the client's going away.
func (x *exchange) leave() {
	x.details = "downstream_remote_disconnect"
	x.close()
}

// answer plays what the replica says.
func (x *exchange) answer() {
	if x.closed {
		return
	}
	u := x.step.Upstream
	if u.Reset == ResetBeforeHeaders {
		x.details = "upstream_reset_before_response_started{connection_termination}"
		x.refuse(503, "unavailable", noReplica)
		return
	}
	x.answered, x.details = true, "via_upstream"
	pieces := u.Pieces()
	headers := Headers{{":status", strconv.Itoa(u.Status)}}
	for _, name := range sortedKeys(u.Headers) {
		headers.Add(name, u.Headers[name])
	}
	endless := x.step.Request != nil && x.step.Request.Cancel == CancelAfterResponseHeaders
	if u.Events == nil && u.Trailers == nil && u.Reset == "" && !endless && !u.Endless {
		headers.Set("content-length", strconv.Itoa(len(u.Payload())))
	}
	if endless {
		x.onHeaders(&x.response, headers, false)
		x.g.clock.after(x.step.Request.Patience, x.leave)
		return
	}
	x.onHeaders(&x.response, headers, len(pieces) == 0 && u.Trailers == nil && !u.Endless)
	x.say(pieces, 0)
}

// say plays what the replica says from the nth piece on.
func (x *exchange) say(pieces [][]byte, n int) {
	u := x.step.Upstream
	// The end of a body without a length comes without bytes.
	_, sized := x.response.headers.Get("content-length")
	for ; n < len(pieces); n++ {
		x.told = n == len(pieces)-1 && !u.Endless
		x.onData(&x.response, pieces[n], x.told && u.Trailers == nil && sized)
		if n == 0 && x.step.Request.Cancel == CancelDuringResponse {
			x.close()
		}
		if n == 0 && u.Reset == ResetDuringBody {
			x.details = "upstream_reset_after_response_started{connection_termination}"
			x.close()
		}
		if u.Gap > 0 && n+1 < len(pieces) {
			x.g.clock.after(u.Gap, func() { x.say(pieces, n+1) })
			return
		}
	}
	if u.Endless {
		return
	}
	x.told = true
	switch {
	case u.Trailers != nil:
		x.onTrailers(&x.response, headersOf(u.Trailers))
	case !sized && len(pieces) > 0:
		x.onData(&x.response, nil, true)
	}
}

// endEarly ends the client's response before the replica's is over.
func (x *exchange) endEarly() {
	if !x.closed {
		x.complete()
	}
}

// reply answers the client instead of the replica. The answer passes the
// filter, unless an answer did already.
func (x *exchange) reply(status int, headers Headers, body []byte) {
	if x.closed {
		return
	}
	if x.details == "" {
		x.details = "inlet"
	}
	if x.response.passed {
		x.close()
		return
	}
	all := Headers{{":status", strconv.Itoa(status)}}
	if len(body) > 0 {
		all.Add("content-length", strconv.Itoa(len(body)))
	}
	all = append(all, headers...)
	if _, typed := all.Get("content-type"); !typed && len(body) > 0 {
		all.Add("content-type", "text/plain")
	}
	x.answered = false
	if x.response.begun {
		x.response.headers = all
		x.toClientHeaders(len(body) == 0)
		if len(body) > 0 {
			x.toClient(body, true)
		}
		return
	}
	x.onHeaders(&x.response, all, len(body) == 0)
	if len(body) > 0 {
		x.onData(&x.response, body, true)
	}
}

func (x *exchange) toClientHeaders(end bool) {
	status, _ := x.response.headers.Get(":status")
	x.got.Status, _ = strconv.Atoi(status)
	x.got.Headers = x.response.headers.Clone()
	if end {
		x.complete()
	}
}

func (x *exchange) toClient(b []byte, end bool) {
	x.got.Body = append(x.got.Body, b...)
	if end {
		x.complete()
	}
}

// complete ends an exchange whose answer has been given.
func (x *exchange) complete() {
	x.got.Complete = true
	if v, ok := x.got.Headers.Get("content-length"); ok && v != strconv.Itoa(len(x.got.Body)) {
		x.fail(fmt.Errorf("the client got content-length %s and %d bytes", v, len(x.got.Body)))
	}
	x.close()
}

// close ends the exchange, also in the middle: the client is gone, or the
// gateway cuts the connection. The filter learns of it once.
func (x *exchange) close() {
	if x.closed {
		return
	}
	x.closed = true
	x.got.Cancelled = x.got.Arrived != nil && !x.told
	if x.upstream != nil {
		x.upstream.active--
	}
	x.worker.enter(x.stream.done)
}

// send plays the client: headers, body and trailers in one go.
func (x *exchange) send() {
	r := x.step.Request
	pieces := r.Pieces()
	headers := Headers{{":method", r.Method}, {":path", r.Path}, {":scheme", "http"}, {":authority", "gateway.test"}}
	if len(pieces) > 0 && !r.Chunked && r.Trailers == nil {
		headers.Add("content-length", strconv.Itoa(len(r.Payload())))
	}
	for _, name := range sortedKeys(r.Headers) {
		headers.Add(name, r.Headers[name])
	}
	for _, name := range sortedKeys(r.Repeated) {
		for _, value := range r.Repeated[name] {
			headers.Add(name, value)
		}
	}
	bodiless := len(pieces) == 0 && !r.Chunked && r.Trailers == nil
	x.onHeaders(&x.request, headers, bodiless)
	if r.Cancel == CancelAfterHeaders {
		x.close()
		return
	}
	for i, piece := range pieces {
		if x.gone(&x.request) {
			return
		}
		x.unreadable = i+1 == r.Unreadable
		x.onData(&x.request, piece, i == len(pieces)-1 && !r.Chunked && r.Trailers == nil)
	}
	switch {
	case x.gone(&x.request):
	case r.Trailers != nil:
		x.onTrailers(&x.request, headersOf(r.Trailers))
	case r.Chunked:
		// The end of a chunked body comes without bytes.
		x.onData(&x.request, nil, true)
	}
}

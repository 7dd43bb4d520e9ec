package golang

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// stream is one exchange: the filter that Envoy calls, and the host that the
// chain calls. It is used again when the exchange is over.
//
// Envoy calls it on a worker thread, always the same. Replies to calls come on
// goroutines, and lock it out meanwhile.
type stream struct {
	api.PassThroughStreamFilter
	config *config
	chain  *chain.Stream

	mu      sync.Mutex
	envoy   api.FilterCallbackHandler
	request half
	// response may begin while the request is held: Envoy refuses something itself.
	response half
	current  *half             // whose callback runs; nil: none does
	pending  *chain.LocalReply // given outside a callback, while Envoy takes none

	why     []byte
	ending  bool            // Inlet has ended the response: nothing of the replica's goes on any more
	calls   context.Context // done when the exchange is over; nil before the first call
	noCalls context.CancelFunc

	begun   bool // the request's headers came
	replied bool // a local reply was given; Envoy sends it when the callback is over
	broken  bool // a panic ended it
	over    bool // Done was called
	gone    bool // OnDestroy ran: Envoy is not to be called any more
	turn    int  // how often the stream has been used
}

func newStream(c *config) *stream { return &stream{config: c, chain: c.Chain.NewStream()} }

func (s *stream) attach(envoy api.FilterCallbackHandler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.envoy = envoy
	s.request.envoy, s.response.envoy = envoy.DecoderFilterCallbacks(), envoy.EncoderFilterCallbacks()
}

// DecodeHeaders begins the exchange.
func (s *stream) DecodeHeaders(h api.RequestHeaderMap, end bool) (status api.StatusType) {
	r := s.enter(&s.request, inHeaders, nil, end)
	defer s.leave(&status)
	r.headers.reset(h)
	s.begun = true
	s.chain.Begin(s)
	return s.requestAction(s.chain.RequestHeaders(end))
}

// DecodeData feeds the chain with the bytes, if it reads them.
func (s *stream) DecodeData(data api.BufferInstance, end bool) (status api.StatusType) {
	r := s.enter(&s.request, inData, data, end)
	defer s.leave(&status)
	if s.replyLate() || s.broken {
		return api.LocalReply
	}
	var b []byte
	if s.chain.WantsRequestBody() {
		b = r.read()
	}
	return s.requestAction(s.chain.RequestBody(b, end))
}

// DecodeTrailers ends a body that has trailers.
func (s *stream) DecodeTrailers(api.RequestTrailerMap) (status api.StatusType) {
	var rest []byte
	defer func() { s.add(&s.request, rest) }()
	r := s.enter(&s.request, inTrailers, nil, true)
	defer s.leave(&status)
	if s.replyLate() || s.broken {
		return api.LocalReply
	}
	if status = s.requestAction(s.chain.RequestEnd()); status == api.Continue {
		rest = r.goOn()
	}
	return status
}

// requestAction does what the chain says about the request.
func (s *stream) requestAction(a chain.Action) api.StatusType {
	switch {
	case a == chain.Replied:
		return api.LocalReply
	case a == chain.Hold:
		return s.request.hold(s.chain.AwaitsReply())
	case s.request.phase == inData:
		s.request.goOn()
	}
	return api.Continue
}

// EncodeHeaders shows the chain the response, also one that Envoy gives itself.
func (s *stream) EncodeHeaders(h api.ResponseHeaderMap, end bool) (status api.StatusType) {
	r := s.enter(&s.response, inHeaders, nil, end)
	defer s.leave(&status)
	r.headers.reset(h)
	switch {
	case s.replyLate():
		return api.LocalReply
	case !s.begun || s.broken: // not begun: a filter before this one has answered
		return api.Continue
	}
	switch s.chain.ResponseHeaders(end) {
	case chain.Replied:
		return api.LocalReply
	case chain.Hold:
		return r.hold(s.chain.AwaitsReply())
	}
	return api.Continue
}

// replyLate gives the reply for which there was no callback, and reports whether there was one.
func (s *stream) replyLate() bool {
	r := s.pending
	if r == nil {
		return false
	}
	s.pending = nil
	if !s.broken {
		s.chain.AskAgain()
	}
	s.Reply(r)
	return true
}

// EncodeData shows the chain the bytes of a response, if it reads them. They
// go on at once, changed or not, unless the chain holds them.
func (s *stream) EncodeData(data api.BufferInstance, end bool) (status api.StatusType) {
	r := s.enter(&s.response, inData, data, end)
	defer s.leave(&status)
	if !s.begun || s.broken {
		return api.Continue
	}
	if s.ending {
		return s.cut()
	}
	var b []byte
	if s.chain.WantsResponseBody() {
		b = r.read()
	}
	if n, with := s.chain.ResponseBody(b, end); n > 0 || len(with) > 0 {
		replace(r, n, with)
	}
	return s.responseAction()
}

// replace replaces the first n bytes of the chunk.
func replace(r *half, n int, with []byte) {
	r.bytes = nil
	r.chunk.Drain(n)
	if len(with) > 0 {
		_ = r.chunk.Prepend(with)
	}
}

// end lets what there is of a response go on, and cuts it when its client had time to go: the API cannot end one cleanly.
// Envoy shows no more of it.
func (s *stream) end() api.StatusType {
	r := &s.response
	r.keep()
	rest := bytes.Join(r.kept, nil)
	r.kept.reset()
	r.waits, r.ended = true, true
	turn, envoy := s.turn, r.envoy
	go func() { // data is injected on goroutines only
		defer s.told()
		if len(rest) > 0 {
			envoy.InjectData(rest)
		}
		time.AfterFunc(chain.EndGrace, func() { s.cutLater(turn) })
	}()
	return api.Running
}

func (s *stream) cutLater(turn int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.caught()
	if s.turn == turn && s.response.waits && !s.over && !s.broken {
		s.cut()
	}
}

// cut ends the client's response and the request to the replica.
func (s *stream) cut() api.StatusType {
	s.response.waits = false
	s.response.envoy.SendLocalReply(endedStatus, "", nil, unknownCode, "inlet_ended")
	return api.LocalReply
}

// responseAction does what the chain says about the response's body.
func (s *stream) responseAction() api.StatusType {
	r := &s.response
	switch {
	case s.replied:
		return api.LocalReply
	case s.ending && r.phase == inData && !r.ended:
		return s.end()
	case s.chain.HoldsResponse(), s.chain.StopsResponse():
		return r.hold(s.chain.AwaitsReply())
	case r.phase == inData:
		r.goOn()
	}
	return api.Continue
}

// EncodeTrailers ends a response that has trailers.
func (s *stream) EncodeTrailers(api.ResponseTrailerMap) (status api.StatusType) {
	var rest []byte
	defer func() { s.add(&s.response, rest) }()
	r := s.enter(&s.response, inTrailers, nil, true)
	defer s.leave(&status)
	if !s.begun || s.broken {
		return api.Continue
	}
	if with := s.chain.ResponseEnd(); len(with) > 0 {
		r.kept = append(r.kept, append([]byte(nil), with...))
	}
	if status = s.responseAction(); status == api.Continue {
		rest = r.goOn()
	}
	return status
}

// add puts bytes before trailers. Envoy may run other callbacks of the exchange meanwhile, so nothing is locked.
func (s *stream) add(h *half, rest []byte) {
	defer s.told()
	if len(rest) > 0 {
		h.envoy.AddData(rest, true)
	}
}

// OnStreamComplete ends the exchange, whatever its result, before the access log is written.
func (s *stream) OnStreamComplete() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.caught()
	s.config.RecordDue()
	s.done()
	s.showWhy()
	s.config.RecordDue()
}

// OnDestroy gives the memory back.
func (s *stream) OnDestroy(api.DestroyReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.caught()
	s.gone = true
	s.done()
	if !s.broken { // a broken state is not used again
		s.recycle()
	}
}

// done tells the filters that the exchange is over; once.
func (s *stream) done() {
	if s.calls != nil {
		s.noCalls()
	}
	if s.begun && !s.over {
		s.over = true
		s.chain.Done()
	}
}

// enter begins every callback. What follows it ends with leave.
func (s *stream) enter(h *half, p phase, chunk api.BufferInstance, end bool) *half {
	s.mu.Lock()
	s.current, s.replied = h, false
	h.show(p, chunk, end)
	return h
}

// leave is deferred by every callback: it turns a panic into a refusal.
func (s *stream) leave(status *api.StatusType) {
	defer s.mu.Unlock()
	if p := recover(); p != nil {
		*status = api.LocalReply
		s.fail(p)
	}
	s.current = nil
}

// fail answers a request that met a defect.
func (s *stream) fail(p any) {
	defer s.caught()
	if left(p) {
		return
	}
	s.broken = true
	s.config.Panicked(p)
	if !s.replied {
		s.Reply(chain.InternalError())
	}
}

// caught is deferred where there is nobody to answer: a panic is told and goes
// no further.
func (s *stream) caught() {
	if p := recover(); p != nil && !left(p) {
		s.broken = true
		s.config.Panicked(p)
	}
}

// told is the same where the stream is not locked.
func (s *stream) told() {
	if p := recover(); p != nil && !left(p) {
		s.config.Panicked(p)
	}
}

// left reports whether a panic is the API's, which says so that Envoy has dropped the exchange meanwhile.
func left(p any) bool {
	return p == "request has been finished" || p == "golang filter has been destroyed"
}

// recycle makes the stream ready for another exchange.
func (s *stream) recycle() {
	s.turn++
	s.request.reset()
	s.response.reset()
	s.envoy, s.current, s.pending = nil, nil, nil
	s.why, s.calls, s.noCalls = s.why[:0], nil, nil
	s.begun, s.replied, s.ending, s.over, s.gone = false, false, false, false, false
	s.config.streams.Put(s)
}

// refuser stands for a filter that could not be made, and for a configuration that Envoy could not be told to refuse.
type refuser struct {
	api.PassThroughStreamFilter
	envoy api.FilterCallbackHandler
}

// DecodeHeaders refuses the request.
func (f *refuser) DecodeHeaders(api.RequestHeaderMap, bool) (status api.StatusType) {
	defer func() {
		if recover() != nil {
			status = api.LocalReply
		}
	}()
	sendReply(f.envoy.DecoderFilterCallbacks(), chain.InternalError())
	return api.LocalReply
}

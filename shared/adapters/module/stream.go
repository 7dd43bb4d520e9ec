package module

import (
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// stream is one exchange: the filter that Envoy calls, and the host that the
// chain calls. It is used again when the exchange is over.
//
// Envoy calls it on one worker thread, always the same.
type stream struct {
	config *config
	own    *chain.Stream // of the listener's document
	routed *routed       // the document of the route, nil if it has none
	chain  *chain.Stream // of the document that is in force
	handle shared.HttpFilterHandle

	arena             arena
	request, response headers
	body              requestBody
	why               []byte
	reply             []byte  // memory for answers of calls
	answer            []byte  // memory for a piece of an answer that changes
	number            [8]byte // memory for Mark

	begun  bool // the request's headers came
	broken bool // a panic ended it
	over   bool // Done was called

	// A local reply, or a request that goes on, may end the stream before the
	// call returns: OnDestroy then runs inside another callback.
	depth int  // callbacks in progress
	gone  bool // OnDestroy ran: the handle is not to be used any more
	turn  int  // how often the stream has been used
}

func newStream(c *config) *stream {
	s := &stream{config: c, own: c.Chain.NewStream()}
	s.chain = s.own
	s.request.arena, s.response.arena = &s.arena, &s.arena
	return s
}

// OnRequestHeaders begins the exchange.
func (s *stream) OnRequestHeaders(_ shared.HeaderMap, end bool) (status shared.HeadersStatus) {
	s.enter()
	defer s.leave()
	status = shared.HeadersStatusStop // also if a panic comes
	s.request.reset(s.handle.RequestHeaders())
	s.response.reset(nil)
	s.begun = true
	s.route()
	s.chain.Begin(s)
	if s.goesOn(s.chain.RequestHeaders(end)) {
		status = shared.HeadersStatusContinue
	}
	return status
}

// OnRequestBody feeds the chain with the bytes where they lie.
func (s *stream) OnRequestBody(body shared.BodyBuffer, end bool) (status shared.BodyStatus) {
	s.enter()
	defer s.leave()
	status = shared.BodyStatusStopNoBuffer
	if s.broken {
		return status
	}
	s.body.arrived = body
	defer s.bodyLeft()
	if action := s.feed(end); s.goesOn(action) {
		status = shared.BodyStatusContinue
	} else if action == chain.Hold {
		status = shared.BodyStatusStopAndBuffer
	}
	return status
}

// goesOn reports whether Envoy may go on. A refusal can end the exchange while
// the chain still runs, after which nothing stands in the way of a Continue.
func (s *stream) goesOn(a chain.Action) bool { return a == chain.Continue && !s.over }

func (s *stream) bodyLeft() { s.body.arrived = nil }

// feed gives the chain the bytes that it has not seen.
func (s *stream) feed(end bool) chain.Action {
	if !s.chain.WantsRequestBody() {
		return s.chain.RequestBody(nil, end)
	}
	// Behind a filter that buffers in pieces, every piece comes with those before it.
	s.body.whole = s.handle.ReceivedBufferedRequestBody()
	var seen int64
	if s.body.whole {
		seen = s.body.fed
	}
	for _, chunk := range s.body.arrived.GetChunks() {
		bytes := chunk.ToUnsafeBytes()
		known := min(seen, int64(len(bytes)))
		seen -= known
		bytes = bytes[known:]
		s.body.fed += int64(len(bytes))
		if !s.chain.RequestPiece(bytes) {
			return chain.Replied
		}
	}
	action := s.chain.RequestBody(nil, end)
	if action == chain.Continue {
		s.body.fed = 0 // what comes now comes by itself
	}
	return action
}

// OnRequestTrailers ends a body that has trailers.
func (s *stream) OnRequestTrailers(shared.HeaderMap) (status shared.TrailersStatus) {
	s.enter()
	defer s.leave()
	status = shared.TrailersStatusStop
	if !s.broken && s.goesOn(s.chain.RequestEnd()) {
		status = shared.TrailersStatusContinue
	}
	return status
}

// OnResponseHeaders shows the chain the answer, also one that Envoy gives itself.
func (s *stream) OnResponseHeaders(_ shared.HeaderMap, end bool) (status shared.HeadersStatus) {
	s.enter()
	defer s.leave()
	if !s.begun {
		return shared.HeadersStatusContinue // a filter before this one has answered
	}
	status = shared.HeadersStatusStop
	s.response.reset(s.handle.ResponseHeaders())
	if s.broken || s.goesOn(s.chain.ResponseHeaders(end)) {
		status = shared.HeadersStatusContinue
	}
	return status
}

// OnResponseBody shows the chain the bytes of a response, if it reads them. They
// go on at once, changed or not, unless the chain holds them.
func (s *stream) OnResponseBody(body shared.BodyBuffer, end bool) (status shared.BodyStatus) {
	s.enter()
	defer s.leave()
	switch {
	case !s.begun || s.broken:
		return shared.BodyStatusContinue
	case s.chain.ScreensResponse():
		status = shared.BodyStatusStopNoBuffer // also if a panic comes: nobody has seen all of it
		s.screenResponse(body, end)
	case s.chain.WantsResponseBody():
		status = shared.BodyStatusStopNoBuffer
		s.readResponse(body, end)
	default:
		s.chain.ResponseBody(nil, end)
	}
	switch {
	case s.over:
	case s.chain.HoldsResponse(), s.chain.StopsResponse():
		status = shared.BodyStatusStopAndWatermark // more than Envoy's buffer is to hold slows the replica down, and is no error
	default:
		status = shared.BodyStatusContinue
	}
	return status
}

// readResponse feeds the chain with the bytes where they lie. If some of them are to
// change, all are rewritten: bytes can only be taken off the front of a
// buffer and added to its end.
func (s *stream) readResponse(body shared.BodyBuffer, end bool) {
	changed := false
	size := 0
	s.answer = s.answer[:0]
	chunks := body.GetChunks()
	for i, chunk := range chunks {
		bytes := chunk.ToUnsafeBytes()
		size += len(bytes)
		n, with := s.chain.ResponseBody(bytes, false)
		if n > 0 && !changed {
			changed = true
			for _, earlier := range chunks[:i] {
				s.answer = append(s.answer, earlier.ToUnsafeBytes()...)
			}
		}
		if changed {
			s.answer = append(append(s.answer, with...), bytes[n:]...)
		}
	}
	if end {
		tail := s.chain.ResponseEnd()
		if !changed && len(tail) > 0 {
			body.Append(tail)
		}
		s.answer = append(s.answer, tail...)
	}
	if !changed {
		return
	}
	body.Drain(uint64(size))
	if len(s.answer) > 0 {
		body.Append(s.answer)
	}
}

// screenResponse feeds the chain with the bytes where they lie, and puts what goes on in their place. However many pieces the
// buffer has, they are decided on at once, as in wasm.
func (s *stream) screenResponse(body shared.BodyBuffer, end bool) {
	size := 0
	for _, chunk := range body.GetChunks() {
		bytes := chunk.ToUnsafeBytes()
		size += len(bytes)
		s.chain.ResponsePiece(bytes)
	}
	_, with := s.chain.ResponseBody(nil, end)
	if size > 0 {
		body.Drain(uint64(size))
	}
	if len(with) > 0 {
		body.Append(with)
	}
}

// OnResponseTrailers ends a response that has trailers.
func (s *stream) OnResponseTrailers(shared.HeaderMap) (status shared.TrailersStatus) {
	s.enter()
	defer s.leave()
	if !s.begun || s.broken {
		return shared.TrailersStatusContinue
	}
	status = shared.TrailersStatusStop
	s.putBefore(s.chain.ResponseEnd())
	if !s.over && !s.chain.HoldsResponse() && !s.chain.StopsResponse() {
		status = shared.TrailersStatusContinue
	}
	return status
}

// putBefore puts bytes behind what is held of the response, and before what follows.
func (s *stream) putBefore(b []byte) {
	if len(b) > 0 {
		s.handle.BufferedResponseBody().Append(b)
	}
}

// OnStreamComplete ends the exchange, whatever its result, before the access
// log is written.
func (s *stream) OnStreamComplete() {
	s.enter()
	defer s.left()
	defer s.caught()
	s.done()
	s.showWhy()
}

// OnDestroy gives the memory back.
func (s *stream) OnDestroy() {
	s.enter()
	defer s.left()
	defer s.caught()
	s.gone = true
	s.done()
}

// done tells the filters that the exchange is over; once.
func (s *stream) done() {
	if s.begun && !s.over {
		s.over = true
		s.chain.Done()
	}
}

// enter begins every callback.
func (s *stream) enter() { s.depth++ }

// leave is deferred by every callback: it turns a panic into a refusal, and
// records the samples that were taken.
func (s *stream) leave() {
	if p := recover(); p != nil {
		s.fail(p)
	}
	s.left()
}

// caught is deferred where there is nobody to answer: a panic is told and goes
// no further.
func (s *stream) caught() {
	if p := recover(); p != nil {
		s.broken = true
		s.config.Panicked(p)
	}
}

// left ends every callback.
func (s *stream) left() {
	defer s.caught()
	if s.depth--; !s.gone {
		s.config.RecordDue()
		s.config.process.balanced.record()
		s.config.process.metrics.flush(s.handle, s.config.numbers)
		s.config.process.metrics.keep(s.handle, s.config.numbers, &s.config.shown)
	} else if s.depth == 0 && !s.broken { // a broken state is not used again
		s.recycle()
	}
}

// fail answers a request that met a defect.
func (s *stream) fail(p any) {
	defer s.caught()
	s.broken = true
	s.config.Panicked(p)
	if !s.gone {
		sorry(s.handle)
	}
}

// recycle makes the stream ready for another exchange.
func (s *stream) recycle() {
	s.handle, s.gone, s.begun, s.over = nil, false, false, false
	s.turn++
	s.unroute()
	s.request.reset(nil)
	s.response.reset(nil)
	s.arena.reset()
	s.body = requestBody{}
	s.why = s.why[:0]
	if cap(s.reply) > arenaKept {
		s.reply = nil
	}
	if cap(s.answer) > arenaKept {
		s.answer = nil
	}
	s.config.streams.Put(s)
}

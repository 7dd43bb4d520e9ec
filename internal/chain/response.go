package chain

import (
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// ResponseHeaders runs the response hooks in reverse order. end: there is no body.
func (s *Stream) ResponseHeaders(end bool) Action {
	defer func() { s.complete = s.complete || end }()
	if s.state != released {
		// Envoy may refuse a request itself while the chain still reads it. Or it is our own reply.
		s.readStatus()
		if s.reads != responsePasses {
			s.noteUsage()
			s.reads = responsePasses
		}
		if s.state == unmatched && s.nowhere() {
			return s.refuse(refuseUnknownPath(s.x.Method))
		}
		return Continue
	}
	s.readStatus()
	x := &s.x
	x.Response.Headers = s.host.ResponseHeaders()
	s.readOrigin()
	kind, _ := x.Response.Headers.Get("content-type")
	x.Response.EventStream = isEventStream(kind)
	for i := s.started - 1; i >= 0; i-- {
		if s.ends(s.run(i, hookResponseHeaders, nil)) {
			return Replied
		}
	}
	s.explainNews()
	if !end {
		if s.startScreening(kind) {
			return s.standingResponse()
		}
		s.explainNews()
		s.startReading(kind)
	}
	if s.reads == responseRestored || s.reads == responseCounted && s.response.Conceals() {
		// The answer gets longer or shorter by what is not known before its end.
		x.RemoveResponseHeader("content-length")
	}
	if s.StopsResponse() {
		if !s.isEnvoys() {
			s.to(parked)
			return Hold
		}
		s.calls.dropAll()
	}
	s.applyResponse()
	return Continue
}

// standingResponse is what the adapter does with a response that is not passing.
func (s *Stream) standingResponse() Action {
	if s.state == keeping {
		return Hold
	}
	return Replied
}

func (s *Stream) applyResponse() {
	if e := s.x.Effects(); len(e.Response) > 0 {
		s.host.ApplyResponse(e.Response)
	}
}

// nowhere reports whether Envoy itself says that it has no route for a request that
// no filter saw: nobody read its model or chose a pool.
func (s *Stream) nowhere() bool {
	return s.status == 404 && s.host.Served() == ""
}

func (s *Stream) readStatus() {
	if v, ok := s.host.ResponseHeaders().Get(":status"); ok {
		s.status, _ = strconv.Atoi(v)
	}
	s.x.Response.Status = s.status
}

// wantsAnswer reports whether anybody is interested in what the answer says.
func (s *Stream) wantsAnswer() bool {
	return s.countsTokens() || s.asked || s.x.Effects().Model != "" || len(s.c.screeners) > 0 && s.wantsScreening()
}

// countsTokens reports whether the answer has a usage that is wanted.
func (s *Stream) countsTokens() bool {
	return s.c.needs.Has(filter.NeedUsage) && s.x.API.HasUsage()
}

// startReading decides whether the answer's body is scanned.
func (s *Stream) startReading(contentType string) {
	failed := s.status >= 400 // some servers tell what they have computed before they failed
	if !s.wantsAnswer() || s.status >= 300 && !(failed && s.countsTokens() && !s.isEnvoys()) {
		return
	}
	x := &s.x
	name := x.Effects().Model
	if failed {
		name = ""
	}
	if why := s.unreadable(contentType); why != "" {
		// Its usage is counted as unknown, never as free.
		if name != "" && !(why == mediaTypeReason && x.API.AnswersOtherwise()) {
			s.c.metrics.unrestored.Record(1, filter.Values{x.Route.Model, poolOf(x), why})
		}
		return
	}
	if s.reads = responseCounted; name != "" {
		s.reads = responseRestored
	}
	s.response.Reset(x.API, x.Response.EventStream, name)
	if !failed {
		s.conceal(&s.response)
	}
}

const mediaTypeReason = "media_type"

// unreadable says why the answer's body cannot be read, "" if it can.
func (s *Stream) unreadable(contentType string) string {
	if !s.x.Response.EventStream && !isJSON(contentType) {
		return mediaTypeReason
	}
	for n := 0; ; n++ {
		coding, ok := s.x.Response.Headers.At("content-encoding", n)
		if !ok {
			return ""
		}
		if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
			return "encoded"
		}
	}
}

// lacksUsage reports whether the answer ought to have told its tokens and did not.
func (s *Stream) lacksUsage() bool {
	switch {
	case s.status >= 300:
		return false // nobody has computed anything
	case s.x.Usage.Known:
		return false
	case s.reads != responsePasses:
		return s.response.Untold()
	}
	return s.x.API.TellsUsage()
}

// WantsResponseBody reports whether ResponseBody needs the bytes. When it does
// not, the adapter passes nil.
func (s *Stream) WantsResponseBody() bool { return s.reads != responsePasses }

// ResponseBody takes the next bytes of the response. The first n are to be replaced
// by with, which may be empty and is valid until the next call, and then all go on
// unless HoldsResponse. n is 0 if they go on as they came.
func (s *Stream) ResponseBody(chunk []byte, end bool) (n int, with []byte) {
	s.noteFirstByte()
	switch s.reads {
	case responsePasses:
	case responseScreened:
		s.complete = s.complete || end
		s.take(chunk, end)
		return len(chunk), s.next()
	default:
		if n, with = s.response.Feed(chunk); end {
			with = s.withRest(with)
		}
	}
	s.complete = s.complete || end
	return n, with
}

// noteFirstByte notes when the replica's first byte came.
func (s *Stream) noteFirstByte() {
	if s.state.in(sent) && s.x.Response.FirstByte == 0 && s.x.Response.Origin == filter.OfReplica {
		s.x.Response.FirstByte = max(1, s.c.deps.Now().Sub(s.x.Start))
		s.firstByte()
	}
}

// ScreensResponse reports whether the response is screened. Then ResponsePiece may take its bytes.
func (s *Stream) ScreensResponse() bool { return s.reads == responseScreened }

// ResponsePiece takes bytes of a screened response of which more have arrived in the same callback: ResponseBody follows, and
// says what goes on for all of them.
func (s *Stream) ResponsePiece(chunk []byte) {
	s.noteFirstByte()
	s.takePiece(chunk)
}

// ResponseLost says that size bytes of the response, which stand in the adapter's
// buffer, cannot be read. The first n are to be replaced as ResponseBody has it: nobody
// has screened them.
func (s *Stream) ResponseLost(size int) (n int, with []byte) {
	if s.reads != responseScreened {
		return 0, s.response.Rest()
	}
	if s.state.in(screened) && !s.screen.open {
		s.unscreened("response-unreadable")
	}
	if s.screen.open {
		return 0, s.next()
	}
	return size, s.next()
}

// next returns what of a screened response goes on now.
func (s *Stream) next() []byte {
	if s.HoldsResponse() {
		return nil
	}
	return s.handOver()
}

// ResponseEnd says that the response is complete; for responses with trailers. What
// it returns goes on before them, unless HoldsResponse.
func (s *Stream) ResponseEnd() (with []byte) {
	s.complete = true
	switch s.reads {
	case responsePasses:
	case responseScreened:
		s.take(nil, true)
		with = s.next()
	default:
		with = s.withRest(nil)
	}
	return with
}

// noteUsage takes over what was read of the response's tokens.
func (s *Stream) noteUsage() {
	s.x.Usage, s.x.Response.Events, s.x.Response.SinceUsage = s.response.Usage(), s.response.Events(), s.response.SinceUsage()
}

// Done ends the exchange, whatever its result. A second call does nothing.
func (s *Stream) Done() {
	if s.state == done {
		return
	}
	if s.reads != responsePasses && s.response.Ended() {
		s.complete = true // OpenAI's clients close the connection here, often before Envoy has seen the end of the stream
	}
	if s.state == released && s.status == 0 {
		s.readOrigin() // nobody has answered: who was asked?
	}
	end := filter.End{
		Complete: s.complete && !s.state.in(cut), Refused: s.state == refused, Answered: s.state == answered, Ended: s.state == ended,
		Partial: s.state.in(sent) && s.body != bodyPasses, Broken: s.brokeOff(), Status: s.status, At: s.c.deps.Now(),
	}
	redirected := s.redirected()
	if redirected {
		if !s.StopsResponse() { // else all filters see it again, since it may not go on without a reply
			s.keepRedirected(end.At)
		}
		end.Complete, end.Status = true, 307 // or another such status: the replica has answered
	}
	if s.reads != responsePasses {
		s.response.End()
		s.noteUsage()
	}
	if s.reads >= responseRestored && s.x.Effects().Model != "" && s.complete && s.response.Broken() != nil {
		s.c.metrics.unrestored.Record(1, filter.Values{s.x.Route.Model, poolOf(&s.x), "malformed"})
	}
	seen := !s.state.in(setOf(bypassed, unmatched, unrouted))
	s.to(done)
	s.calls.dropAll()
	for i := s.started - 1; i >= 0; i-- {
		s.finish(i, end)
	}
	if seen && !redirected {
		s.c.metrics.record(s, end)
	}
	// A Stream that waits to be used again keeps no body and no headers: neither its own nor by an edit.
	s.encoded.reset()
	s.response.Release()
	if len(s.c.screeners) > 0 {
		s.screen.reset()
	}
	s.x.Reset(len(s.c.slots))
}

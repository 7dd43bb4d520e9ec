package chain

import (
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/shared/filter"
)

// ResponseHeaders runs the response hooks in reverse order. end: there is no body.
func (s *Stream) ResponseHeaders(end bool) Action {
	defer func() { s.complete = s.complete || end }()
	if s.state != released || s.bypassed {
		// Envoy may refuse a request itself while the chain still reads it.
		s.readStatus()
		return Continue
	}
	s.readStatus()
	x := &s.x
	x.Response.Headers = s.host.ResponseHeaders()
	x.Response.Served = s.host.Served()
	kind, _ := x.Response.Headers.Get("content-type")
	x.Response.EventStream = strings.HasPrefix(kind, "text/event-stream")
	for i := len(s.c.slots) - 1; i >= 0; i-- {
		if r := s.run(i, hookResponseHeaders, nil).Refusal(); r != nil {
			return s.refuse(r)
		}
	}
	if e := x.Effects(); len(e.Response) > 0 {
		s.host.ApplyResponse(e.Response)
	}
	s.startReading(kind)
	return Continue
}

func (s *Stream) readStatus() {
	if v, ok := s.host.ResponseHeaders().Get(":status"); ok {
		s.status, _ = strconv.Atoi(v)
	}
	s.x.Response.Status = s.status
}

// startReading decides whether the answer's body is scanned.
func (s *Stream) startReading(contentType string) {
	if !s.c.needs.Has(filter.NeedUsage) || s.status >= 300 {
		return
	}
	if _, encoded := s.x.Response.Headers.Get("content-encoding"); encoded {
		return // counted as usage unknown, never as free
	}
	if s.x.Response.EventStream || strings.HasPrefix(contentType, "application/json") {
		s.reads = true
		s.response.Reset(s.x.API, s.x.Response.EventStream)
	}
}

// WantsResponseBody reports whether ResponseBody needs the bytes. When it does
// not, the adapter passes nil.
func (s *Stream) WantsResponseBody() bool { return s.reads }

// ResponseBody takes the next bytes of the answer. They are never held.
func (s *Stream) ResponseBody(chunk []byte, end bool) {
	if s.state == released && s.x.Response.FirstByte == 0 {
		s.x.Response.FirstByte = max(1, s.c.deps.Now().Sub(s.x.Start))
	}
	if s.reads {
		s.response.Feed(chunk)
	}
	if end {
		s.ResponseEnd()
	}
}

// ResponseEnd says that the answer is complete; for answers with trailers.
func (s *Stream) ResponseEnd() { s.complete = true }

// Done ends the exchange, whatever became of it. A second call does nothing.
func (s *Stream) Done() {
	if s.state == done {
		return
	}
	end := filter.End{Complete: s.complete && s.state != refused, Refused: s.state == refused, Status: s.status}
	if s.reads {
		s.response.End()
		s.x.Usage = s.response.Usage()
	}
	s.state = done
	for i := s.started - 1; i >= 0; i-- {
		s.finish(i, end)
	}
	if !s.bypassed {
		s.c.metrics.record(s, end)
	}
}

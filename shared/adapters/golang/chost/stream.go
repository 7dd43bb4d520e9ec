package chost

// Stream is an exchange on its way through the filter. What the filter lets go, and what the plugin does to the exchange, are
// events:
//
//	uph upd upt          headers, data, trailers to the replica; A is 1 at the end
//	downh downd downt    the same to the client
//	downreset            the client's connection is cut
//	route                the route is to be selected again
//	details              of a local reply of the plugin
//	meta, state          dynamic metadata (namespace, key, a google.protobuf.Value), filter state (key, value)
//	finished             Finish is done
type Stream struct {
	host *Host
	id   uint64
}

// Open begins an exchange on a worker. info is what Envoy knows of it: client, served, cluster, attempts, details,
// metadata:<namespace> (a google.protobuf.Struct), state:<key>, property:<path>. Events are delivered on the goroutine that reads them.
func (h *Host) Open(worker int, config uint64, info map[string]string, deliver func(Event)) *Stream {
	s := &Stream{host: h, id: h.number(deliver)}
	h.send("stream", s.id, int64(worker), int64(config), flat(info)...)
	return s
}

// Info says what Envoy knows now.
func (s *Stream) Info(info map[string]string) { s.host.send("info", s.id, 0, 0, flat(info)...) }

func flat(info map[string]string) (parts [][]byte) {
	for name, value := range info {
		parts = append(parts, []byte(name), []byte(value))
	}
	return parts
}

func headerParts(headers [][2]string) (parts [][]byte) {
	for _, h := range headers {
		parts = append(parts, []byte(h[0]), []byte(h[1]))
	}
	return parts
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// RequestHeaders brings the request's headers.
func (s *Stream) RequestHeaders(headers [][2]string, end bool) {
	s.host.send("reqh", s.id, flag(end), 0, headerParts(headers)...)
}

// RequestData brings bytes of the request's body.
func (s *Stream) RequestData(b []byte, end bool) { s.host.send("reqd", s.id, flag(end), 0, b) }

// RequestTrailers brings the request's trailers.
func (s *Stream) RequestTrailers(trailers [][2]string) {
	s.host.send("reqt", s.id, 1, 0, headerParts(trailers)...)
}

// ResponseHeaders brings the response's headers.
func (s *Stream) ResponseHeaders(headers [][2]string, end bool) {
	s.host.send("resh", s.id, flag(end), 0, headerParts(headers)...)
}

// ResponseData brings bytes of the response's body.
func (s *Stream) ResponseData(b []byte, end bool) { s.host.send("resd", s.id, flag(end), 0, b) }

// ResponseTrailers brings the response's trailers.
func (s *Stream) ResponseTrailers(trailers [][2]string) {
	s.host.send("rest", s.id, 1, 0, headerParts(trailers)...)
}

// Reply is a local reply of Envoy itself.
func (s *Stream) Reply(status int, headers [][2]string, body []byte) {
	s.host.send("reply", s.id, int64(status), 0, append([][]byte{body}, headerParts(headers)...)...)
}

// Abort is a replica that breaks off its response.
func (s *Stream) Abort() { s.host.send("abort", s.id, 0, 0) }

// Log has the access log written, as at the begin of an exchange or in its midst.
func (s *Stream) Log(kind int) { s.host.send("log", s.id, int64(kind), 0) }

// Wake wakes a goroutine of the plugin that waits for Envoy, if one does.
func (s *Stream) Wake() { s.host.send("sema", s.id, 0, 0) }

// Finish ends the exchange. Its last event is "finished".
func (s *Stream) Finish() { s.host.send("finish", s.id, 0, 0) }

// Forget has no more events delivered.
func (s *Stream) Forget() { s.host.forget(s.id) }

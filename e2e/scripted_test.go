package e2e_test

import (
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// server is an HTTP server of this process on its own port.
type server struct{ http.Server }

// listen starts a server that ends with the gateway and returns its address.
func (g *gateway) listen(h http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &server{http.Server{Handler: h}}
	g.servers = append(g.servers, s)
	go func() { _ = s.Serve(l) }() // until Close, which is the only error
	return l.Addr().String(), nil
}

// replica is a model server that responds as the running step says.
type replica struct {
	gateway    *gateway
	pool, name string
}

// ServeHTTP handles a request as its step says.
func (r *replica) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	x := r.gateway.underWay()
	body, err := io.ReadAll(req.Body)
	if err != nil || x == nil {
		panic(http.ErrAbortHandler) // the request was cut
	}
	arrived := &hosttest.Arrived{Headers: headersOf(req.Header), Body: body, Trailers: headersOf(req.Trailer)}
	arrived.Headers.Set(":method", req.Method)
	arrived.Headers.Set(":path", req.URL.RequestURI())
	x.arrive(r, arrived)
	select {
	case <-x.release:
	case <-req.Context().Done():
		panic(http.ErrAbortHandler)
	}
	r.play(w, req, x)
}

// play writes a response.
func (r *replica) play(w http.ResponseWriter, req *http.Request, x *exchange) {
	step := x.step
	u := step.Upstream
	if pass(req.Context(), u.Delay) != nil {
		x.cancel()
		panic(http.ErrAbortHandler)
	}
	if u.Reset == hosttest.ResetBeforeHeaders {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h["Content-Type"] = nil // no guess
	setHeaders(h, u.Headers)
	endless := step.Request.Cancel == hosttest.CancelAfterResponseHeaders
	if u.Events == nil && u.Trailers == nil && u.Reset == "" && !endless && !u.Endless {
		h.Set("content-length", strconv.Itoa(len(u.Payload())))
	}
	w.WriteHeader(u.Status)
	if endless {
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done() // the client leaves before there is more
		panic(http.ErrAbortHandler)
	}
	for i, piece := range u.Pieces() {
		if i > 0 && (pass(req.Context(), u.Gap) != nil || i <= u.Awaited && !x.hears(req.Context())) {
			x.cancel()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(piece) // an error means that the gateway has gone
		_ = http.NewResponseController(w).Flush()
		if i > 0 {
			continue
		}
		if step.Request.Cancel == hosttest.CancelDuringResponse {
			<-req.Context().Done() // the client leaves before there is more
		}
		if u.Reset == hosttest.ResetDuringBody {
			panic(http.ErrAbortHandler)
		}
	}
	if u.Endless {
		<-req.Context().Done()
		x.cancel()
		panic(http.ErrAbortHandler)
	}
	for name, value := range u.Trailers {
		h.Set(http.TrailerPrefix+name, value)
	}
}

// service answers callouts from a script.
type service struct {
	gateway *gateway
	cluster string
	answers []hosttest.Answer

	mu   sync.Mutex
	next int
}

// ServeHTTP handles a callout.
func (s *service) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if x := s.gateway.underWay(); x != nil {
		x.call(hosttest.Call{
			Cluster: s.cluster, Method: req.Method, Path: req.URL.RequestURI(), Headers: headersOf(req.Header), Body: body,
		})
	}
	a := s.answer()
	switch {
	case a.Fail == "timeout":
		<-req.Context().Done()
		panic(http.ErrAbortHandler)
	case pass(req.Context(), a.Delay) != nil, a.Fail == "reset":
		panic(http.ErrAbortHandler)
	}
	setHeaders(w.Header(), a.Headers)
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body)
	if a.Fail == "cut" {
		_ = http.NewResponseController(w).Flush() // without a length: its end is still to come
		panic(http.ErrAbortHandler)
	}
}

func (s *service) answer() *hosttest.Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.answers[min(s.next, len(s.answers)-1)]
	s.next++
	return a
}

func setHeaders(h http.Header, from map[string]string) {
	for name, value := range from {
		h.Set(name, value)
	}
}

// headersOf lists headers under the names in scenarios.
func headersOf(h http.Header) hosttest.Headers {
	var list hosttest.Headers
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			list.Add(strings.ToLower(name), value)
		}
	}
	return list
}

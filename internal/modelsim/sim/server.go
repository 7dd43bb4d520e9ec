// Package sim is a simulated model server: one replica of vLLM as a gateway sees it. It speaks the OpenAI and Anthropic
// APIs, exposes the metrics of vLLM or of other servers, takes plausible time, remembers prefixes as a real KV cache
// does, and fails on demand. It computes nothing. Package engine models time and cache.
//
// The forms of responses, errors and metrics follow vLLM's V1 engine (vllm/entrypoints/openai, vllm/v1/metrics).
package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Version is the response of /version.
const Version = "0.0.0+modelsim"

// Server is one replica. It is an http.Handler, and can also listen by itself.
type Server struct {
	cfg     Config
	log     *slog.Logger
	model   *replica
	fault   atomic.Pointer[Fault] // of the whole replica
	refused atomic.Int64          // requests refused because of QueueFull
	pool    sync.Pool             // of *exchange
	replica []string              // value of x-modelsim-replica
	created int64                 // Unix seconds

	http     http.Server
	listener net.Listener
	stop     context.CancelFunc // ends all waiting and hanging requests
}

// New makes a replica. It panics on a configuration that Config.Validate refuses.
func New(cfg Config) *Server {
	if err := cfg.Validate(); err != nil {
		panic(fmt.Sprintf("sim.New: %v", err))
	}
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, log: cfg.Logger, model: newReplica(cfg), replica: []string{cfg.Name}, created: time.Now().Unix()}
	s.fault.Store(&noFault)
	s.pool.New = func() any { return newExchange() }

	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	// No timeouts: an idle connection stays open, and so does a slow stream.
	s.http = http.Server{
		Handler:     s,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}
	return s
}

// Start listens on addr (host:port, port 0 for any) and serves in the background until Close or Shutdown.
func (s *Server) Start(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.listener = listener
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("serving ended", "replica", s.cfg.Name, "error", err)
		}
	}()
	return nil
}

// Addr is the address that a started server listens on, as ip:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is http:// and Addr.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Close ends the server at once: connections are cut, like those of a killed replica.
func (s *Server) Close() error {
	s.stop()
	return s.http.Close()
}

// Shutdown stops listening and lets requests in flight finish until ctx ends; then it closes what is left and returns
// the context's error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	return errors.Join(err, s.Close())
}

// SetFault sets the fault of the whole replica, replacing the one before.
func (s *Server) SetFault(f Fault) {
	s.refused.Store(0)
	s.fault.Store(&f)
	s.log.Info("fault set", "replica", s.cfg.Name, "fault", f.String())
}

// ClearFault ends the replica's fault.
func (s *Server) ClearFault() {
	s.fault.Store(&noFault)
	s.log.Info("fault cleared", "replica", s.cfg.Name)
}

// exchange is one request and its response. It is pooled: nothing of it may be kept.
type exchange struct {
	w      http.ResponseWriter
	r      *http.Request
	body   []byte // as it arrived
	digest hash.Hash
	fault  Fault
	status int
	api    api

	request   request
	model     string // that the response contains
	blockSize int    // of the KV cache, in tokens
	job       job
	text      []byte   // of the response
	said      bool     // the client has said what it is to be
	piece     int      // characters of it in each event; 0: pieceBytes
	out       []byte   // what is written
	names     []string // of the request's headers
}

func newExchange() *exchange {
	x := &exchange{digest: sha256.New()}
	x.job.Tag = &x.job
	x.job.wake = make(chan struct{}, 1)
	return x
}

// ServeHTTP handles one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := s.pool.Get().(*exchange)
	defer s.recycle(x)
	x.w, x.r, x.fault, x.status, x.api, x.request.model = w, r, noFault, 0, apiNone, ""
	if s.log.Enabled(r.Context(), slog.LevelDebug) {
		defer s.logRequest(x, time.Now())
	}
	err := x.readBody(s.cfg.MaxBody)
	s.identify(x)
	if err != nil {
		x.w.Header().Set("Connection", "close") // the rest of the body is still to come
		x.fail(err)
		return
	}
	s.route(x)
}

func (s *Server) logRequest(x *exchange, started time.Time) {
	s.log.Debug("request", "replica", s.cfg.Name, "method", x.r.Method, "path", x.r.URL.Path, "status", x.status,
		"model", x.request.model, "bodyBytes", len(x.body), "took", time.Since(started))
}

// recycle keeps an exchange for the next request, unless a huge one has grown its buffers.
func (s *Server) recycle(x *exchange) {
	const keep = 4 << 20
	if cap(x.body)+cap(x.request.prompt)+cap(x.out) > keep {
		return
	}
	x.w, x.r = nil, nil
	s.pool.Put(x)
}

// readBody reads the whole body and hashes it. The client gets the error.
func (x *exchange) readBody(limit int64) error {
	x.digest.Reset()
	x.body = x.body[:0]
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return nil
	}
	if length := x.r.ContentLength; length > int64(cap(x.body)) && length <= limit {
		x.body = make([]byte, 0, length+1) // one more byte, to see the end without growing
	}
	for {
		if len(x.body) == cap(x.body) {
			x.body = append(x.body, 0)[:len(x.body)]
		}
		n, err := x.r.Body.Read(x.body[len(x.body):cap(x.body)])
		x.digest.Write(x.body[len(x.body) : len(x.body)+n])
		x.body = x.body[:len(x.body)+n]
		switch {
		case int64(len(x.body)) > limit:
			return statusError(http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is longer than %d bytes.", limit))
		case err == io.EOF:
			return nil
		case err != nil:
			return statusError(http.StatusBadRequest, "The body is incomplete: "+err.Error())
		}
	}
}

// identify writes the replica's name and what arrived into the response headers. It writes the header map directly: the
// names are in canonical form, and Set would check that each time.
func (s *Server) identify(x *exchange) {
	var sum [sha256.Size]byte
	h := x.w.Header()
	h["X-Modelsim-Replica"] = s.replica
	h["X-Modelsim-Model"] = []string{""}
	h["X-Modelsim-Body-Bytes"] = []string{strconv.Itoa(len(x.body))}
	h["X-Modelsim-Body-Sha256"] = []string{hex.EncodeToString(x.digest.Sum(sum[:0]))}
	h["X-Modelsim-Headers"] = []string{x.headerNames()}
}

// headerNames are the names of the request's headers, lower case, sorted, comma separated. net/http removes host and
// transfer-encoding from the header map; they are added again.
func (x *exchange) headerNames() string {
	names := x.names[:0]
	for name := range x.r.Header {
		names = append(names, strings.ToLower(name))
	}
	if x.r.Host != "" {
		names = append(names, "host")
	}
	if len(x.r.TransferEncoding) > 0 {
		names = append(names, "transfer-encoding")
	}
	sort.Strings(names)
	x.names = names
	return strings.Join(names, ",")
}

// tellModel sets x-modelsim-model to the name in the body. Bytes that are not printable ASCII, and percent signs, are
// percent-encoded.
func (x *exchange) tellModel(model string) {
	x.w.Header()["X-Modelsim-Model"] = []string{headerValue(model)}
}

func headerValue(s string) string {
	if printable(s) && !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// inference are the paths that run on the engine.
var inference = map[string]api{
	"/v1/chat/completions":     apiChat,
	"/v1/completions":          apiCompletions,
	"/v1/embeddings":           apiEmbeddings,
	"/v1/messages":             apiMessages,
	"/v1/responses":            apiResponses,
	"/v1/audio/transcriptions": apiTranscription,
	"/v1/rerank":               apiRerank,
	"/v2/rerank":               apiRerank,
	"/rerank":                  apiRerank,
	"/v1/score":                apiScore,
	"/score":                   apiScore,
}

// route finds the handler of a path.
func (s *Server) route(x *exchange) {
	path := x.r.URL.Path
	x.api = inference[path]
	if (x.api != apiNone || strings.HasPrefix(path, "/v1/")) && !s.faults(x) {
		return
	}
	if x.api != apiNone {
		x.only(http.MethodPost, func() { s.generate(x) })
		return
	}
	switch path {
	case "/v1/models":
		x.only(http.MethodGet, func() { s.models(x) })
	case "/health", "/ping":
		if x.available(s.fault.Load().Health) {
			x.answer(http.StatusOK, "", nil)
		}
	case "/metrics", "/prometheus/metrics": // the second one is for TensorRT-LLM
		if x.available(s.fault.Load().Metrics) {
			x.out = s.model.appendMetrics(x.out[:0])
			x.answer(http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", x.out)
		}
	case "/version":
		x.answer(http.StatusOK, "application/json", []byte(`{"version":"`+Version+`"}`))
	case "/sleep":
		x.only(http.MethodPost, func() { s.sleep(x) })
	case "/wake_up":
		x.only(http.MethodPost, func() { s.wakeUp(x) })
	case "/is_sleeping":
		x.only(http.MethodGet, func() { s.isSleeping(x) })
	case "/admin/fault":
		s.admin(x)
	default:
		x.fail(&apiError{status: http.StatusNotFound, detail: true, message: "Not Found"})
	}
}

func (x *exchange) only(method string, serve func()) {
	if x.r.Method != method {
		x.w.Header().Set("Allow", method)
		x.fail(&apiError{status: http.StatusMethodNotAllowed, detail: true, message: "Method Not Allowed"})
		return
	}
	serve()
}

// available applies a switch of the replica: "", off or hang.
func (x *exchange) available(state string) bool {
	switch state {
	case "off":
		x.fail(statusError(http.StatusServiceUnavailable, "Switched off."))
	case "hang":
		x.hang()
	}
	return state == ""
}

// admin sets, clears and shows the fault of the whole replica. The body of a POST has the form of ParseFault.
func (s *Server) admin(x *exchange) {
	switch x.r.Method {
	case http.MethodPost:
		f, err := ParseFault(string(x.body))
		if err != nil {
			x.fail(badRequest("%v", err))
			return
		}
		s.SetFault(f)
	case http.MethodDelete:
		s.ClearFault()
	case http.MethodGet:
	default:
		x.fail(&apiError{status: http.StatusMethodNotAllowed, detail: true, message: "Method Not Allowed"})
		return
	}
	x.answer(http.StatusOK, "text/plain; charset=utf-8", []byte(s.fault.Load().String()+"\n"))
}

// faults finds the faults of this request and applies those before the response. It returns false if the request is done.
func (s *Server) faults(x *exchange) bool {
	x.fault = *s.fault.Load()
	full := false
	if specs := x.r.Header[FaultHeader]; len(specs) > 0 {
		f, err := ParseFault(strings.Join(specs, ","))
		if err == nil && f.Metrics+f.Health != "" {
			err = errors.New("metrics and health are faults of the whole replica: POST them to /admin/fault")
		}
		if err != nil {
			x.fail(badRequest("%v", err))
			return false
		}
		x.fault = x.fault.with(f)
		full = f.QueueFull > 0
	}
	if x.fault.Delay > 0 && sleepUntil(x.r.Context(), time.Now().Add(x.fault.Delay)) != nil {
		x.abort()
	}
	if x.fault.ResetBeforeHeaders {
		x.reset()
	}
	if status := x.fault.Status; status > 0 {
		x.fail(statusError(status, "This is a fault on demand."))
		return false
	}
	// A list of models waits in no queue.
	if n := int64(x.fault.QueueFull); full || n > 0 && x.r.Method == http.MethodPost && s.refused.Add(1) <= n {
		x.fail(statusError(http.StatusServiceUnavailable, "The request queue is full."))
		return false
	}
	switch {
	case x.fault.Silent:
		x.hang()
	case x.fault.SilentAfterHeaders:
		x.w.Header()["Content-Type"] = []string{"text/event-stream"}
		x.w.WriteHeader(http.StatusOK)
		x.flush()
		x.hang()
	}
	return true
}

// answer writes a complete response, which a fault may cut or reset halfway.
func (x *exchange) answer(status int, contentType string, body []byte) {
	x.status = status
	h := x.w.Header()
	if contentType != "" {
		h["Content-Type"] = []string{contentType}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.w.WriteHeader(status)
	if !x.fault.CutBody && x.fault.ResetAfter < 0 {
		_, _ = x.w.Write(body) // an error means that the client has gone
		return
	}
	_, _ = x.w.Write(body[:len(body)/2])
	x.flush()
	if x.fault.ResetAfter >= 0 {
		x.reset()
	}
	x.abort()
}

// fail responds with an error. An error that is not an *apiError means that the client has gone.
func (x *exchange) fail(err error) {
	var apiErr *apiError
	if !errors.As(err, &apiErr) {
		x.abort()
	}
	x.out = apiErr.appendJSON(x.out[:0], x.api)
	x.answer(apiErr.status, "application/json", x.out)
}

func (x *exchange) flush() {
	if f, ok := x.w.(http.Flusher); ok {
		f.Flush()
	}
}

// abort ends the request and closes its connection without an end of the response. It does not return.
func (x *exchange) abort() { panic(http.ErrAbortHandler) }

// reset is abort with a TCP reset instead of a normal close. It does not return.
func (x *exchange) reset() {
	if hijacker, ok := x.w.(http.Hijacker); ok {
		if conn, _, err := hijacker.Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // close sends RST
			}
			conn.Close()
		}
	}
	x.abort()
}

// hang waits until the client has gone or the server closes. It does not return.
func (x *exchange) hang() {
	<-x.r.Context().Done()
	x.abort()
}

// sleepUntil waits until t, or returns the error of the context.
func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

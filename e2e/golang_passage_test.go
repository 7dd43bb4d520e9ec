package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/inlet-proxy/inlet/shared/adapters/golang/chost"
	"github.com/inlet-proxy/inlet/shared/hosttest"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

func marshal(m proto.Message) (string, error) {
	b, err := proto.Marshal(m)
	return string(b), err
}

// passage is one request on its way through a golangProxy.
type passage struct {
	p      *golangProxy
	edits  *edits
	w      http.ResponseWriter
	req    *http.Request
	stream *chost.Stream
	ctx    context.Context // of the request to the replica
	stop   context.CancelFunc

	mu     sync.Mutex
	events []chost.Event
	wake   chan struct{}
	lost   chan struct{} // closed when the client or the replica has broken off
	once   sync.Once

	pool string         // that the request went to
	body *io.PipeWriter // to the replica
	out  chan []byte
	to   *http.Request
}

// ServeHTTP takes a request through the plugin to a replica, and the response back.
func (p *golangProxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex()
	x := &passage{p: p, w: w, req: req, wake: make(chan struct{}, 1), lost: make(chan struct{})}
	x.ctx, x.stop = context.WithCancel(context.Background())
	defer x.stop()
	p.mu.Lock()
	x.edits = p.now
	config, worker := p.config, p.turn%p.workers
	p.turn++
	p.active++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.active--
		p.mu.Unlock()
	}()
	info, err := x.edits.info(req.RemoteAddr)
	if err != nil {
		panic(err)
	}
	x.stream = p.host.Open(worker, config, info, x.take)
	var receiving sync.WaitGroup
	receiving.Go(x.receive)
	complete := x.run()
	x.stop()
	if x.pool != "" {
		p.left(x.pool)
	}
	x.stream.Finish()
	for e, ok := x.next(nil); ok && e.Verb != "finished"; e, ok = x.next(nil) {
	}
	x.stream.Forget()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // what still comes of the request is not awaited
	receiving.Wait()
	if !complete {
		panic(http.ErrAbortHandler)
	}
}

// take takes an event of the stream.
func (x *passage) take(e chost.Event) {
	x.mu.Lock()
	x.events = append(x.events, e)
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// next waits for the next event, unless something breaks off.
func (x *passage) next(lost <-chan struct{}) (chost.Event, bool) {
	for {
		x.mu.Lock()
		if len(x.events) > 0 {
			e := x.events[0]
			x.events = x.events[1:]
			x.mu.Unlock()
			return e, true
		}
		x.mu.Unlock()
		select {
		case <-x.wake:
		case <-lost:
			return chost.Event{}, false
		}
	}
}

func (x *passage) lose() { x.once.Do(func() { close(x.lost) }) }

// receive brings the client's request to the filter.
func (x *passage) receive() {
	headers := [][2]string{{":method", x.req.Method}, {":path", x.req.RequestURI}, {":scheme", "http"}, {":authority", x.req.Host}}
	for _, h := range headersOf(x.req.Header) {
		headers = append(headers, h)
	}
	headers = append(headers, [2]string{"x-request-id", "5b1f4f8e-0000-4000-8000-" + strconv.Itoa(1e11+x.p.number())})
	sized := x.req.ContentLength >= 0
	if !sized {
		headers = append(headers, [2]string{"transfer-encoding", "chunked"})
	}
	end := x.req.ContentLength == 0
	x.stream.RequestHeaders(headers, end)
	if end {
		return
	}
	n, err := pour(x.req.Body, x.req.ContentLength, x.stream.RequestData)
	switch {
	case err != nil:
		x.lose()
	case len(x.req.Trailer) > 0:
		x.stream.RequestTrailers(headersOf(x.req.Trailer))
	case n != x.req.ContentLength:
		x.stream.RequestData(nil, true)
	}
	go func() {
		select {
		case <-x.req.Context().Done():
			x.lose()
		case <-x.ctx.Done():
		}
	}()
}

// pour reads a body. If its size is known, its last bytes are its end.
func pour(from io.Reader, size int64, to func([]byte, bool)) (n int64, err error) {
	buffer := make([]byte, 64<<10)
	for {
		k, err := from.Read(buffer)
		if n += int64(k); k > 0 {
			to(buffer[:k], n == size)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (p *golangProxy) number() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turn
}

// run does what the filter lets go, and reports whether the client gets the whole response.
func (x *passage) run() bool {
	defer func() {
		if x.out != nil { // the request has not ended, and does not any more
			_ = x.body.CloseWithError(io.ErrUnexpectedEOF)
			close(x.out)
		}
	}()
	for {
		e, ok := x.next(x.lost)
		if !ok {
			x.stream.Info(map[string]string{"details": "downstream_remote_disconnect"})
			return false
		}
		switch e.Verb {
		case "uph":
			x.route(e.Headers(), e.A == 1)
		case "upd":
			x.send(e.Parts[0], e.A == 1)
		case "upt":
			if x.to != nil {
				for _, h := range e.Headers() {
					x.to.Trailer.Set(h[0], h[1])
				}
			}
			x.send(nil, true)
		case "downh":
			x.respond(e.Headers())
		case "downd":
			if _, err := x.w.Write(e.Parts[0]); err != nil {
				return false
			}
		case "downt":
			for _, h := range e.Headers() {
				x.w.Header().Set(http.TrailerPrefix+h[0], h[1])
			}
		case "downreset":
			return false
		}
		if strings.HasPrefix(e.Verb, "down") {
			if e.A == 1 {
				return true
			}
			_ = http.NewResponseController(x.w).Flush()
		}
	}
}

func (x *passage) send(b []byte, end bool) {
	if x.out == nil {
		return
	}
	if len(b) > 0 {
		x.out <- b
	}
	if end {
		close(x.out)
		x.out = nil
	}
}

func (x *passage) respond(headers [][2]string) {
	h := x.w.Header()
	h["Content-Type"], h["Date"] = nil, nil // no guess
	status := 0
	for _, one := range headers {
		switch one[0] {
		case ":status":
			status, _ = strconv.Atoi(one[1])
		case "transfer-encoding", "connection":
		default:
			h.Add(one[0], one[1])
		}
	}
	x.w.WriteHeader(status)
}

// refuse is a refusal of Envoy itself, in the words of the shipped local_reply_config.
func (x *passage) refuse(status int, code, message, details string) {
	form := llm.OpenAIForm
	if strings.Contains(x.req.URL.Path, "/v1/messages") {
		form = llm.AnthropicForm
	}
	headers := [][2]string{{"content-type", "application/json"}}
	if status == http.StatusServiceUnavailable {
		headers = append(headers, [2]string{"retry-after", "1"})
	}
	x.stream.Info(map[string]string{"details": details})
	x.stream.Reply(status, headers, llm.Refusal{Status: status, Code: code, Message: message}.AppendJSON(nil, form))
}

const overloaded = "The server is overloaded or not ready yet. Please try again later."

// route sends the request to a replica.
func (x *passage) route(headers [][2]string, end bool) {
	list := hosttest.Headers(headers)
	pool, _ := list.Get("x-gateway-inference-pool")
	replicas, ok := x.edits.pools[pool]
	switch {
	case !ok:
		x.refuse(http.StatusNotFound, "no_pool", "No pool serves this request.", "cluster_not_found")
		return
	case len(replicas) == 0:
		x.refuse(http.StatusServiceUnavailable, "unavailable", overloaded, "no_healthy_upstream")
		return
	}
	ranked, _ := list.Get("x-gateway-destination-endpoint")
	address, err := x.p.balance(x.edits, pool, ranked)
	if err != nil {
		x.stream.Info(map[string]string{"cluster": pool, "attempts": "1", "details": "upstream_reset_before_response_started{overflow}"})
		x.stream.Reply(http.StatusServiceUnavailable, [][2]string{{"x-envoy-overloaded", "true"}},
			[]byte("upstream connect error or disconnect/reset before headers. reset reason: overflow"))
		return
	}
	x.pool = pool
	x.stream.Info(map[string]string{"served": address, "cluster": pool, "attempts": "1"})
	x.forward(list, address, end)
}

func (x *passage) forward(headers hosttest.Headers, address string, end bool) {
	path, _ := headers.Get(":path")
	method, _ := headers.Get(":method")
	x.to = (&http.Request{
		Method: method, URL: &url.URL{Scheme: "http", Host: address, Opaque: path}, Header: http.Header{"User-Agent": nil}, ContentLength: -1,
	}).WithContext(x.ctx)
	for _, h := range headers {
		switch h[0] {
		case ":method", ":path", ":scheme", "transfer-encoding", "connection":
		case ":authority":
			x.to.Host = h[1]
		case "content-length":
			x.to.ContentLength, _ = strconv.ParseInt(h[1], 10, 64)
		default:
			x.to.Header.Add(h[0], h[1])
		}
	}
	if end {
		x.to.ContentLength, x.to.Body = 0, http.NoBody
	} else {
		x.to.Trailer = http.Header{}
		x.out = make(chan []byte, 1<<12)
		x.to.Body, x.body = io.Pipe()
		go x.write(x.out, x.body)
	}
	go x.reply(x.to)
}

// write writes the request's body.
func (x *passage) write(from <-chan []byte, to *io.PipeWriter) {
	for b := range from {
		_, _ = to.Write(b) // an error means that the replica does not read
	}
	_ = to.Close()
}

// reply brings the replica's response to the filter.
func (x *passage) reply(to *http.Request) {
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	res, err := transport.RoundTrip(to)
	if err != nil {
		if x.ctx.Err() == nil {
			x.refuse(http.StatusServiceUnavailable, "unavailable", overloaded, "upstream_reset_before_response_started{connection_termination}")
		}
		return
	}
	defer func() { _ = res.Body.Close() }()
	headers := [][2]string{{":status", strconv.Itoa(res.StatusCode)}}
	for _, h := range headersOf(res.Header) {
		if h[0] != "connection" && h[0] != "date" {
			headers = append(headers, h)
		}
	}
	x.stream.Info(map[string]string{"details": "via_upstream"})
	x.stream.ResponseHeaders(headers, res.ContentLength == 0)
	if res.ContentLength == 0 {
		return
	}
	n, err := pour(res.Body, res.ContentLength, x.stream.ResponseData)
	switch {
	case err != nil:
		if x.ctx.Err() == nil {
			x.stream.Info(map[string]string{"details": "upstream_reset_after_response_started{connection_termination}"})
			x.stream.Abort()
		}
	case len(res.Trailer) > 0:
		x.stream.ResponseTrailers(headersOf(res.Trailer))
	case n != res.ContentLength:
		x.stream.ResponseData(nil, true)
	}
}

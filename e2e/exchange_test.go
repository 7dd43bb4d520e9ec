package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// exchange is one request of a scenario and its result.
type exchange struct {
	step *hosttest.Step
	conn net.Conn

	arrived chan struct{} // closed when a replica has the whole request
	called  chan struct{} // closed at the first callout
	release chan struct{} // closed when the replica may respond
	over    chan struct{} // closed when the client has its whole response
	ceased  chan struct{} // closed when the replica was told to stop
	heard   chan struct{} // gets a value each time that the client receives something
	once    struct{ arrived, called, release, ceased sync.Once }

	mu  sync.Mutex
	got hosttest.Outcome
}

// send opens its own connection, so that the kernel chooses a worker, and sends the
// step's request.
func send(address string, step *hosttest.Step) (*exchange, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	x := &exchange{
		step: step, conn: conn,
		arrived: make(chan struct{}), called: make(chan struct{}), release: make(chan struct{}), over: make(chan struct{}), ceased: make(chan struct{}), heard: make(chan struct{}, 1),
	}
	if step.Hold == "" && step.Request.Cancel != hosttest.CancelAfterBody {
		x.letAnswer()
	}
	return x, nil
}

// run sends and receives.
func (x *exchange) run() {
	defer close(x.over)
	if x.step.Request.Cancel == hosttest.CancelAfterHeaders {
		_ = writeRequest(x.conn, x.step.Request) // a request that does not get through cannot be canceled
		return
	}
	// The gateway may respond before it has read everything, so both run concurrently. The
	// reader notices a broken connection.
	go func() { _ = writeRequest(x.conn, x.step.Request) }()
	x.receive()
}

// writeRequest writes a request as HTTP/1.1, with one write for each piece of its body.
func writeRequest(w io.Writer, r *hosttest.Request) error {
	pieces := r.Pieces()
	chunked := r.Chunked || r.Trailers != nil
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nhost: gateway.test\r\n", r.Method, r.Path)
	for name, value := range r.Headers {
		fmt.Fprintf(&head, "%s: %s\r\n", name, value)
	}
	for name, values := range r.Repeated {
		for _, value := range values {
			fmt.Fprintf(&head, "%s: %s\r\n", name, value)
		}
	}
	switch {
	case chunked:
		head.WriteString("transfer-encoding: chunked\r\n")
	case len(pieces) > 0:
		fmt.Fprintf(&head, "content-length: %d\r\n", len(r.Payload()))
	}
	head.WriteString("\r\n")
	if _, err := w.Write(head.Bytes()); err != nil || r.Cancel == hosttest.CancelAfterHeaders {
		return err
	}
	for _, piece := range pieces {
		if chunked {
			piece = fmt.Appendf(nil, "%x\r\n%s\r\n", len(piece), piece)
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	if !chunked {
		return nil
	}
	end := []byte("0\r\n")
	for name, value := range r.Trailers {
		end = fmt.Appendf(end, "%s: %s\r\n", name, value)
	}
	_, err := w.Write(append(end, "\r\n"...))
	return err
}

// receive reads the response until its end or that of the connection.
func (x *exchange) receive() {
	reader := bufio.NewReader(x.conn)
	resp, err := http.ReadResponse(reader, &http.Request{Method: x.step.Request.Method})
	if err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(reader, &http.Request{Method: x.step.Request.Method})
	}
	if err != nil {
		return
	}
	x.note(func(o *hosttest.Outcome) { o.Status, o.Headers = resp.StatusCode, headersOf(resp.Header) })
	if r := x.step.Request; r.Cancel == hosttest.CancelAfterResponseHeaders {
		_ = pass(context.Background(), r.Patience)
		return
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buffer)
		x.note(func(o *hosttest.Outcome) { o.Body = append(o.Body, buffer[:n]...) })
		select {
		case x.heard <- struct{}{}:
		default:
		}
		if err == io.EOF {
			x.note(func(o *hosttest.Outcome) { o.Complete, o.Trailers = true, headersOf(resp.Trailer) })
		}
		if err != nil || n > 0 && x.step.Request.Cancel == hosttest.CancelDuringResponse {
			return
		}
	}
}

// note records what happened.
func (x *exchange) note(f func(*hosttest.Outcome)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f(&x.got)
}

// outcome is the result so far.
func (x *exchange) outcome() hosttest.Outcome {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.got
	o.Body = bytes.Clone(o.Body)
	return o
}

func (x *exchange) arrive(r *replica, a *hosttest.Arrived) {
	x.note(func(o *hosttest.Outcome) { o.Pool, o.Replica, o.Arrived = r.pool, r.name, a })
	x.once.arrived.Do(func() { close(x.arrived) })
}

func (x *exchange) call(c hosttest.Call) {
	x.note(func(o *hosttest.Outcome) { o.Calls = append(o.Calls, c) })
	x.once.called.Do(func() { close(x.called) })
}

// hears waits until the client receives more of the response.
func (x *exchange) hears(ctx context.Context) bool {
	select {
	case <-x.heard:
		return true
	case <-ctx.Done():
		return false
	}
}

// cancel notes that the replica was told to stop.
func (x *exchange) cancel() {
	x.note(func(o *hosttest.Outcome) { o.Cancelled = true })
	x.once.ceased.Do(func() { close(x.ceased) })
}

func (x *exchange) letAnswer() { x.once.release.Do(func() { close(x.release) }) }

// leave closes the client's connection.
func (x *exchange) leave() { _ = x.conn.Close() }

// wait waits until the request is in the state that the step asks for.
func (x *exchange) wait(ctx context.Context, step *hosttest.Step) error {
	if err := x.waitFor(ctx, step); err != nil || step.Expect.Cancelled == nil || !*step.Expect.Cancelled {
		return err
	}
	select {
	case <-x.ceased:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the replica was not told to stop:\n%s", x.describe())
	}
}

func (x *exchange) waitFor(ctx context.Context, step *hosttest.Step) error {
	until := x.over
	switch {
	case step.Finish != "":
	case step.Hold != "", step.Request.Cancel == hosttest.CancelAfterBody:
		until = x.arrived
	case step.Request.Cancel == hosttest.CancelDuringCall:
		until = x.called
	}
	select {
	case <-until:
		if step.Request != nil && step.Request.Cancel == hosttest.CancelAfterBody {
			return pass(ctx, step.Request.Patience)
		}
		return nil
	case <-x.over:
		if isClosed(until) {
			return nil
		}
		return fmt.Errorf("the request ended too early:\n%s", x.describe())
	case <-ctx.Done():
		return fmt.Errorf("the request hangs:\n%s", x.describe())
	}
}

func (x *exchange) describe() string {
	o := x.outcome()
	return strings.TrimSpace(o.String())
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

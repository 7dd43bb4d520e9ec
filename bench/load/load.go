// Package load sends a request repeatedly on a few connections, each time with another text, and measures the responses.
// It writes and reads raw HTTP/1.1, because on a machine with few cores a full client would cost more than the gateway
// that it measures.
package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Result is what one run measured.
type Result struct {
	Requests int
	Elapsed  time.Duration
	sorted   []time.Duration
}

// Rate is the number of requests per second.
func (r *Result) Rate() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// Percentile returns the latency that a share p (0..1) of the requests did not exceed.
func (r *Result) Percentile(p float64) time.Duration {
	if len(r.sorted) == 0 {
		return 0
	}
	return r.sorted[min(len(r.sorted)-1, int(p*float64(len(r.sorted))))]
}

// Number is the placeholder for the number of the request in a body, in decimal: no
// two requests of a Request are the same.
const Number = "0000000000"

// Request is a POST with a JSON body.
type Request struct {
	text []byte
	at   int // where the number is; -1: nowhere
	sent atomic.Uint64
}

// NewRequest renders a request. The first Number of its body is replaced by another
// number in each request.
func NewRequest(path string, body []byte, headers ...[2]string) *Request {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n", path, len(body))
	for _, h := range headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n")
	at := bytes.Index(body, []byte(Number))
	if at >= 0 {
		at += b.Len()
	}
	b.Write(body)
	return &Request{text: b.Bytes(), at: at}
}

// next writes the next number into a copy of the text.
func (r *Request) next(text []byte) {
	if r.at < 0 {
		return
	}
	n := r.sent.Add(1)
	for i := r.at + len(Number) - 1; i >= r.at; i-- {
		text[i] = '0' + byte(n%10)
		n /= 10
	}
}

// Load is what a server gets.
type Load struct {
	Address string // ip:port
	Request *Request
	Answer  int // size of the body of every response, in bytes
	Conns   int
}

// Run sends the request on all connections, one at a time on each, for the given time.
// A response other than 200, or of another size, ends the run with an error.
func (l *Load) Run(ctx context.Context, d time.Duration) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var (
		mu    sync.Mutex
		all   []time.Duration
		fault error
		wg    sync.WaitGroup
		start = time.Now()
	)
	for range l.Conns {
		wg.Go(func() {
			took, err := l.one(ctx, start.Add(d))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			fault = errors.Join(fault, err)
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	slices.Sort(all)
	return &Result{Requests: len(all), Elapsed: elapsed, sorted: all}, fault
}

// one is the loop of one connection.
func (l *Load) one(ctx context.Context, end time.Time) (took []time.Duration, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", l.Address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	took = make([]time.Duration, 0, 1<<16)
	text := bytes.Clone(l.Request.text)
	for now := time.Now(); now.Before(end); {
		l.Request.next(text)
		if _, err := conn.Write(text); err != nil {
			return took, err
		}
		switch n, err := answer(reader); {
		case err != nil:
			return took, err
		case n != l.Answer:
			return took, fmt.Errorf("a response of %d bytes, want %d", n, l.Answer)
		}
		after := time.Now()
		took = append(took, after.Sub(now))
		now = after
	}
	return took, nil
}

// answer reads one response with content-length or chunks, and returns the size of its body.
func answer(r *bufio.Reader) (int, error) {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200"))
	shown := string(status)
	length, chunked := -1, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
	if !ok {
		body := make([]byte, max(0, min(length, 500)))
		_, _ = io.ReadFull(r, body)
		return 0, fmt.Errorf("answered %s %s", shown, body)
	}
	if chunked {
		return chunks(r)
	}
	return r.Discard(length)
}

func chunks(r *bufio.Reader) (size int, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return size, err
		}
		n, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return size, err
		}
		size += int(n)
		if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
			return size, err
		}
	}
}

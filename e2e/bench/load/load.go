// Package load sends the same request over and over on a few connections and
// measures the answers. It writes and reads raw HTTP/1.1, since on a machine
// of few cores a full client would cost more than the gateway that it measures.
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
	"time"
)

// Result is what one run measured.
type Result struct {
	Requests int
	Bytes    int64 // of the answers' bodies
	Elapsed  time.Duration
	sorted   []time.Duration
}

// Rate is the number of requests per second.
func (r *Result) Rate() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// Percentile returns the latency that a share p (0..1) of the requests kept.
func (r *Result) Percentile(p float64) time.Duration {
	if len(r.sorted) == 0 {
		return 0
	}
	return r.sorted[min(len(r.sorted)-1, int(p*float64(len(r.sorted))))]
}

// Request renders a POST with a JSON body.
func Request(path string, body []byte, headers ...[2]string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n", path, len(body))
	for _, h := range headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// Run sends the requests in turn on conns connections, one at a time on each, for the given
// time. An answer other than 200 ends the run with an error that shows it.
func Run(ctx context.Context, address string, requests [][]byte, conns int, d time.Duration) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var (
		mu    sync.Mutex
		all   []time.Duration
		size  int64
		fault error
		wg    sync.WaitGroup
		start = time.Now()
	)
	for i := range conns {
		wg.Go(func() {
			took, n, err := one(ctx, address, requests, i, start.Add(d))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			size += n
			fault = errors.Join(fault, err)
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	slices.Sort(all)
	return &Result{Requests: len(all), Bytes: size, Elapsed: elapsed, sorted: all}, fault
}

// one is the loop of one connection, which begins with the request at next.
func one(ctx context.Context, address string, requests [][]byte, next int, end time.Time) (took []time.Duration, size int64, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, 0, err
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	took = make([]time.Duration, 0, 1<<16)
	for now := time.Now(); now.Before(end); next++ {
		if _, err := conn.Write(requests[next%len(requests)]); err != nil {
			return took, size, err
		}
		n, err := answer(reader)
		if err != nil {
			return took, size, err
		}
		size += n
		after := time.Now()
		took = append(took, after.Sub(now))
		now = after
	}
	return took, size, nil
}

// answer reads one answer with content-length or chunks, and returns the size of its body.
func answer(r *bufio.Reader) (int64, error) {
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
	n, err := r.Discard(length)
	return int64(n), err
}

func chunks(r *bufio.Reader) (size int64, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return size, err
		}
		n, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return size, err
		}
		size += int64(n)
		if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
			return size, err
		}
	}
}

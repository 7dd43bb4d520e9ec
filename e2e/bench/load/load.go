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

// Run sends request on conns connections, one at a time on each, for the given
// time. An answer other than 200 ends the run with an error that shows it.
func Run(ctx context.Context, address string, request []byte, conns int, d time.Duration) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var (
		mu    sync.Mutex
		all   []time.Duration
		fault error
		wg    sync.WaitGroup
		start = time.Now()
	)
	for range conns {
		wg.Go(func() {
			took, err := one(ctx, address, request, start.Add(d))
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
func one(ctx context.Context, address string, request []byte, end time.Time) ([]time.Duration, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	took := make([]time.Duration, 0, 1<<16)
	for now := time.Now(); now.Before(end); {
		if _, err := conn.Write(request); err != nil {
			return took, err
		}
		if err := answer(reader); err != nil {
			return took, err
		}
		after := time.Now()
		took = append(took, after.Sub(now))
		now = after
	}
	return took, nil
}

// answer reads one answer with content-length or chunks.
func answer(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200"))
	shown := string(status)
	length, chunked := -1, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
	if !ok {
		body := make([]byte, max(0, min(length, 500)))
		_, _ = io.ReadFull(r, body)
		return fmt.Errorf("answered %s %s", shown, body)
	}
	if chunked {
		return chunks(r)
	}
	_, err = r.Discard(length)
	return err
}

func chunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
			return err
		}
	}
}

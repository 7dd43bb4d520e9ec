package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"time"
)

// recording is the page of a real vLLM.
const recording = "internal/modelsim/sim/testdata/vllm/metrics-idle.txt"

// stamped replicas report the time: one in this many. Their number of waiting requests is the time in microseconds from
// the start of the benchmark to the writing of the page.
const stamped = 10

// addressOf is the address of a replica: each has its own IP, all have one port.
func addressOf(i int, port string) string {
	return net.JoinHostPort(fmt.Sprintf("127.0.%d.%d", 1+i/250, 1+i%250), port)
}

// page is a replica's metrics: the text between the gauges that change.
type page struct{ parts [][]byte }

var gauges = regexp.MustCompile(`(?m)^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)\{[^}]*\} (.*)$`)

// width is the number of digits of each gauge, so that the length stays.
const width = 10

// newPage makes a response from the recording, padded to size with a comment.
func newPage(size int) (*page, error) {
	text, err := os.ReadFile(recording)
	if err != nil {
		return nil, err
	}
	var p page
	from, length := 0, 0
	for _, m := range gauges.FindAllSubmatchIndex(text, -1) {
		p.parts = append(p.parts, text[from:m[4]])
		length += m[4] - from + width
		from = m[5]
	}
	if len(p.parts) != 3 {
		return nil, fmt.Errorf("%s: %d gauges", recording, len(p.parts))
	}
	last := text[from:]
	fill := size - length - len(last)
	if fill < 3 {
		return nil, fmt.Errorf("%s alone is %d bytes", recording, length+len(last))
	}
	last = fmt.Appendf(last, "# %s\n", bytes.Repeat([]byte("."), fill-3))
	p.parts = append(p.parts, last)
	head := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: text/plain; version=1.0.0; charset=utf-8\r\n\r\n", size)
	p.parts[0] = append(head, p.parts[0]...)
	return &p, nil
}

// replica writes its pages with one system call, from memory that all share: its cost is the kernel's.
type replica struct {
	page   *page
	began  time.Time
	tells  bool // the time
	values [3][]byte
	pieces [7][]byte
}

func (r *replica) write(c net.Conn) error {
	running, waiting, kv := rand.IntN(64), rand.IntN(20), rand.Float64()
	if r.tells {
		waiting = int(time.Since(r.began).Microseconds())
	}
	r.values[0] = fmt.Appendf(r.values[0][:0], "%0*d", width, running)
	r.values[1] = fmt.Appendf(r.values[1][:0], "%0*d", width, waiting)
	r.values[2] = strconv.AppendFloat(r.values[2][:0], kv, 'f', width-2, 64)
	for i, part := range r.page.parts {
		r.pieces[2*i] = part
		if i < 3 {
			r.pieces[2*i+1] = r.values[i]
		}
	}
	buffers := net.Buffers(r.pieces[:])
	_, err := buffers.WriteTo(c)
	return err
}

const models = `{"object":"list","data":[{"id":"tiny","object":"model"}]}`

func serveReplicas(ctx context.Context, o options, began time.Time) error {
	p, err := newPage(o.page)
	if err != nil {
		return err
	}
	port := "0"
	for i := range o.replicas {
		l, err := net.Listen("tcp4", addressOf(i, port))
		if err != nil {
			return err
		}
		if _, port, err = net.SplitHostPort(l.Addr().String()); err != nil {
			return err
		}
		go serveReplica(l, replica{page: p, began: began, tells: i%stamped == 0})
	}
	fmt.Println("replicas listening on", addressOf(0, port))
	<-ctx.Done()
	return nil
}

func serveReplica(l net.Listener, r replica) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r := r // each connection has its own buffers
			r.values = [3][]byte{}
			request := make([]byte, 4096)
			for {
				n, err := readRequest(c, request)
				if err != nil {
					return
				}
				if bytes.HasPrefix(request[:n], []byte("GET /metrics ")) {
					err = r.write(c)
				} else {
					_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(models), models)
				}
				if err != nil {
					return
				}
			}
		}()
	}
}

// readRequest reads a request that is no longer than the buffer, with its body.
func readRequest(c net.Conn, into []byte) (n int, err error) {
	for {
		more, err := c.Read(into[n:])
		if err != nil {
			return n, err
		}
		n += more
		head, body, whole := bytes.Cut(into[:n], []byte("\r\n\r\n"))
		length := 0
		if _, after, ok := bytes.Cut(head, []byte("\r\ncontent-length: ")); ok {
			value, _, _ := bytes.Cut(after, []byte("\r\n"))
			if length, err = strconv.Atoi(string(value)); err != nil {
				return n, err
			}
		}
		if whole && len(body) >= length {
			return n, nil
		}
	}
}

// Package upstream replaces model servers in benchmarks: replicas that respond at once, with the same bytes each time,
// and record requests on demand. A simulator that parses its requests would cost more than the gateway in front of it.
package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Model is the replicas' name for their model.
const Model = "llama-3-8b"

// Headers with which a request selects its response.
const (
	// Events is the number of events of a streamed response. Without it the response is one JSON object.
	Events = "x-bench-events"
	// Text is the text of each event behind its space. It has nothing that JSON must escape.
	Text = "x-bench-text"
	// Record makes the replica keep the request for Arrived.
	Record = "x-bench-record"
	// Timed makes it keep when each event of the response was sent, for Sent.
	Timed = "x-bench-timed"
)

// pause is the time between two events, so that each one reaches the gateway alone, like those of a model server.
const pause = time.Millisecond

// Replicas are servers of this process, each with its own address, all on the same port, as behind a Kubernetes Service.
type Replicas struct {
	// Addresses are their ip:port.
	Addresses []string
	// Port is the port of all of them.
	Port int

	page      []byte
	listeners []net.Listener
	wg        sync.WaitGroup
	mu        sync.Mutex
	open      map[net.Conn]bool // nil after Close
	arrived   *Arrived
	sent      []time.Time
	scrapes   int
}

// Arrived is a request as a replica got it.
type Arrived struct {
	Address string // ip:port that received it
	Header  http.Header
	Body    []byte
}

// Start starts n replicas whose page of metrics has about the given size in bytes.
func Start(n, pageSize int) (*Replicas, error) {
	for range 10 {
		r, err := start(n, pageSize)
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
	return nil, errors.New("found no port that is free on all addresses")
}

func start(n, pageSize int) (*Replicas, error) {
	r := &Replicas{page: metricsPage(pageSize), open: map[net.Conn]bool{}}
	for i := range n {
		address := fmt.Sprintf("127.1.%d.%d:%d", i/250, 1+i%250, r.Port)
		l, err := net.Listen("tcp4", address)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.Port = l.Addr().(*net.TCPAddr).Port
		r.Addresses = append(r.Addresses, l.Addr().String())
		r.listeners = append(r.listeners, l)
		r.wg.Go(func() { r.accept(l) })
	}
	return r, nil
}

// Close ends the replicas and cuts their connections.
func (r *Replicas) Close() {
	for _, l := range r.listeners {
		_ = l.Close()
	}
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.open = nil
	r.mu.Unlock()
	r.wg.Wait()
}

// Arrived returns the last recorded request, and forgets it.
func (r *Replicas) Arrived() *Arrived {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.arrived
	r.arrived = nil
	return a
}

// Sent returns when each event of the last timed response was sent, and forgets it.
func (r *Replicas) Sent() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent = nil
	return sent
}

func (r *Replicas) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		if r.open == nil {
			_ = conn.Close()
		} else {
			r.open[conn] = true
			r.wg.Go(func() { r.serve(conn, l.Addr().String()) })
		}
		r.mu.Unlock()
	}
}

// serve handles the requests of one connection.
func (r *Replicas) serve(conn net.Conn, address string) {
	c := &connection{r: r, conn: conn, address: address, reader: bufio.NewReaderSize(conn, 64<<10)}
	for c.exchange() == nil {
	}
	r.mu.Lock()
	delete(r.open, conn)
	r.mu.Unlock()
	_ = conn.Close()
}

type connection struct {
	r       *Replicas
	conn    net.Conn
	address string
	reader  *bufio.Reader
}

// exchange reads one request and responds.
func (c *connection) exchange() error {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	metrics, models := bytes.HasPrefix(line, []byte("GET /metrics ")), bytes.HasPrefix(line, []byte("GET /v1/models "))
	header, err := textproto.NewReader(c.reader).ReadMIMEHeader()
	if err != nil {
		return err
	}
	h := http.Header(header)
	body, err := c.body(h)
	if err != nil {
		return err
	}
	if h.Get(Record) != "" {
		c.r.mu.Lock()
		c.r.arrived = &Arrived{c.address, h, body}
		c.r.mu.Unlock()
	}
	switch {
	case metrics:
		_, err = c.conn.Write(c.r.metrics())
	case models:
		_, err = c.conn.Write(modelList)
	case h.Get(Events) != "":
		err = c.stream(h)
	default:
		_, err = c.conn.Write(completion)
	}
	return err
}

// body reads the body; it is kept only if the request is recorded.
func (c *connection) body(h http.Header) ([]byte, error) {
	var body bytes.Buffer
	to := io.Discard
	if h.Get(Record) != "" {
		to = &body
	}
	if !strings.EqualFold(h.Get("Transfer-Encoding"), "chunked") {
		n, _ := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
		_, err := io.CopyN(to, c.reader, n)
		return body.Bytes(), err
	}
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(to, c.reader, n); err != nil {
			return nil, err
		}
		if _, err := c.reader.Discard(2); err != nil || n == 0 {
			return body.Bytes(), err
		}
	}
}

func (c *connection) stream(h http.Header) error {
	n, err := strconv.Atoi(h.Get(Events))
	if err != nil {
		return err
	}
	one := eventChunk
	if text := h.Get(Text); text != "" {
		one = chunk(strings.Replace(event, word, " "+text, 1))
	}
	if _, err := c.conn.Write(streamHead); err != nil {
		return err
	}
	sent := make([]time.Time, 0, n)
	for i := range n {
		time.Sleep(pause)
		sent = append(sent, time.Now())
		if i == n-1 {
			one = lastChunks
			c.keep(h, sent)
		}
		if _, err := c.conn.Write(one); err != nil {
			return err
		}
	}
	return nil
}

// keep keeps when the events of a response were sent, if that was asked for. The last one has not gone yet: then nobody asks before.
func (c *connection) keep(h http.Header, sent []time.Time) {
	if h.Get(Timed) != "" {
		c.r.mu.Lock()
		c.r.sent = sent
		c.r.mu.Unlock()
	}
}

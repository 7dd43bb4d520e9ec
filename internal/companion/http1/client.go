// Package http1 is the HTTP/1.1 client of the scraper: GET requests to one server, one at a time, over one persistent connection.
//
// # Why not net/http
//
// The companion makes up to ten thousand requests a second. net/http's client runs two goroutines per connection, passes each response
// through three, and allocates 66 times for it. For a page of 64 KB it took 85 to 109 µs of CPU where this client takes 30 to 33 µs
// (docs/rationale.md, "The companion").
//
// # What it supports
//
//   - Responses in HTTP/1.0 and HTTP/1.1 (RFC 9112); informational (1xx) responses are passed over.
//   - Bodies with Content-Length, chunked bodies with extensions and trailers (both are read and dropped), and bodies that end with the
//     connection. A response with both Content-Length and Transfer-Encoding is read as chunked, and its connection is closed.
//   - Content-Encoding gzip, although it asks for identity.
//   - Persistent connections, TLS with client certificates, bearer tokens. Certificates are read again for each connection, a token every
//     ten seconds.
//   - One retry, on a new connection, when a kept connection turns out to be closed before the first byte of a response.
//
// Everything else is an error: other transfer or content codings, conflicting lengths, malformed header fields. Redirects are not followed:
// they are a [StatusError], as is every final status but 200.
//
// # Bounds
//
// A header has at most 64 KiB, a line between chunks 256 bytes, a trailer 256 lines. The body is not buffered: it goes to an [io.Writer] in
// the pieces that the system returns, and the writer bounds it by returning an error. (A compressed body is bounded likewise, after it is
// decompressed.) An unwanted body is read up to 64 KiB to keep the connection. An idle client holds 4 KiB; while a body arrives, another
// 64 KiB, which clients share through a pool.
//
// # Deadlines
//
// Each request has one deadline for all of it: connecting, the TLS handshake, a retry, and reading the body. The client's context ends the
// connection and with it the request in progress.
package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/barrier"
)

const (
	headSize    = 4 << 10  // the buffer of an idle client: large enough for most headers
	maxHead     = 64 << 10 // bytes of a header
	pieceSize   = 64 << 10 // bytes of a body read at once
	maxUnwanted = 64 << 10 // bytes of an unwanted body that are read to keep the connection
	maxChunk    = 256      // bytes of a line between chunks, and lines of a trailer
)

// pieces are the large buffers, borrowed by clients while they read a body.
var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Options are the settings of a Client.
type Options struct {
	Address string   // host:port of the server
	Accept  string   // value of the Accept header
	Access  *Access  // nil: plain HTTP
	Token   *Token   // nil: none
	Dial    DialFunc // nil: net.Dialer's
}

// Client sends requests to one server over a connection that it keeps open between them. It must not be used by several goroutines at a
// time.
type Client struct {
	ctx context.Context // ends the connection, and what is in progress
	o   Options

	conn   net.Conn // nil: none is open
	unbind func() bool
	out    []byte // the request
	small  []byte
	large  *[pieceSize]byte // nil: not borrowed
	buf    []byte           // one of the two ...
	r, w   int              // ... and the part of it that was read and not consumed
	body   body
}

// New returns a client that is not connected: the first Get connects. When ctx ends, so do the connection and a request in progress.
func New(ctx context.Context, o Options) *Client {
	if o.Access == nil {
		o.Access = new(Access)
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	return &Client{ctx: ctx, o: o}
}

// StatusError is a response whose status is not 200.
type StatusError struct {
	Path   string
	Status int
}

// Error names path and status.
func (e *StatusError) Error() string { return fmt.Sprintf("GET %s: status %d", e.Path, e.Status) }

// errGone means that a kept connection ended before the first byte of the response: the server closed it while it was idle.
var errGone = errors.New("the server closed the connection")

// Get requests a path and writes the body of a 200 response to w as it arrives; if w is nil the body is unwanted, see Bounds. An error of w
// ends the request and is returned. After any error but a StatusError the connection is closed.
func (c *Client) Get(path string, deadline time.Time, w io.Writer) error {
	kept := c.conn != nil
	err := c.try(path, deadline, w)
	if kept && errors.Is(err, errGone) {
		err = c.try(path, deadline, w)
	}
	return err
}

// Close closes the connection, if there is one. The next Get opens another.
func (c *Client) Close() {
	if c.conn != nil {
		c.unbind()
		c.conn.Close()
		c.conn = nil
	}
	c.r, c.w = 0, 0 // also after a panic of the writer
}

func (c *Client) try(path string, deadline time.Time, w io.Writer) error {
	keep, err := c.exchange(path, deadline, w)
	if c.large != nil {
		pieces.Put(c.large)
		c.large, c.buf = nil, c.small
	}
	if len(c.small) > headSize { // it grew for a long header; thousands of clients must not keep that
		c.small = make([]byte, headSize)
		c.buf = c.small
	}
	if !keep || c.r != c.w { // bytes that nobody requested must not be taken for the next response
		c.Close()
	}
	c.r, c.w = 0, 0
	return err
}

// exchange sends one request and reads its response. It reports whether the connection can be used again.
func (c *Client) exchange(path string, deadline time.Time, w io.Writer) (keep bool, err error) {
	if err := c.open(deadline); err != nil {
		return false, err
	}
	if err := c.request(path); err != nil {
		return false, err
	}
	h, err := c.readHead()
	if err != nil {
		return false, err
	}
	switch {
	case h.status != 200:
		keep = c.skip() == nil && !h.close
		return keep, &StatusError{path, h.status}
	case w == nil:
		err = c.skip()
	case h.gzip:
		err = c.inflate(w)
	default:
		err = c.copyTo(w)
	}
	return err == nil && !h.close, err
}

// open makes sure that there is a connection, with this deadline.
func (c *Client) open(deadline time.Time) error {
	if c.conn == nil {
		ctx, cancel := context.WithDeadline(c.ctx, deadline)
		defer cancel()
		conn, err := c.o.Access.connect(ctx, c.o.Dial, c.o.Address)
		if err != nil {
			return err
		}
		if c.small == nil {
			c.small = make([]byte, headSize)
		}
		c.conn, c.buf = conn, c.small
		c.unbind = context.AfterFunc(c.ctx, func() { _ = barrier.Try(conn.Close) })
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return gone(err)
	}
	return nil
}

func (c *Client) request(path string) error {
	c.out = append(append(c.out[:0], "GET "...), path...)
	c.out = append(append(c.out, " HTTP/1.1\r\nHost: "...), c.o.Address...)
	c.out = append(append(c.out, "\r\nUser-Agent: inlet-companion\r\nAccept: "...), c.o.Accept...)
	c.out = append(c.out, "\r\nAccept-Encoding: identity\r\n"...)
	if c.o.Token != nil {
		authorization, err := c.o.Token.header()
		if err != nil {
			return err
		}
		c.out = append(append(append(c.out, "Authorization: "...), authorization...), "\r\n"...)
	}
	c.out = append(c.out, "\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		return gone(err)
	}
	return nil
}

// gone makes an errGone of any error but a timeout.
func gone(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

package scrape

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	headSize  = 4 << 10  // what a link holds while it waits for an answer: room for the header of one
	maxHead   = 64 << 10 // bytes of a header
	pieceSize = 64 << 10 // bytes that are read at once, once the body comes
	maxAside  = 64 << 10 // bytes of an answer that nobody wants, to keep its connection
	maxChunk  = 256      // bytes of the line before a chunk
)

// pieces are lent to the links whose bodies come in.
var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// dialFunc opens a connection, as net.Dialer.DialContext.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// link asks one replica by HTTP/1.1, one request at a time over a connection that is kept. It does what scraping needs and no more,
// because ten thousand scrapes a second leave little time for each: net/http's client has two goroutines a connection and hands every
// answer through three of them. A body reaches its reader in the buffer that the system wrote it to. Redirects are not followed.
//
// A link belongs to one goroutine.
type link struct {
	ctx     context.Context // ends the connection, and what is under way
	dial    dialFunc
	access  *Access
	token   *token // nil: none
	address string

	conn   net.Conn // nil: none is open
	unbind func() bool
	out    []byte // the request
	small  []byte
	large  *[pieceSize]byte // nil: not lent
	buf    []byte           // one of the two ...
	r, w   int              // ... and what is in it and not taken yet
	body   body
}

// body is how the rest of an answer comes.
type body struct {
	left    int64 // bytes of it, or of the chunk
	chunked bool
	begun   bool // a chunk came before
	toEnd   bool // it ends with the connection
}

// head is what matters of an answer's header.
type head struct {
	status  int
	length  int64 // -1: not said
	chunked bool
	gzip    bool
	close   bool // the connection ends after the answer
}

// errGone says that a kept connection ended before a byte of the answer came: the replica closed it when it was idle.
var errGone = errors.New("the connection is gone")

// statusError is an answer other than 200.
type statusError struct {
	path   string
	status int
}

// saysNothing reports whether the answer is about the request and not about the server: there is no such path, or it is not for us.
func (e *statusError) saysNothing() bool {
	switch e.status {
	case 401, 403, 404, 405, 501:
		return true
	}
	return false
}

func (e *statusError) Error() string { return fmt.Sprintf("GET %s: status %d", e.path, e.status) }

// get asks for a path and writes the body of a 200 to w as it comes. w's error ends the request and is returned. After any error but a
// statusError the connection is closed.
func (l *link) get(path string, deadline time.Time, w io.Writer) error {
	kept := l.conn != nil
	err := l.try(path, deadline, w)
	if kept && errors.Is(err, errGone) {
		err = l.try(path, deadline, w)
	}
	return err
}

func (l *link) try(path string, deadline time.Time, w io.Writer) error {
	keep, err := l.exchange(path, deadline, w)
	if l.large != nil {
		pieces.Put(l.large)
		l.large, l.buf = nil, l.small
	}
	if len(l.small) > headSize { // for a long header; of thousands of links each would keep it
		l.small = make([]byte, headSize)
		l.buf = l.small
	}
	if !keep || l.r != l.w { // bytes that nobody asked for are not the next answer
		l.close()
	}
	l.r, l.w = 0, 0
	return err
}

// exchange reports whether the connection can be used again.
func (l *link) exchange(path string, deadline time.Time, w io.Writer) (keep bool, err error) {
	if err := l.open(deadline); err != nil {
		return false, err
	}
	if err := l.request(path); err != nil {
		return false, err
	}
	h, err := l.readHead()
	if err != nil {
		return false, err
	}
	if h.status != 200 {
		keep = l.skip() == nil && !h.close
		return keep, &statusError{path, h.status}
	}
	if h.gzip {
		err = l.inflate(w)
	} else {
		err = l.copyTo(w)
	}
	return err == nil && !h.close, err
}

// open sees to a connection.
func (l *link) open(deadline time.Time) error {
	if l.conn == nil {
		ctx, cancel := context.WithDeadline(l.ctx, deadline)
		defer cancel()
		conn, err := l.access.connect(ctx, l.dial, l.address)
		if err != nil {
			return err
		}
		if l.small == nil {
			l.small = make([]byte, headSize)
		}
		l.conn, l.buf = conn, l.small
		l.unbind = context.AfterFunc(l.ctx, func() { conn.Close() })
	}
	if err := l.conn.SetDeadline(deadline); err != nil {
		return gone(err)
	}
	return nil
}

func (l *link) close() {
	if l.conn != nil {
		l.unbind()
		l.conn.Close()
		l.conn = nil
	}
}

func (l *link) request(path string) error {
	l.out = append(append(l.out[:0], "GET "...), path...)
	l.out = append(append(l.out, " HTTP/1.1\r\nHost: "...), l.address...)
	l.out = append(l.out, "\r\nUser-Agent: inlet-companion\r\nAccept: text/plain;version=0.0.4, application/json;q=0.5\r\nAccept-Encoding: identity\r\n"...)
	if l.token != nil {
		authorization, err := l.token.header()
		if err != nil {
			return err
		}
		l.out = append(append(append(l.out, "Authorization: "...), authorization...), "\r\n"...)
	}
	l.out = append(l.out, "\r\n"...)
	if _, err := l.conn.Write(l.out); err != nil {
		return gone(err)
	}
	return nil
}

// gone says errGone of what is not a timeout.
func gone(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// readHead reads headers up to the one of the final answer, and makes ready for its body.
func (l *link) readHead() (head, error) {
	searched := 0 // bytes behind l.r, so that a header that drips in is not read again and again
	for l.r, l.w = 0, 0; ; {
		if n := headLength(l.buf[l.r:l.w], searched); n > 0 {
			h, err := parseHead(l.buf[l.r : l.r+n])
			l.r, searched = l.r+n, 0
			if err != nil {
				return head{}, err
			}
			if h.status >= 200 {
				l.body = h.body()
				return h, nil
			}
			continue // 100 and its kin
		}
		searched = l.w - l.r
		if l.w == len(l.buf) {
			if len(l.buf) >= maxHead {
				return head{}, fmt.Errorf("a header over %d KiB", maxHead>>10)
			}
			l.small = append(l.buf, make([]byte, len(l.buf))...)
			l.buf = l.small
		}
		n, err := l.conn.Read(l.buf[l.w:])
		l.w += n
		switch {
		case n > 0 || err == nil:
		case l.w == 0:
			return head{}, gone(err)
		case errors.Is(err, io.EOF):
			return head{}, io.ErrUnexpectedEOF
		case err != nil:
			return head{}, err
		}
	}
}

// headLength returns the length of the header with the empty line that ends it, 0 if that has not come. It does not end within the first
// bytes that were searched before.
func headLength(b []byte, searched int) int {
	for at := searched; ; {
		feed := bytes.IndexByte(b[at:], '\n')
		if feed < 0 {
			return 0
		}
		before := bytes.TrimSuffix(b[:at+feed], cr)
		if at += feed + 1; len(before) == 0 || before[len(before)-1] == '\n' {
			return at
		}
	}
}

var cr = []byte("\r")

// parseHead reads a header, which ends with an empty line.
func parseHead(b []byte) (head, error) {
	line, rest := cutLine(b)
	h := head{length: -1}
	// HTTP/1.1 200 OK
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return head{}, fmt.Errorf("%.40q is no answer in HTTP/1", line)
	}
	status, err := strconv.ParseUint(string(line[9:12]), 10, 16)
	if err != nil || status < 100 {
		return head{}, fmt.Errorf("%.40q is no answer in HTTP/1", line)
	}
	h.status, h.close = int(status), line[7] == '0'
	for len(rest) > 0 {
		if line, rest = cutLine(rest); len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return head{}, fmt.Errorf("%.40q is no header field", line)
		}
		if err := h.field(name, bytes.Trim(value, " \t")); err != nil {
			return head{}, err
		}
	}
	return h, nil
}

func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, cr), rest
}

// field takes in a field of the header.
func (h *head) field(name, value []byte) error {
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseUint(string(value), 10, 62)
		if err != nil || h.length >= 0 && h.length != int64(n) {
			return fmt.Errorf("Content-Length: %.40q", value)
		}
		h.length = int64(n)
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		if !bytes.EqualFold(value, []byte("chunked")) || h.chunked {
			return fmt.Errorf("Transfer-Encoding: %.40q", value)
		}
		h.chunked = true
	case bytes.EqualFold(name, []byte("Content-Encoding")):
		if h.gzip = bytes.EqualFold(value, []byte("gzip")); !h.gzip && !bytes.EqualFold(value, []byte("identity")) {
			return fmt.Errorf("Content-Encoding: %.40q", value)
		}
	case bytes.EqualFold(name, []byte("Connection")):
		for option := range bytes.SplitSeq(value, []byte(",")) {
			h.close = h.close || bytes.EqualFold(bytes.Trim(option, " \t"), []byte("close"))
		}
	}
	return nil
}

// body says how the body comes (RFC 9112, section 6.3).
func (h *head) body() body {
	switch {
	case h.status == 204 || h.status == 304:
		return body{}
	case h.chunked:
		h.close = h.close || h.length >= 0 // both: somebody on the way may have read it otherwise
		return body{chunked: true}
	case h.length >= 0:
		return body{left: h.length}
	}
	h.close = true
	return body{left: math.MaxInt64, toEnd: true}
}

// next returns the next piece of the body, good until the next call; io.EOF at its end.
func (l *link) next() ([]byte, error) {
	if l.body.left == 0 && l.body.chunked {
		if err := l.nextChunk(); err != nil {
			return nil, err
		}
	}
	if l.body.left == 0 {
		return nil, io.EOF
	}
	if l.r == l.w {
		if err := l.fill(); err != nil {
			if errors.Is(err, io.EOF) && l.body.toEnd {
				l.body.left = 0
				return nil, io.EOF
			}
			return nil, unexpected(err)
		}
	}
	n := int(min(int64(l.w-l.r), l.body.left))
	piece := l.buf[l.r : l.r+n]
	l.r += n
	l.body.left -= int64(n)
	return piece, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill reads, once all that was read before is taken.
func (l *link) fill() error {
	if l.large == nil {
		l.large = pieces.Get().(*[pieceSize]byte)
		l.buf = l.large[:]
	}
	for {
		n, err := l.conn.Read(l.buf)
		l.r, l.w = 0, n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// nextChunk reads up to the next chunk's data. After the last chunk there is none, and no more are looked for.
func (l *link) nextChunk() error {
	if l.body.begun {
		if line, err := l.line(); err != nil || len(line) > 0 {
			return errors.Join(err, errChunk)
		}
	}
	l.body.begun = true
	line, err := l.line()
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(line, []byte(";")) // extensions, which nobody sends
	n, err := strconv.ParseUint(string(bytes.Trim(size, " \t")), 16, 62)
	if err != nil {
		return errChunk
	}
	if l.body.left = int64(n); n > 0 {
		return nil
	}
	l.body.chunked = false
	for range maxChunk { // the trailer, which nobody sends either
		if line, err := l.line(); err != nil || len(line) == 0 {
			return err
		}
	}
	return errChunk
}

var errChunk = errors.New("the chunks of the answer are malformed")

// line reads a line between chunks, good until the next call.
func (l *link) line() ([]byte, error) {
	if end := bytes.IndexByte(l.buf[l.r:min(l.w, l.r+maxChunk)], '\n'); end >= 0 {
		line := l.buf[l.r : l.r+end]
		l.r += end + 1
		return bytes.TrimSuffix(line, cr), nil
	}
	var line []byte // its end is in the next piece
	for len(line) < maxChunk {
		if l.r == l.w {
			if err := l.fill(); err != nil {
				return nil, unexpected(err)
			}
		}
		c := l.buf[l.r]
		l.r++
		if c == '\n' {
			return bytes.TrimSuffix(line, cr), nil
		}
		line = append(line, c)
	}
	return nil, errChunk
}

// copyTo gives the body to w.
func (l *link) copyTo(w io.Writer) error {
	for {
		piece, err := l.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
}

// inflate is copyTo for a body that came packed although nobody asked for it.
func (l *link) inflate(w io.Writer) error {
	packed := &pull{link: l}
	plain, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, plain); err != nil { // w bounds what it takes
		return err
	}
	return l.skip()
}

// pull is the body as an io.Reader.
type pull struct {
	link  *link
	piece []byte
}

func (p *pull) Read(b []byte) (int, error) {
	if len(p.piece) == 0 {
		var err error
		if p.piece, err = p.link.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.piece)
	p.piece = p.piece[n:]
	return n, nil
}

// skip reads off a body that nobody wants; a long one is an error, since a new connection costs less.
func (l *link) skip() error {
	return l.copyTo(&bounded{limit: maxAside, err: errAside})
}

var errAside = fmt.Errorf("an answer over %d KiB that nobody wants", maxAside>>10)

// bounded takes as much as its limit and keeps it if it has a place to.
type bounded struct {
	limit int
	err   error         // when more comes
	into  *bytes.Buffer // nil: away with it
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.limit -= len(p); b.limit < 0 {
		return 0, b.err
	}
	if b.into != nil {
		return b.into.Write(p)
	}
	return len(p), nil
}

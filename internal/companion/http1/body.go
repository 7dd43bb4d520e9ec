package http1

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// body is how the rest of a response is framed.
type body struct {
	left    int64 // bytes of it, or of the chunk
	chunked bool
	begun   bool // it is not the first chunk
	toEnd   bool // it ends with the connection
}

// body returns the framing that the header announces (RFC 9112, section 6.3).
func (h *head) body() body {
	switch {
	case h.status == 204 || h.status == 304:
		return body{}
	case h.chunked:
		h.close = h.close || h.length >= 0 // both: an intermediary may have framed it otherwise
		return body{chunked: true}
	case h.length >= 0:
		return body{left: h.length}
	}
	h.close = true
	return body{left: math.MaxInt64, toEnd: true}
}

// next returns the next piece of the body, valid until the next call; io.EOF at its end.
func (c *Client) next() ([]byte, error) {
	if c.body.left == 0 && c.body.chunked {
		if err := c.nextChunk(); err != nil {
			return nil, err
		}
	}
	if c.body.left == 0 {
		return nil, io.EOF
	}
	if c.r == c.w {
		if err := c.fill(); err != nil {
			if errors.Is(err, io.EOF) && c.body.toEnd {
				c.body.left = 0
				return nil, io.EOF
			}
			return nil, unexpected(err)
		}
	}
	n := int(min(int64(c.w-c.r), c.body.left))
	piece := c.buf[c.r : c.r+n]
	c.r += n
	c.body.left -= int64(n)
	return piece, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill reads from the connection, once everything read before is consumed.
func (c *Client) fill() error {
	if c.large == nil {
		c.large = pieces.Get().(*[pieceSize]byte)
		c.buf = c.large[:]
	}
	for {
		n, err := c.conn.Read(c.buf)
		c.r, c.w = 0, n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// nextChunk reads up to the data of the next chunk. After the last chunk the body is no longer marked as chunked, and nothing is left of it.
func (c *Client) nextChunk() error {
	if c.body.begun {
		if line, err := c.line(); err != nil || len(line) > 0 {
			return errors.Join(err, errChunk)
		}
	}
	c.body.begun = true
	line, err := c.line()
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(line, []byte(";")) // drop extensions
	n, err := strconv.ParseUint(string(bytes.Trim(size, " \t")), 16, 62)
	if err != nil {
		return errChunk
	}
	if c.body.left = int64(n); n > 0 {
		return nil
	}
	c.body.chunked = false
	for range maxChunk { // drop the trailer
		if line, err := c.line(); err != nil || len(line) == 0 {
			return err
		}
	}
	return errChunk
}

var errChunk = errors.New("malformed chunked body")

// line reads a line between chunks, valid until the next call.
func (c *Client) line() ([]byte, error) {
	if end := bytes.IndexByte(c.buf[c.r:min(c.w, c.r+maxChunk)], '\n'); end >= 0 {
		line := c.buf[c.r : c.r+end]
		c.r += end + 1
		return bytes.TrimSuffix(line, cr), nil
	}
	var line []byte // it continues in the next piece
	for len(line) < maxChunk {
		if c.r == c.w {
			if err := c.fill(); err != nil {
				return nil, unexpected(err)
			}
		}
		b := c.buf[c.r]
		c.r++
		if b == '\n' {
			return bytes.TrimSuffix(line, cr), nil
		}
		line = append(line, b)
	}
	return nil, errChunk
}

// copyTo writes the body to w.
func (c *Client) copyTo(w io.Writer) error {
	for {
		piece, err := c.next()
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

// inflate writes a gzip body to w, decompressed.
func (c *Client) inflate(w io.Writer) error {
	plain, err := gzip.NewReader(&bodyReader{client: c})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, plain); err != nil { // w bounds how much that is
		return err
	}
	return c.skip()
}

// bodyReader is the body as an io.Reader.
type bodyReader struct {
	client *Client
	piece  []byte
}

func (r *bodyReader) Read(b []byte) (int, error) {
	if len(r.piece) == 0 {
		var err error
		if r.piece, err = r.client.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}

// skip reads the rest of a body and drops it. A long one is an error, since a new connection costs less.
func (c *Client) skip() error {
	for left := maxUnwanted; ; {
		piece, err := c.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if left -= len(piece); left < 0 {
			return fmt.Errorf("an unwanted response body exceeds %d KiB", maxUnwanted>>10)
		}
	}
}

package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// head is what the client needs of a response's header.
type head struct {
	status  int
	length  int64 // -1: none
	chunked bool
	gzip    bool
	close   bool // the connection ends after the response
}

// readHead reads headers up to that of the final response, and prepares for its body.
func (c *Client) readHead() (head, error) {
	searched := 0 // bytes after c.r that hold no end of the header, so that one that arrives slowly is not searched from the start each time
	for c.r, c.w = 0, 0; ; {
		if n := headLength(c.buf[c.r:c.w], searched); n > 0 {
			h, err := parseHead(c.buf[c.r : c.r+n])
			c.r, searched = c.r+n, 0
			if err != nil {
				return head{}, err
			}
			if h.status >= 200 {
				c.body = h.body()
				return h, nil
			}
			continue // informational
		}
		searched = c.w - c.r
		if c.w == len(c.buf) {
			if len(c.buf) >= maxHead {
				return head{}, fmt.Errorf("the response header exceeds %d KiB", maxHead>>10)
			}
			c.small = append(c.buf, make([]byte, len(c.buf))...)
			c.buf = c.small
		}
		n, err := c.conn.Read(c.buf[c.w:])
		c.w += n
		switch {
		case n > 0 || err == nil:
		case c.w == 0:
			return head{}, gone(err)
		case errors.Is(err, io.EOF):
			return head{}, io.ErrUnexpectedEOF
		case err != nil:
			return head{}, err
		}
	}
}

// headLength returns the length of the header including the empty line that ends it, 0 if that has not arrived. The header is known not to
// end within the first bytes, which were searched before.
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

// parseHead parses a header, which ends with an empty line.
func parseHead(b []byte) (head, error) {
	line, rest := cutLine(b)
	h := head{length: -1}
	// HTTP/1.1 200 OK
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return head{}, fmt.Errorf("not an HTTP/1 response: it begins with %.40q", line)
	}
	status, err := strconv.ParseUint(string(line[9:12]), 10, 16)
	if err != nil || status < 100 {
		return head{}, fmt.Errorf("not an HTTP/1 response: it begins with %.40q", line)
	}
	h.status, h.close = int(status), line[7] == '0'
	for len(rest) > 0 {
		if line, rest = cutLine(rest); len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return head{}, fmt.Errorf("malformed header field %.40q", line)
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

// field parses one header field.
func (h *head) field(name, value []byte) error {
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseUint(string(value), 10, 62)
		if err != nil || h.length >= 0 && h.length != int64(n) {
			return fmt.Errorf("invalid or conflicting Content-Length %.40q", value)
		}
		h.length = int64(n)
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		if !bytes.EqualFold(value, []byte("chunked")) || h.chunked {
			return fmt.Errorf("unsupported Transfer-Encoding %.40q", value)
		}
		h.chunked = true
	case bytes.EqualFold(name, []byte("Content-Encoding")):
		if h.gzip = bytes.EqualFold(value, []byte("gzip")); !h.gzip && !bytes.EqualFold(value, []byte("identity")) {
			return fmt.Errorf("unsupported Content-Encoding %.40q", value)
		}
	case bytes.EqualFold(name, []byte("Connection")):
		for option := range bytes.SplitSeq(value, []byte(",")) {
			h.close = h.close || bytes.EqualFold(bytes.Trim(option, " \t"), []byte("close"))
		}
	}
	return nil
}

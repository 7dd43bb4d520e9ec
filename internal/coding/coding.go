// Package coding decodes the content codings of HTTP (RFC 9110, section 8.4.1) in which clients send request bodies: gzip
// (RFC 1952), br (RFC 7932) and zstd (RFC 8878, with the window of RFC 9659).
//
// A body is decoded in one go when all of it is there. The decoders pull their input, so that taking it chunk by chunk
// would need a goroutine for each body; and nothing can be decided from a part of a body anyway. No goroutine is started.
package coding

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dsnet/compress/brotli"
	"github.com/klauspost/compress/zstd"
)

// Accepted is the list of codings as the Accept-Encoding header of an answer with status 415 has it.
const Accepted = "gzip, br, zstd"

// maxWindow is how far back a zstd body may refer (RFC 9659). It bounds the decoder's memory.
const maxWindow = 8 << 20

// ErrTooLarge says that the decoded bytes exceed the limit.
var ErrTooLarge = errors.New("the decoded body is too large")

var errTrailing = errors.New("bytes follow the end of the stream")

// Coding is how a body is encoded.
type Coding uint8

// The codings.
const (
	Identity Coding = iota // not at all
	Gzip
	Brotli
	Zstd
)

// Parse returns the coding of a Content-Encoding header. ok is false for an unknown one and for several in a row, which
// no client of model APIs sends.
func Parse(header string) (c Coding, ok bool) {
	switch strings.ToLower(strings.TrimSpace(header)) {
	case "", "identity":
		return Identity, true
	case "gzip", "x-gzip":
		return Gzip, true
	case "br":
		return Brotli, true
	case "zstd":
		return Zstd, true
	}
	return Identity, false
}

// Append decodes a whole body and appends it to dst. It stops with ErrTooLarge after limit bytes, whatever size the body
// claims: memory grows with what really was decoded. Any other error means that the body is not what its header says, or
// not whole. What is returned with an error is of use as memory only.
func Append(dst []byte, c Coding, body []byte, limit int64) ([]byte, error) {
	r, err := c.reader(body)
	if err == nil {
		dst, err = appendAll(dst, r, limit)
		if atEnd := r.close(); err == nil {
			err = atEnd
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // an empty body is no gzip stream
	}
	return dst, err
}

// reader decodes. close tells what was wrong with a body that was read to its end.
type reader struct {
	io.Reader
	close func() error
}

func (c Coding) reader(body []byte) (reader, error) {
	nothing := func() error { return nil }
	from := bytes.NewReader(body)
	switch c {
	case Gzip:
		r, err := gzip.NewReader(from)
		return reader{r, nothing}, err
	case Brotli:
		r, err := brotli.NewReader(from, nil)
		return reader{r, func() error {
			if r.InputOffset != int64(len(body)) {
				return errTrailing
			}
			return nil
		}}, err
	case Zstd:
		// One decoder at a time means that it runs in the caller's goroutine.
		r, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		return reader{r, func() error { r.Close(); return nil }}, err
	}
	return reader{from, nothing}, nil
}

// appendAll reads r to its end.
func appendAll(dst []byte, r io.Reader, limit int64) ([]byte, error) {
	const least = 4 << 10
	start := len(dst)
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, least)
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if int64(len(dst)-start) > limit {
			return dst, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

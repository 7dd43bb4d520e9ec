// Package coding decodes the content codings of HTTP (RFC 9110, section 8.4.1) in which clients send request bodies: gzip
// (RFC 1952), br (RFC 7932) and zstd (RFC 8878, with the window of RFC 9659).
//
// A body is decoded in one go when all of it has arrived. The decoders of gzip and zstd read from an io.Reader, so decoding chunk by chunk
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

	"github.com/klauspost/compress/zstd"

	"github.com/inlet-proxy/inlet/internal/coding/brotli"
)

// Accepted is the list of codings, as the Accept-Encoding header of a 415 response has it.
const Accepted = "gzip, br, zstd"

// maxWindow is how far back a zstd body may refer (RFC 9659). It bounds the decoder's memory.
const maxWindow = 8 << 20

// ErrTooLarge says that the decoded bytes exceed the limit.
var ErrTooLarge = errors.New("the decoded body is too large")

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

// Append decodes a whole body and appends it to dst. It stops with ErrTooLarge after limit bytes; memory grows with what was decoded, whatever
// size the body claims. Any other error means that the body is malformed, truncated, or followed by other bytes. What is returned with an
// error is only of use as memory.
func Append(dst []byte, c Coding, body []byte, limit int64) ([]byte, error) {
	if c == Brotli {
		dst, err := brotli.Append(dst, body, limit)
		if errors.Is(err, brotli.ErrLimit) {
			err = tooLarge(limit)
		}
		return dst, err
	}
	r, err := c.reader(body)
	if err == nil {
		dst, err = appendAll(dst, r, limit)
		_ = r.Close() // it only frees what the decoder has
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // an empty body is not a gzip stream
	}
	return dst, err
}

func tooLarge(limit int64) error { return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit) }

// reader returns a decoder that reads the body.
func (c Coding) reader(body []byte) (io.ReadCloser, error) {
	from := bytes.NewReader(body)
	switch c {
	case Gzip:
		return gzip.NewReader(from)
	case Zstd:
		// One decoder at a time means that it runs in the caller's goroutine.
		r, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return r.IOReadCloser(), nil
	}
	return io.NopCloser(from), nil
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
			return dst, tooLarge(limit)
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

package hosttest

import (
	"bytes"
	"compress/gzip"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// encoders by content coding.
var encoders = map[string]func(io.Writer) (io.WriteCloser, error){
	"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"br":   func(w io.Writer) (io.WriteCloser, error) { return brotli.NewWriter(w), nil },
	"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

// encode returns text in a content coding, or as it is if there is none.
func encode(coding string, text []byte) []byte {
	if coding == "" {
		return text
	}
	var out bytes.Buffer
	w, err := encoders[coding](&out)
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // memory does not fail
	}
	return out.Bytes()
}

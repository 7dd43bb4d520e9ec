package coding

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var codings = map[string]Coding{"gzip": Gzip, "br": Brotli, "zstd": Zstd}

// encode writes body in a coding, as a client does.
func encode(t require.TestingT, c Coding, body []byte) []byte {
	var out bytes.Buffer
	var w io.WriteCloser
	switch c {
	case Gzip:
		w = gzip.NewWriter(&out)
	case Brotli:
		w = brotli.NewWriterLevel(&out, 9)
	case Zstd:
		var err error
		w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		require.NoError(t, err)
	}
	_, err := w.Write(body)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestParse(t *testing.T) {
	for header, want := range map[string]Coding{"": Identity, "identity": Identity, "GZIP": Gzip, "x-gzip": Gzip, " br ": Brotli, "zstd": Zstd} {
		c, ok := Parse(header)
		require.True(t, ok, header)
		require.Equal(t, want, c, header)
	}
	for _, header := range []string{"deflate", "gzip, gzip", "identity, gzip", "compress", "*"} {
		_, ok := Parse(header)
		require.False(t, ok, header)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"gzip", "br", "zstd"}).Draw(t, "coding")
		body := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "body"), rapid.IntRange(1, 100).Draw(t, "times"))
		got, err := Append([]byte("kept"), codings[name], encode(t, codings[name], body), int64(len(body)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(append([]byte("kept"), body...), got))
	})
}

// One byte more than the limit is one too many, and a body that would be a thousand times as large is given up early.
func TestBombs(t *testing.T) {
	for name, c := range codings {
		t.Run(name, func(t *testing.T) {
			const limit = 1 << 18
			_, err := Append(nil, c, encode(t, c, make([]byte, limit+1)), limit)
			require.ErrorIs(t, err, ErrTooLarge)

			bomb := encode(t, c, make([]byte, 64*limit))
			require.Less(t, len(bomb), limit)
			got, err := Append(nil, c, bomb, limit)
			require.ErrorIs(t, err, ErrTooLarge)
			require.Less(t, cap(got), 3*limit)
		})
	}
	t.Run("zstd that claims a size", func(t *testing.T) {
		// A frame header with an 8-byte content size of 2⁴⁰ and a window of 8 MiB, then nothing.
		claim := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x68, 0, 0, 0, 0, 0, 1, 0, 0}
		_, err := Append(nil, Zstd, claim, 1<<20)
		require.Error(t, err)
	})
	t.Run("zstd with a large window", func(t *testing.T) {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, zstd.WithWindowSize(16<<20), zstd.WithEncoderConcurrency(1))
		require.NoError(t, err)
		_, err = w.Write(make([]byte, 17<<20))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		_, err = Append(nil, Zstd, out.Bytes(), 1<<30)
		require.ErrorIs(t, err, zstd.ErrWindowSizeExceeded)
	})
}

// A body that is cut anywhere, or goes on after its end, is refused: it is never read as a shorter one.
func TestBrokenBodies(t *testing.T) {
	text := []byte(strings.Repeat(`{"model":"llama","prompt":"some words"}`, 20))
	for name, c := range codings {
		t.Run(name, func(t *testing.T) {
			whole := encode(t, c, text)
			for i := range whole {
				got, err := Append(nil, c, whole[:i], 1<<20)
				if err == nil {
					require.Empty(t, got, "cut at %d", i) // an empty zstd body has no frames
					require.Zero(t, i)
				}
			}
			_, err := Append(nil, c, append(whole[:len(whole):len(whole)], "{}"...), 1<<20)
			require.Error(t, err)
			_, err = Append(nil, c, text, 1<<20)
			require.Error(t, err)
		})
	}
}

func TestNoGoroutines(t *testing.T) {
	for _, c := range []Coding{Gzip, Zstd} { // br has no reader
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			body := encode(t, c, bytes.Repeat([]byte("0123456789"), 100_000))
			before := runtime.NumGoroutine()
			r, err := c.reader(body)
			require.NoError(t, err)
			_, err = io.ReadFull(r, make([]byte, 200_000))
			require.NoError(t, err)
			require.LessOrEqual(t, runtime.NumGoroutine(), before, "half-way") // those of the encoder may still be ending
			_ = r.Close()
			require.LessOrEqual(t, runtime.NumGoroutine(), before)
		})
	}
}

func FuzzAppend(f *testing.F) {
	for _, c := range codings {
		f.Add(uint8(c), encode(f, c, []byte(`{"model":"llama"}`)))
	}
	f.Fuzz(func(t *testing.T, c uint8, body []byte) {
		const limit = 1 << 16
		got, err := Append(nil, Coding(c%4), body, limit)
		if err == nil {
			require.LessOrEqual(t, len(got), limit)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	text := bytes.Repeat([]byte(`{"role":"user","content":"some words that repeat"},`), 20_000)
	for name, c := range codings {
		b.Run(name, func(b *testing.B) {
			body := encode(b, c, text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				var err error
				if out, err = Append(out[:0], c, body, 1<<30); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

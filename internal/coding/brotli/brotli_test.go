package brotli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	reference "github.com/andybalholm/brotli"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// encode writes a body as the reference encoder does.
func encode(t require.TestingT, body []byte, o reference.WriterOptions, flushAt ...int) []byte {
	var out bytes.Buffer
	w := reference.NewWriterOptions(&out, o)
	done := 0
	for _, at := range flushAt {
		_, err := w.Write(body[done:at])
		require.NoError(t, err)
		require.NoError(t, w.Flush())
		done = at
	}
	_, err := w.Write(body[done:])
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// decodeByReference decodes as much as limit bytes and one more.
func decodeByReference(stream []byte, limit int64) ([]byte, error) {
	return io.ReadAll(io.LimitReader(reference.NewReader(bytes.NewReader(stream)), limit+1))
}

// mixed is text, numbers, markup, UTF-8 and noise, so that all modes of contexts and many codes come up.
func mixed(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := strings.Fields("the of and model request with from that time information prompt für Übergröße 東京 данные <div class=\"x\"> \\n {\"role\":\"user\"}")
	var b bytes.Buffer
	for b.Len() < size {
		switch r.IntN(8) {
		case 0:
			for range r.IntN(40) {
				b.WriteByte(byte(r.UintN(256)))
			}
		case 1:
			fmt.Fprintf(&b, "%d,%x;", r.Uint64(), r.Uint32())
		case 2:
			if b.Len() > 100 {
				at := r.IntN(b.Len() - 50)
				b.Write(bytes.Clone(b.Bytes()[at : at+r.IntN(50)]))
			}
		default:
			b.WriteString(words[r.IntN(len(words))])
			b.WriteByte(' ')
		}
	}
	return b.Bytes()[:size]
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 100, 5000, 70_000, 300_000} {
		body := mixed(uint64(size), size)
		for level := range 12 {
			for _, window := range []int{10, 16, 17, 18, 22, 24} {
				if size > 5000 && (level > 9 && size > 70_000 || window != 10+level%2*6) { // the reference takes long to encode these
					continue
				}
				stream := encode(t, body, reference.WriterOptions{Quality: level, LGWin: window})
				got, err := Append([]byte("kept"), stream, int64(size))
				require.NoError(t, err, "%d bytes, level %d, window %d", size, level, window)
				require.True(t, bytes.Equal(append([]byte("kept"), body...), got), "%d bytes, level %d, window %d", size, level, window)
			}
		}
	}
}

func TestRoundTripOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body"), rapid.IntRange(1, 200).Draw(t, "times"))
		o := reference.WriterOptions{Quality: rapid.IntRange(0, 11).Draw(t, "level"), LGWin: rapid.IntRange(10, 24).Draw(t, "window")}
		flush := rapid.IntRange(0, len(body)).Draw(t, "flush")
		got, err := Append(nil, encode(t, body, o, flush), int64(len(body)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(body, got))
	})
}

// A stream that is cut anywhere is refused as cut, and one that goes on after its end too.
func TestCut(t *testing.T) {
	stream := encode(t, mixed(1, 3000), reference.WriterOptions{Quality: 9})
	for i := range stream {
		_, err := Append(nil, stream[:i], 1<<20)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", i)
	}
	for _, more := range []string{"\x00", "\x03", "trailing"} {
		_, err := Append(nil, append(bytes.Clone(stream), more...), 1<<20)
		require.ErrorIs(t, err, errTrailing)
	}
}

// A flipped bit never makes the decoder read another thing than the reference does.
func TestFlippedBits(t *testing.T) {
	stream := encode(t, mixed(2, 700), reference.WriterOptions{Quality: 11})
	for i := range len(stream) * 8 {
		flipped := bytes.Clone(stream)
		flipped[i/8] ^= 1 << (i % 8)
		compare(t, flipped)
	}
}

const compared = 1 << 16

// compare decodes a stream by both decoders. They agree on whether it is well formed and on what it says.
func compare(t require.TestingT, stream []byte) {
	want, wantErr := decodeByReference(stream, compared)
	if wantErr == nil && len(want) > compared {
		return // it is not known how it goes on
	}
	got, err := Append(nil, stream, compared)
	if errors.Is(err, ErrLimit) && wantErr != nil {
		return // a meta-block that is too long may be malformed as well
	}
	require.Equal(t, wantErr == nil, err == nil, "this decoder: %v, the reference: %v", err, wantErr)
	if err == nil {
		require.True(t, bytes.Equal(want, got))
	}
}

func FuzzAgainstReference(f *testing.F) {
	for seed := range uint64(6) {
		for level := range 12 {
			body := mixed(seed, 40*int(seed*seed))
			f.Add(encode(f, body, reference.WriterOptions{Quality: level, LGWin: 10 + level}, len(body)/2))
		}
	}
	f.Add([]byte("\x0c\x00\x00metadata"))
	f.Fuzz(func(t *testing.T, stream []byte) { compare(t, stream) })
}

// bitWriter writes streams that no encoder writes.
type bitWriter struct {
	b []byte
	n int
}

func (w *bitWriter) bits(v, count int) {
	for i := range count {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
}

// header begins a last meta-block of a length, with one type of block and one tree for each alphabet.
func (w *bitWriter) header(length int) {
	w.bits(0, 1) // a window of 16 bits
	w.bits(1, 1) // the last one
	w.bits(0, 1) // not empty
	w.bits(0, 2) // four nibbles
	w.bits(length-1, 16)
	w.bits(0, 3)   // one type of block for each alphabet
	w.bits(0, 2+4) // no postfix, no direct distances
	w.bits(0, 2)   // mode of the contexts
	w.bits(0, 2)   // one tree each of literals and of distances
}

// only writes a code of one symbol.
func (w *bitWriter) only(symbol, width int) {
	w.bits(1, 2)
	w.bits(0, 2)
	w.bits(symbol, width)
}

// wordStream is a stream of one word of the dictionary.
func wordStream(length, index, transform, produced int) []byte {
	var w bitWriter
	w.header(produced)
	w.only(0, 8)
	code := 0
	for code+1 < len(copyLengths) && copyLengths[code+1].base <= length {
		code++
	}
	cell := []int{2, 3, 6}[code>>3]
	w.only(cell<<6|code&7, 10)
	// Distances without postfix: two symbols for each number of extra bits, and 16 before them.
	d := transform<<wordBits[length] | index
	extra := uint(1)
	for ; d >= 4*(1<<extra)-4; extra++ {
	}
	half := 0
	if d >= 3<<extra-4 {
		half = 1
	}
	w.only(16+2*(int(extra)-1)+half, 6)
	w.bits(length-copyLengths[code].base, int(copyLengths[code].extra))
	w.bits(d-((2+half)<<extra-4), int(extra))
	return w.b
}

// All transforms of words of all lengths are as in the reference.
func TestDictionary(t *testing.T) {
	require.Len(t, dictionary, 122784)
	for length := shortestWord; length <= longestWord; length++ {
		for transform := range transforms {
			for _, index := range []int{0, 1, transform % (1 << wordBits[length]), 1<<wordBits[length] - 1} {
				at := index * length
				for l := shortestWord; l < length; l++ {
					at += l << wordBits[l]
				}
				want := transforms[transform].append(nil, dictionary[at:at+length])
				if len(want) == 0 {
					continue // no meta-block is empty
				}
				stream := wordStream(length, index, transform, len(want))
				byReference, err := decodeByReference(stream, 1000)
				require.NoError(t, err, "length %d, index %d, transform %d", length, index, transform)
				got, err := Append(nil, stream, 1000)
				require.NoError(t, err)
				require.Equal(t, string(byReference), string(got), "length %d, index %d, transform %d", length, index, transform)
			}
		}
	}
	_, err := Append(nil, wordStream(4, 0, len(transforms), 4), 1000)
	require.ErrorIs(t, err, errCorrupt, "no such transform")
	_, err = Append(nil, wordStream(4, 0, 0, 3), 1000)
	require.ErrorIs(t, err, errCorrupt, "a word that is longer than the meta-block")
}

func TestMalformed(t *testing.T) {
	for name, stream := range map[string][]byte{
		"a large window":            {0x11, 0x5e, 0x00},
		"metadata, reserved bit":    {0x0c | 0x10, 0},
		"metadata, padding":         {0x0c, 0x80},
		"bits after the last block": {0x0c},
		"a length in too many":      {0x02 << 3, 0, 0, 0, 0, 0},
		"nothing but ones":          bytes.Repeat([]byte{0xff}, 100),
	} {
		_, err := Append(nil, stream, 1000)
		require.Error(t, err, name)
		_, err = decodeByReference(stream, 1000)
		require.Error(t, err, name)
	}
}

// Memory is that of what was decoded, whatever a stream claims.
func TestMemory(t *testing.T) {
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	// A window of 16 MiB, a meta-block that claims as much and is not there, and one that has too much.
	small := encode(t, []byte("hello"), reference.WriterOptions{LGWin: 24}, 3)
	claims := []byte{0x0f | 2<<5, 0xff, 0xff, 0xff, 0, 0, 0, 0}
	bomb := encode(t, make([]byte, 64<<20), reference.WriterOptions{Quality: 5})
	require.Less(t, len(bomb), 1000)
	require.Less(t, allocated(func() {
		got, err := Append(nil, small, 1<<30)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
	}), uint64(64<<10))
	require.Less(t, allocated(func() {
		_, err := Append(nil, claims, 1<<30)
		require.Error(t, err)
	}), uint64(64<<10))
	require.Less(t, allocated(func() {
		_, err := Append(nil, bomb, 1<<20)
		require.ErrorIs(t, err, ErrLimit)
	}), uint64(4<<20))
}

func TestLimit(t *testing.T) {
	for _, level := range []int{0, 1, 5, 11} {
		body := mixed(3, 5000)
		stream := encode(t, body, reference.WriterOptions{Quality: level}, 1000, 2000)
		got, err := Append(nil, stream, 5000)
		require.NoError(t, err)
		require.True(t, bytes.Equal(body, got))
		_, err = Append(nil, stream, 4999)
		require.ErrorIs(t, err, ErrLimit)
	}
}

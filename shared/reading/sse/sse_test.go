package sse

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// recorder keeps the events of a stream, each as its data, "!" before what is not whole.
type recorder struct {
	t       testing.TB
	scanner *Scanner
	stream  []byte
	data    []byte
	events  []string
	pieces  int
}

func (r *recorder) Data(piece []byte) {
	require.NotEmpty(r.t, piece)
	if string(piece) != "\n" {
		at := int(r.scanner.Offset())
		require.Equal(r.t, string(piece), string(r.stream[at:at+len(piece)]), "it stands where Offset says")
	}
	r.data = append(r.data, piece...)
	r.pieces++
}

func (r *recorder) End(whole bool) {
	mark := "!"
	if whole {
		mark = ""
	}
	r.events = append(r.events, mark+string(r.data))
	r.data = r.data[:0]
}

// read returns the events of a stream that arrives in the given chunks.
func read(t testing.TB, s *Scanner, chunks ...[]byte) []string {
	r := &recorder{t: t, scanner: s, stream: bytes.Join(chunks, nil)}
	s.Reset(r)
	for _, c := range chunks {
		// A chunk is only valid during Feed.
		c = bytes.Clone(c)
		s.Feed(c)
		for i := range c {
			c[i] = 'X'
		}
	}
	s.End()
	require.Empty(t, r.data, "data without an event")
	return r.events
}

// streams with their events. The first rows are the examples of the specification.
var streams = []struct {
	in   string
	want []string
}{
	{"data: YHOO\ndata: +2\ndata: 10\n\n", []string{"YHOO\n+2\n10"}},
	{": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n", []string{"first event", "second event", "! third event"}},
	{"data\n\ndata\ndata\n\ndata:", []string{"", "\n", "!"}},
	{"data:test\n\ndata: test\n\n", []string{"test", "test"}},
	{"", nil},
	{"\n", nil},
	{"\n\n", nil},
	{"data: {\"a\":1}\n\ndata: [DONE]\n\n", []string{`{"a":1}`, "[DONE]"}},
	{"event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: ping\ndata: {}\n\n", []string{`{"type":"message_start"}`, "{}"}},
	{"data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}},
	{"data: a\r\rdata: b\r\r", []string{"a", "b"}},
	{"data: a\n\r\ndata: b\r\n\ndata: c\r\n\r", []string{"a", "b", "c"}},
	{"data: a\r\r\ndata: b\n\n", []string{"a", "b"}},
	{"data: a\r\r\n\r\n", []string{"a"}},
	{"data: a\n\n\n", []string{"a"}},
	{"data: a\rdata: b\r\ndata: c\n\r\r", []string{"a\nb\nc"}},
	{"data: a\rdata: b\r\ndata:\r\r", []string{"a\nb\n"}},
	{"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", []string{"a"}},
	{"\xef\xbb\xbf\n\ndata: a\n\n", []string{"a"}},
	{"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", nil},
	{"\xef\xbbdata: a\n\n", nil},
	{"\xef\xbb\ndata: a\n\n", []string{"a"}},
	{"event: a\nevent: b\ndata: x\n\ndata: y\n\n", []string{"x", "y"}},
	{"event\ndata: x\n\n", []string{"x"}},
	{"retry: 10\n\n", nil},
	{"Data: x\n data: y\ndata : z\n:data: w\nother\ndatax: u\ndat: v\nd\n\n", nil},
	{"data: a: b\n\n", []string{"a: b"}},
	{"data: tail", []string{"!tail"}},
	{"data: tail\n", []string{"!tail"}},
	{"data: tail\r", []string{"!tail"}},
	{"data: a\ndata", []string{"!a\n"}},
	{"data: a\ndat", []string{"!a"}},
	{"event: x\nda", nil},
	{"data: a\n\n\xef", []string{"a"}},
}

func TestEvents(t *testing.T) {
	for _, c := range streams {
		require.Equal(t, c.want, read(t, new(Scanner), []byte(c.in)), "%q", c.in)
		everyCut(t, []byte(c.in))
	}
}

// everyCut asserts that one cut anywhere, and a cut everywhere, change nothing.
func everyCut(t testing.TB, stream []byte) {
	t.Helper()
	s := new(Scanner)
	want := read(t, s, stream)
	for i := range stream {
		require.Equal(t, want, read(t, s, stream[:i], stream[i:]), "%q cut at %d", stream, i)
	}
	var singles [][]byte
	for i := range stream {
		singles = append(singles, stream[i:i+1])
	}
	require.Equal(t, want, read(t, s, singles...), "%q", stream)
}

// Data is reported with the bytes that bring it, and the end with the empty line's first byte.
func TestPrompt(t *testing.T) {
	f := func(chunks ...string) {
		t.Helper()
		s := new(Scanner)
		r := &recorder{t: t, scanner: s, stream: []byte(strings.Join(chunks, ""))}
		s.Reset(r)
		for i, c := range chunks {
			s.Feed([]byte(c))
			require.Len(t, r.events, (i+1)/2, "after %q", c)
			require.Equal(t, i/2+1, r.pieces, "after %q", c)
		}
	}
	f("data: a", "\n\n", "data: b", "\n\n")
	f("data: a\n", "\n", "data: b\n", "\n")
	f("data: a\r\n", "\r", "\ndata: b\r\n", "\r")
	f("data: a\r", "\r", "data: b\r", "\r")
}

func TestReset(t *testing.T) {
	s := new(Scanner)
	for _, left := range []string{"data: a\ndata: b\nid: 1\nevent: x", "data: a\r", "data: a\r\n\r", "da", "data", "\xef\xbb", "x"} {
		s.Reset(&recorder{t: t, scanner: s, stream: []byte(left)})
		s.Feed([]byte(left))
		require.Equal(t, []string{"x"}, read(t, s, []byte("\xef\xbb\xbfdata: x\n\n")), left)
	}
}

// reference reads a whole stream in the words of the specification: lines first, then fields.
func reference(stream string) (events []string) {
	var data []string
	stream = strings.TrimPrefix(stream, byteOrderMark)
	for len(stream) > 0 {
		line, terminator := stream, ""
		if end := strings.IndexAny(stream, "\r\n"); end >= 0 {
			line, terminator = stream[:end], stream[end:end+1]
			if strings.HasPrefix(stream[end:], "\r\n") {
				terminator = "\r\n"
			}
		}
		stream = stream[len(line)+len(terminator):]
		if line == "" {
			if data != nil {
				events = append(events, strings.Join(data, "\n"))
			}
			data = nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		if field == "data" {
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
	if data != nil {
		events = append(events, "!"+strings.Join(data, "\n"))
	}
	return events
}

func FuzzScanner(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.in), uint(len(c.in)/2))
	}
	f.Fuzz(func(t *testing.T, stream []byte, at uint) {
		want := reference(string(stream))
		require.Equal(t, want, read(t, new(Scanner), stream))
		i := int(at % uint(len(stream)+1))
		require.Equal(t, want, read(t, new(Scanner), stream[:i], stream[i:]))
		everyCut(t, stream[:min(len(stream), 64)])
	})
}

func TestEveryChunking(t *testing.T) {
	fragment := rapid.SampledFrom([]string{
		"data: ", "data:", "data", "event: delta", "id: 1", ": comment", "x", "\x00", "é", `{"a":"b"}`,
		"\n", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\r\r", "\xef\xbb\xbf", " ", ":",
	})
	rapid.Check(t, func(rt *rapid.T) {
		stream := []byte(strings.Join(rapid.SliceOfN(fragment, 0, 30).Draw(rt, "fragments"), ""))
		var chunks [][]byte
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(0, min(len(rest), 9)).Draw(rt, "cut")
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, reference(string(stream)), read(t, new(Scanner), chunks...), "%q", chunks)
	})
}

// What lies within one chunk is reported in place.
func TestInPlace(t *testing.T) {
	chunk := []byte("event: a\ndata: b\n\ndata: c\n\n")
	s := new(Scanner)
	h := &inPlace{t: t, chunk: chunk}
	s.Reset(h)
	s.Feed(chunk)
	require.Equal(t, 2, h.n)
}

type inPlace struct {
	t     *testing.T
	chunk []byte
	n     int
}

func (h *inPlace) Data(piece []byte) {
	require.Same(h.t, &h.chunk[bytes.IndexByte(h.chunk, "bc"[h.n])], &piece[0])
	require.Equal(h.t, len(piece), cap(piece))
	h.n++
}

func (h *inPlace) End(bool) {}

// counter counts.
type counter struct{ events, bytes int }

func (c *counter) Data(piece []byte) { c.bytes += len(piece) }
func (c *counter) End(bool)          { c.events++ }

func TestAllocatesNothing(t *testing.T) {
	stream := append(answer(50), "data: a\ndata: b\n\n"...)
	s := new(Scanner)
	h := new(counter)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for _, size := range []int{len(stream), 1000, 10} {
			s.Reset(h)
			for i := 0; i < len(stream); i += size {
				s.Feed(stream[i:min(i+size, len(stream))])
			}
			s.End()
		}
	}))
	require.NotZero(t, h.bytes)
	require.Zero(t, h.events%52, fmt.Sprint(h.events))
}

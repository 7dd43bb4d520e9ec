package sse

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// record is an Event that outlives the call.
type record struct {
	name, data, id, raw string
	dataAt              int
	hasData, incomplete bool
}

// split returns the events of a stream that arrives in the given chunks, and what Feed or End returned.
func split(t testing.TB, maxEvent int, chunks ...[]byte) (events []record, held string, err error) {
	s := &Splitter{MaxEvent: maxEvent}
	emit := func(e *Event) {
		if e.DataAt >= 0 {
			require.Equal(t, e.Data, e.Raw[e.DataAt:e.DataAt+len(e.Data)])
		}
		events = append(events, record{string(e.Name), string(e.Data), string(e.ID), string(e.Raw), e.DataAt, e.HasData, e.Incomplete})
	}
	var total int
	for _, c := range chunks {
		// A chunk is only valid during Feed: what outlives it must have been copied.
		total += len(c)
		c = bytes.Clone(c)
		err = s.Feed(c, emit)
		for i := range c {
			c[i] = 'X'
		}
		require.Equal(t, total, len(raw(events))+len(s.Held()), "every byte is reported or held")
		if err != nil {
			require.Equal(t, err, s.Feed([]byte("data: x\n\n"), emit), "the error stays")
			require.Equal(t, err, s.End(emit), "the error stays")
			return events, string(s.Held()), err
		}
	}
	err = s.End(emit)
	return events, string(s.Held()), err
}

func raw(events []record) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.raw)
	}
	return b.String()
}

// streams with their events, one string each: name|data|id, "-" for what has no data, "!" before what is incomplete. The
// first rows are the examples of the specification.
var streams = []struct {
	in   string
	want []string
}{
	{"data: YHOO\ndata: +2\ndata: 10\n\n", []string{"|YHOO\n+2\n10|"}},
	{": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n", []string{"-||", "|first event|1", "|second event|", "!| third event|"}},
	{"data\n\ndata\ndata\n\ndata:", []string{"||", "|\n|", "!||"}},
	{"data:test\n\ndata: test\n\n", []string{"|test|", "|test|"}},
	{"", nil},
	{"\n", []string{"-||"}},
	{"\n\n", []string{"-||", "-||"}},
	{"data: {\"a\":1}\n\ndata: [DONE]\n\n", []string{`|{"a":1}|`, "|[DONE]|"}},
	{"event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: ping\ndata: {}\n\n", []string{`message_start|{"type":"message_start"}|`, "ping|{}|"}},
	{"data: a\r\n\r\ndata: b\r\n\r\n", []string{"|a|", "|b|"}},
	{"data: a\r\rdata: b\r\r", []string{"|a|", "|b|"}},
	{"data: a\n\r\ndata: b\r\n\ndata: c\r\n\r", []string{"|a|", "|b|", "|c|"}},
	{"data: a\r\r\ndata: b\n\n", []string{"|a|", "|b|"}},
	{"data: a\r\r\n\r\n", []string{"|a|", "-||"}},
	{"data: a\n\n\n", []string{"|a|", "-||"}},
	{"data: a\r\n\r\n\r\n", []string{"|a|", "-||"}},
	{"data: a\r\r\r", []string{"|a|", "-||"}},
	{"data: a\rdata: b\r\ndata: c\n\r\r", []string{"|a\nb\nc|", "-||"}},
	{"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", []string{"|a|", "-||"}},
	{"\xef\xbb\xbf\n\ndata: a\n\n", []string{"-||", "-||", "|a|"}},
	{"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []string{"-||"}},
	{"event: a\nevent: b\ndata: x\n\ndata: y\n\n", []string{"b|x|", "|y|"}},
	{"event\ndata: x\n\n", []string{"|x|"}},
	{"id: 7\nid: a\x00b\ndata: x\n\ndata: y\n\n", []string{"|x|7", "|y|"}},
	{"retry: 10\n\n", []string{"-||"}},
	{"Data: x\n data: y\ndata : z\n:data: w\nother\n\n", []string{"-||"}},
	{"data: a: b\n\n", []string{"|a: b|"}},
	{"data: tail", []string{"!|tail|"}},
	{"data: tail\n", []string{"!|tail|"}},
	{"data: tail\r", []string{"!|tail|"}},
	{"event: x\nda", []string{"!-x||"}},
	{"data: a\n\n\xef", []string{"|a|", "!-||"}},
}

func (r record) String() string {
	s := fmt.Sprintf("%s|%s|%s", r.name, r.data, r.id)
	if !r.hasData {
		s = "-" + s
	}
	if r.incomplete {
		s = "!" + s
	}
	return s
}

func TestEvents(t *testing.T) {
	for _, c := range streams {
		events, held, err := split(t, 0, []byte(c.in))
		require.NoError(t, err)
		require.Empty(t, held)
		var got []string
		for _, e := range events {
			got = append(got, e.String())
		}
		require.Equal(t, c.want, got, "%q", c.in)
		require.Equal(t, c.in, raw(events))
		everySplit(t, 0, []byte(c.in))
	}
}

// everySplit asserts that one cut anywhere, and a cut everywhere, change nothing.
func everySplit(t testing.TB, maxEvent int, stream []byte) {
	t.Helper()
	want, wantHeld, wantErr := split(t, maxEvent, stream)
	same := func(chunks ...[]byte) {
		t.Helper()
		got, held, err := split(t, maxEvent, chunks...)
		require.Equal(t, wantErr, err, "%q", chunks)
		require.Equal(t, want, got, "%q", chunks)
		if err == nil {
			require.Equal(t, wantHeld, held, "%q", chunks)
		} else {
			// Chunks after the failure are not taken.
			require.True(t, strings.HasPrefix(wantHeld, held), "%q", chunks)
		}
	}
	for i := 0; i <= len(stream); i++ {
		same(stream[:i], stream[i:])
	}
	var singles [][]byte
	for i := range stream {
		singles = append(singles, stream[i:i+1])
	}
	same(singles...)
}

// An event must leave as soon as its last byte is there: a client waits for it.
func TestPrompt(t *testing.T) {
	f := func(max int, chunks ...string) {
		t.Helper()
		s := new(Splitter)
		n := 0
		for i, c := range chunks {
			require.NoError(t, s.Feed([]byte(c), func(*Event) { n++ }))
			require.Equal(t, i+max, n, "after %q", c)
		}
	}
	f(1, "data: a\n\n", "data: b\n\n", "data: c\n\n")
	f(1, "data: a\r\n\r\n", "data: b\r\n\r\n", ": c\r\n\r\n")
	f(1, "data: a\r\r", "data: b\r\r", "\r")
	f(0, "data: a\r\n\r", "\ndata: b\r\n\r", "\n")
}

func TestLongEvents(t *testing.T) {
	f := func(in, events, held string) {
		t.Helper()
		got, gotHeld, err := split(t, 12, []byte(in))
		require.Equal(t, events, raw(got))
		require.Equal(t, held, gotHeld)
		if held == "" {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrTooLong)
		}
		everySplit(t, 12, []byte(in))
	}
	f("data: 1234\n\n", "data: 1234\n\n", "")
	f("data: a\n\ndata: 12345\n\ndata: b\n\n", "data: a\n\n", "data: 12345\n\ndata: b\n\n")
	f("data: a\n\ndata: 1234567", "data: a\n\n", "data: 1234567")
	f("data: 12\r\n\r\ndata: 123\r\n\r\n", "data: 12\r\n\r\n", "data: 123\r\n\r\n")
	f(": 34567890\n\n", ": 34567890\n\n", "")
	f(": 345678901\n\n", "", ": 345678901\n\n")

	long := append(bytes.Repeat([]byte("a"), DefaultMaxEvent-1), "\n\n"...)
	_, _, err := split(t, 0, long)
	require.ErrorIs(t, err, ErrTooLong)
	_, _, err = split(t, 0, long[1:])
	require.NoError(t, err)
}

func TestReset(t *testing.T) {
	s := &Splitter{MaxEvent: 100}
	for _, left := range []string{"data: a\ndata: b\nid: 1\nevent: x", "data: a\r", "data: a\r\n\r", "data: a\r\r", strings.Repeat("a", 200), "\xef\xbb"} {
		s.Reset()
		_ = s.Feed([]byte(left), func(*Event) {})
		s.Reset()
		var got []string
		emit := func(e *Event) { got = append(got, fmt.Sprintf("%s|%s|%s|%s", e.Name, e.Data, e.ID, e.Raw)) }
		require.NoError(t, s.Feed([]byte("\xef\xbb\xbfdata: x\n\n"), emit))
		require.NoError(t, s.End(emit))
		require.Equal(t, []string{"|x||\xef\xbb\xbfdata: x\n\n"}, got, left)
		require.Equal(t, 100, s.MaxEvent)
	}
}

// One huge event must not hold its memory for ever.
func TestResetLetsGoOfHugeEvents(t *testing.T) {
	s := new(Splitter)
	long := bytes.Repeat([]byte("x"), 100<<10)
	n := 0
	for _, chunk := range [][]byte{[]byte("data: "), long, []byte("\ndata: "), long, []byte("\n\n")} {
		require.NoError(t, s.Feed(chunk, func(e *Event) { n += len(e.Data) }))
	}
	require.Equal(t, 2*len(long)+1, n)
	s.Reset()
	require.Zero(t, cap(s.held))
	require.Zero(t, cap(s.joined))
}

// reference reads a whole stream in the words of the specification: lines first, then fields.
func reference(stream string) (events []record) {
	var e record
	var data []string
	first := true
	for len(stream) > 0 {
		end := strings.IndexAny(stream, "\r\n")
		line, next := stream, ""
		terminator := ""
		if end >= 0 {
			line, terminator, next = stream[:end], stream[end:end+1], stream[end+1:]
			if terminator == "\r" && strings.HasPrefix(next, "\n") {
				terminator, next = "\r\n", next[1:]
			}
		}
		stream = next
		if first {
			line = strings.TrimPrefix(line, "\xef\xbb\xbf")
			first = false
		}
		if line == "" && terminator != "" {
			events = append(events, record{name: e.name, data: strings.Join(data, "\n"), id: e.id, hasData: data != nil})
			e, data = record{}, nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "data":
			data = append(data, value)
		case "event":
			e.name = value
		case "id":
			if !strings.Contains(value, "\x00") {
				e.id = value
			}
		}
		e.incomplete = true
	}
	if e.incomplete {
		events = append(events, record{name: e.name, data: strings.Join(data, "\n"), id: e.id, hasData: data != nil, incomplete: true})
	}
	return events
}

// agree holds a split against the reference, and its raw bytes against the stream.
func agree(t testing.TB, stream []byte, chunks ...[]byte) {
	got, _, err := split(t, 0, chunks...)
	require.NoError(t, err)
	require.Equal(t, string(stream), raw(got))
	want := reference(string(stream))
	for i := range got {
		got[i].raw, got[i].dataAt = "", 0
	}
	// A LF that follows the CR of an event that has already been reported is reported by itself at the end of a stream.
	if n := len(got) - 1; n >= 0 && n == len(want) && got[n] == (record{incomplete: true}) && bytes.HasSuffix(stream, []byte("\r\r\n")) {
		got = got[:n]
	}
	require.Equal(t, want, got[:len(got):len(got)], "%q", stream)
}

func FuzzSplitter(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.in), uint(len(c.in)/2))
	}
	f.Fuzz(func(t *testing.T, stream []byte, at uint) {
		agree(t, stream, stream)
		i := int(at % uint(len(stream)+1))
		agree(t, stream, stream[:i], stream[i:])
		for _, maxEvent := range []int{0, 9} {
			everySplit(t, maxEvent, stream[:min(len(stream), 64)])
		}
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
		agree(t, stream, chunks...)
		for _, maxEvent := range []int{0, rapid.IntRange(1, 30).Draw(rt, "max")} {
			want, _, wantErr := split(t, maxEvent, stream)
			got, _, err := split(t, maxEvent, chunks...)
			require.Equal(t, wantErr, err)
			require.Equal(t, want, got)
		}
	})
}

// An event within one chunk is reported in place.
func TestInPlace(t *testing.T) {
	chunk := []byte("event: a\ndata: b\n\ndata: c\n\n")
	n := 0
	require.NoError(t, new(Splitter).Feed(chunk, func(e *Event) {
		require.Same(t, &chunk[n*18], &e.Raw[0])
		require.Same(t, &chunk[bytes.IndexByte(chunk, "bc"[n])], &e.Data[0])
		n++
	}))
	require.Equal(t, 2, n)
}

func TestAllocatesNothing(t *testing.T) {
	stream := answer(50)
	multi := []byte("data: a\ndata: b\n\n")
	s := new(Splitter)
	n := 0
	emit := func(e *Event) { n += len(e.Data) }
	run := func() {
		for _, size := range []int{len(stream), 1000, 10} {
			s.Reset()
			for i := 0; i < len(stream); i += size {
				_ = s.Feed(stream[i:min(i+size, len(stream))], emit)
			}
			_ = s.Feed(multi, emit)
			_ = s.End(emit)
		}
	}
	require.Zero(t, testing.AllocsPerRun(100, run))
	require.NotZero(t, n)
}

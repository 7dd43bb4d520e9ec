package sse

import (
	"bytes"
	"fmt"
	"testing"
)

// answer is a chat completion of n events, as vLLM streams it.
func answer(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `data: {"id":"chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1767225600,`+
			`"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"delta":{"content":" word%d"},"logprobs":null,"finish_reason":null}]}`+"\n\n", i)
	}
	b.WriteString("data: [DONE]\n\n")
	return b.Bytes()
}

// BenchmarkScan reads an answer of 1000 events. The time of one event is ns/op divided by 1001.
func BenchmarkScan(b *testing.B) {
	stream := answer(1000)
	crlf := bytes.ReplaceAll(stream, []byte("\n"), []byte("\r\n"))
	for _, c := range []struct {
		name   string
		stream []byte
		chunk  int
	}{
		{"whole", stream, len(stream)},
		{"eventPerChunk", stream, 0},
		{"chunks1000B", stream, 1000},
		{"chunks64B", stream, 64},
		{"CRLF", crlf, len(crlf)},
	} {
		var chunks [][]byte
		for rest := c.stream; len(rest) > 0; {
			n := min(c.chunk, len(rest))
			if c.chunk == 0 {
				n = bytes.Index(rest, []byte("\n\n")) + 2
			}
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.stream)))
			b.ReportAllocs()
			s := new(Scanner)
			h := new(counter)
			for b.Loop() {
				*h = counter{}
				s.Reset(h)
				for _, chunk := range chunks {
					s.Feed(chunk)
				}
				if h.events != 1001 {
					b.Fatal(h.events)
				}
			}
		})
	}
}

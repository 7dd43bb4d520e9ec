package sse_test

import (
	"fmt"

	"github.com/inlet-proxy/inlet/shared/reading/sse"
)

// printer prints each event. Its data comes in pieces that are gone after the call, so it collects a copy.
type printer struct{ data []byte }

func (p *printer) Data(piece []byte) { p.data = append(p.data, piece...) }

func (p *printer) End(whole bool) {
	fmt.Printf("%s (whole: %t)\n", p.data, whole)
	p.data = p.data[:0]
}

// A stream arrives in chunks that cut it anywhere.
func Example() {
	var s sse.Scanner
	s.Reset(&printer{})
	for _, chunk := range []string{"data: {\"n\"", ":1}\n", "\n: a comment keeps the connection alive\n\nda", "ta: [DONE]\n\n", "data: cut"} {
		s.Feed([]byte(chunk))
	}
	s.End()
	// Output:
	// {"n":1} (whole: true)
	// [DONE] (whole: true)
	// cut (whole: false)
}

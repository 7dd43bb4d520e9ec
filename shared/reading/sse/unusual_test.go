package sse_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/sse"
)

type nobody struct{}

func (nobody) Data([]byte) {}
func (nobody) End(bool)    {}

// TestUnusual: what lines say that those who read only the data do not see, however they are cut.
func TestUnusual(t *testing.T) {
	for stream, want := range map[string]bool{
		"":                                          false,
		"data: any text\n\n":                        false,
		"data\ndata:\ndatax: \n\n":                  true,
		"event: content_block_delta\n":              false,
		"event:response.output_text.delta\r\n":      false,
		"event: Call Jane\ndata: x\n\n":             true,
		"event: " + strings.Repeat("a", 80) + "\n":  true,
		"id: 17\nretry:3000\n":                      false,
		"id: jane\n":                                true,
		"retry: 4111111111111111\n":                 true,
		": ping\n\n:\n\n: \n:keep-alive\n\n":        false,
		": ping - 2026-11-30 10:00:00.123456\n\n":   false,
		": ping - call Jane\n\n":                    true,
		": OPENROUTER PROCESSING\n\n":               false,
		": hunter2SECRET\n\n":                       true,
		": hunter2SECRET":                           true,
		"dat\nda\n":                                 false,
		"done\n":                                    true,
		"foo: bar\n":                                true,
		"d: x\n":                                    true,
		`{"choices":[{"message":{"content":"x"}}]}`: true,
		"\xef\xbb\xbfdata: x\n\n":                   false,
		"\xef\xbbx\n":                               true,
	} {
		for _, n := range []int{1, 2, 7, len(stream) + 1} {
			var s sse.Scanner
			s.Reset(nobody{})
			for at := 0; at < len(stream); at += n {
				s.Feed([]byte(stream[at:min(len(stream), at+n)]))
			}
			s.End()
			require.Equal(t, want, s.Unusual(), "%q in pieces of %d", stream, n)
		}
	}
}

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
)

// testCase is a request and its response, as each side sends it and as the other must get it.
type testCase struct {
	name                   string
	stream                 bool // the response is a stream of events, and the request has no content-length
	request, wantRequest   []byte
	response, wantResponse []byte
}

// casesOf are the cases with bodies of about this many bytes: a model that is renamed in both directions, and one that
// keeps its name.
func casesOf(size int) []*testCase {
	var cases []*testCase
	for _, model := range []struct{ asked, sent string }{{"llama", "llama-3-8b"}, {"gemma", "gemma"}} {
		for _, stream := range []bool{false, true} {
			c := &testCase{
				name: model.asked, stream: stream,
				request: request(size, model.asked, stream), wantRequest: request(size, model.sent, stream),
				response: answer(size, model.sent), wantResponse: answer(size, model.asked),
			}
			if stream {
				c.name += ", stream"
				c.response, c.wantResponse = events(size, model.sent), events(size, model.asked)
			}
			cases = append(cases, c)
		}
	}
	return cases
}

// request has its model last, so that nothing can be forwarded before everything has arrived, and contains what a decoder
// would write differently: white space, escapes, a number too large for a double, unknown members.
func request(size int, model string, stream bool) []byte {
	return fmt.Appendf(nil, "{ \"messages\":[{\"role\":\"user\",\"content\":\"%s\"},\n\t{\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,%s\"}}],\"role\":\"user\"}],"+
		`"seed":123456789012345678901234567890, "x_unknown":{"model":"llama","é":1.0e+2}, "stream":%t, "model" : "%s"}`+"\n",
		text(size/2), picture(size/2), stream, model)
}

func answer(size int, model string) []byte {
	return fmt.Appendf(nil, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"%s","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}], "usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}}`+"\n",
		model, text(size))
}

// events are about a kilobyte each. Their number does not depend on the model's name.
func events(size int, model string) []byte {
	var b bytes.Buffer
	piece := text(1000)
	for range size/len(piece) + 1 {
		fmt.Fprintf(&b, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"%s\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}]}\n\n", model, piece)
	}
	b.WriteString("data: [DONE]\n\n")
	return b.Bytes()
}

// text is the inside of a JSON string of this many bytes.
func text(size int) string {
	const sentence = `\"model\":\"llama-3-8b\" is \u0022text\u0022; é, 語, 🦙\n` + "\x7f"
	return strings.Repeat(sentence, size/len(sentence)+1)
}

// picture is noise in base64 without repeated windows: a part that is lost, doubled or moved shows.
func picture(size int) string {
	noise := make([]byte, size*3/4)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(noise)
	return base64.StdEncoding.EncodeToString(noise)
}

// difference describes the first difference of two bodies; nil if they are equal.
func difference(what string, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	show := func(b []byte) []byte { return b[min(at, len(b)):min(at+40, len(b))] }
	return fmt.Errorf("the %s of %d bytes differs from the %d bytes expected at byte %d: %q, want %q", what, len(got), len(want), at, show(got), show(want))
}

package main

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/inlet-proxy/inlet/bench/load"
	"github.com/inlet-proxy/inlet/bench/upstream"
)

// chatCase is one kind of request.
type chatCase struct {
	name    string
	conns   int
	size    int // of a request's body, about, in bytes
	model   string
	renamed bool // the replicas have another name for it
	events  int  // of a streamed response; 0: the response is one JSON object
}

// Clients use the replicas' name for the model. The streamed case uses another one, so that each of its events is changed
// on its way back.
var cases = []chatCase{
	{name: "chat-4k-c1", conns: 1, size: 4 << 10, model: upstream.Model},
	{name: "chat-4k-c16", conns: 16, size: 4 << 10, model: upstream.Model},
	{name: "chat-64k-c1", conns: 1, size: 64 << 10, model: upstream.Model},
	{name: "chat-64k-c16", conns: 16, size: 64 << 10, model: upstream.Model},
	{name: "chat-1m-c1", conns: 1, size: 1 << 20, model: upstream.Model},
	{name: "sse-200-c16", conns: 16, size: 4 << 10, model: "assistant", renamed: true, events: 200},
}

// unstreamed is the streamed case without its stream.
const unstreamed = "chat-4k-c16"

// runs reports whether a mode takes part in the case: single filters run only in those of small requests.
func (c *chatCase) runs(m *mode) bool {
	return m.chain == "" || m.full() || c.size <= 4<<10 && c.events == 0
}

// request is the case's request as it is sent.
func (c *chatCase) request() *load.Request {
	headers := [][2]string{{"x-api-key", key}}
	if c.events > 0 {
		headers = append(headers, [2]string{upstream.Events, strconv.Itoa(c.events)})
	}
	return load.NewRequest("/v1/chat/completions", c.body(), headers...)
}

// body is a chat of about the case's size, with the model after the messages, where a reader finds it last. All chats of
// a case share their first kilobyte, and from the number on nothing: a gateway that remembers prompts finds the
// beginning, and learns the rest.
func (c *chatCase) body() []byte {
	const line = `She said: \"the quick brown fox jumps over the lazy dog\", and it was so.\n`
	var b bytes.Buffer
	b.WriteString(`{"messages":[{"role":"system","content":"`)
	for b.Len() < 1000 {
		b.WriteString(line)
	}
	fmt.Fprintf(&b, `"},{"role":"user","content":"%s, story %s: `, c.name, load.Number)
	for b.Len() < c.size-100 {
		b.WriteString(line)
	}
	b.WriteString(`"}],"max_tokens":200,"temperature":0.7,`)
	if c.events > 0 {
		b.WriteString(`"stream":true,"stream_options":{"include_usage":true},`)
	}
	fmt.Fprintf(&b, `"model":%q}`, c.model)
	return b.Bytes()
}

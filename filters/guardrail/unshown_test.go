package guardrail_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// TestUnshown: the audit says when something goes on that was not shown to anybody; and every byte is as it was.
func TestUnshown(t *testing.T) {
	const event, stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ok\"},\"logprobs\":null}]}\n\n", "text/event-stream"
	for _, c := range []struct{ kind, body, state string }{
		{stream, event + "data: [DONE]\n\n", "scanned"},
		{stream, ": ping\n\n" + event + "event: done\nid: 1\ndata: [DONE]\n\n", "scanned"},
		{stream, ": hunter2SECRET\n\n" + event + "data: [DONE]\n\n", "partial"},
		{stream, event + "data: [DONE]\n\n: hunter2SECRET", "partial"},
		{stream, "event: hunter2SECRET\n" + event, "partial"},
		{stream, `{"choices":[{"index":0,"message":{"content":"hunter2SECRET"}}]}`, "partial"},
		{stream, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ok\"},\"logprobs\":{\"content\":[{\"token\":\"hunter2SECRET\"}]}}]}\n\n", "partial"},
		{"application/json", `{"choices":[{"index":0,"message":{"content":"ok"},"logprobs":{"content":[{"token":"hunter2SECRET"}]}}]}`, "partial"},
		{"application/json", `{"choices":[{"index":0,"message":{"content":"ok"},"logprobs":null}]}`, "scanned"},
	} {
		for _, provider := range []string{"local: {detect: all}", "webhook: {cluster: guard}"} {
			g := guard(t, `{providers: [{name: p, `+provider+`}], policies: [{on: response, use: [p], action: redact}]}`)
			host := &guarding{judge: redacting("hunter2SECRET"), stream: g.chain.NewStream()}
			host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
			host.response = pairs{{":status", "200"}, {"content-type", c.kind}}
			host.stream.Begin(host)
			host.stream.RequestHeaders(false)
			host.stream.RequestBody([]byte(`{"messages":[]}`), true)
			host.held = host.stream.ResponseHeaders(false) == chain.Hold
			_, with := host.stream.ResponseBody([]byte(c.body), true)
			if host.held = host.stream.HoldsResponse(); !host.held {
				host.out = append(host.out, with...)
			}
			for len(host.open) > 0 {
				host.answer(t, 0)
			}
			host.stream.Done()
			require.Equal(t, c.body, string(host.out))
			require.Contains(t, host.why, "screened=response:"+c.state, c.body)
		}
	}
}

// TestASecondCoding: a response is read only if none of the lines of content-encoding names a coding.
func TestASecondCoding(t *testing.T) {
	g := guard(t, `{providers: [{name: p, local: {detect: all}}], policies: [{on: response, use: [p], action: redact}]}`)
	host := &guarding{stream: g.chain.NewStream()}
	host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
	host.response = pairs{{":status", "200"}, {"content-type", "text/event-stream"}, {"content-encoding", "identity"}, {"content-encoding", "gzip"}}
	host.stream.Begin(host)
	host.stream.RequestHeaders(false)
	host.stream.RequestBody([]byte(`{"messages":[]}`), true)
	host.stream.ResponseHeaders(false)
	require.NotNil(t, host.refused)
	require.Equal(t, 503, host.refused.Status)
	require.Contains(t, host.why, "response-encoded")
}

// TestTextInPlacesOfMedia: the name of a member does not say that there is no text.
func TestTextInPlacesOfMedia(t *testing.T) {
	const user = `{"messages":[{"role":"user",`
	for message, want := range map[string]string{
		`"signature":"jane@example.com","content":"x"`:                                                               "blocked",
		`"file":"jane@example.com","content":"x"`:                                                                    "blocked",
		`"content":[{"type":"image_url","image_url":{"url":"mail jane@example.com"}}]`:                               "blocked",
		`"content":[{"type":"image_url","image_url":{"url":"https://example.com/a/long/path to jane@example.com"}}]`: "partial",
		`"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="}}]`:      "scanned",
	} {
		g := guard(t, `{providers: [{name: l, local: {detect: email}}], policies: [{on: request, use: [l], action: block}]}`)
		host := &guarding{stream: g.chain.NewStream()}
		host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
		host.stream.Begin(host)
		host.stream.RequestHeaders(false)
		host.stream.RequestBody([]byte(user+message+`}]}`), true)
		host.stream.Done()
		require.Equal(t, want == "blocked", host.refused != nil, message)
		if want != "blocked" {
			require.Contains(t, host.why, "screened=request:"+want, message)
		}
	}
}

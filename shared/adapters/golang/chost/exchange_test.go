package chost_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/adapters/golang/chost"
)

const document = `
filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}
`

const chat = `{"model":"llama","messages":[{"role":"user","content":"Hello"}]}`

// exchange is a stream and what came of it.
type exchange struct {
	t *testing.T
	*chost.Stream
	events chan chost.Event
}

func open(t *testing.T, h *chost.Host, worker int, config uint64, info map[string]string) *exchange {
	x := &exchange{t: t, events: make(chan chost.Event, 10000)}
	if info == nil {
		info = map[string]string{"client": "127.0.0.1:5000"}
	}
	x.Stream = h.Open(worker, config, info, func(e chost.Event) { x.events <- e })
	return x
}

// next waits for an event of a kind and returns it; others are passed over.
func (x *exchange) next(verb string) chost.Event {
	x.t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case e := <-x.events:
			if e.Verb == verb {
				return e
			}
		case <-late:
			require.FailNow(x.t, "no event "+verb)
		}
	}
}

func (x *exchange) end() {
	x.Finish()
	x.next("finished")
	x.Forget()
}

func get(headers [][2]string, name string) string {
	for _, h := range headers {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

func post(body string, more ...[2]string) [][2]string {
	return append([][2]string{
		{":method", "POST"},
		{":path", "/v1/chat/completions"},
		{":scheme", "http"},
		{":authority", "gateway.test"},
		{"content-type", "application/json"},
		{"content-length", itoa(len(body))},
	}, more...)
}

// The headers and the body are edited, and the length fits.
func TestAnExchange(t *testing.T) {
	h := start(t, 1)
	c, err := h.Configure(chost.OfFilter, settings(t, document, nil))
	require.NoError(t, err, "%q", h.Log())
	x := open(t, h, 0, c, nil)
	x.RequestHeaders(post(chat), false)
	x.RequestData([]byte(chat), true)
	e := x.next("uph")
	require.Equal(t, "llama", get(e.Headers(), "x-gateway-inference-pool"))
	want := strings.Replace(chat, "llama", "llama-3-8b", 1)
	require.Equal(t, itoa(len(want)), get(e.Headers(), "content-length"))
	require.Equal(t, want, string(x.next("upd").Parts[0]))
	x.Info(map[string]string{"served": "10.0.0.1:80"})
	x.ResponseHeaders([][2]string{{":status", "200"}, {"content-type", "application/json"}}, false)
	x.next("downh")
	x.ResponseData([]byte(`{"usage":{"total_tokens":3}}`), true)
	x.next("downd")
	x.end()
}

package chain_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// TestUpgrade: only what would switch to another protocol is refused, by its headers.
func TestUpgrade(t *testing.T) {
	r := newRig(t, "passThrough: [/own]")
	for name, c := range map[string]struct {
		headers []string
		status  int // 0: it goes its way
	}{
		"WebSocket":                     {[]string{"connection", "Upgrade", "upgrade", "websocket"}, 426},
		"in other letters":              {[]string{"connection", "keep-alive, UPGRADE", "upgrade", "WebSocket"}, 426},
		"without a connection's option": {[]string{"upgrade", "websocket"}, 426},
		"another protocol":              {[]string{"connection", "upgrade", "upgrade", "tls/1.3"}, 426},
		"another, not insisted on":      {[]string{"upgrade", "tls/1.3"}, 0},
		"HTTP/2":                        {[]string{"connection", "Upgrade, HTTP2-Settings", "upgrade", "h2c"}, 0},
		"nothing":                       {[]string{"connection", "upgrade"}, 0},
		"an empty one":                  {[]string{"connection", "upgrade", "upgrade", " "}, 0},
		"with a length":                 {[]string{"connection", "upgrade", "upgrade", "websocket", "content-length", "26"}, 426},
		"realtime":                      {[]string{"connection", "upgrade", "upgrade", "websocket", ":method", "GET", ":path", "/v1/realtime?model=m"}, 426},
		"a path that passes":            {[]string{"connection", "upgrade", "upgrade", "websocket", ":method", "GET", ":path", "/own/v1/realtime"}, 0},
		"a path that nobody knows":      {[]string{"connection", "upgrade", "upgrade", "websocket", ":method", "GET", ":path", "/v1/other"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := post(c.headers...)
			s := r.chain.NewStream()
			s.Begin(h)
			act := s.RequestHeaders(false)
			if c.status == 0 {
				require.NotEqual(t, chain.Replied, act)
				require.Nil(t, h.reply)
				return
			}
			require.Equal(t, chain.Replied, act, "no byte of a body is waited for")
			require.Equal(t, c.status, h.reply.Status)
			require.Contains(t, h.reply.Headers, [2]string{"upgrade", "HTTP/1.1"})
			require.Contains(t, string(h.reply.Body), "upgrade_not_supported")
		})
	}
}

// TestUnknownPath: of a request that went by unseen, and that Envoy has no route for, the client gets the error that its path is unknown.
func TestUnknownPath(t *testing.T) {
	for name, c := range map[string]struct {
		path, status, served string
		told                 bool
	}{
		"Envoy has no route":      {"/v1/other", "404", "", true},
		"a server says it itself": {"/v1/other", "404", "10.0.0.1:80", false},
		"Envoy says another word": {"/v1/other", "503", "", false},
		"a path that passes":      {"/own/x", "404", "", false},
		"a path that is known":    {"/v1/chat/completions", "404", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "passThrough: [/own]")
			h := post(":path", c.path)
			h.served, h.response[":status"] = c.served, c.status
			s, _ := r.send(h, body)
			act := s.ResponseHeaders(false)
			if !c.told {
				require.Equal(t, chain.Continue, act)
				require.Nil(t, h.reply)
				return
			}
			require.Equal(t, chain.Replied, act)
			require.Contains(t, string(h.reply.Body), "unknown_path")
			s.Done()
			require.Zero(t, r.metrics["inlet_request_total/,,refused"], "it never was a request for a model")
		})
	}
}

// TestWhoIsMarked: a request about which the filters decided is marked for a chain behind, one that passes is not, whatever was taken off it.
func TestWhoIsMarked(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(x *filter.Exchange) filter.Verdict {
		x.SetRequestHeader("x-gateway-model-name", "m")
		return filter.Next
	}
	h := post()
	r.send(h, body)
	require.Equal(t, 1, h.marks)
	h = post(":path", "/elsewhere", "x-gateway-model-name", "m")
	r.send(h, "")
	require.Equal(t, []string{"-x-gateway-model-name"}, h.log)
	require.Zero(t, h.marks)
}

// TestABodyAtTheBound: the largest body that is allowed is, in one piece and in many.
func TestABodyAtTheBound(t *testing.T) {
	for _, over := range []int{0, 1} {
		for _, size := range []int{1, 7, len(body)} {
			r := newRig(t, "limits: {body: "+strconv.Itoa(len(body)-over)+"}")
			h := post()
			s := r.chain.NewStream()
			s.Begin(h)
			act := s.RequestHeaders(false)
			for rest := body; rest != "" && act != chain.Replied; {
				n := min(size, len(rest))
				act = s.RequestBody([]byte(rest[:n]), n == len(rest))
				rest = rest[n:]
			}
			require.Equal(t, over > 0, act == chain.Replied, "%d over, pieces of %d", over, size)
			s.Done()
		}
	}
}

// TestWhichPathsAreRead: a slash at the end is one too many, unless it is configured; an own path stands before a standard
// one, and a method must fit.
func TestWhichPathsAreRead(t *testing.T) {
	const options = "paths: [{path: /mine/chat, api: chat}, {path: /slash/, api: chat}]\npassThrough: [/health, /docs/]"
	for _, c := range []struct {
		method, path string
		reads        string // the path that goes on; "" if the request is not read
	}{
		{"POST", "/v1/chat/completions", "/v1/chat/completions"},
		{"POST", "/v1/chat/completions/", "/v1/chat/completions"},
		{"POST", "/v1/chat/completions?a=b/", "/v1/chat/completions?a=b/"},
		{"POST", "/v1/chat/completions/?a=b", "/v1/chat/completions?a=b"},
		{"POST", "/v1/chat/completions//", ""},
		{"GET", "/v1/chat/completions", ""},
		{"POST", "/mine/chat", "/mine/chat"},
		{"POST", "/mine/chat/", "/mine/chat"},
		{"POST", "/slash/", "/slash/"},
		{"POST", "/slash", ""},
		{"GET", "/v1/models", "/v1/models"},
		{"HEAD", "/v1/models", "/v1/models"},
		{"POST", "/v1/models", ""},
		{"POST", "/health/v1/chat/completions", ""},
		{"POST", "/health?a", ""},
		{"POST", "/docs", ""},
	} {
		r, h := newRig(t, options), post(":method", c.method, ":path", c.path)
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			require.Equal(t, c.reads, x.Path, "what filters see")
			return filter.Next
		}
		text := body
		if c.method != "POST" {
			text = ""
		}
		_, act := r.send(h, text)
		require.Equal(t, chain.Continue, act, c)
		require.Equal(t, c.reads != "", len(r.trace) > 0, c)
		if c.reads == "" || c.reads == c.path {
			require.Empty(t, h.log, c)
		} else {
			require.Equal(t, []string{":path=" + c.reads}, h.log, c)
		}
	}
}

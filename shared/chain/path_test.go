package chain_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/chain"
	"github.com/inlet-proxy/inlet/shared/filter"
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

// TestUnknownPath: of a request that went by unseen, and that Envoy has no route for, the client is told that its path is unknown.
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

// TestRedirected: a request whose redirect Envoy follows comes again, and is taken for what it is; no other is.
func TestRedirected(t *testing.T) {
	first := func(r *rig, redirected bool) {
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			x.SetRequestHeader("x-gateway-model-name", "m")
			x.Route = filter.Route{Model: "m", Pool: "p"}
			x.RestoreModel("m")
			return filter.Next
		}
		h := post("x-request-id", "1")
		h.redirected = redirected
		var end filter.End
		r.a.done = func(_ *filter.Exchange, e filter.End) { end = e }
		s, act := r.send(h, body)
		require.Equal(t, chain.Continue, act)
		s.Done()
		require.Equal(t, redirected, end.Complete, "the replica has answered")
		require.Equal(t, redirected, end.Status == 307)
		r.trace = nil
	}
	again := []string{":path", "/elsewhere", "x-request-id", "1", "x-envoy-original-url", "http://x/", "x-gateway-model-name", "m"}

	r := newRig(t, "")
	first(r, true)
	h := post(again...)
	s, act := r.send(h, "")
	require.Equal(t, chain.Continue, act)
	require.Empty(t, h.log, "its headers are Inlet's own")
	require.Equal(t, chain.Continue, s.ResponseHeaders(false))
	n, with := s.ResponseBody([]byte(`{"model":"secret"}`), true)
	require.Equal(t, `{"model":"m"}`, string(with)+`{"model":"secret"}`[n:])
	s.Done()
	require.Empty(t, r.trace, "no filter sees it twice")
	require.EqualValues(t, 1, r.metrics["inlet_request_total/m,p,ok"])
	require.Zero(t, r.metrics["inlet_request_total/m,p,aborted"])

	for name, c := range map[string]struct {
		redirected bool
		headers    []string
	}{
		"the first was no redirect": {false, again},
		"another request":           {true, append(again[:len(again):len(again)], "x-request-id", "2")},
		"not Envoy's":               {true, append(again[:4:4], again[6:]...)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "")
			first(r, c.redirected)
			h := post(c.headers...)
			r.send(h, "")
			require.Equal(t, []string{"-x-gateway-model-name"}, h.log)
		})
	}
	t.Run("not a second time", func(t *testing.T) {
		r := newRig(t, "")
		first(r, true)
		r.send(post(again...), "")
		h := post(again...)
		r.send(h, "")
		require.Equal(t, []string{"-x-gateway-model-name"}, h.log)
	})
}

// TestRedirectsAreBounded: of many requests that do not come again the latest are known.
func TestRedirectsAreBounded(t *testing.T) {
	const kept = 16
	r := newRig(t, "")
	r.a.request = func(x *filter.Exchange) filter.Verdict {
		x.SetRequestHeader("x-gateway-model-name", "m")
		return filter.Next
	}
	for i := range 3 * kept {
		h := post("x-request-id", strconv.Itoa(i))
		h.redirected = true
		s, _ := r.send(h, body)
		s.Done()
	}
	known := 0
	for i := range 3 * kept {
		h := post(":path", "/elsewhere", "x-request-id", strconv.Itoa(i), "x-envoy-original-url", "http://x/", "x-gateway-model-name", "m")
		r.send(h, "")
		if own := len(h.log) == 0; own {
			known++
			require.GreaterOrEqual(t, i, 2*kept)
		}
	}
	require.Equal(t, kept, known)
}

// TestTwiceInTheChain: what the same document has let go before goes by.
func TestTwiceInTheChain(t *testing.T) {
	for name, options := range map[string]string{"removing": "", "trusting": "controlHeaders: trust"} {
		r := newRig(t, options)
		h := post("x-gateway-model-name", "m")
		h.marked = true
		_, act := r.send(h, body)
		require.Equal(t, chain.Continue, act, name)
		require.Empty(t, r.trace, name)
		require.Empty(t, h.log, name)
	}
	r := newRig(t, "")
	h := post()
	h.marked = true
	r.send(h, body)
	require.NotEmpty(t, r.trace, "without a header of Inlet's it is a client's")
}

// TestWhoIsMarked: a request about which the filters decided is marked for a chain behind, one that goes by is not, whatever was taken off it.
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

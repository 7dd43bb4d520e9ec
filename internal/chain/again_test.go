package chain_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// asRedirected are the headers of a request as Envoy makes them when it follows a redirect.
func asRedirected(id string, changes ...string) *host {
	h := post(append([]string{
		":path", "/elsewhere", ":authority", "other.test", "x-request-id", id, "content-length", "27",
		"x-envoy-original-url", "http://gateway.test/v1/chat/completions", "x-gateway-model-name", "m",
	}, changes...)...)
	for name, value := range h.request {
		if value == absent {
			delete(h.request, name)
		}
	}
	h.stamp = 7
	return h
}

const absent = "absent"

// redirect sends a request of which Envoy follows the redirect.
func redirect(t *testing.T, r *rig, id string) (end filter.End) {
	t.Helper()
	r.a.request = func(x *filter.Exchange) filter.Verdict {
		x.SetRequestHeader("x-gateway-model-name", "m")
		x.Route = filter.Route{Model: "m", Target: "secret", Pool: "p"}
		x.Tenant.Name = "demo"
		x.Target = filter.Target{Address: "10.0.0.1:80", Pool: "p"}
		x.RestoreModel("m")
		return filter.Next
	}
	r.a.done = func(_ *filter.Exchange, e filter.End) { end = e }
	h := post("x-request-id", id, "content-length", "27")
	s, act := r.send(h, body)
	require.Equal(t, chain.Continue, act)
	h.request, h.details, h.stamp = asRedirected(id).request, chain.RedirectDetails, 7
	s.Done()
	r.trace, r.a.done = nil, nil
	return end
}

// passes reports whether a request passes as one that Envoy has made.
func (r *rig) passes(h *host) bool {
	r.trace = nil
	_, act := r.send(h, "")
	return act == chain.Continue && len(r.trace) == 0 && len(h.log) == 0
}

// TestRedirected: a request whose redirect Envoy follows comes again, and is taken for what it is.
func TestRedirected(t *testing.T) {
	r := newRig(t, "")
	end := redirect(t, r, "1")
	require.True(t, end.Complete, "the replica has answered")
	require.Equal(t, 307, end.Status)
	h := asRedirected("1")
	s, act := r.send(h, "")
	require.Equal(t, chain.Continue, act)
	require.Empty(t, h.log, "its headers are Inlet's own")
	require.Equal(t, 1, h.marks, "the same document may stand behind this one")
	require.Equal(t, "redirect=followed", h.why)
	require.Equal(t, chain.Continue, s.ResponseHeaders(false))
	x := s.Exchange()
	require.Equal(t, filter.Route{Model: "m", Target: "secret", Pool: "p"}, x.Route)
	require.Equal(t, filter.Tenant{Name: "demo"}, x.Tenant)
	require.Equal(t, filter.Target{Address: "10.0.0.1:80", Pool: "p"}, x.Target)
	n, with := s.ResponseBody([]byte(`{"model":"secret"}`), true)
	require.Equal(t, `{"model":"m"}`, string(with)+`{"model":"secret"}`[n:])
	s.Done()
	require.Empty(t, r.trace, "no filter sees it twice")
	require.EqualValues(t, 1, r.metrics["inlet_request_total/m,p,ok"])
	require.Zero(t, r.metrics["inlet_request_total/m,p,aborted"])
}

// TestRedirectedTwice: so does one that is redirected again.
func TestRedirectedTwice(t *testing.T) {
	r := newRig(t, "")
	redirect(t, r, "1")
	h := asRedirected("1")
	s, _ := r.send(h, "")
	h.request, h.details = asRedirected("1", ":path", "/third", "x-envoy-original-url", "http://other.test/elsewhere").request, chain.RedirectDetails
	s.Done()
	require.True(t, r.passes(asRedirected("1", ":path", "/third", "x-envoy-original-url", "http://other.test/elsewhere")))
}

// TestNotRedirected: what differs in anything from the request that Envoy would make is a client's: filters see it, and its
// control headers are removed.
func TestNotRedirected(t *testing.T) {
	for name, changes := range map[string][]string{
		"another request":               {"x-request-id", "2"},
		"without a number":              {"x-request-id", absent},
		"no old URL":                    {"x-envoy-original-url", absent},
		"another old URL":               {"x-envoy-original-url", "anything"},
		"the old path":                  {"x-envoy-original-url", "/v1/chat/completions"},
		"another path":                  {":path", "/v1/chat/completions"},
		"another path's query":          {":path", "/elsewhere?a=b"},
		"another host":                  {":authority", "gateway.test"},
		"another method":                {":method", "PUT"},
		"another length":                {"content-length", "28"},
		"no length":                     {"content-length", absent},
		"a coding":                      {"content-encoding", "gzip"},
		"another type":                  {"content-type", "text/plain"},
		"a key":                         {"authorization", "Bearer key"},
		"another model's name":          {"x-gateway-model-name", "other"},
		"no model's name":               {"x-gateway-model-name", absent},
		"a pool":                        {"x-gateway-inference-pool", "p"},
		"a replica":                     {"x-gateway-destination-endpoint", "10.0.0.9:80"},
		"a header that a filter claims": {"x-of-filter-a", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "paths: [{path: /elsewhere, api: chat}]")
			redirect(t, r, "1")
			h := asRedirected("1", changes...)
			s, _ := r.send(h, body)
			require.NotContains(t, h.why, "redirect=followed")
			require.True(t, len(r.trace) > 0 || h.reply != nil || name == "another method", "it is read")
			for _, header := range []string{"x-gateway-model-name", "x-gateway-inference-pool", "x-gateway-destination-endpoint", "x-of-filter-a"} {
				if _, ok := h.request[header]; ok && h.reply == nil {
					require.Contains(t, h.log, "-"+header)
				}
			}
			s.Done()
			require.Zero(t, r.metrics["inlet_request_total/m,p,ok"])
		})
	}
	t.Run("a request of a client's with the same number", func(t *testing.T) {
		r := newRig(t, "")
		redirect(t, r, "1")
		r.send(post(":path", "/v1/chat/completions", "x-request-id", "1", "x-envoy-original-url", "anything"), `{"model":"zzz"}`)
		require.NotEmpty(t, r.trace)
	})
	t.Run("of another time", func(t *testing.T) {
		r := newRig(t, "")
		redirect(t, r, "1")
		h := asRedirected("1")
		h.stamp = 8
		require.False(t, r.passes(h))
	})
	t.Run("of no time", func(t *testing.T) {
		r := newRig(t, "")
		redirect(t, r, "1")
		h := asRedirected("1")
		h.stamp = 0
		require.False(t, r.passes(h))
	})
	for name, c := range map[string]struct {
		id    string // absent: none
		gone  bool   // the headers cannot be read at the end
		stamp uint64
	}{
		"after one without a number": {absent, false, 7},
		"after one without headers":  {"1", true, 7},
		"after one of no time":       {"1", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "")
			h := asRedirected(c.id)
			h.request[":path"] = "/v1/chat/completions"
			delete(h.request, "x-envoy-original-url")
			s, _ := r.send(h, body)
			h.request, h.details, h.stamp, h.unreadable = asRedirected(c.id).request, chain.RedirectDetails, c.stamp, c.gone
			s.Done()
			again := asRedirected(c.id)
			again.stamp = c.stamp
			require.False(t, r.passes(again))
		})
	}
	t.Run("not a second time", func(t *testing.T) {
		r := newRig(t, "")
		redirect(t, r, "1")
		require.True(t, r.passes(asRedirected("1")))
		require.False(t, r.passes(asRedirected("1")))
	})
	t.Run("nor after one that did not fit", func(t *testing.T) {
		r := newRig(t, "")
		redirect(t, r, "1")
		require.False(t, r.passes(asRedirected("1", ":path", "/other")))
		require.False(t, r.passes(asRedirected("1")))
	})
	t.Run("too late", func(t *testing.T) {
		r := newRig(t, "")
		redirect(t, r, "1")
		for range 200 { // milliseconds
			r.chain.Deps().Now()
		}
		require.False(t, r.passes(asRedirected("1")))
	})
	t.Run("nobody was redirected", func(t *testing.T) {
		for _, details := range []string{"", "via_upstream", "downstream_remote_disconnect"} {
			r := newRig(t, "")
			h := post("x-request-id", "1")
			s, _ := r.send(h, body)
			h.request, h.details, h.stamp = asRedirected("1").request, details, 7
			s.Done()
			require.False(t, r.passes(asRedirected("1")), details)
		}
	})
	t.Run("it was answered", func(t *testing.T) {
		r := newRig(t, "")
		h := post("x-request-id", "1")
		s, _ := r.send(h, body)
		h.response[":status"] = "200"
		s.ResponseHeaders(true)
		h.request, h.details, h.stamp = asRedirected("1").request, chain.RedirectDetails, 7
		s.Done()
		require.False(t, r.passes(asRedirected("1")))
		require.EqualValues(t, 1, r.metrics["inlet_request_total/,,ok"], "it is counted as what it is")
	})
}

// TestRedirectsNotFetched: what a filter before Inlet has refused hides nobody else's entry, and is bounded.
func TestRedirectsNotFetched(t *testing.T) {
	r := newRig(t, "")
	redirect(t, r, "1")
	for range 200 {
		r.chain.Deps().Now()
	}
	redirect(t, r, "1")
	require.True(t, r.passes(asRedirected("1")), "a stale one of the same number is replaced")
	for id := range 17 {
		redirect(t, r, string(rune('a'+id)))
	}
	require.False(t, r.passes(asRedirected("a")), "the oldest has made room")
	require.True(t, r.passes(asRedirected("b")))
	require.True(t, r.passes(asRedirected("q")))
}

// TestTwiceInTheChain: what the same document has forwarded before passes.
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

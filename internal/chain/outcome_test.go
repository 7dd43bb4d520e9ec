package chain_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

func TestOutcomes(t *testing.T) {
	for status, want := range map[string]string{
		"200": "ok", "304": "ok", "399": "ok", "400": "client_error", "499": "client_error", "500": "server_error", "599": "server_error",
	} {
		r, h := newRig(t, ""), post()
		h.response[":status"] = status
		s, _ := r.send(h, body)
		s.ResponseHeaders(true)
		s.Done()
		require.EqualValues(t, 1, r.metrics["inlet_request_total/,,"+want], status)
	}
	r := newRig(t, "")
	s, _ := r.send(post(), body)
	s.ResponseHeaders(false)
	s.Done()
	require.EqualValues(t, 1, r.metrics["inlet_request_total/,,aborted"])
}

// Tokens are counted unless the document says not to, also when no filter asks for them.
func TestTokensAreCountedByDefault(t *testing.T) {
	for options, want := range map[string]int64{"": 7, "countTokens: true": 7, "countTokens: false": 0} {
		r := newRig(t, "")
		c, err := chain.New([]byte("filters: [a: {}]\n"+options), []filter.Factory{
			{Name: "a", New: func(*conf.Object, *filter.Deps) filter.Filter { return silent{} }},
		}, r.chain.Deps())
		require.NoError(t, err)
		s := c.NewStream()
		s.Begin(post())
		require.Equal(t, chain.Continue, s.RequestHeaders(false))
		s.RequestBody([]byte(body), true)
		s.ResponseHeaders(false)
		require.Equal(t, want > 0, s.WantsResponseBody(), options)
		s.ResponseBody([]byte(`{"usage":{"prompt_tokens":7,"completion_tokens":3}}`), true)
		s.Done()
		require.Equal(t, want, r.metrics["inlet_input_tokens_total/,,"], options)
	}
}

// ticking is a filter that ticks.
type ticking struct {
	filter.Base
	tick func()
}

func (f *ticking) OnTick() { f.tick() }

// A tick that fails is told, and is nothing to the other filters; one that does not is not.
func TestTicks(t *testing.T) {
	r := newRig(t, "")
	ticks := 0
	well, ill := &ticking{tick: func() { ticks++ }}, &ticking{tick: func() { panic("the prompt says hello") }}
	factory := func(name string, f filter.Filter) filter.Factory {
		return filter.Factory{Name: name, New: func(*conf.Object, *filter.Deps) filter.Filter { return f }}
	}
	c, err := chain.New([]byte("filters: [ill: {}, silent: {}, well: {}]"),
		[]filter.Factory{factory("ill", ill), factory("silent", silent{}), factory("well", well)}, r.chain.Deps())
	require.NoError(t, err)
	for n := range 3 {
		c.Tick()
		require.Equal(t, n+1, ticks)
		require.Len(t, r.logs, n+1)
		require.Contains(t, r.logs[n], "filter ill panicked with a string at")
		require.NotContains(t, r.logs[n], "hello")
	}
}

// The bounds that the document's limits have.
func TestBoundsOfLimits(t *testing.T) {
	for limit, c := range map[string]struct{ least, most, below, above string }{
		"body":         {"1", "1GiB", "0", "1073741825"},
		"prompt":       {"1", "64MiB", "0", "67108865"},
		"prefix":       {"256", "64MiB", "255", "67108865"},
		"depth":        {"1", "256", "0", "257"},
		"keyLength":    {"1", "1024", "0", "1025"},
		"stringLength": {"1", "1GiB", "0", "1073741825"},
		"members":      {"1", "2147483647", "0", "2147483648"},
		"items":        {"1", "2147483647", "0", "2147483648"},
	} {
		deps := newRig(t, "").chain.Deps()
		try := func(value string) error {
			_, err := chain.New([]byte(fmt.Sprintf("filters: [a: {}]\nlimits: {%s: %s}", limit, value)), []filter.Factory{
				{Name: "a", New: func(*conf.Object, *filter.Deps) filter.Filter { return silent{} }},
			}, deps)
			return err
		}
		require.NoError(t, try(c.least), limit)
		require.NoError(t, try(c.most), limit)
		require.ErrorContains(t, try(c.below), "limits."+limit)
		require.ErrorContains(t, try(c.above), "limits."+limit)
	}
}

// The memory of a small encoded body serves the next.
func TestSmallBodiesKeepTheirMemory(t *testing.T) {
	s := newRig(t, "").chain.NewStream()
	for size, kept := range map[int]bool{30 << 10: true, 300 << 10: false} {
		text := `{"model":"m","messages":[],"x":"` + strings.Repeat("x", size) + `"}`
		uploaded(s, post("content-encoding", "gzip"), []string{encode(t, "gzip", text)})
		s.Done()
		require.Equal(t, kept, s.Kept() >= len(text), size)
	}
}

func TestAChainNeedsAFilter(t *testing.T) {
	deps := newRig(t, "").chain.Deps()
	known := []filter.Factory{{Name: "a", New: func(*conf.Object, *filter.Deps) filter.Filter { return silent{} }}}
	for _, c := range [][2]string{
		{"filters: []", "needs at least one filter"},
		{"filters: [a: {}]", ""},
		{"countTokens: false", "filters"},
		{"filters: [a: {}]\npaths: [{path: /x, api: chat}]", ""},
		{"filters: [a: {}]\npaths: [{path: /x}]", `missing key "api"`},
		{"filters: [a: {}]\npaths: [{api: chat}]", `missing key "path"`},
		{"filters: [a: {}]\npaths: [{path: /x, api: chat}, {path: /x, api: messages}]", "listed twice"},
		{"filters: [a: {}]\npaths: [{path: '/x?y', api: chat}]", "not a plain path"},
		{"filters: [a: {}]\ncompanion: {wait: 1s}", "cluster"},
		{"filters: [a: {}]\ncompanion: {cluster: ''}", "cluster"},
	} {
		document, want := c[0], c[1]
		_, err := chain.New([]byte(document), known, deps)
		if want == "" {
			require.NoError(t, err, document)
			continue
		}
		require.ErrorContains(t, err, want, document)
		require.Equal(t, want == "needs at least one filter", strings.Contains(err.Error(), "needs at least one filter"), document)
	}
}

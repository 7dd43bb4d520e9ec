package golang

import (
	"fmt"
	"strings"
	"testing"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// rename has the model renamed, and says so.
func rename(x *filter.Exchange) filter.Verdict {
	at := int64(strings.Index(chat, "llama"))
	x.ReplaceInBody(llm.Span{Start: at, End: at + 5}, []byte("llama-3-8b"))
	x.SetRequestHeader("x-pool", "llama")
	x.Explain("policy", "renamed")
	return filter.Next
}

var renamed = strings.Replace(chat, "llama", "llama-3-8b", 1)

func TestExchange(t *testing.T) {
	p := &policy{needs: filter.NeedRequest, request: rename}
	c, m := load(t, p, policyOnly, nil)
	e := open(t, c)
	require.Equal(t, api.StopAndBufferWatermark, e.begin(false, [2]string{"content-length", "64"}))
	b := &buffer{b: []byte(chat)}
	require.Equal(t, api.Continue, e.filter.DecodeData(b, true))
	require.Equal(t, renamed, string(b.b))
	require.Equal(t, fmt.Sprint(len(renamed)), e.request.value("content-length"))
	require.Equal(t, "llama", e.request.value("x-pool"))
	require.Equal(t, []string{"route"}, e.all(), "edited on the worker's thread, the route chosen again")
	require.Equal(t, 1, b.reads)
	require.Equal(t, 1, e.request.reads)

	require.Equal(t, api.Continue, e.respond(false))
	answer := &buffer{b: []byte(`{"usage":{"total_tokens":3}}`)}
	require.Equal(t, api.Continue, e.filter.EncodeData(answer, true))
	e.end()
	require.Len(t, p.done(), 1, "once, though it is told twice")
	require.True(t, p.done()[0].Complete)
	require.Equal(t, "policy=renamed", e.metadata["inlet"]["why"])
	require.Equal(t, "policy=renamed", e.state["wasm.inlet.why"])
	require.EqualValues(t, 1, m.get("inlet_request_total;model_name=;pool=;outcome=ok")+m.get("inlet_request_total;model_name=llama;pool=;outcome=ok"))
}

// Whatever the pieces of a body, with trailers or without, held bytes are not in Envoy, and go on in their order.
func TestHeldBodies(t *testing.T) {
	for _, pieces := range [][]int{{1}, {9}, {63}, {20, 20}, {1, 1, 1, 1}} {
		for _, trailers := range []bool{false, true} {
			p := &policy{needs: filter.NeedRequest, request: rename}
			c, _ := load(t, p, policyOnly, nil)
			e := open(t, c)
			require.Equal(t, api.StopAndBufferWatermark, e.begin(false))
			rest := chat
			for _, n := range pieces {
				require.Equal(t, api.StopNoBuffer, e.filter.DecodeData(&buffer{b: []byte(rest[:n])}, false))
				rest = rest[n:]
			}
			last := &buffer{b: []byte(rest)}
			if trailers {
				require.Equal(t, api.StopNoBuffer, e.filter.DecodeData(last, false))
				require.Equal(t, api.Continue, e.filter.DecodeTrailers(nil))
				require.Equal(t, []string{"route", "request add " + renamed}, e.all())
				continue
			}
			require.Equal(t, api.Continue, e.filter.DecodeData(last, true))
			require.Equal(t, renamed, string(last.b))
			e.end()
		}
	}
}

func TestRefusals(t *testing.T) {
	deny := func(*filter.Exchange) filter.Verdict {
		return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 429, Code: "no"}})
	}
	t.Run("by headers", func(t *testing.T) {
		c, _ := load(t, &policy{headers: deny}, policyOnly, nil)
		e := open(t, c)
		require.Equal(t, api.LocalReply, e.begin(false))
		require.Equal(t, []string{"request reply 429 inlet_no"}, e.all())
		require.Equal(t, api.Continue, e.respond(true), "it passes the filter itself")
		e.end()
	})
	t.Run("by the body", func(t *testing.T) {
		c, _ := load(t, &policy{needs: filter.NeedRequest, request: deny}, policyOnly, nil)
		e := open(t, c)
		e.begin(false)
		require.Equal(t, api.LocalReply, e.filter.DecodeData(&buffer{b: []byte(chat)}, true))
		require.Len(t, e.all(), 1)
	})
	t.Run("by the response", func(t *testing.T) {
		p := &policy{response: deny}
		c, _ := load(t, p, policyOnly, nil)
		e := open(t, c)
		require.Equal(t, api.Continue, e.begin(true))
		require.Equal(t, api.LocalReply, e.respond(true))
		require.Equal(t, []string{"response reply 429 inlet_no"}, e.all())
		e.end()
		require.True(t, p.done()[0].Refused)
	})
}

// A panic in any callback is answered, told and counted, and goes no further. The next exchange is none the worse.
func TestPanics(t *testing.T) {
	for name, play := range map[string]func(e *envoy, c *config){
		"request headers": func(e *envoy, c *config) {
			e.filter.(*stream).chain = nil
			require.Equal(e.t, api.LocalReply, e.begin(false))
			require.Equal(e.t, api.LocalReply, e.filter.DecodeData(&buffer{b: []byte("x")}, true))
		},
		"request trailers": func(e *envoy, c *config) {
			e.begin(false)
			e.filter.(*stream).chain = nil
			require.Equal(e.t, api.LocalReply, e.filter.DecodeTrailers(nil))
		},
		"response headers": func(e *envoy, c *config) {
			e.begin(true)
			e.filter.(*stream).chain = nil
			require.Equal(e.t, api.LocalReply, e.respond(false))
			require.Equal(e.t, api.Continue, e.filter.EncodeData(&buffer{}, true))
			require.Equal(e.t, api.Continue, e.filter.EncodeTrailers(nil))
		},
		"response body": func(e *envoy, c *config) {
			e.begin(true)
			e.respond(false)
			e.filter.(*stream).chain = nil
			require.Equal(e.t, api.LocalReply, e.filter.EncodeData(&buffer{}, true))
		},
		"response trailers": func(e *envoy, c *config) {
			e.begin(true)
			e.respond(false)
			e.filter.(*stream).chain = nil
			require.Equal(e.t, api.LocalReply, e.filter.EncodeTrailers(nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, m := load(t, &policy{needs: filter.NeedRequest}, policyOnly, nil)
			before := len(logged("panic: "))
			e := open(t, c)
			require.NotPanics(t, func() { play(e, c) })
			require.Contains(t, strings.Join(e.all(), " "), "reply 500 inlet")
			require.Len(t, logged("panic: "), before+1)
			require.EqualValues(t, 1, m.get("inlet_filter_failure_total;filter=adapter;failure_mode=FailClosed"))
			require.NotPanics(t, e.end)
			next := open(t, c)
			require.Equal(t, api.StopAndBufferWatermark, next.begin(false))
			require.NotSame(t, e.filter, next.filter)
			next.end()
		})
	}
}

// At the end there is nobody to answer.
func TestPanicsAtTheEnd(t *testing.T) {
	c, _ := load(t, &policy{}, policyOnly, nil)
	e := open(t, c)
	e.begin(true)
	e.filter.(*stream).chain = nil
	require.NotPanics(t, e.end)
	require.NotContains(t, strings.Join(e.all(), " "), "reply")
}

// What cannot be made refuses: a filter that is none would let the request pass.
func TestAFilterThatCannotBeMade(t *testing.T) {
	c, _ := load(t, &policy{}, policyOnly, nil)
	c.streams.New = func() any { panic("no memory") }
	for _, of := range []any{c, nil, "x", &config{}, merged{}} {
		e := open(t, of)
		require.Equal(t, api.LocalReply, e.begin(true))
		require.Equal(t, []string{"request reply 500 inlet_internal_error"}, e.all())
		require.NotPanics(t, e.end)
		e = open(t, of)
		e.gone = true
		require.Equal(t, api.LocalReply, e.begin(true))
	}
}

// Streams are used again, and keep nothing of the exchange before.
func TestStreamsAreUsedAgain(t *testing.T) {
	c, _ := load(t, &policy{needs: filter.NeedRequest, request: rename}, policyOnly, nil)
	for range 3 {
		e := open(t, c)
		s := e.filter.(*stream)
		e.begin(false)
		e.filter.DecodeData(&buffer{b: []byte(chat)}, true)
		e.respond(true)
		e.end()
		require.Nil(t, s.envoy)
		require.Empty(t, s.request.headers.fields)
		require.Empty(t, s.request.kept)
		require.Nil(t, s.request.chunk)
	}
}

// Facts that Envoy does not tell are none.
func TestFacts(t *testing.T) {
	c, _ := load(t, &policy{}, policyOnly, nil)
	e := open(t, c)
	e.begin(true)
	s := e.filter.(*stream)
	e.facts = map[string]string{"served": "10.0.0.1:80", "details": "via_upstream", "cluster": "blue", "attempts": "2"}
	require.Equal(t, "10.0.0.1:80", s.Served())
	require.Equal(t, "via_upstream", s.Details())
	require.Equal(t, "blue", s.Cluster())
	require.Equal(t, 2, s.Attempts())
	require.Equal(t, "[2001:db8::1]:4711", s.Client())
	e.held = true
	require.Empty(t, s.Served()+s.Details()+s.Cluster())
	require.Zero(t, s.Attempts())
	e.held = false

	_, ok := s.Stamp()
	require.False(t, ok)
	e.properties["request.time"] = "2023-07-31T07:21:40.695646+00:00"
	at, ok := s.Stamp()
	require.True(t, ok)
	require.EqualValues(t, 1690788100695646000, at)
	e.properties["request.time"] = "yesterday"
	_, ok = s.Stamp()
	require.False(t, ok)

	e.properties["request.headers.x-request-id"] = "7"
	now := s.RequestNow()
	id, ok := now.Get("x-request-id")
	require.True(t, ok)
	require.Equal(t, "7", id)
	_, ok = now.At("x-request-id", 1)
	require.False(t, ok)
	_, ok = now.Get("absent")
	require.False(t, ok)
	_, _, ok = now.Line(0)
	require.False(t, ok)
	e.end()
	require.Nil(t, (&stream{gone: true}).RequestNow())
}

func TestSubset(t *testing.T) {
	c, _ := load(t, &policy{}, policyOnly, nil)
	e := open(t, c)
	s := e.filter.(*stream)
	for _, one := range []struct {
		hint  any
		want  []string
		given bool
	}{
		{nil, nil, false},
		{"10.0.0.1:80, 10.0.0.2:80", []string{"10.0.0.1:80", "10.0.0.2:80"}, true},
		{[]any{"10.0.0.1:80", 7.0, "10.0.0.2:80"}, []string{"10.0.0.1:80", "10.0.0.2:80"}, true},
		{true, nil, true},
	} {
		e.metadata[filter.SubsetNamespace] = map[string]any{"another": "x"}
		if one.hint != nil {
			e.metadata[filter.SubsetNamespace][filter.SubsetKey] = one.hint
		}
		got, given := s.Subset(nil)
		require.Equal(t, one.want, got)
		require.Equal(t, one.given, given)
	}
	e.metadata["jwt"] = map[string]any{"sub": "ann", "exp": 7.0}
	require.Equal(t, "ann", s.Metadata("jwt", "sub"))
	require.Empty(t, s.Metadata("jwt", "exp"))
	require.Empty(t, s.Metadata("nobody", "sub"))
}

// A document that stands twice in Envoy's filter chain knows what it has decided about itself.
func TestMarks(t *testing.T) {
	parse := newParser(&policy{})
	first, err := parse.Parse(message(t, policyOnly, nil), &metrics{values: map[string]int64{}})
	require.NoError(t, err)
	e := open(t, first)
	s := e.filter.(*stream)
	s.Mark(7)
	require.Empty(t, e.state, "nobody would read it")
	second, err := parse.Parse(message(t, policyOnly, nil), &metrics{values: map[string]int64{}})
	require.NoError(t, err)
	require.False(t, s.Marked(7))
	s.Mark(7)
	require.True(t, newFilter(second, e).(*stream).Marked(7))
	require.False(t, s.Marked(8))
	first.(*config).Destroy()
	second.(*config).Destroy()
}

// What panics while it is read is refused.
func TestAConfigurationThatPanics(t *testing.T) {
	_, err := (&parser{}).Parse(message(t, policyOnly, nil), &metrics{})
	require.ErrorContains(t, err, "the configuration could not be read: panic: ")
}

// A metric of a configuration that Envoy has dropped is not counted, and disturbs nobody.
func TestMetricsOfADroppedConfiguration(t *testing.T) {
	c, m := load(t, &policy{}, policyOnly, nil)
	h := c.Metrics.Histogram("inlet_sizes", "model")
	h.Record(7, filter.Values{"llama"})
	h.Record(-1, filter.Values{"llama"})
	require.EqualValues(t, 2, m.get("inlet_sizes_count;model=llama"))
	require.EqualValues(t, 7, m.get("inlet_sizes_sum;model=llama"))
	g := c.Metrics.Gauge("inlet_level")
	g.Record(5, filter.Values{})
	g.Record(-2, filter.Values{})
	require.EqualValues(t, 3, m.get("inlet_level"))
	m.gone = true
	require.NotPanics(t, func() { g.Record(1, filter.Values{}) })
	m.gone = false
	require.EqualValues(t, 3, m.get("inlet_level"))

	// The next one defines all series at once, and its gauges have their values.
	next := &metrics{values: map[string]int64{}}
	c.stats.bind(next)
	c.stats.show()
	require.EqualValues(t, 4, next.get("inlet_level"))
	require.Contains(t, next.defined, "inlet_sizes_sum;model=llama")
	g.Record(-1, filter.Values{})
	require.EqualValues(t, 3, next.get("inlet_level"))
	require.EqualValues(t, 3, m.get("inlet_level"), "it counts elsewhere now")
}

// An exchange of which the filter has seen no request passes: a filter before it has answered.
func TestAnotherFilterAnswers(t *testing.T) {
	p := &policy{}
	c, _ := load(t, p, policyOnly, nil)
	e := open(t, c)
	require.Equal(t, api.Continue, e.respond(false))
	require.Equal(t, api.Continue, e.filter.EncodeData(&buffer{b: []byte("x")}, false))
	require.Equal(t, api.Continue, e.filter.EncodeTrailers(nil))
	e.end()
	require.Empty(t, p.done())
}

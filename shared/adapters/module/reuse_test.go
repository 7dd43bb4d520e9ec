package module

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// exchanges are what may happen to a stream, whole or not.
var exchanges = map[string]func(s *envoyStream, note func(...any)){
	"explained": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false), s.data(true, chat))
		note(s.respond(false, [2]string{":status", "200"}, [2]string{"content-type", "application/json"}))
		body := newBuffer(`{"model":"llama-3-8b"`, `,"usage":{"prompt_tokens":3}}`)
		note(s.filter.OnResponseBody(body, true), body.String())
	},
	"not explained": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false), s.data(false, `{"model"`), s.data(true, `:"plain"}`))
		note(s.respond(true, [2]string{":status", "200"}))
	},
	"behind a buffer": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false))
		s.whole = true
		s.buffered = newBuffer(chat[:9])
		note(s.filter.OnRequestBody(s.buffered, false))
		s.buffered = newBuffer(chat[:20], chat[20:])
		note(s.filter.OnRequestBody(s.buffered, true))
	},
	"cut": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false), s.data(false, chat[:30]))
	},
	"trailers": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false), s.data(false, chat), s.filter.OnRequestTrailers(nil))
		note(s.respond(false, [2]string{":status", "500"}), s.filter.OnResponseTrailers(nil))
	},
	"denied": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false), s.data(true, `{"model":"deny"}`))
	},
	"denied, and over at once": func(s *envoyStream, note func(...any)) {
		s.inline = true
		note(s.filter.OnRequestHeaders(s.request, false), s.data(true, `{"model":"deny"}`))
	},
	"waiting": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false), s.data(true, `{"model":"call"}`))
	},
	"called": func(s *envoyStream, note func(...any)) {
		note(s.filter.OnRequestHeaders(s.request, false), s.data(true, `{"model":"call"}`))
		s.answer(shared.HttpCalloutSuccess, [][2]string{{":status", "200"}, {"x-envoy-upstream-service-time", "1"}}, "fi", "ne")
	},
	"answered before it came": func(s *envoyStream, note func(...any)) {
		note(s.respond(false, [2]string{":status", "403"}), s.filter.OnResponseBody(newBuffer("no"), true))
	},
	"nothing": func(*envoyStream, func(...any)) {},
}

// The memory of a stream serves one exchange after the other, and none sees anything of those before it.
func TestAStreamIsUsedAgain(t *testing.T) {
	var seen []string
	p := &policy{needs: filter.NeedRequest | filter.NeedUsage}
	p.request = func(x *filter.Exchange) filter.Verdict {
		switch x.Request.Model {
		case "llama":
			x.RestoreModel("llama")
			return renames().request(x)
		case "deny":
			return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no"}})
		case "call":
			return filter.Wait(filter.Call{Cluster: "c", Timeout: 1})
		}
		return filter.Next
	}
	p.reply = func(_ *filter.Exchange, r *filter.Reply) filter.Verdict {
		seen = append(seen, fmt.Sprint("reply ", r.Status, string(r.Body), r.Err))
		return filter.Next
	}
	p.done = func(x *filter.Exchange, e filter.End) {
		seen = append(seen, fmt.Sprint("done ", e.Complete, e.Refused, e.Status, x.Usage, x.Request.Model))
	}
	c, e := load(t, policyOnly, p)
	play := func(name string, memory *stream) (string, *stream) {
		seen = nil
		s := open(t, c, e)
		if memory != nil {
			s.filter = memory
			memory.handle = s
		}
		used := s.filter.(*stream)
		exchanges[name](s, func(a ...any) { seen = append(seen, fmt.Sprint(a...)) })
		s.end()
		require.Nil(t, used.handle, "%s: the memory was given back", name)
		require.Zero(t, used.depth, name)
		// Times are the clock's, and some are measured at random. What is of the process is shown once.
		maps.DeleteFunc(s.metrics, func(name string, _ int64) bool {
			return strings.Contains(name, "_us{") || strings.Contains(name, "_ms{") || strings.HasPrefix(name, "inlet_build_info") || strings.HasPrefix(name, "inlet_configurations")
		})
		out := append(seen, fmt.Sprint(s.did, s.reply, s.metadata, s.state, s.buffered.String(), s.request.list, s.response.list, s.metrics))
		return strings.Join(out, "\n"), used
	}
	for before := range exchanges {
		for next := range exchanges {
			want, _ := play(next, newStream(c))
			_, used := play(before, newStream(c))
			got, _ := play(next, used)
			require.Equal(t, want, got, "%s after %s", next, before)
		}
	}
}

// Levels that Envoy does not have are its last.
func TestLevels(t *testing.T) {
	e := &envoyConfig{}
	log := logger(e)
	for level := filter.Debug; level <= filter.Critical+1; level++ {
		log(level, "x")
	}
	require.Equal(t, []string{"1 inlet: x", "2 inlet: x", "3 inlet: x", "4 inlet: x", "5 inlet: x", "5 inlet: x"}, e.logs)
}

// A stream that waits for another exchange keeps its memory, but none that a single exchange has made large, and nothing that was in it.
func TestAWaitingStreamKeepsNoLargeMemory(t *testing.T) {
	p := &policy{needs: filter.NeedRequest}
	p.request = func(*filter.Exchange) filter.Verdict { return filter.Wait(filter.Call{Cluster: "c", Timeout: 1}) }
	p.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	c, e := load(t, policyOnly, p)
	for size, kept := range map[int]bool{100: true, 2 * arenaKept: false} {
		s := open(t, c, e, [2]string{"x-large", strings.Repeat("x", size)})
		used := newStream(c)
		s.filter, used.handle = used, s
		s.filter.OnRequestHeaders(s.request, false)
		s.data(true, chat)
		used.arena.copy(viewString(s.request.list[2][1]))
		s.answer(shared.HttpCalloutSuccess, [][2]string{{":status", "200"}}, strings.Repeat("y", size), "z")
		s.end()
		require.Equal(t, kept, cap(used.arena.block) > 0, size)
		require.Equal(t, kept, cap(used.reply) > 0, size)
		require.Empty(t, used.arena.block)
	}
}

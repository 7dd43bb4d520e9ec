package picker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// asked is a request for a model whose body has further members, and always the same prompt.
func (r *rig) asked(t require.TestingT, api llm.API, model, members string) *filter.Exchange {
	body := `{"model":"` + model + `","prompt":"` + strings.Repeat("0123456789abcdef", 640/16) + `"` + members + `}`
	if api != llm.Completions {
		body = strings.Replace(body, `"prompt":`, `"messages":[{"content":`, 1)
		body = strings.Replace(body, members+"}", "}]"+members+"}", 1)
	}
	s := new(llm.RequestScanner)
	s.Reset(api, llm.Want{Fields: r.f.Fields(), PrefixBlocks: 100}, jsonscan.Limits{})
	require.NoError(t, s.Feed([]byte(body)), body)
	require.NoError(t, s.End(), body)
	x := &filter.Exchange{}
	x.Reset(1)
	x.Route.Pool, x.RequestHeaders, x.Request = "p", headers{}, s.Request()
	return x
}

// found is what the picker says that the only replica has of a prompt.
func (r *rig) found(t require.TestingT, x *filter.Exchange) string {
	r.serveOne(t, x, 200)
	why := string(x.Why())
	at := strings.Index(why, "hit=")
	if at < 0 {
		return ""
	}
	hit, _, _ := strings.Cut(why[at:], " ")
	return hit
}

// Servers keep what they compute for one tenant from the others: the same prompt is another one there.
func TestPartitionsOfTheCache(t *testing.T) {
	for _, api := range []llm.API{llm.Chat, llm.Completions, llm.Messages} {
		r := newRig(t, "{}")
		r.serve(ready(1)...)
		require.Equal(t, "hit=0/2", r.found(t, r.asked(t, api, "m", "")))
		for _, same := range []string{
			``, `,"cache_salt":null`, `,"cache_salt":""`, `,"extra_key":null`, `,"extra_key":""`, `,"lora_path":null`, `,"lora_path":""`,
			`,"user":"u"`, `,"prompt_cache_key":"k"`, `,"safety_identifier":"k"`, `,"metadata":{"extra_key":"k"}`,
		} {
			require.Equal(t, "hit=2/2", r.found(t, r.asked(t, api, "m", same)), same)
		}
		for _, other := range []string{
			`,"cache_salt":"a"`, `,"cache_salt":"b"`, `,"extra_key":"a"`, `,"extra_key":"b"`, `,"extra_key":7`, `,"cache_salt":"a","extra_key":"b"`, `,"cache_salt":"b","extra_key":"a"`,
			`,"lora_path":"a"`, `,"lora_path":"b"`, `,"lora_path":"a","extra_key":"a"`, `,"extra_key":"` + strings.Repeat("k", llm.MaxFieldBytes) + `"`,
		} {
			require.Equal(t, "hit=0/2", r.found(t, r.asked(t, api, "m", other)), other)
			require.Equal(t, "hit=2/2", r.found(t, r.asked(t, api, "m", other)), other)
		}
		for _, unknown := range []string{
			`,"extra_key":["a"]`, `,"cache_salt":["a","b"]`, `,"lora_path":["a",null]`, `,"extra_key":{"a":1}`,
			`,"extra_key":"` + strings.Repeat("k", llm.MaxFieldBytes+1) + `"`, `,"lora_path":"` + strings.Repeat("k", llm.MaxFieldBytes+1) + `"`,
		} {
			for range 2 {
				require.Empty(t, r.found(t, r.asked(t, api, "m", unknown)), "nobody knows which it is: %s", unknown)
			}
		}
	}
}

// An adapter of SGLang is listed by its own name, and asked for with its parent's before it or in a member of its own.
func TestAdaptersByTheNameOfTheirParent(t *testing.T) {
	models := func(adapters ...string) *endpoint.Models {
		m := &endpoint.Models{Names: []string{"gemma", "gemma-3", "qwen3:8b"}}
		for _, a := range adapters {
			m.Adapters = append(m.Adapters, endpoint.Adapter{Name: a, Parent: "gemma"})
		}
		return m
	}
	for _, p := range profiles {
		r := newRig(t, "{profile: "+p.name+"}")
		eps := ready(4)
		for i := range eps {
			eps[i].Models = models("poem")
		}
		eps[2].Models = models("poem", "sql")
		r.serve(eps...)
		ask := func(model, members string) map[string]int {
			served := map[string]int{}
			for i := range 24 {
				served[r.serveOne(t, r.asked(t, llm.Chat, model, fmt.Sprintf(`,"n":%d%s`, i, members)), 200)]++
			}
			return served
		}
		only := map[string]int{eps[2].Address: 24}
		require.Equal(t, only, ask("sql", ""), p.name)
		require.Equal(t, only, ask("gemma:sql", ""), p.name)
		require.Equal(t, only, ask("gemma-3:sql", ""), p.name)
		if p.allNeeds().Has(scorer.NeedPrefix) { // others do not look into the body
			require.Equal(t, only, ask("gemma", `,"lora_path":"sql"`), p.name)
		}
		for _, model := range []string{"gemma", "qwen3:8b", "gemma:nosuch", "llama:sql"} {
			r := newRig(t, "{profile: "+p.name+"}")
			r.serve(eps...)
			served := map[string]int{}
			for i := range 60 {
				x := request(uint64(i), 5)
				x.Route.Target = model
				served[r.serveOne(t, x, 200)]++
			}
			require.Greater(t, len(served), 2, "%s %s", p.name, model)
		}
	}
}

// Both ways to ask for an adapter find what was computed for it.
func TestOneAdapterOnePrefix(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(1)...)
	require.Equal(t, "hit=0/2", r.found(t, r.asked(t, llm.Chat, "gemma:sql", "")))
	require.Equal(t, "hit=2/2", r.found(t, r.asked(t, llm.Chat, "gemma", `,"lora_path":"sql"`)))
	require.Equal(t, "hit=0/2", r.found(t, r.asked(t, llm.Chat, "gemma", "")))
	require.Equal(t, "hit=0/2", r.found(t, r.asked(t, llm.Chat, "gemma", `,"lora_path":"poem"`)))
	require.Equal(t, "hit=2/2", r.found(t, r.asked(t, llm.Chat, "gemma:sql", `,"lora_path":"poem"`)), "the name of the model goes before, as in SGLang")
}

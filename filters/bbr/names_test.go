package bbr

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const names = `models:
  - {name: llama, aliases: [gpt-4o, "gpt-4*", /gcs/meta/llama], targets: [{model: llama-3-8b, pool: p}]}
  - {name: small, aliases: ["gpt-*", llama-3-8b], targets: [{pool: s}]}
  - {name: gemma, adapters: [support, sales], targets: [{model: gemma-7b, pool: g1}, {model: gemma-7b, pool: g2}]}
  - {name: qwen, base: qwen-7b, adapters: [poems], targets: [{pool: q}]}
`

func TestNames(t *testing.T) {
	f := newBBR(t, names)
	for requested, want := range map[string]filter.Route{
		"llama":           {Model: "llama", Target: "llama-3-8b", Pool: "p"},
		"gpt-4o":          {Model: "llama", Target: "llama-3-8b", Pool: "p"},
		"gpt-4-turbo":     {Model: "llama", Target: "llama-3-8b", Pool: "p"},
		"/gcs/meta/llama": {Model: "llama", Target: "llama-3-8b", Pool: "p"},
		"gpt-3.5":         {Model: "small", Target: "small", Pool: "s"},
		"gpt-":            {Model: "small", Target: "small", Pool: "s"},
		"llama-3-8b":      {Model: "small", Target: "small", Pool: "s"},
		"poems":           {Model: "poems", Target: "poems", Base: "qwen-7b", Pool: "q"},
		"qwen":            {Model: "qwen", Target: "qwen", Base: "qwen-7b", Pool: "q"},
	} {
		x, v := route(t, f, `{"model":"`+requested+`"}`)
		require.Equal(t, filter.Next, v, requested)
		require.Equal(t, want, x.Route, requested)
		edited := len(x.Effects().Body) == 1
		require.Equal(t, want.Target != requested, edited, requested)
		if edited {
			require.Equal(t, `"`+want.Target+`"`, string(x.Effects().Body[0].With))
		}
	}
	for range 20 { // an adapter is served where its base is, under its own name
		x, _ := route(t, f, `{"model":"sales"}`)
		require.Contains(t, []string{"g1", "g2"}, x.Route.Pool)
		require.Equal(t, "sales", x.Route.Target)
		require.Equal(t, "gemma", x.Route.Base)
		require.Empty(t, x.Effects().Body)
	}
	for _, requested := range []string{"gpt", "Llama", "llama/", "gpt*", "gcs/meta/llama"} {
		_, v := route(t, f, `{"model":"`+requested+`"}`)
		require.Equal(t, 404, v.Refusal().Status, requested)
	}
}

func TestOneAliasForEverything(t *testing.T) {
	f := newBBR(t, `models: [{name: a, aliases: ["*"], targets: [{}]}, {name: b, aliases: ["b*"], targets: [{}]}]`)
	for requested, want := range map[string]string{"x": "a", "b": "b", "bc": "b", "a": "a"} {
		x, _ := route(t, f, `{"model":"`+requested+`"}`)
		require.Equal(t, want, x.Route.Model)
	}
}

func TestFormsGetTheBareName(t *testing.T) {
	f := newBBR(t, `models: [{name: whisper, targets: [{model: 'w "3"'}]}]`)
	var scan llm.RequestScanner
	scan.ResetForm(llm.Transcriptions, llm.Want{}, jsonscan.Limits{}, "b")
	body := "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper\r\n--b--\r\n"
	require.NoError(t, scan.Feed([]byte(body)))
	require.NoError(t, scan.End())
	x := &filter.Exchange{}
	x.Reset(1)
	x.API, x.Request = llm.Transcriptions, scan.Request()
	require.Equal(t, filter.Next, f.OnRequest(x))
	e := x.Effects().Body[0]
	require.Equal(t, `w "3"`, string(e.With))
	require.Equal(t, "whisper", body[e.Span.Start:e.Span.End])
}

func TestFallbackAndExternalPools(t *testing.T) {
	f := newBBR(t, `pools: [{name: openai, external: true}]
models:
  - {name: a, targets: [{pool: p}], fallback: [q, openai]}
  - {name: b, targets: [{pool: openai}]}
`)
	x, _ := route(t, f, `{"model":"a"}`)
	require.Equal(t, filter.Route{Model: "a", Target: "a", Pool: "p", Fallback: []filter.Pool{{Name: "q"}, {Name: "openai", External: true}}}, x.Route)
	x, _ = route(t, f, `{"model":"b"}`)
	require.Equal(t, filter.Route{Model: "b", Target: "b", Pool: "openai", External: true}, x.Route)
}

const copies = `bodyFieldToHeader: [{field: model, header: X-Model}, {field: user, header: X-User}, {field: seed, header: x-seed}]
`

func TestBodyFieldToHeader(t *testing.T) {
	for body, want := range map[string][]filter.HeaderEdit{
		`{"model":"m","user":"al\u0069ce","seed":7}`: {{Name: "x-user", Value: "alice"}, {Name: "x-seed", Value: "7"}},
		`{"model":"m","user":true,"seed":-1.5e3}`:    {{Name: "x-user", Value: "true"}, {Name: "x-seed", Value: "-1.5e3"}},
		`{"model":"m","user":null,"seed":""}`:        {{Name: "x-user", Remove: true}, {Name: "x-seed", Remove: true}},
		`{"model":"m","x":{"user":"a"}}`:             {{Name: "x-user", Remove: true}, {Name: "x-seed", Remove: true}},
	} {
		f := newBBR(t, copies)
		x, v := route(t, f, body)
		require.Equal(t, filter.Next, v)
		require.Equal(t, append(want, filter.HeaderEdit{Name: "x-gateway-model-name", Value: "m"}, filter.HeaderEdit{Name: "x-model", Value: "m"}), x.Effects().Request)
	}
	for _, value := range []string{`{"a":1}`, `["a"]`, `"a\r\nb: c"`, `" a"`, `"` + fmt.Sprintf("%0300d", 0) + `"`} {
		_, v := route(t, newBBR(t, copies), `{"model":"m","user":`+value+`}`)
		require.Equal(t, "invalid_field", v.Refusal().Code, value)
		require.Equal(t, "user", v.Refusal().Param)
	}
}

func TestMetrics(t *testing.T) {
	f := newBBR(t, copies+"missingModel: pass")
	route(t, f, `{"user":null}`)
	route(t, f, `{"model":"","user":"a"}`)
	require.Equal(t, counts{
		"inlet_body_field_missing_total/model": 1, "inlet_body_field_missing_total/seed": 2,
		"inlet_body_field_empty_total/model": 1, "inlet_body_field_empty_total/user": 1,
	}, f.metrics.missing.(counter).of)
}

func TestRequestsWithoutModelCanPass(t *testing.T) {
	f := newBBR(t, models+"missingModel: pass")
	x, v := route(t, f, `{"messages":[]}`)
	require.Equal(t, filter.Next, v)
	require.Equal(t, filter.Route{}, x.Route)
	require.Equal(t, []filter.HeaderEdit{{Name: "x-gateway-model-name", Remove: true}}, x.Effects().Request)
}

const stickyByUser = `models: [{name: m, targets: [{pool: a, weight: %d}, {pool: b, weight: %d}], stickyBy: {field: user}}]`

// poolOf returns the pool that a user is sent to.
func poolOf(t *testing.T, f *Filter, user int) string {
	x, v := route(t, f, fmt.Sprintf(`{"model":"m","user":"user-%d"}`, user))
	require.Equal(t, filter.Next, v)
	return x.Route.Pool
}

// The same user always gets the same target, in every filter built from the same
// configuration. Users are spread by weight, within three standard deviations. A
// change of weights moves only those users who must move.
func TestSticky(t *testing.T) {
	const n, p = 10_000, 0.9
	f, again := newBBR(t, fmt.Sprintf(stickyByUser, 90, 10)), newBBR(t, fmt.Sprintf(stickyByUser, 90, 10))
	shifted := newBBR(t, fmt.Sprintf(stickyByUser, 80, 20))
	first, moved := 0, 0
	for user := range n {
		pool := poolOf(t, f, user)
		require.Equal(t, pool, poolOf(t, again, user))
		require.Equal(t, pool, poolOf(t, f, user))
		if pool == "a" {
			first++
		}
		if then := poolOf(t, shifted, user); then != pool {
			moved++
			require.Equal(t, "b", then)
		}
	}
	require.InDelta(t, n*p, first, 3*math.Sqrt(n*p*(1-p)))
	require.InDelta(t, n*0.1, moved, 3*math.Sqrt(n*0.1*0.9))

	// Pinned, so that a restart with another build keeps everybody in place.
	var pools string
	for user := range 40 {
		pools += poolOf(t, f, user)
	}
	require.Equal(t, "aaaaaaaaaabaaaaaaaaaaaaaababaaaaaaaaaaaa", pools)
}

func TestStickyByHeader(t *testing.T) {
	f := newBBR(t, `models: [{name: m, targets: [{pool: a}, {pool: b}], stickyBy: {header: x-session-id}}]`)
	at := func(h headers) string {
		x := &filter.Exchange{}
		x.Reset(1)
		var scan llm.RequestScanner
		scan.Reset(llm.Chat, llm.Want{}, jsonscan.Limits{})
		require.NoError(t, scan.Feed([]byte(`{"model":"m"}`)))
		x.API, x.Request, x.RequestHeaders = llm.Chat, scan.Request(), h
		require.Equal(t, filter.Next, f.OnRequest(x))
		return x.Route.Pool
	}
	seen := map[string]bool{}
	for session := range 50 {
		h := headers{"x-session-id": fmt.Sprint(session)}
		pool := at(h)
		seen[pool] = true
		for range 5 {
			require.Equal(t, pool, at(h))
		}
	}
	require.Len(t, seen, 2)
	seen = map[string]bool{}
	for range 50 { // a client that does not identify itself is sent at random
		seen[at(headers{})] = true
	}
	require.Len(t, seen, 2)
}

func TestModelList(t *testing.T) {
	f := newBBR(t, names)
	v := f.OnRequest(&filter.Exchange{API: llm.Models})
	require.NotNil(t, v.Answer())
	require.Equal(t, 200, v.Answer().Status)
	var list struct {
		Object string
		Data   []struct {
			ID, Object, Parent string
			OwnedBy            string `json:"owned_by"`
			Created            *int64
		}
	}
	require.NoError(t, json.Unmarshal(v.Answer().Body, &list))
	require.Equal(t, "list", list.Object)
	var ids []string
	for _, m := range list.Data {
		ids = append(ids, m.ID+"<"+m.Parent)
		require.Equal(t, "model", m.Object)
		require.NotNil(t, m.Created)
	}
	require.Equal(t, []string{
		"llama<", "gpt-4o<", "/gcs/meta/llama<", "small<", "llama-3-8b<", "gemma<", "support<gemma", "sales<gemma", "qwen<qwen-7b", "poems<qwen-7b",
	}, ids)
}

package bbr

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// learning returns a filter whose companion sends *s.
func learning(t testing.TB, doc string, s **endpoint.Snapshot) *Filter {
	var f filter.Filter
	require.NoError(t, conf.Decode([]byte(doc), func(o *conf.Object) {
		f = newFilter(o, &filter.Deps{
			Rand: rand.New(rand.NewPCG(1, 2)).Uint64, Metrics: counts{}, ClaimHeader: func(string) {},
			Snapshot: func() *endpoint.Snapshot { return *s },
		})
	}))
	return f.(*Filter)
}

// replicasOf returns one replica for each list of models.
func replicasOf(name string, lists ...*endpoint.Models) endpoint.Pool {
	p := endpoint.Pool{Name: name}
	for _, m := range lists {
		p.Endpoints = append(p.Endpoints, endpoint.Endpoint{Models: m})
	}
	return p
}

// having returns the models of a replica: a base model, and adapters of it.
func having(base string, adapters ...string) *endpoint.Models {
	m := &endpoint.Models{Names: []string{base}}
	for _, name := range adapters {
		m.Adapters = append(m.Adapters, endpoint.Adapter{Name: name, Parent: base})
	}
	return m
}

const learned = `models:
  - {name: gemma, aliases: ["g-*"], targets: [{model: gemma-7b, pool: one, weight: 9}, {model: gemma-7b, pool: two}], fallback: [three, four]}
  - {name: support, targets: [{model: lora-1, pool: one}]}
  - {name: named, base: mine, targets: [{model: lora-1, pool: one}]}
  - {name: llama, adapters: [sql], targets: [{pool: llama}]}
  - {name: idle, targets: [{model: mistral, pool: one, weight: 0}, {model: other, pool: two}]}
  - {name: loose, targets: [{model: phi}]}
  - {name: tuned, targets: [{model: lora-1}]}
`

var replicas = &endpoint.Snapshot{Pools: []endpoint.Pool{
	replicasOf("foreign", having("gemma-7b", "far")),
	replicasOf("four", having("gemma-7b", "poems")),
	replicasOf("llama", nil, having("llama", "sql", "gemma")),
	replicasOf("one", having("gemma-7b", "g-poems", "lora-1", "poems"), nil, having("gemma-7b", "lora-1", "late"), having("mistral", "rare"), having("phi", "stray")),
	replicasOf("two", having("gemma-7b", "g-poems")),
}}

func TestLearnedAdapters(t *testing.T) {
	s := replicas
	f := learning(t, learned, &s)
	four := []filter.Pool{{Name: "four"}}
	for requested, want := range map[string]filter.Route{
		"poems":       {Model: "poems", Target: "poems", Base: "gemma", Pool: "one", Fallback: four},                // only where it is loaded
		"gemma:poems": {Model: "gemma:poems", Target: "gemma-7b:poems", Base: "gemma", Pool: "one", Fallback: four}, // SGLang's name for it
		"gemma:late":  {Model: "gemma:late", Target: "gemma-7b:late", Base: "gemma", Pool: "one"},
		"late":        {Model: "late", Target: "late", Base: "gemma", Pool: "one"}, // of one replica
		"support":     {Model: "support", Target: "lora-1", Base: "gemma", Pool: "one"},
		"named":       {Model: "named", Target: "lora-1", Base: "mine", Pool: "one"}, // as configured
		"tuned":       {Model: "tuned", Target: "lora-1", Base: "gemma"},             // of whichever pool
		"sql":         {Model: "sql", Target: "sql", Base: "llama", Pool: "llama"},   // as configured
		"llama":       {Model: "llama", Target: "llama", Pool: "llama"},
	} {
		var x *filter.Exchange
		for range 100 { // a target that is drawn at random must be right each time
			var v filter.Verdict
			x, v = route(t, f, `{"model":"`+requested+`"}`)
			require.Equal(t, filter.Next, v, requested)
			require.Equal(t, want, x.Route, requested)
		}
		require.Equal(t, want.Target != requested, len(x.Effects().Body) == 1, requested)
		var base string
		for _, h := range x.Effects().Request {
			if h.Name == BaseHeader {
				base = h.Value
			}
		}
		require.Equal(t, want.Base, base)
	}
	pools := map[string]int{}
	for range 1000 { // a listed name takes precedence over a prefix, and is split like its base
		x, _ := route(t, f, `{"model":"g-poems"}`)
		require.Equal(t, "g-poems", x.Route.Model)
		pools[x.Route.Pool]++
	}
	require.InDelta(t, 900, pools["one"], 5*10)
	for _, requested := range []string{
		"far",    // its pool is not a target's
		"rare",   // that target gets no requests
		"stray",  // its base has no pool
		"lora-1", // it has a name already
		"gemma:lora-1", "gemma-7b:poems", "llama:poems", "gemma:", "gemma:far", "idle:rare", ":poems",
		"gemma-7b", // no adapter
	} {
		_, v := route(t, f, `{"model":"`+requested+`"}`)
		require.NotNil(t, v.Refusal(), requested)
		require.Equal(t, 404, v.Refusal().Status, requested)
	}
	x, _ := route(t, f, `{"model":"gemma"}`) // not the adapter of the same name on llama's replicas
	require.Equal(t, "gemma-7b", x.Route.Target)
	require.Empty(t, x.Route.Base)
}

func TestAdaptersComeAndGo(t *testing.T) {
	var s *endpoint.Snapshot
	f := learning(t, learned, &s)
	status := func(requested string) int {
		x, v := route(t, f, `{"model":"`+requested+`"}`)
		if r := v.Refusal(); r != nil {
			return r.Status
		}
		require.Equal(t, requested, x.Route.Target)
		return 200
	}
	require.Equal(t, 404, status("poems"), "no snapshot yet")
	s = replicas
	require.Equal(t, 200, status("poems"))

	lesson := f.learner.lesson()
	s = &endpoint.Snapshot{Pools: []endpoint.Pool{replicas.Pools[0], replicas.Pools[1], replicas.Pools[2], replicas.Pools[3], replicasOf("two", having("gemma-7b", "g-poems"))}}
	require.Same(t, lesson, f.learner.lesson(), "the same lists are not read again")

	s = &endpoint.Snapshot{Pools: []endpoint.Pool{replicasOf("one", having("gemma-7b"))}}
	require.Equal(t, 404, status("poems"))
	s = nil
	require.Equal(t, 404, status("poems"))
}

func TestNothingIsLearnedWhenSwitchedOff(t *testing.T) {
	s := replicas
	f := learning(t, learned+"learnAdapters: false\n", &s)
	_, v := route(t, f, `{"model":"poems"}`)
	require.Equal(t, 404, v.Refusal().Status)
	x, _ := route(t, f, `{"model":"support"}`)
	require.Empty(t, x.Route.Base)
}

func TestBaseOfAnyModelWhenNoneIsListed(t *testing.T) {
	s := replicas
	f := learning(t, "{}", &s)
	for requested, base := range map[string]string{"far": "gemma-7b", "sql": "llama", "gemma-7b": "", "else": ""} {
		x, v := route(t, f, `{"model":"`+requested+`"}`)
		require.Equal(t, filter.Next, v)
		require.Equal(t, filter.Route{Model: requested, Target: requested, Base: base}, x.Route)
		require.Equal(t, base != "", len(x.Effects().Request) == 2)
	}
}

func TestNamesOfReplicasThatNoHeaderCarries(t *testing.T) {
	s := &endpoint.Snapshot{Pools: []endpoint.Pool{replicasOf("llama", &endpoint.Models{Adapters: []endpoint.Adapter{{Name: "a\nb", Parent: "llama"}, {Name: "llama", Parent: "c\nd"}}})}}
	f := learning(t, `models: [{name: llama, targets: [{pool: llama}]}]`, &s)
	_, v := route(t, f, `{"model":"a\nb"}`)
	require.Equal(t, 400, v.Refusal().Status)
	x, _ := route(t, f, `{"model":"llama"}`)
	require.Empty(t, x.Route.Base)
}

// ask requests a path of the list of models.
func ask(f *Filter, path string) filter.Verdict {
	return f.OnRequest(&filter.Exchange{API: llm.Models, Path: path})
}

func TestListHasWhatWasLearned(t *testing.T) {
	s := replicas
	f := learning(t, learned, &s)
	var list struct{ Data []struct{ ID, Parent string } }
	require.NoError(t, json.Unmarshal(ask(f, "/v1/models").Answer().Body, &list))
	var ids []string
	for _, m := range list.Data {
		ids = append(ids, m.ID+"<"+m.Parent)
	}
	require.Equal(t, []string{
		"gemma<", "support<gemma", "named<mine", "llama<", "sql<llama", "idle<", "loose<", "tuned<gemma",
		"g-poems<gemma", "poems<gemma", "late<gemma",
	}, ids)
}

func TestOneModel(t *testing.T) {
	s := replicas
	f := learning(t, learned+`  - {name: /gcs/meta/llama, aliases: [a/b:c], targets: [{pool: llama}]}`, &s)
	card := func(id, parent string) string {
		if parent != "" {
			parent = `,"parent":"` + parent + `"`
		}
		return `{"id":"` + id + `","object":"model","created":0,"owned_by":"inlet"` + parent + `}`
	}
	for path, want := range map[string]string{
		"/v1/models/gemma":                     card("gemma", ""),
		"/v1/models/g-anything?x=/v1/models/y": card("g-anything", ""),
		"/team/v1/models/poems":                card("poems", "gemma"),
		"/v1/models/a/b:c":                     card("a/b:c", ""),
		"/v1/models/a%2Fb%3ac":                 card("a/b:c", ""),
		"/v1/models/%2Fgcs%2Fmeta%2Fllama":     card("/gcs/meta/llama", ""),
		"/v1/models/gcs/meta/llama":            card("/gcs/meta/llama", ""), // merge_slashes
		"/v1/models/support":                   card("support", "gemma"),
		"/v1/models/%67emma":                   card("gemma", ""),
	} {
		v := ask(f, path)
		require.NotNil(t, v.Answer(), path)
		require.Equal(t, want, string(v.Answer().Body), path)
	}
	for _, path := range []string{"/v1/models/lora-1", "/v1/models/gemma/", "/v1/models/gemma%", "/v1/models/%zz", "/v1/models//gemma"} {
		r := ask(f, path).Refusal()
		require.NotNil(t, r, path)
		require.Equal(t, 404, r.Status)
		require.Equal(t, "model_not_found", r.Code)
	}
	f = learning(t, learned+"unknownModel: pass", &s)
	require.Equal(t, filter.Next, ask(f, "/v1/models/nobody"), "a replica may know it")
}

func BenchmarkLearn(b *testing.B) {
	s := &endpoint.Snapshot{}
	one, other := having("gemma-7b", "a", "b"), having("gemma-7b", "a", "b", "c")
	p := endpoint.Pool{Name: "one", Endpoints: make([]endpoint.Endpoint, 1000)}
	for i := range p.Endpoints {
		p.Endpoints[i].Models = []*endpoint.Models{one, other}[i%2]
	}
	s.Pools = append(s.Pools, p)
	f := learning(b, learned, &s)
	snapshots := []*endpoint.Snapshot{s, {Pools: s.Pools}}
	for n := 0; b.Loop(); n++ {
		s = snapshots[n%2]
		f.learner.lesson()
	}
}

// The base of a name in one pool says nothing about the same name in another.
func TestBasesAreOfTheTargetsPool(t *testing.T) {
	s := &endpoint.Snapshot{Pools: []endpoint.Pool{
		replicasOf("one", having("gemma-7b", "lora-1")),
		replicasOf("two", having("mistral", "lora-1", "lora-2")),
		replicasOf("them", having("mistral", "lora-3")),
	}}
	f := learning(t, `models:
  - {name: here, targets: [{model: lora-1, pool: one}]}
  - {name: there, targets: [{model: lora-1, pool: two}]}
  - {name: nowhere, targets: [{model: lora-2, pool: one}]}
  - {name: theirs, targets: [{model: lora-3, pool: them}]}
pools: [{name: them, external: true}]
`, &s)
	for requested, base := range map[string]string{"here": "gemma-7b", "there": "mistral", "nowhere": "", "theirs": ""} {
		x, v := route(t, f, `{"model":"`+requested+`"}`)
		require.Equal(t, filter.Next, v, requested)
		require.Equal(t, base, x.Route.Base, requested)
	}
}

// The base of an adapter has the name of the model that clients ask for, in whichever pool that is served.
func TestTheBaseOfAnAdapterWithoutAPool(t *testing.T) {
	for doc, want := range map[string]string{
		"models: [{name: public, targets: [{model: phi}]}, {name: tuned, targets: [{model: stray, pool: one}]}]":            "public",
		"models: [{name: public, targets: [{model: phi, pool: one}]}, {name: tuned, targets: [{model: stray, pool: one}]}]": "public",
		"models: [{name: public, targets: [{model: phi, pool: two}]}, {name: tuned, targets: [{model: stray, pool: one}]}]": "phi",
	} {
		s := replicas
		x, v := route(t, learning(t, doc, &s), `{"model":"tuned"}`)
		require.Equal(t, filter.Next, v)
		require.Equal(t, want, x.Route.Base, doc)
	}
}

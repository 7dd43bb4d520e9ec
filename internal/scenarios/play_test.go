package scenarios_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// Every expectation must be able to fail: each line has one wrong value.
func TestPlayTellsWhatDiffers(t *testing.T) {
	tests := map[string]struct{ expect, tells string }{
		"status":          {`status: 201`, "status: got 200, want 201"},
		"cut":             {`cut: true`, "cut: got false, want true"},
		"header":          {`headers: {content-type: text/html}`, `headers.content-type: got "application/json", want "text/html"`},
		"header absent":   {`headers: {content-type: null}`, `headers.content-type: got "application/json", want it absent`},
		"header there":    {`headers: {x-no: "*"}`, `headers.x-no: absent, want "*"`},
		"body":            {`body: '{"n":2}'`, `they differ from byte 5 on`},
		"json":            {`json: {n: 2}`, `json.n: got 1, want 2`},
		"json type":       {`json: {n: "1"}`, `json.n: got 1, want 1`},
		"json absent":     {`json: {n: null}`, `json.n: got 1, want <nil>`},
		"json shape":      {`json: [1]`, `json: got map[n:1], want 1 items`},
		"pool":            {`pool: none`, `pool: got llama, want none`},
		"replica":         {`replica: [b, c]`, `replica: got "a", want one of ["b" "c"]`},
		"arrived header":  {`arrived: {headers: {x-gateway-model-name: x}}`, `arrived.headers.x-gateway-model-name: got "llama", want "x"`},
		"arrived body":    {`arrived: {body: same}`, `arrived.body: got 20 bytes, want 17`},
		"arrived edited":  {`arrived: {edited: {'"llama"': '"x"'}}`, `arrived.edited: got 20 bytes, want 13`},
		"edited nothing":  {`arrived: {edited: {'nowhere': ''}}`, `"nowhere" stands 0 times`},
		"arrived trailer": {`arrived: {trailers: {x: "1"}}`, `arrived.trailers.x: got , want 1`},
		"calls":           {`calls: [{cluster: x}]`, `calls: got 0, want 1`},
		"metric":          {`metrics: {'inlet_request_total{outcome="ok",pool="llama",model_name="llama"}': 2}`, `grew by 1, want 2`},
		"metric absent":   {`metrics: {no_such_metric: 1}`, `metrics.no_such_metric: grew by 0, want 1`},
		"metric name":     {`metrics: {'a{b=c}': 1}`, `"a{b=c}" is not name{label="value",…}`},
		"trap":            {`trap: true`, `trap: got "", want a trap: true`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, playStep(t, test.expect), test.tells)
		})
	}
	require.NoError(t, playStep(t, `status: 200`))
}

// playStep plays one request with the given expectation.
func playStep(t *testing.T, expect string) error {
	return hosttest.Play(hosttest.Native(filters.All...), parse(t, `
name: one request
config: |
  filters: [{bbr: {models: [{name: llama, targets: [{model: llama-3b, pool: llama}]}]}}]
pools: {llama: [{name: a}]}
steps:
  - request: {body: '{"model":"llama"}'}
    upstream: {headers: {content-type: application/json}, body: '{"n":1}'}
    expect: {`+expect+`}
`))
}

func parse(t *testing.T, doc string) *hosttest.Scenario {
	all, err := hosttest.Parse("test.yaml", []byte(doc))
	require.NoError(t, err)
	require.Len(t, all, 1)
	return all[0]
}

func TestPlayTellsOfRejection(t *testing.T) {
	h := hosttest.Native(filters.All...)
	accepted := parse(t, "{name: x, config: 'filters: [{bbr: {}}]', rejected: no such text}")
	require.ErrorContains(t, hosttest.Play(h, accepted), "the configuration was accepted")
	otherwise := parse(t, "{name: x, config: 'filters: [{brb: {}}]', rejected: no such text}")
	require.ErrorContains(t, hosttest.Play(h, otherwise), `want it refused with "no such text"`)
	unexpected := parse(t, "{name: x, config: 'filters: [{brb: {}}]', steps: [{request: {}, expect: {status: 200}}]}")
	require.ErrorContains(t, hosttest.Play(h, unexpected), `unknown filter "brb"`)
}

func TestPlayTellsOfSpread(t *testing.T) {
	err := hosttest.Play(hosttest.Native(filters.All...), parse(t, `
name: spread
config: 'filters: [{bbr: {models: [{name: llama, targets: [{pool: llama}]}]}}]'
pools: {llama: [{name: a}, {name: b}]}
steps:
  - {request: {body: '{"model":"llama"}'}, repeat: 4, expect: {status: 200}, spread: {a: [2, 2], b: [3, 4]}}
`))
	require.ErrorContains(t, err, "spread: b got 2 of 4 requests, want 3 to 4")
}

func TestParseRefuses(t *testing.T) {
	const head = "name: x\nconfig: c\npools: {p: [{name: a}]}\n"
	const request = "request: {}, expect: {status: 200}"
	tests := map[string]struct{ doc, tells string }{
		"unknown field":       {head + "stepps: []", "field stepps not found"},
		"no name":             {"config: c", "it has no name"},
		"no config":           {"name: x", "it has no config"},
		"no steps":            {head, "it needs either steps or \"rejected\""},
		"both":                {head + "rejected: x\nsteps: [{" + request + "}]", "it needs either steps"},
		"nothing expected":    {head + "steps: [{request: {}}]", "step 1: it expects nothing"},
		"empty expect":        {head + "steps: [{request: {}, expect: {}}]", "step 1: it expects nothing"},
		"nothing to do":       {head + "steps: [{expect: {status: 200}}]", "neither request nor finish"},
		"replica twice":       {"name: x\nconfig: c\npools: {p: [{name: a}], q: [{name: a}]}\nrejected: x", "every replica needs a name"},
		"new replica":         {head + "steps: [{" + request + ", pools: {p: [{name: b}]}}]", "lists [p/b] where the scenario has [p/a]"},
		"held forever":        {head + "steps: [{" + request + ", hold: h}]", `the held request "h" is never finished`},
		"finish what":         {head + "steps: [{finish: h, expect: {status: 200}}]", `no request "h" is held here`},
		"finish with request": {head + "steps: [{" + request + ", hold: h}, {finish: h, " + request + "}]", "has none of request"},
		"cancel where":        {head + "steps: [{request: {cancel: soon}, expect: {status: 0}}]", `cancel: "soon" is none of`},
		"reset where":         {head + "steps: [{" + request + ", upstream: {reset: soon}}]", `upstream.reset: "soon" is none of`},
		"reset of nothing":    {head + "steps: [{" + request + ", upstream: {reset: duringBody}}]", "there is no body to reset during"},
		"fail how":            {head + "services: {s: [{fail: oops}]}\nsteps: [{" + request + "}]", `services.s: fail: "oops" is none of`},
		"service says naught": {head + "services: {s: []}\nsteps: [{" + request + "}]", "services.s: no answer"},
		"repeat of nothing":   {head + "steps: [{request: {bodyRepeat: {text: x, times: 2}}, expect: {status: 200}}]", "$repeat"},
		"body and events":     {head + "steps: [{" + request + ", upstream: {body: x, events: [y]}}]", "exclude each other"},
		"spread of one":       {head + "steps: [{" + request + ", spread: {a: [1, 1]}}]", "spread: needs repeat"},
		"spread of nonsense":  {head + "steps: [{" + request + ", repeat: 2, spread: {a: [2, 1]}}]", "is not [min, max]"},
		"two of a name":       {head + "rejected: x\n---\n" + head + "rejected: x", `two scenarios are called "x"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := hosttest.Parse("test.yaml", []byte(test.doc))
			require.ErrorContains(t, err, test.tells)
		})
	}
	_, err := hosttest.Load("no/such/*.yaml")
	require.ErrorContains(t, err, "no scenario file matches no/such/*.yaml")
}

func TestPieces(t *testing.T) {
	body := func(chunks ...int) [][]byte { return (&hosttest.Request{Body: "abcdef", Chunks: chunks}).Pieces() }
	text := func(pieces ...string) (b [][]byte) {
		for _, p := range pieces {
			b = append(b, []byte(p))
		}
		return b
	}
	require.Equal(t, text("abcdef"), body())
	require.Equal(t, text("a", "b", "c", "d", "e", "f"), body(0))
	require.Equal(t, text("ab", "c", "def"), body(2, 1))
	require.Equal(t, text("abcd", "ef"), body(4, 9))
	require.Empty(t, (&hosttest.Request{Chunks: []int{0}}).Pieces())
	stream := &hosttest.Upstream{Events: []string{"1", "2"}}
	require.Equal(t, text("data: 1\n\n", "data: 2\n\n"), stream.Pieces())
}

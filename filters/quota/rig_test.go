package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// rig is a filter with a virtual clock.
type rig struct {
	t       testing.TB
	f       *Filter
	deps    *filter.Deps
	clock   time.Time
	samples map[string]int64
	logs    []string
	kept    map[string]any
}

// noon is when the tests begin: two seconds before a minute ends.
var noon = time.Date(2026, 11, 30, 12, 0, 58, 0, time.UTC)

// newRig makes a filter from a document. KEY(name) in it stands for the digest of a key.
func newRig(t testing.TB, doc string) *rig {
	r := &rig{t: t, clock: noon, samples: map[string]int64{}, kept: map[string]any{}}
	r.deps = &filter.Deps{
		Now:     func() time.Time { return r.clock },
		Rand:    func() uint64 { return 4 },
		Metrics: r,
		Keep: func(name string, create func() any) any {
			if _, ok := r.kept[name]; !ok {
				r.kept[name] = create()
			}
			return r.kept[name]
		},
		Log: func(_ filter.Level, m string) { r.logs = append(r.logs, m) },
	}
	r.load(doc)
	return r
}

// load makes the filter again: what is kept stays.
func (r *rig) load(doc string) {
	var f filter.Filter
	require.NoError(r.t, conf.Decode([]byte(withKeys(doc)), func(o *conf.Object) { f = newFilter(o, r.deps) }))
	r.f = f.(*Filter)
}

// withKeys puts digests in the place of KEY(name).
func withKeys(doc string) string {
	for {
		before, rest, ok := strings.Cut(doc, "KEY(")
		if !ok {
			return doc
		}
		name, after, _ := strings.Cut(rest, ")")
		sum := sha256.Sum256([]byte(name))
		doc = before + hex.EncodeToString(sum[:]) + after
	}
}

type sample struct {
	r    *rig
	name string
}

func (r *rig) Counter(name string, _ ...string) filter.Metric   { return sample{r, name} }
func (r *rig) Gauge(name string, _ ...string) filter.Metric     { return sample{r, name} }
func (r *rig) Histogram(name string, _ ...string) filter.Metric { return sample{r, name} }

func (s sample) Record(n int64, v filter.Values) {
	s.r.samples[strings.TrimRight(fmt.Sprintf("%s %s %s %s", s.name, v[0], v[1], v[2]), " ")] += n
}

// call is one request, on its way.
type call struct {
	r *rig
	x *filter.Exchange
	v filter.Verdict
}

// body are the facts of a request.
type body struct {
	api     llm.API
	path    string
	key     string // "demo" if empty
	model   string // "llama" if empty
	headers headers
	prompt  int // bytes
	max     int
	n       int
	stream  bool
	client  string
	pool    string
}

// send has a request go through the request hooks.
func (r *rig) send(b body) *call {
	c := &call{r: r, x: &filter.Exchange{}}
	c.x.Reset(1)
	if b.api == llm.Unknown {
		b.api = llm.Chat
	}
	if b.path == "" {
		b.path = "/v1/chat/completions"
	}
	if b.model == "" {
		b.model = "llama"
	}
	if b.key == "" {
		b.key = "demo"
	}
	c.x.Start, c.x.API, c.x.Method, c.x.Path, c.x.Client = r.clock, b.api, "POST", b.path, b.client
	c.x.RequestHeaders = append(headers{"x-api-key: " + b.key}, b.headers...)
	c.x.Request = &llm.Request{API: b.api, Model: b.model, PromptBytes: b.prompt, MaxTokens: b.max, Answers: b.n, Stream: b.stream}
	c.x.Route.Pool = b.pool
	if c.v = r.f.OnRequestHeaders(c.x); c.v == filter.Next {
		c.v = r.f.OnRequest(c.x)
	}
	return c
}

// status is what came of it: 200 if it goes on.
func (c *call) status() int {
	if refusal := c.v.Refusal(); refusal != nil {
		return refusal.Status
	}
	require.False(c.r.t, c.v.Asks(), "it waits")
	return 200
}

// ends says how the exchange goes on and ends.
type ends struct {
	status  int // of the replica; 0: it says nothing
	usage   llm.Usage
	events  int
	since   int // of the events, those after the usage
	cut     bool
	broken  bool // cut by the replica
	refused bool // by Inlet
	origin  filter.Origin
	served  string // "10.0.0.1:80" if empty; "-" for nobody
	answer  headers
}

// end plays the rest of the exchange.
func (c *call) end(e ends) *call {
	if c.v.Refusal() != nil {
		e = ends{refused: true, served: "-"}
	}
	if e.served == "" {
		e.served = "10.0.0.1:80"
	}
	if c.x.Response.Served = e.served; e.served == "-" {
		c.x.Response.Served = ""
	}
	c.x.Response.Origin = e.origin
	if e.status != 0 {
		c.x.Response.Status, c.x.Response.Headers = e.status, append(headers{}, e.answer...)
		require.Equal(c.r.t, filter.Next, c.r.f.OnResponseHeaders(c.x))
	}
	c.x.Usage, c.x.Response.Events, c.x.Response.SinceUsage = e.usage, e.events, e.since
	c.r.f.OnDone(c.x, filter.End{
		Complete: e.status != 0 && !e.cut && !e.broken && !e.refused, Broken: e.broken, Refused: e.refused, Status: e.status, At: c.r.clock,
	})
	return c
}

// told is a usage that a response tells.
func told(prompt, completion int) llm.Usage {
	return llm.Usage{Known: true, Prompt: prompt, Completion: completion, Total: prompt + completion}
}

// header returns a header of the refusal, or of the response.
func (c *call) header(name string) string {
	if refusal := c.v.Refusal(); refusal != nil {
		for _, h := range refusal.Headers {
			if h[0] == name {
				return h[1]
			}
		}
		return ""
	}
	for _, e := range c.x.Effects().Response {
		if e.Name == name && !e.Remove {
			return e.Value
		}
	}
	return ""
}

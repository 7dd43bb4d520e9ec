package chain_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// headers is a header map of one value a name.
type headers map[string]string

func (h headers) Get(name string) (string, bool) { v, ok := h[name]; return v, ok }

func (h headers) At(name string, n int) (string, bool) { v, ok := h[name]; return v, ok && n == 0 }

func (h headers) Line(n int) (name, value string, ok bool) {
	if n >= len(h) {
		return "", "", false
	}
	name = slices.Sorted(maps.Keys(h))[n]
	return name, h[name], true
}

// host records what the chain asks of Envoy.
type host struct {
	request, response headers
	callError         error
	refuseCalls       map[int]error
	applyError        error
	served            string
	details           string
	attempts          int
	unreadable        bool    // the request's headers cannot be read at the end
	asked, told       int     // how often
	subset            *string // addresses with commas between
	marked            bool
	metadata          map[string]string // by namespace/key
	client            string
	stamp             uint64 // 0: none is told

	log                    []string
	reply                  *chain.LocalReply
	calls                  []*filter.Call
	last                   int // number of the last call
	resumed                int
	resumedResponse, ended int
	went                   []byte
	marks                  int
	why                    string
}

func (h *host) Metadata(namespace, key string) string { return h.metadata[namespace+"/"+key] }
func (h *host) Client() string                        { return h.client }

func (h *host) Subset(dst []string) ([]string, bool) {
	h.log = append(h.log, "subset")
	if h.subset == nil {
		return dst, false
	}
	return chain.AppendAddresses(dst, *h.subset), true
}

func (h *host) Mark(uint64)        { h.marks++ }
func (h *host) Marked(uint64) bool { return h.marked }

// RequestNow are the headers as Envoy has them; tests change them in h.request.
func (h *host) RequestNow() filter.Headers {
	if h.unreadable {
		return nil
	}
	return h.request
}
func (h *host) Stamp() (uint64, bool) { return h.stamp, h.stamp != 0 }

func (h *host) RequestHeaders() filter.Headers  { return h.request }
func (h *host) ResponseHeaders() filter.Headers { return h.response }
func (h *host) ApplyRequest(hs []filter.HeaderEdit, body []filter.BodyEdit) error {
	for _, e := range hs {
		if e.Remove {
			h.log = append(h.log, "-"+e.Name)
		} else {
			h.log = append(h.log, e.Name+"="+e.Value)
		}
	}
	for _, e := range body {
		h.log = append(h.log, fmt.Sprintf("body[%d:%d]=%s", e.Span.Start, e.Span.End, e.With))
	}
	return h.applyError
}

func (h *host) ApplyResponse(hs []filter.HeaderEdit) {
	for _, e := range hs {
		if e.Remove {
			h.log = append(h.log, "response -"+e.Name)
		} else {
			h.log = append(h.log, "response "+e.Name+"="+e.Value)
		}
	}
}
func (h *host) Reply(r *chain.LocalReply) { h.reply = r }
func (h *host) Call(number int, c *filter.Call) error {
	h.calls, h.last = append(h.calls, c), number
	if err := h.refuseCalls[number]; err != nil {
		return err
	}
	return h.callError
}

func (h *host) ResumeRequest()          { h.resumed++ }
func (h *host) ResumeResponse(b []byte) { h.went = append(h.went, b...); h.resumedResponse++ }
func (h *host) EndResponse()            { h.ended++ }
func (h *host) Served() string          { return h.served }
func (h *host) Details() string         { h.told++; return h.details }
func (h *host) Attempts() int           { h.asked++; return h.attempts }
func (h *host) Cluster() string         { return "c" }
func (h *host) Explain(why []byte)      { h.why = string(why) }

// scripted is a filter whose hooks are functions; it notes each call.
type scripted struct {
	filter.Base
	name      string
	trace     *[]string
	needs     filter.Needs
	fields    []string
	headers   func(*filter.Exchange) filter.Verdict
	request   func(*filter.Exchange) filter.Verdict
	reply     func(*filter.Exchange, *filter.Reply) filter.Verdict
	response  func(*filter.Exchange) filter.Verdict
	done      func(*filter.Exchange, filter.End)
	doneCalls int
}

func (s *scripted) note(what string) { *s.trace = append(*s.trace, s.name+"."+what) }

func (s *scripted) Needs() filter.Needs { return s.needs }
func (s *scripted) Fields() []string    { return s.fields }
func (s *scripted) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	s.note("headers")
	return s.ask(s.headers, x)
}

func (s *scripted) OnRequest(x *filter.Exchange) filter.Verdict {
	s.note("request")
	return s.ask(s.request, x)
}

func (s *scripted) OnReply(x *filter.Exchange, r *filter.Reply) filter.Verdict {
	s.note("reply")
	return s.reply(x, r)
}

func (s *scripted) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	s.note("response")
	return s.ask(s.response, x)
}

func (s *scripted) OnDone(x *filter.Exchange, end filter.End) {
	s.note("done")
	if s.done != nil {
		s.done(x, end)
	}
	s.doneCalls++
}

func (s *scripted) ask(f func(*filter.Exchange) filter.Verdict, x *filter.Exchange) filter.Verdict {
	if f == nil {
		return filter.Next
	}
	return f(x)
}

// samples sums each series by name and label values.
type samples map[string]int64

func (m samples) define(name string) filter.Metric                 { return sample{m, name} }
func (m samples) Counter(name string, _ ...string) filter.Metric   { return m.define(name) }
func (m samples) Gauge(name string, _ ...string) filter.Metric     { return m.define(name) }
func (m samples) Histogram(name string, _ ...string) filter.Metric { return m.define(name) }

type sample struct {
	m    samples
	name string
}

func (s sample) Record(n int64, v filter.Values) { s.m[s.name+"/"+strings.Join(v[:], ",")] += n }

// strictMutex is a lock for one thread: locked twice it would wait forever, and panics.
type strictMutex struct{ locked bool }

func (m *strictMutex) Lock()   { m.turn(true) }
func (m *strictMutex) Unlock() { m.turn(false) }

func (m *strictMutex) turn(locked bool) {
	if m.locked == locked {
		panic("locked or unlocked twice")
	}
	m.locked = locked
}

// rig is a chain of scripted filters a, b and what happened.
type rig struct {
	a, b    *scripted
	trace   []string
	logs    []string
	metrics samples
	rand    uint64 // what the chain draws
	chain   *chain.Chain
}

func newRig(t require.TestingT, options string) *rig {
	r := &rig{metrics: samples{}, rand: 1}
	r.a = &scripted{name: "a", trace: &r.trace, needs: filter.NeedRequest}
	r.b = &scripted{name: "b", trace: &r.trace}
	return r.load(t, options, r.a)
}

// again loads the chain with another filter a.
func (r *rig) again(t require.TestingT, a filter.Filter) *rig { return r.load(t, "", a) }

// load makes the chain.
func (r *rig) load(t require.TestingT, options string, a filter.Filter) *rig {
	now := time.Unix(1_700_000_000, 0)
	deps := &filter.Deps{
		Now:      func() time.Time { now = now.Add(time.Millisecond); return now },
		Rand:     func() uint64 { return r.rand },
		Metrics:  r.metrics,
		Log:      func(_ filter.Level, m string) { r.logs = append(r.logs, m) },
		NewMutex: func() filter.Mutex { return new(strictMutex) },
	}
	known := []filter.Factory{
		{Name: "a", Writes: filter.FactRoute, FailureMode: filter.FailClosed, New: func(_ *conf.Object, d *filter.Deps) filter.Filter {
			d.ClaimHeader("x-of-filter-a")
			return a
		}},
		{Name: "b", Reads: filter.FactRoute, FailureMode: filter.FailOpen, New: func(*conf.Object, *filter.Deps) filter.Filter { return r.b }},
		{Name: "guard", Strict: true, New: func(*conf.Object, *filter.Deps) filter.Filter { return &scripted{name: "guard", trace: &r.trace} }},
	}
	options += "\ncountTokens: false"
	if !strings.Contains(options, "filters:") {
		options = "filters: [a: {}, b: {}]\n" + options
	}
	c, err := chain.New([]byte(options), known, deps)
	require.NoError(t, err)
	r.chain = c
	return r
}

func post(extra ...string) *host {
	h := &host{
		request:  headers{":method": "POST", ":path": "/v1/chat/completions"},
		response: headers{":status": "200", "content-type": "application/json"},
	}
	for i := 0; i < len(extra); i += 2 {
		h.request[extra[i]] = extra[i+1]
	}
	return h
}

const body = `{"model":"m","messages":[]}`

// send plays the request side of an exchange with the whole body at once.
func (r *rig) send(h *host, body string) (*chain.Stream, chain.Action) {
	s := r.chain.NewStream()
	s.Begin(h)
	act := s.RequestHeaders(body == "")
	if act == chain.Hold && body != "" {
		act = s.RequestBody([]byte(body), true)
	}
	return s, act
}

func TestOrder(t *testing.T) {
	r := newRig(t, "")
	s, act := r.send(post(), body)
	require.Equal(t, chain.Continue, act)
	require.Equal(t, chain.Continue, s.ResponseHeaders(false))
	s.ResponseBody([]byte("{}"), true)
	s.Done()
	s.Done()
	require.Equal(t, []string{
		"a.headers", "b.headers", "a.request", "b.request", "b.response", "a.response", "b.done", "a.done",
	}, r.trace)
	require.EqualValues(t, 1, r.metrics["inlet_request_total/,,ok"])
}

func TestHeadersGoOnAtOnceWhenNobodyNeedsTheBody(t *testing.T) {
	r := newRig(t, "filters: [b: {}]")
	s := r.chain.NewStream()
	s.Begin(post())
	require.Equal(t, chain.Continue, s.RequestHeaders(false))
	require.False(t, s.WantsRequestBody())
	require.Equal(t, chain.Continue, s.RequestBody([]byte("not even JSON"), true))
}

func TestEffectsAreAppliedOnceAndSorted(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(x *filter.Exchange) filter.Verdict {
		x.ReplaceInBody(llm.Span{Start: 12, End: 13}, []byte("yy"))
		x.SetRequestHeader("x-a", "1")
		return filter.Next
	}
	r.b.request = func(x *filter.Exchange) filter.Verdict {
		x.ReplaceInBody(llm.Span{Start: 2, End: 4}, []byte("x"))
		x.Explain("b", "two")
		return filter.Next
	}
	h := post("content-length", fmt.Sprint(len(body)))
	_, act := r.send(h, body)
	require.Equal(t, chain.Continue, act)
	require.Equal(t, []string{
		"x-a=1", fmt.Sprintf("content-length=%d", len(body)), "body[2:4]=x", "body[12:13]=yy",
	}, h.log, "one byte less and one more leave the length as it was")
	require.Equal(t, "b=two", h.why)
}

func TestAnEditThatCannotBeAppliedIsRefused(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(x *filter.Exchange) filter.Verdict { x.SetRequestHeader("x", "1"); return filter.Next }
	h := post()
	h.applyError = errors.New("no such buffer")
	_, act := r.send(h, body)
	require.Equal(t, chain.Replied, act)
	require.Equal(t, 500, h.reply.Status)
	require.Contains(t, r.logs[0], "no such buffer")
}

func TestWaitAndResume(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(*filter.Exchange) filter.Verdict {
		return filter.Wait(filter.Call{Cluster: "guard", Path: "/check", Timeout: time.Second})
	}
	for name, verdict := range map[string]filter.Verdict{
		"next": filter.Next, "deny": filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no"}}),
	} {
		t.Run(name, func(t *testing.T) {
			r.trace = nil
			r.a.reply = func(_ *filter.Exchange, reply *filter.Reply) filter.Verdict {
				require.Equal(t, 204, reply.Status)
				return verdict
			}
			h := post()
			s, act := r.send(h, body)
			require.Equal(t, chain.Hold, act)
			require.Len(t, h.calls, 1)
			require.Zero(t, h.resumed)
			s.Reply(h.last, &filter.Reply{Status: 204})
			s.Reply(h.last, &filter.Reply{Status: 204})
			if verdict == filter.Next {
				require.Equal(t, 1, h.resumed)
				require.Equal(t, []string{"a.headers", "b.headers", "a.request", "a.reply", "b.request"}, r.trace)
			} else {
				require.Zero(t, h.resumed)
				require.Equal(t, 403, h.reply.Status)
			}
			s.Done()
			s.Reply(h.last, &filter.Reply{Status: 204})
		})
	}
}

func TestACallThatCannotStartIsAnsweredWithItsError(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(*filter.Exchange) filter.Verdict {
		return filter.Wait(filter.Call{Cluster: "gone", Timeout: time.Second})
	}
	r.a.reply = func(_ *filter.Exchange, reply *filter.Reply) filter.Verdict {
		require.ErrorContains(t, reply.Err, "no such cluster")
		return filter.Next
	}
	h := post()
	h.callError = errors.New("no such cluster")
	_, act := r.send(h, body)
	require.Equal(t, chain.Continue, act)
	require.Zero(t, h.resumed)
}

func TestAFilterThatCallsForEverIsStopped(t *testing.T) {
	r := newRig(t, "")
	again := func(*filter.Exchange) filter.Verdict {
		return filter.Wait(filter.Call{Cluster: "gone", Timeout: time.Second})
	}
	r.a.request = again
	r.a.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict { return again(x) }
	h := post()
	h.callError = errors.New("no such cluster")
	_, act := r.send(h, body)
	require.Equal(t, chain.Replied, act)
	require.Equal(t, 500, h.reply.Status)
}

func TestPanicsAndFailuresFollowTheFailureMode(t *testing.T) {
	boom := func(x *filter.Exchange) filter.Verdict {
		x.SetRequestHeader("x-half", "done")
		var none []int
		_ = none[len(x.Path)]
		return filter.Next
	}
	secret := func(*filter.Exchange) filter.Verdict { panic("the prompt says hello") }
	unable := func(*filter.Exchange) filter.Verdict { return filter.Fail("no-snapshot") }
	for _, c := range []struct {
		name   string
		hook   func(*filter.Exchange) filter.Verdict
		status int
		logged string
		why    string
	}{
		{"panic", boom, 500, "index out of range", "failed"},
		{"panic with a value", secret, 500, "panicked with a string at", "failed"},
		{"fail", unable, 503, "", "no-snapshot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "")
			r.a.request = c.hook
			h := post()
			s, act := r.send(h, body)
			require.Equal(t, chain.Replied, act)
			require.Equal(t, c.status, h.reply.Status)
			require.Contains(t, h.why, "a="+c.why)
			require.EqualValues(t, 1, r.metrics["inlet_filter_failure_total/a,FailClosed,"])
			s.Done()
			require.Equal(t, 1, r.a.doneCalls)

			r = newRig(t, "")
			r.b.request = c.hook
			h = post()
			s, act = r.send(h, body)
			require.Equal(t, chain.Continue, act)
			require.Nil(t, h.reply)
			require.Empty(t, h.log, "what the hook did before it failed is undone")
			s.Done()
			require.Equal(t, 1, r.b.doneCalls)
			if c.logged == "" {
				require.Empty(t, r.logs)
			} else {
				require.Contains(t, r.logs[0], c.logged)
				require.Contains(t, r.logs[0], "chain_test.", "it tells where")
				require.NotContains(t, r.logs[0], "hello")
			}
		})
	}
}

func TestFailureModeIsConfigurable(t *testing.T) {
	r := newRig(t, "filters: [a: {failureMode: FailOpen}]")
	r.a.request = func(*filter.Exchange) filter.Verdict { return filter.Fail("x") }
	_, act := r.send(post(), body)
	require.Equal(t, chain.Continue, act)
	require.Equal(t, "a(FailOpen)", r.chain.String())
	require.Equal(t, "a(FailClosed) → b(FailOpen)", newRig(t, "").chain.String())
}

func TestRefusals(t *testing.T) {
	long := `{"model":"` + strings.Repeat("x", 300) + `"}`
	for _, c := range []struct {
		name, options string
		host          *host
		body          string
		status        int
		reason        string
	}{
		{"bad JSON", "", post(), `{"model":`, 400, "invalid_json"},
		{"trailing garbage", "", post(), body + "x", 400, "invalid_json"},
		{"no body", "", post(), "", 400, "invalid_json"},
		{"repeated key", "", post(), `{"model":"a","mo\u0064el":"b"}`, 400, "duplicate_key"},
		{"too large", "limits: {body: 100}", post(), long, 413, "request_too_large"},
		{"too large by its header", "limits: {body: 100}", post("content-length", "101"), body, 413, "request_too_large"},
		{"compressed", "", post("content-encoding", "deflate"), body, 415, "unsupported_content_encoding"},
		{"unknown path", "filters: [guard: {}]", post(":path", "/v2/other"), body, 404, "unknown_path"},
		{"wrong method", "filters: [guard: {}]", post(":method", "GET"), body, 404, "unknown_path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.options)
			s, act := r.send(c.host, c.body)
			require.Equal(t, chain.Replied, act)
			require.Equal(t, c.status, c.host.reply.Status)
			require.Contains(t, c.host.reply.Headers, [2]string{filter.ReasonHeader, c.reason})
			require.Contains(t, string(c.host.reply.Body), `"error"`)
			require.Equal(t, "inlet_"+c.reason, c.host.reply.Detail)
			require.Equal(t, chain.Replied, s.RequestBody([]byte("more"), true), "what still comes is dropped")
			s.ResponseHeaders(false)
			s.Done()
			require.NotContains(t, r.trace, "a.request")
			require.NotContains(t, r.trace, "a.response")
			require.EqualValues(t, 1, r.metrics["inlet_request_total/,,refused"])
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		status int
		after  time.Duration
		want   string
	}{
		{503, 0, "1"},
		{429, 0, "1"},
		{429, 1500 * time.Millisecond, "2"},
		{503, 2 * time.Second, "2"},
		{503, 1, "1"},
		{403, 0, ""},
		{403, 3 * time.Second, "3"},
		{500, 0, ""},
	} {
		r := newRig(t, "")
		r.a.request = func(*filter.Exchange) filter.Verdict {
			return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: c.status, Code: "c"}, RetryAfter: c.after})
		}
		h := post()
		r.send(h, body)
		got, dropped := "", false
		for _, kv := range h.reply.Headers {
			switch kv[0] {
			case "retry-after":
				got = kv[1]
			case filter.DroppedHeader:
				dropped = true
			}
		}
		require.Equal(t, c.want, got, c)
		require.Equal(t, got != "", dropped, "who may come again is told so")
	}
}

func TestPathsThatNoFilterSees(t *testing.T) {
	for _, c := range []struct{ name, options, method, path string }{
		{"unknown, nothing to protect", "", "POST", "/other"},
		{"listed", "filters: [guard: {}]\npassThrough: [/healthz]", "GET", "/healthz"},
		{"below a listed one", "filters: [guard: {}]\npassThrough: [/docs/]", "GET", "/docs/a?b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.options)
			h := post(":method", c.method, ":path", c.path, "x-gateway-inference-pool", "mine")
			s, act := r.send(h, body)
			require.Equal(t, chain.Continue, act)
			require.Equal(t, []string{"-x-gateway-inference-pool"}, h.log)
			s.ResponseHeaders(true)
			s.Done()
			require.Empty(t, r.trace)
			require.Empty(t, r.metrics)
		})
	}
	r := newRig(t, "filters: [guard: {}]\npassThrough: [/health]")
	_, act := r.send(post(":path", "/healthz"), body)
	require.Equal(t, chain.Replied, act, "a listed path is not a prefix of names")
}

func TestControlHeaders(t *testing.T) {
	for _, trust := range []bool{false, true} {
		r := newRig(t, map[bool]string{false: "", true: "controlHeaders: trust"}[trust])
		h := post()
		names := append([]string{"x-of-filter-a"}, filter.ControlHeaders...)
		for _, name := range names {
			h.request[name] = "forged"
		}
		r.send(h, body)
		if trust {
			require.Empty(t, h.log)
			continue
		}
		for _, name := range names {
			require.Contains(t, h.log, "-"+name)
		}
	}
}

// watching is a filter that wants to know of the first byte.
type watching struct {
	scripted
	first func(*filter.Exchange)
}

func (w *watching) OnFirstByte(x *filter.Exchange) {
	w.note("first byte")
	w.first(x)
}

func TestTheFirstByteIsToldOnce(t *testing.T) {
	for _, panics := range []bool{false, true} {
		r := &rig{metrics: samples{}}
		w := &watching{scripted: scripted{name: "w", trace: &r.trace}, first: func(x *filter.Exchange) {
			require.Positive(t, x.Response.FirstByte)
			if panics {
				panic("x")
			}
		}}
		logs := 0
		deps := &filter.Deps{Now: time.Now, Rand: rand.Uint64, Metrics: r.metrics, Log: func(filter.Level, string) { logs++ }}
		c, err := chain.New([]byte("filters: [w: {}]"), []filter.Factory{
			{Name: "w", FailureMode: filter.FailOpen, New: func(*conf.Object, *filter.Deps) filter.Filter { return w }},
		}, deps)
		require.NoError(t, err)
		r.chain = c
		s, _ := r.send(post(), body)
		s.ResponseHeaders(false)
		require.NotContains(t, r.trace, "w.first byte")
		s.ResponseBody([]byte("{"), false)
		s.ResponseBody([]byte("}"), true)
		s.Done()
		require.Equal(t, []string{"w.headers", "w.request", "w.response", "w.first byte", "w.done"}, r.trace)
		require.Equal(t, panics, logs == 1)

		// What Inlet answers itself has none, and neither has what no filter sees.
		r.trace = nil
		w.request = func(*filter.Exchange) filter.Verdict {
			return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403}})
		}
		s, _ = r.send(post(), body)
		s.ResponseHeaders(false)
		s.ResponseBody([]byte("{}"), true)
		s.Done()
		h := post()
		h.request[":path"] = "/elsewhere"
		s, _ = r.send(h, body)
		s.ResponseHeaders(false)
		s.ResponseBody([]byte("{}"), true)
		s.Done()
		require.NotContains(t, r.trace, "w.first byte")
	}
}

func TestUsageIsCountedAndNeverFree(t *testing.T) {
	const answer = `{"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}`
	for _, c := range []struct {
		name     string
		encoding string
		body     string
		want     string
	}{
		{"plain", "", answer, "inlet_output_tokens_total/,,"},
		{"compressed", "gzip", answer, "inlet_usage_unknown_total/,,"},
		{"cut", "", answer[:20], "inlet_usage_unknown_total/,,"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := withNeeds(t, filter.NeedRequest|filter.NeedUsage)
			h := post("accept-encoding", "gzip")
			if c.encoding != "" {
				h.response["content-encoding"] = c.encoding
			}
			s, _ := r.send(h, body)
			require.Contains(t, h.log, "-accept-encoding")
			s.ResponseHeaders(false)
			for i := range c.body {
				s.ResponseBody([]byte(c.body[i:i+1]), i == len(c.body)-1)
			}
			s.Done()
			require.Contains(t, r.metrics, c.want)
		})
	}
}

func TestPrefixHashesAreWhatSomebodyNeeds(t *testing.T) {
	long := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", 1000) + `"}]}`
	for needs, blocks := range map[filter.Needs]int{filter.NeedPrefix: 19, filter.NeedPrefix | filter.NeedPrompt: 19, filter.NeedRequest: 0} {
		r := withNeeds(t, needs)
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			require.Len(t, x.Request.Prefix, blocks)
			require.Equal(t, needs.Has(filter.NeedPrompt), len(x.Request.Prompt) > 0)
			return filter.Next
		}
		_, act := r.send(post(), long)
		require.Equal(t, chain.Continue, act)
	}
}

func TestSubsetIsAskedForOnceWhenSomebodyNeedsIt(t *testing.T) {
	hint := "10.0.0.1:80,10.0.0.2:80"
	for _, given := range []*string{&hint, nil} {
		r := withNeeds(t, filter.NeedSubset|filter.NeedRequest)
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			require.Equal(t, given != nil, x.Subset.Given)
			require.Len(t, x.Subset.Addresses, map[bool]int{true: 2}[x.Subset.Given])
			return filter.Wait(filter.Call{Cluster: "c", Path: "/", Timeout: time.Second})
		}
		r.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
		h := post()
		h.subset = given
		s, _ := r.send(h, body)
		s.Reply(h.last, &filter.Reply{Status: 200})
		require.Equal(t, []string{"subset"}, slices.DeleteFunc(h.log, func(l string) bool { return l != "subset" }))
	}
	r := withNeeds(t, filter.NeedRequest)
	h := post()
	r.send(h, body)
	require.NotContains(t, h.log, "subset")
}

// Who fails before the request has gone on cannot keep it within its subset.
func TestASubsetIsNotFailedOpen(t *testing.T) {
	hint := "10.0.0.1:80"
	broken := map[string]func(*filter.Exchange) filter.Verdict{
		"panic": func(*filter.Exchange) filter.Verdict { panic("a defect") },
		"fail":  func(*filter.Exchange) filter.Verdict { return filter.Fail("no-snapshot") },
	}
	for name, hook := range broken {
		for _, c := range []struct {
			needs filter.Needs
			given *string
			want  chain.Action
		}{
			{filter.NeedRequest | filter.NeedSubset, &hint, chain.Replied},
			{filter.NeedRequest | filter.NeedSubset, nil, chain.Continue},
			{filter.NeedRequest, &hint, chain.Continue}, // it has nothing to do with it
		} {
			r := withOptions(t, "filters: [a: {failureMode: FailOpen}]", c.needs)
			r.a.request = hook
			h := post()
			h.subset = c.given
			_, act := r.send(h, body)
			require.Equal(t, c.want, act, name)
		}
		r := withOptions(t, "filters: [a: {failureMode: FailOpen}]", filter.NeedRequest|filter.NeedSubset)
		r.a.response = hook
		h := post()
		h.subset = &hint
		s, _ := r.send(h, body)
		require.Equal(t, chain.Continue, s.ResponseHeaders(true), "its replica has answered")
	}
}

func TestTheModelIsRestoredInTheAnswer(t *testing.T) {
	const answer = `{"model":"llama-3-8b","usage":{"prompt_tokens":7,"completion_tokens":5}}`
	const public = `{"model":"llama","usage":{"prompt_tokens":7,"completion_tokens":5}}`
	for _, c := range []struct {
		name, model string
		response    headers
		body        string
		out         string
		log         []string
		counted     string
	}{
		{"restored", "llama", nil, answer, public, []string{"-accept-encoding", "response -content-length"}, ""},
		{"no other name", "", nil, answer, answer, nil, ""},
		{
			"a stream", "llama",
			headers{"content-type": "text/event-stream"},
			"data: " + answer + "\n\n", "data: " + public + "\n\n",
			[]string{"-accept-encoding", "response -content-length"},
			"",
		},
		{"an error", "llama", headers{":status": "404"}, answer, answer, []string{"-accept-encoding"}, ""},
		{"neither JSON nor events", "llama", headers{"content-type": "audio/mpeg"}, answer, answer, []string{"-accept-encoding"}, ""},
		{"encoded", "llama", headers{"content-encoding": "br"}, answer, answer, []string{"-accept-encoding"}, "encoded"},
		{"not encoded", "llama", headers{"content-encoding": "Identity"}, answer, public, []string{"-accept-encoding", "response -content-length"}, ""},
		{"malformed", "llama", nil, "{" + answer, "{" + answer, []string{"-accept-encoding", "response -content-length"}, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{1, len(c.body)} {
				r := withNeeds(t, filter.NeedRequest)
				r.a.request = func(x *filter.Exchange) filter.Verdict {
					x.Route = filter.Route{Model: "llama", Pool: "p"}
					x.RestoreModel(c.model)
					return filter.Next
				}
				h := post("accept-encoding", "gzip")
				h.response["content-length"] = fmt.Sprint(len(c.body))
				for name, value := range c.response {
					h.response[name] = value
				}
				s, _ := r.send(h, body)
				s.ResponseHeaders(false)
				require.Equal(t, c.log, h.log)
				require.Equal(t, c.model != "" && c.out != c.body || c.counted == "malformed", s.WantsResponseBody())
				var out strings.Builder
				for at := 0; at < len(c.body); at += size {
					chunk := c.body[at : at+size]
					n, with := s.ResponseBody([]byte(chunk), at+size == len(c.body))
					out.Write(with)
					out.WriteString(chunk[n:])
				}
				require.Equal(t, c.out, out.String())
				s.Done()
				for _, reason := range []string{"encoded", "malformed"} {
					var want int64
					if reason == c.counted {
						want = 1
					}
					require.Equal(t, want, r.metrics["inlet_model_not_restored_total/llama,p,"+reason])
				}
				require.NotContains(t, r.metrics, "inlet_usage_unknown_total/llama,p,", "nobody asked for it")
			}
		})
	}
}

// Nothing is changed in an answer without a body, so its headers stay true.
func TestAnAnswerWithoutABodyKeepsItsLength(t *testing.T) {
	r := withNeeds(t, filter.NeedRequest)
	r.a.request = func(x *filter.Exchange) filter.Verdict { x.RestoreModel("llama"); return filter.Next }
	h := post()
	h.response["content-length"] = "0"
	s, _ := r.send(h, body)
	s.ResponseHeaders(true)
	s.Done()
	require.Empty(t, h.log)
	require.NotContains(t, r.metrics, "inlet_model_not_restored_total/,,malformed")
}

// What one exchange said does not hold for the next, and what a filter said
// before it failed does not hold at all.
func TestANameIsRestoredOnce(t *testing.T) {
	r := newRig(t, "")
	s := r.chain.NewStream()
	for _, c := range []struct {
		model string
		fails bool
		want  string
	}{{"llama", false, "llama"}, {"", false, "m"}, {"llama", true, "m"}, {"gemma", false, "gemma"}} {
		r.b.request = func(x *filter.Exchange) filter.Verdict {
			x.RestoreModel(c.model)
			if c.fails {
				panic("after it")
			}
			return filter.Next
		}
		s.Begin(post())
		s.RequestHeaders(false)
		s.RequestBody([]byte(body), true)
		s.ResponseHeaders(false)
		answer := `{"model":"m"}`
		n, with := s.ResponseBody([]byte(answer), true)
		require.Equal(t, `{"model":"`+c.want+`"}`, string(with)+answer[n:])
		s.Done()
	}
}

// withNeeds makes a rig whose filter a has needs from the start, as the chain
// asks for them only once.
func withNeeds(t *testing.T, needs filter.Needs, fields ...string) *rig {
	return withOptions(t, "", needs, fields...)
}

func withOptions(t *testing.T, options string, needs filter.Needs, fields ...string) *rig {
	r := &rig{metrics: samples{}}
	r.a = &scripted{name: "a", trace: &r.trace, needs: needs, fields: fields}
	deps := &filter.Deps{Now: time.Now, Rand: rand.Uint64, Metrics: r.metrics, Log: func(filter.Level, string) {}}
	if !strings.Contains(options, "filters:") {
		options += "\nfilters: [a: {}]"
	}
	c, err := chain.New([]byte(options+"\ncountTokens: false"), []filter.Factory{
		{Name: "a", FailureMode: filter.FailClosed, New: func(*conf.Object, *filter.Deps) filter.Filter { return r.a }},
	}, deps)
	require.NoError(t, err)
	r.chain = c
	return r
}

func TestDocumentErrors(t *testing.T) {
	known := []filter.Factory{
		{Name: "a", Writes: filter.FactRoute, New: func(o *conf.Object, _ *filter.Deps) filter.Filter {
			var n int
			o.Int("n", &n, 1, 9)
			return filter.Filter(nil)
		}},
		{Name: "picker", Reads: filter.FactRoute, New: func(*conf.Object, *filter.Deps) filter.Filter { return nil }},
	}
	doc := `filters:
  - picker: {}
  - a: {n: 10, nn: 1}
  - a: {}
  - pickr: {}
  - {a: {}, picker: {}}
limits: {body: 0, depth: 257, keyLength: 1025, stringLength: 0, members: 0, items: -1}
pathPrefix: [team-a]
controlHeaders: maybe
companion: {wait: 1s}
`
	_, err := chain.New([]byte(doc), known, &filter.Deps{})
	var all conf.Errors
	require.ErrorAs(t, err, &all)
	text := err.Error()
	for _, want := range []string{
		`"a" must stand before "picker"`, `filters[1].a.n: 3:`, `unknown key "nn"`, `stands in the chain twice`,
		`unknown filter "pickr" (did you mean "picker"?)`, `one filter an item`, `limits.body`, `limits.depth`, `limits.keyLength`, `limits.stringLength`, `limits.members`, `limits.items`,
		`pathPrefix[0]: 8:14: "team-a" does not start with "/"`, `controlHeaders`, `companion`,
	} {
		require.Contains(t, text, want)
	}
	require.GreaterOrEqual(t, len(all), 9)
}

// Whatever happens in whatever order, OnDone runs exactly once for each filter
// of which a request hook ran, and for no other.
func TestDoneExactlyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t, "")
		verdict := rapid.SampledFrom([]func(*filter.Exchange) filter.Verdict{
			nil,
			func(*filter.Exchange) filter.Verdict { panic("x") },
			func(*filter.Exchange) filter.Verdict { return filter.Fail("x") },
			func(*filter.Exchange) filter.Verdict {
				return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 400}})
			},
		})
		waiting := func(*filter.Exchange) filter.Verdict {
			return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
		}
		r.a.headers, r.b.headers = verdict.Draw(t, "a.headers"), verdict.Draw(t, "b.headers")
		r.a.request, r.b.request = verdict.Draw(t, "a.request"), verdict.Draw(t, "b.request")
		if rapid.Bool().Draw(t, "a waits") {
			r.a.request = waiting
		}
		r.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
		r.a.response, r.b.response = verdict.Draw(t, "a.response"), verdict.Draw(t, "b.response")

		s := r.chain.NewStream()
		for range 2 { // a stream is used again
			r.trace, r.a.doneCalls, r.b.doneCalls = nil, 0, 0
			h := post()
			s.Begin(h)
			steps := []func(){
				func() { s.RequestHeaders(false) },
				func() { s.RequestBody([]byte(body), true) },
				func() { s.Reply(h.last, &filter.Reply{Status: 200}) },
				func() { s.ResponseHeaders(false) },
				func() { s.ResponseBody([]byte("{}"), true) },
			}
			for _, step := range steps[:rapid.IntRange(0, len(steps)).Draw(t, "steps")] {
				step()
			}
			s.Done()
			s.Done()
			for _, f := range []*scripted{r.a, r.b} {
				want := 0
				if strings.Contains(strings.Join(r.trace, " "), f.name+".headers") {
					want = 1
				}
				if f.doneCalls != want {
					t.Fatalf("OnDone of %s ran %d times, want %d: %v", f.name, f.doneCalls, want, r.trace)
				}
			}
		}
	})
}

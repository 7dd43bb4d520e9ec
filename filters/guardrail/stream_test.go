package guardrail_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/filters/guardrail"
	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/lines"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// envoy is a host that keeps what it is told.
type envoy struct {
	request, response pairs
	body              []filter.BodyEdit
	why               string
	refused           *chain.LocalReply
	resumed           []byte
}

type pairs [][2]string

func (p pairs) Get(name string) (string, bool) {
	i := slices.IndexFunc(p, func(h [2]string) bool { return h[0] == name })
	if i < 0 {
		return "", false
	}
	return p[i][1], true
}

func (p pairs) At(name string, n int) (string, bool) {
	for _, h := range p {
		if h[0] != name {
			continue
		}
		if n == 0 {
			return h[1], true
		}
		n--
	}
	return "", false
}

func (p pairs) Line(n int) (name, value string, ok bool) {
	if n >= len(p) {
		return "", "", false
	}
	return p[n][0], p[n][1], true
}

func (e *envoy) RequestHeaders() filter.Headers  { return e.request }
func (e *envoy) ResponseHeaders() filter.Headers { return e.response }
func (e *envoy) ApplyRequest(_ []filter.HeaderEdit, body []filter.BodyEdit) error {
	e.body = slices.Clone(body)
	return nil
}
func (e *envoy) ApplyResponse([]filter.HeaderEdit)    {}
func (e *envoy) Reply(r *chain.LocalReply)            { e.refused = r }
func (e *envoy) Call(int, *filter.Call) error         { panic("nobody calls") }
func (e *envoy) ResumeRequest()                       {}
func (e *envoy) ResumeResponse(b []byte)              { e.resumed = append(e.resumed, b...) }
func (e *envoy) EndResponse()                         {}
func (e *envoy) Subset(dst []string) ([]string, bool) { return dst, false }
func (e *envoy) Client() string                       { return "" }
func (e *envoy) Metadata(string, string) string       { return "" }
func (e *envoy) Mark(uint64)                          {}
func (e *envoy) Marked(uint64) bool                   { return false }
func (e *envoy) RequestNow() filter.Headers           { return nil }
func (e *envoy) Stamp() (uint64, bool)                { return 0, false }
func (e *envoy) Served() string                       { return "10.0.0.1:80" }
func (e *envoy) Details() string                      { return "via_upstream" }
func (e *envoy) Attempts() int                        { return 1 }
func (e *envoy) Cluster() string                      { return "" }
func (e *envoy) Explain(why []byte)                   { e.why = string(why) }

// samples are metrics, with their labels.
type samples map[string]int

type sample struct {
	of   samples
	name string
}

func (s samples) Counter(name string, _ ...string) filter.Metric   { return sample{s, name} }
func (s samples) Gauge(name string, _ ...string) filter.Metric     { return sample{s, name} }
func (s samples) Histogram(name string, _ ...string) filter.Metric { return sample{s, name} }
func (m sample) Record(n int64, v filter.Values)                   { m.of[m.name+fmt.Sprint(v)] += int(n) }

// guarded is a chain of a guardrail alone.
type guarded struct {
	chain   *chain.Chain
	metrics samples
	logs    strings.Builder
	now     time.Time
}

func guard(t require.TestingT, config string) *guarded {
	g := &guarded{metrics: samples{}, now: time.Unix(1_800_000_000, 0)}
	c, err := chain.New([]byte("filters: [guardrail: "+config+"]\nlimits: {response: 64KiB}"), []filter.Factory{guardrail.Factory}, &filter.Deps{
		Now: func() time.Time { return g.now }, Rand: rand.Uint64, Metrics: g.metrics,
		Log: func(_ filter.Level, m string) { g.logs.WriteString(m) },
	})
	require.NoError(t, err)
	g.chain = c
	return g
}

const redactAll = `{providers: [{name: p, local: {detect: all}}], policies: [{on: both, use: [p], action: redact}]}`

// stream sends a response, in pieces, and returns what the client gets.
func (g *guarded) stream(s *chain.Stream, body string, next func() int) (got string, e *envoy) {
	e = &envoy{
		request:  pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}},
		response: pairs{{":status", "200"}, {"content-type", "text/event-stream"}},
	}
	s.Begin(e)
	s.RequestHeaders(false)
	s.RequestBody([]byte(`{"model":"m","stream":true,"messages":[]}`), true)
	s.ResponseHeaders(false)
	var out []byte
	for at := 0; at < len(body); {
		end := min(len(body), at+max(1, next()))
		n, with := s.ResponseBody([]byte(body[at:end]), end == len(body))
		if !s.HoldsResponse() {
			out = append(append(out, with...), body[at+n:end]...)
		}
		at = end
	}
	s.Done()
	return string(out), e
}

// eventsOf writes texts of some choices as a stream, in pieces.
func eventsOf(texts []string, draw func(n int) int) (body string) {
	var b strings.Builder
	left := slices.Clone(texts)
	for {
		var open []int
		for i := range left {
			if left[i] != "" {
				open = append(open, i)
			}
		}
		if len(open) == 0 {
			break
		}
		i := open[draw(len(open))]
		n := min(len(left[i]), 1+draw(12))
		for n < len(left[i]) && !utf8.RuneStart(left[i][n]) {
			n++
		}
		piece, _ := json.Marshal(left[i][:n])
		left[i] = left[i][n:]
		fmt.Fprintf(&b, "data: {\"choices\":[{\"index\":%d,\"delta\":{\"content\":%s}}]}\n\n", i, piece)
		if left[i] == "" && draw(2) == 0 {
			fmt.Fprintf(&b, "data: {\"choices\":[{\"index\":%d,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", i)
		}
	}
	return b.String() + "data: [DONE]\n\n"
}

// textsOf reads the texts of a stream.
func textsOf(t require.TestingT, body string, n int) []string {
	texts := make([]string, n)
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var e struct {
			Choices []struct {
				Index int
				Delta struct{ Content string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(data), &e), data)
		for _, c := range e.Choices {
			texts[c.Index] += c.Delta.Content
		}
	}
	return texts
}

// masked is what a text becomes.
func masked(d *detect.Detector, text string) string {
	var s detect.Scanner
	var b strings.Builder
	at := 0
	for _, f := range d.Find(&s, []byte(text)) {
		if f.From >= at {
			b.WriteString(text[at:f.From] + f.Kind.Label())
		}
		at = max(at, f.To)
	}
	return b.String() + text[at:]
}

// TestStreams: whatever a response says and however it is cut into events and chunks, the client gets each text as it would be
// masked whole; where nothing is found it gets the same bytes.
func TestStreams(t *testing.T) {
	g := guard(t, redactAll)
	all := detect.Set(0)
	for _, group := range detect.Groups {
		all |= group
	}
	d, err := detect.New(detect.Config{Kinds: all})
	require.Nil(t, err)
	corpus := lines.Generate(1)
	s := g.chain.NewStream()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
		texts := make([]string, 1+draw(3))
		clean := true
		for i := range texts {
			for range 1 + draw(3) {
				texts[i] += corpus[draw(len(corpus))].Text + []string{" ", "\n", ", ", "\u00a0"}[draw(4)]
			}
			clean = clean && masked(d, texts[i]) == texts[i]
		}
		body := eventsOf(texts, draw)
		got, e := g.stream(s, body, func() int { return 1 + draw(200) })
		require.Nil(t, e.refused)
		if clean {
			require.Equal(t, body, got)
		}
		for i, text := range textsOf(t, got, len(texts)) {
			require.Equal(t, masked(d, texts[i]), text)
		}
	})
}

// TestNothingIsTold: what was found stands in no refusal, log line, metric or explanation.
func TestNothingIsTold(t *testing.T) {
	for _, action := range []string{"block", "redact", "report"} {
		g := guard(t, strings.ReplaceAll(redactAll, "redact", action))
		e := &envoy{request: pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}}
		s := g.chain.NewStream()
		s.Begin(e)
		s.RequestHeaders(false)
		s.RequestBody([]byte(`{"model":"m","messages":[{"role":"user","content":"her SSN is 078-05-1120, AKIAIOSFODNN7EXAMPLE"}]}`), true)
		s.Done()
		require.Contains(t, e.why, "guardrail=p/ssn/"+action)
		require.Contains(t, fmt.Sprint(g.metrics), "request ssn "+action)
		told := e.why + fmt.Sprint(g.metrics) + g.logs.String()
		if e.refused != nil {
			told += fmt.Sprint(e.refused.Headers) + string(e.refused.Body)
		}
		require.Equal(t, action == "block", e.refused != nil)
		for _, secret := range []string{"078", "1120", "AKIA"} {
			require.NotContains(t, told, secret)
		}
	}
}

// TestRequests: what is redacted in a body is what is masked in its texts, and the rest of the body stays.
func TestRequests(t *testing.T) {
	g := guard(t, `{providers: [{name: p, local: {detect: all}}], policies: [{on: request, use: [p], action: redact}]}`)
	all := detect.Set(0)
	for _, group := range detect.Groups {
		all |= group
	}
	d, err := detect.New(detect.Config{Kinds: all})
	require.Nil(t, err)
	corpus := lines.Generate(2)
	s := g.chain.NewStream()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
		var want, body strings.Builder
		for i := range 1 + draw(4) {
			text := corpus[draw(len(corpus))].Text
			for _, b := range []struct {
				to   *strings.Builder
				text string
			}{{&body, text}, {&want, masked(d, text)}} {
				value, _ := json.Marshal(b.text)
				if strings.HasPrefix(b.text, "{") { // JSON in a string, of which only values are looked at
					continue
				}
				if i > 0 {
					b.to.WriteString(", ")
				}
				fmt.Fprintf(b.to, `{"role":"user", "content" : %s}`, value)
			}
		}
		raw := `{"messages":[` + strings.TrimPrefix(body.String(), ", ") + `],"seed":4111111111111111}`
		e := &envoy{request: pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}}
		s.Begin(e)
		s.RequestHeaders(false)
		for at := 0; at < len(raw); {
			end := min(len(raw), at+1+draw(60))
			s.RequestBody([]byte(raw[at:end]), end == len(raw))
			at = end
		}
		s.Done()
		require.Nil(t, e.refused)
		got := filter.Splice(nil, []byte(raw), e.body)
		require.JSONEq(t, `{"messages":[`+strings.TrimPrefix(want.String(), ", ")+`],"seed":4111111111111111}`, string(got))
		require.True(t, strings.HasSuffix(string(got), `],"seed":4111111111111111}`))
	})
}

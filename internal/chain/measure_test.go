package chain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// What is measured of an exchange: times and tokens of a whole answer that is no error, and of no other.
func TestWhatIsMeasured(t *testing.T) {
	const duration, ttft, in, out, unknown = "inlet_request_duration_ms/m,p,", "inlet_request_ttft_ms/m,p,", "inlet_input_tokens_total/m,p,",
		"inlet_output_tokens_total/m,p,", "inlet_usage_unknown_total/m,p,"
	for name, c := range map[string]struct {
		status, body string
		path         string // of a chat if ""
		whole        bool
		want         samples
	}{
		"whole":                   {"200", `{"usage":{"prompt_tokens":7,"completion_tokens":3}}`, "", true, samples{duration: 50, ttft: 20, in: 7, out: 3}},
		"no tokens of an answer":  {"200", `{"usage":{"prompt_tokens":7,"completion_tokens":0}}`, "", true, samples{duration: 50, ttft: 20, in: 7}},
		"no tokens of a prompt":   {"200", `{"usage":{"prompt_tokens":0,"completion_tokens":3}}`, "", true, samples{duration: 50, ttft: 20, out: 3, unknown: 1}},
		"no usage":                {"200", `{}`, "", true, samples{duration: 50, ttft: 20, unknown: 1}},
		"cut":                     {"200", `{"usage":{"prompt_tokens":7,"completion_tokens":3}}`, "", false, samples{}},
		"an error":                {"400", `{"usage":{"prompt_tokens":7,"completion_tokens":3}}`, "", true, samples{}},
		"a redirect":              {"307", `{}`, "", true, samples{duration: 50, ttft: 20}},
		"an API without usage":    {"200", `{}`, "/tokenize", true, samples{duration: 50, ttft: 20}},
		"a redirect of a replica": {"300", `{"usage":{"prompt_tokens":7,"completion_tokens":3}}`, "", true, samples{duration: 50, ttft: 20}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1_700_000_000, 0)
			metrics, f := samples{}, &scripted{name: "a", trace: new([]string), needs: filter.NeedRequest}
			f.request = func(x *filter.Exchange) filter.Verdict {
				x.Route = filter.Route{Model: "m", Pool: "p"}
				return filter.Next
			}
			made, err := chain.New([]byte("filters: [a: {}]"), []filter.Factory{
				{Name: "a", New: func(*conf.Object, *filter.Deps) filter.Filter { return f }},
			}, &filter.Deps{Now: func() time.Time { return now }, Rand: func() uint64 { return 1 }, Metrics: metrics, Log: func(filter.Level, string) {}})
			require.NoError(t, err)
			h := post()
			if c.path != "" {
				h.request[":path"] = c.path
			}
			h.response[":status"], h.served, h.details = c.status, "10.0.0.1:80", "via_upstream"
			s := made.NewStream()
			s.Begin(h)
			s.RequestHeaders(false)
			require.Equal(t, chain.Continue, s.RequestBody([]byte(body), true))
			now = now.Add(10 * time.Millisecond)
			s.ResponseHeaders(false)
			now = now.Add(10 * time.Millisecond)
			s.ResponseBody([]byte(c.body[:1]), false)
			now = now.Add(20 * time.Millisecond)
			s.ResponseBody([]byte(c.body[1:]), c.whole)
			now = now.Add(10 * time.Millisecond)
			s.Done()
			for _, series := range []string{duration, ttft, in, out, unknown} {
				require.Equal(t, c.want[series], metrics[series], series)
			}
		})
	}
}

// The name of the model was not restored in an answer that is malformed; of one that broke off, nobody knows.
func TestWhatBreaksOffIsNotMalformed(t *testing.T) {
	for answer, malformed := range map[string]int64{`{"a":]}`: 1, `{"model":"m"`: 0} {
		r := newRig(t, "")
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			x.RestoreModel("llama")
			return filter.Next
		}
		s, _ := r.send(post(), body)
		s.ResponseHeaders(false)
		s.ResponseBody([]byte(answer), malformed > 0)
		s.Done()
		require.Equal(t, malformed, r.metrics["inlet_model_not_restored_total/,,malformed"], answer)
	}
}

package sim

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// These tests run in a bubble of virtual time: durations are exact and cost nothing.

var testTiming = Timing{Overhead: 10 * time.Millisecond, PrefillRate: 1000, TokenTime: 5 * time.Millisecond, TokenTimePerSeq: time.Millisecond}

// took is how long one request of so many prompt and output tokens takes.
func took(s *Server, ctx context.Context, prompt string, tokens int) time.Duration {
	began := time.Now()
	body := fmt.Sprintf(`{"prompt":%q,"max_tokens":%d}`, prompt, tokens)
	req := httptest.NewRequestWithContext(ctx, "POST", "/v1/completions", strings.NewReader(body))
	func() {
		defer func() { recover() }() // an aborted request panics, as net/http wants it
		s.ServeHTTP(httptest.NewRecorder(), req)
	}()
	return time.Since(began)
}

func TestTimeOfOneRequest(t *testing.T) {
	prompt := strings.Repeat("abcd", 100) // 100 tokens: 6 whole blocks and 4 tokens
	for _, test := range []struct {
		name  string
		speed float64
		want  []time.Duration // of the same request, again and again
	}{
		{"real time", 1, []time.Duration{145 * time.Millisecond, 49 * time.Millisecond, 49 * time.Millisecond}},
		{"ten times as fast", 10, []time.Duration{14500 * time.Microsecond, 4900 * time.Microsecond}},
		{"half as fast", 0.5, []time.Duration{290 * time.Millisecond, 98 * time.Millisecond}},
		{"no delays", 0, []time.Duration{0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{Speed: test.speed, Timing: testTiming})
				for _, want := range test.want { // 100 or 4 uncached at 1000/s, 10 ms overhead, then 7 steps of 5 ms
					require.Equal(t, want, took(s, t.Context(), prompt, 8))
				}
			})
		})
	}
}

// TestPrefillsQueueAndStepsGrow: two at once share the one accelerator.
func TestPrefillsQueueAndStepsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, Timing: testTiming})
		var both sync.WaitGroup
		var first, second time.Duration
		both.Go(func() { first = took(s, t.Context(), strings.Repeat("abcd", 100), 2) })
		synctest.Wait()
		both.Go(func() { second = took(s, t.Context(), strings.Repeat("efgh", 50), 2) })
		both.Wait()
		require.Equal(t, 116*time.Millisecond, first, "110 to the first token, one step of 5+1")
		require.Equal(t, 165*time.Millisecond, second, "its prefill waits: 100+50+10, one step alone")
	})
}

func TestQueueIsFIFO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, MaxNumSeqs: 1, Timing: testTiming})
		var all sync.WaitGroup
		var order []int
		var mu sync.Mutex
		gone, leave := context.WithCancel(t.Context())
		for i := range 5 {
			all.Go(func() {
				ctx := t.Context()
				if i == 2 {
					ctx = gone
				}
				took(s, ctx, "x", 1)
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
			})
			synctest.Wait()
		}
		require.Equal(t, 4, waiting(s))
		leave() // the third gives up while it waits
		synctest.Wait()
		require.Equal(t, 3, waiting(s))
		all.Wait()
		require.Equal(t, []int{2, 0, 1, 3, 4}, order)
		requireIdle(t, s)
	})
}

// TestNobodyOvertakes: a request that does not fit into the KV cache holds up smaller ones behind it, as in vLLM; when
// it gives up they go on.
func TestNobodyOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, KVBlocks: 10, Timing: testTiming})
		var all sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		all.Go(func() { took(s, t.Context(), strings.Repeat("a", 400), 20) }) // 8 of 10 blocks
		synctest.Wait()
		all.Go(func() { took(s, ctx, strings.Repeat("b", 400), 20) }) // 8 more
		synctest.Wait()
		all.Go(func() { took(s, t.Context(), "c", 1) }) // 1
		synctest.Wait()
		require.Equal(t, 2, waiting(s))
		require.InDelta(t, 0.8, kvUsage(s), 1e-9)
		leave()
		synctest.Wait()
		require.Equal(t, 0, waiting(s))
		require.EqualValues(t, 2, s.engine.running.Load())
		all.Wait()
		requireIdle(t, s)
	})
}

// TestClientGone: whoever leaves in the middle of an answer gives everything back at once.
func TestClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, Timing: testTiming})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		require.Equal(t, 30*time.Millisecond, took(s, ctx, "x", 1000))
		requireIdle(t, s)
		require.EqualValues(t, 1, s.engine.stats.success[2], "an abort")
		require.EqualValues(t, 4, s.engine.stats.generatedTokens, "at 11, 16, 21 and 26 ms")
	})
}

func TestDelayFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		f, err := ParseFault("delay=200ms")
		require.NoError(t, err)
		s.SetFault(f)
		require.Equal(t, 200*time.Millisecond, took(s, t.Context(), "x", 8))
	})
}

func TestTimesInMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, MaxNumSeqs: 1, Timing: testTiming})
		var both sync.WaitGroup
		for range 2 { // each 1 ms prefill, 10 ms overhead, 4 steps of 5 ms
			both.Go(func() { took(s, t.Context(), "x", 5) })
			synctest.Wait()
		}
		both.Wait()
		st := &s.engine.stats
		for name, check := range map[string]struct {
			h    histogram
			n    uint64
			want float64
		}{
			"time to first token": {st.firstToken, 2, 0.011 + 0.042},
			"inter-token":         {st.interToken, 8, 8 * 0.005},
			"per output token":    {st.perOutputToken, 2, 2 * 0.005},
			"queue":               {st.queue, 2, 0.031},
			"prefill":             {st.prefill, 2, 2 * 0.011},
			"decode":              {st.decode, 2, 2 * 0.020},
			"inference":           {st.inference, 2, 2 * 0.031},
			"end to end":          {st.endToEnd, 2, 0.031 + 0.062},
		} {
			require.Equal(t, check.n, check.h.n, name)
			require.InDelta(t, check.want, check.h.sum, 1e-9, name)
		}
	})
}

func waiting(s *Server) int {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return s.engine.waiting.Len()
}

func kvUsage(s *Server) float64 {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return s.engine.kv.usage()
}

func TestHistogram(t *testing.T) {
	h := histogram{buckets: []float64{1, 2.5}}
	for _, v := range []float64{0, 1, 1.5, 2.5, 3} {
		h.observe(v)
	}
	text := metricsText{labels: labels("engine", "0", "model_name", "m")}
	text.histogram("x", "y", &h)
	require.Contains(t, string(text.buf), `# HELP x y
# TYPE x histogram
x_bucket{engine="0",le="1.0",model_name="m"} 2.0
x_bucket{engine="0",le="2.5",model_name="m"} 4.0
x_bucket{engine="0",le="+Inf",model_name="m"} 5.0
x_count{engine="0",model_name="m"} 5.0
x_sum{engine="0",model_name="m"} 8.0
`)
	require.Equal(t, []float64{1, 2, 5, 10, 20, 50, 100}, tokenBuckets(199))
}

func requireIdle(t *testing.T, s *Server) {
	t.Helper()
	require.Zero(t, s.engine.running.Load())
	require.Zero(t, waiting(s))
	require.Zero(t, kvUsage(s))
}

func TestConfigValidate(t *testing.T) {
	require.NoError(t, Config{}.Validate())
	for want, cfg := range map[string]Config{
		`name "ä" is not printable ASCII`:                                     {Name: "ä"},
		"a model name is empty":                                               {LoRAs: []string{""}},
		"max LoRAs is -1, must be at least 1":                                 {MaxLoRAs: -1},
		"max num seqs is -1, must be at least 1":                              {MaxNumSeqs: -1},
		"max body is -1 bytes, must be at least 1":                            {MaxBody: -1},
		"max model len is 200 tokens, but the KV cache holds 160":             {MaxModelLen: 200, KVBlocks: 10},
		"speed is -1, must be 0 or more":                                      {Speed: -1},
		"prefill rate is 0 tokens a second, must be more than 0":              {Timing: Timing{TokenTime: 1}},
		"overhead is -1ns, must be 0 or more":                                 {Timing: Timing{Overhead: -1, PrefillRate: 1}},
		"max LoRAs is -1, must be at least 1\nspeed is -1, must be 0 or more": {MaxLoRAs: -1, Speed: -1},
	} {
		require.EqualError(t, cfg.Validate(), want)
	}
	require.Panics(t, func() { New(Config{Speed: -1}) })
}

// FuzzParse: no body breaks the parser, and what it accepts makes sense.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"x"}]}`, `{"prompt":["a",[1,2],3]}`, `{"input":{}}`, `{`, ``, `[]`, `{"messages":[[]]}`,
		`{"messages":[{"content":[{"text":"a"},1,{"image_url":{}}],"tool_calls":[{}]}],"tools":[],"stream":true,"stream_options":{"include_usage":null}}`,
		`{"max_tokens":1e9,"prompt":""}`, `{"dimensions":-1,"input":"\ud800"}`, `{"stream_options":3,"stream":true,"prompt":1}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var q request
		for _, api := range []api{apiChat, apiCompletions, apiEmbeddings} {
			if err := q.parse(api, []byte(body)); err != nil {
				var apiErr *apiError
				require.ErrorAs(t, err, &apiErr)
				require.Equal(t, 400, apiErr.status)
				continue
			}
			require.Positive(t, q.maxTokens)
			require.True(t, q.dimensions > 0 && q.dimensions <= maxDimensions)
			if q.includeUsage {
				require.True(t, q.stream)
			}
			for i, end := range q.inputEnds {
				require.True(t, end <= len(q.prompt) && (i == 0 || end >= q.inputEnds[i-1]))
			}
		}
	})
}

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

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// These tests run in virtual time: durations are exact and cost nothing.

var testTiming = engine.Timing{Overhead: 10 * time.Millisecond, PrefillRate: 1000, TokenTime: 5 * time.Millisecond, TokenTimePerSeq: time.Millisecond}

// took returns how long one request with this many prompt and output tokens takes.
func took(s *Server, ctx context.Context, prompt string, tokens int) time.Duration {
	began := time.Now()
	body := fmt.Sprintf(`{"prompt":%q,"max_tokens":%d}`, prompt, tokens)
	req := httptest.NewRequestWithContext(ctx, "POST", "/v1/completions", strings.NewReader(body))
	func() {
		defer func() { recover() }() // an aborted request panics, as net/http requires
		s.ServeHTTP(httptest.NewRecorder(), req)
	}()
	return time.Since(began)
}

func TestTimeOfOneRequest(t *testing.T) {
	prompt := strings.Repeat("abcd", 100) // 100 tokens: 6 whole blocks and 4 tokens
	for _, test := range []struct {
		name  string
		speed float64
		want  []time.Duration // of the same request, repeated
	}{
		{"real time", 1, []time.Duration{145 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond}},
		{"ten times as fast", 10, []time.Duration{14500 * time.Microsecond, 5000 * time.Microsecond}},
		{"half as fast", 0.5, []time.Duration{290 * time.Millisecond, 100 * time.Millisecond}},
		{"no delays", 0, []time.Duration{0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{Speed: test.speed, Timing: testTiming})
				for _, want := range test.want { // 10 ms overhead, 100 uncached at 1000/s or 4 in one step of 5 ms, then 7 more
					require.Equal(t, want, took(s, t.Context(), prompt, 8))
				}
			})
		})
	}
}

// TestBatch: two requests share the accelerator, starting with the step after the second one has arrived.
func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, Timing: testTiming})
		var both sync.WaitGroup
		var first, second time.Duration
		both.Go(func() { first = took(s, t.Context(), strings.Repeat("abcd", 100), 3) })
		time.Sleep(50 * time.Millisecond)
		both.Go(func() { second = took(s, t.Context(), strings.Repeat("efgh", 50), 2) })
		both.Wait()
		require.Equal(t, (110+51+6)*time.Millisecond, first, "its second token comes with the other's prompt")
		require.Equal(t, (60+51+6)*time.Millisecond, second, "it waits 60 for the first one's prompt")
	})
}

func TestQueueIsFIFO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timing := testTiming
		timing.Overhead = 0
		s := New(Config{Speed: 1, MaxNumSeqs: 1, Timing: timing})
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
		require.Equal(t, 4, look(s).waiting)
		leave() // the third gives up while it waits
		synctest.Wait()
		require.Equal(t, 3, look(s).waiting)
		all.Wait()
		require.Equal(t, []int{2, 0, 1, 3, 4}, order)
		requireIdle(t, s)
	})
}

// TestNobodyOvertakes: a request that does not fit into the KV cache blocks smaller ones behind it, as in vLLM; when it
// gives up they continue with the next step.
func TestNobodyOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, KVBlocks: 10, Timing: testTiming})
		var all sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		all.Go(func() { took(s, t.Context(), strings.Repeat("a", 400), 20) }) // 7 of 10 blocks
		synctest.Wait()
		all.Go(func() { took(s, ctx, strings.Repeat("b", 400), 20) }) // 7 more
		synctest.Wait()
		all.Go(func() { took(s, t.Context(), "c", 1) }) // 1
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, 2, look(s).waiting)
		require.InDelta(t, 0.7, look(s).kvUse, 1e-9)
		leave()
		time.Sleep(91 * time.Millisecond)
		require.Equal(t, 0, look(s).waiting)
		require.Equal(t, 2, look(s).running)
		all.Wait()
		requireIdle(t, s)
	})
}

// TestClientGone: a client that leaves in the middle of a response frees everything at once.
func TestClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, Timing: testTiming})
		ctx, cancel := context.WithTimeout(t.Context(), 32*time.Millisecond)
		defer cancel()
		require.Equal(t, 32*time.Millisecond, took(s, ctx, "x", 1000))
		requireIdle(t, s)
		require.EqualValues(t, 1, look(s).success[2], "an abort")
		require.EqualValues(t, 4, look(s).GeneratedTokens, "at 15, 20, 25 and 30 ms")
	})
}

// TestEngines: requests go to the engine with the least to do, each engine has its own cache and its own series.
func TestEngines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Speed: 1, Engines: 2, MaxNumSeqs: 1, Timing: testTiming})
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { took(s, t.Context(), "x", 5) })
			time.Sleep(11 * time.Millisecond)
		}
		text := string(s.model.appendMetrics(nil))
		require.Contains(t, text, `vllm:num_requests_running{engine="0",model_name="`+DefaultModel+`"} 1.0`)
		require.Contains(t, text, `vllm:num_requests_running{engine="1",model_name="`+DefaultModel+`"} 1.0`)
		require.Contains(t, text, `vllm:num_requests_waiting{engine="0",model_name="`+DefaultModel+`"} 1.0`)
		require.Contains(t, text, `vllm:num_requests_waiting{engine="1",model_name="`+DefaultModel+`"} 0.0`)
		all.Wait()
		requireIdle(t, s)
	})
}

// TestLoRASeries: a combination of adapters stays in the metrics with the time of its last occurrence.
func TestLoRASeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timing := testTiming
		timing.LoRALoad = 100 * time.Millisecond
		s := New(Config{Speed: 1, LoRAs: []string{"sql", "chat"}, Timing: timing})
		require.Empty(t, look(s).loras, "nothing has been yet")
		ask := func(model string) time.Duration {
			began := time.Now()
			body := `{"prompt":"x","max_tokens":1,"model":"` + model + `"}`
			s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "POST", "/v1/completions", strings.NewReader(body)))
			return time.Since(began)
		}
		began := time.Now()
		var both sync.WaitGroup
		both.Go(func() { require.Equal(t, 115*time.Millisecond, ask("sql")) })
		synctest.Wait()
		both.Go(func() { require.Equal(t, 220*time.Millisecond, ask("chat"), "the only slot is taken") })
		both.Wait()
		require.Equal(t, 15*time.Millisecond, ask("chat"), "it is loaded")
		got := map[string]time.Duration{}
		for _, l := range look(s).loras {
			got[l.running+"/"+l.waiting] = l.at.Sub(began)
		}
		require.Equal(t, map[string]time.Duration{"/": 235 * time.Millisecond, "sql/chat": 10 * time.Millisecond, "chat/": 230 * time.Millisecond}, got)
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
		for range 2 { // each 10 ms overhead, 5 steps of 5 ms
			both.Go(func() { took(s, t.Context(), "x", 5) })
			synctest.Wait()
		}
		both.Wait()
		st := look(s)
		for name, check := range map[string]struct {
			h    histogram
			n    uint64
			want float64
		}{
			"time to first token": {st.firstToken, 2, 0.015 + 0.040},
			"inter-token":         {st.interToken, 8, 8 * 0.005},
			"per output token":    {st.perOutputToken, 2, 2 * 0.005},
			"queue":               {st.queue, 2, 0.025},
			"prefill":             {st.prefill, 2, 2 * 0.005},
			"decode":              {st.decode, 2, 2 * 0.020},
			"inference":           {st.inference, 2, 2 * 0.025},
			"end to end":          {st.endToEnd, 2, 0.035 + 0.060},
		} {
			require.Equal(t, check.n, check.h.n, name)
			require.InDelta(t, check.want, check.h.sum, 1e-9, name)
		}
	})
}

// look returns what a scrape sees of the first engine.
func look(s *Server) snapshot { return s.model.snapshots()[0] }

func TestHistogram(t *testing.T) {
	h := histogram{buckets: []float64{1, 2.5}}
	for _, v := range []float64{0, 1, 1.5, 2.5, 3} {
		h.observe(v)
	}
	text := metricsText{labels: [][]label{{{"engine", "0"}, {"model_name", "m"}}}, ranks: make([]snapshot, 1)}
	text.histogram("x", "y", func(*snapshot) *histogram { return &h })
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
	require.Zero(t, look(s).running)
	require.Zero(t, look(s).waiting)
	require.Zero(t, look(s).kvUse)
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
		"prefill rate is 0 tokens a second, must be more than 0":              {Timing: engine.Timing{TokenTime: 1}},
		"overhead is -1ns, must be 0 or more":                                 {Timing: engine.Timing{Overhead: -1, PrefillRate: 1}},
		"max LoRAs is -1, must be at least 1\nspeed is -1, must be 0 or more": {MaxLoRAs: -1, Speed: -1},
		`dialect "tgi" is not one of [vllm sglang trtllm triton jetstream]`:   {Dialect: "tgi"},
		"engines is -1, must be at least 1":                                   {Engines: -1},
	} {
		require.EqualError(t, cfg.Validate(), want)
	}
	require.Panics(t, func() { New(Config{Speed: -1}) })
}

// FuzzParse: no body breaks the parser, and what it accepts is plausible.
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
		for _, api := range []api{apiChat, apiCompletions, apiMessages, apiResponses, apiEmbeddings, apiRerank, apiScore} {
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

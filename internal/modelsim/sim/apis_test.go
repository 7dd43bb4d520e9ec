package sim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
)

// named are the events of a stream with event names: the name, and the data without what changes from run to run.
func named(t *testing.T, stream string) (events []string) {
	t.Helper()
	require.True(t, strings.HasSuffix(stream, "\n\n"), stream)
	for _, event := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		name, data, ok := strings.Cut(event, "\ndata: ")
		require.True(t, ok && strings.HasPrefix(name, "event: ") && gjson.Valid(data), event)
		require.Equal(t, strings.TrimPrefix(name, "event: "), gjson.Get(data, "type").Str)
		events = append(events, data)
	}
	return events
}

func TestMessages(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"m"}})
	url := server.URL() + "/v1/messages"
	const body = `"model":"m","max_tokens":2,"system":[{"type":"text","text":"be brief"}],"messages":[{"role":"u","content":"hello"}]`
	res, answer := post(t, url, "{"+body+"}")
	require.Equal(t, http.StatusOK, res.StatusCode, answer)
	id := gjson.Get(answer, "id").Str
	require.True(t, strings.HasPrefix(id, "chatcmpl-"))
	require.JSONEq(t, `{"id":"`+id+`","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"The quick"}],"stop_reason":"max_tokens",
		"usage":{"input_tokens":6,"output_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}`, answer)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"stream":true,`+body+"}"))
	require.NoError(t, err)
	req.Header.Set("X-Request-Id", "r1")
	res, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	stream, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, []string{
		`{"type":"message_start","message":{"id":"chatcmpl-r1","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,` +
			`"usage":{"input_tokens":6,"output_tokens":0}}}`,
		`{"type":"content_block_start","content_block":{"type":"text","text":""},"index":0}`,
		`{"type":"content_block_delta","delta":{"type":"text_delta","text":"The"},"index":0}`,
		`{"type":"content_block_delta","delta":{"type":"text_delta","text":" quick"},"index":0}`,
		`{"type":"content_block_stop","index":0}`,
		`{"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},` +
			`"usage":{"input_tokens":6,"output_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}`,
		`{"type":"message_stop"}`,
	}, named(t, string(stream)))

	long := `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"` + strings.Repeat("abcd", 100) + `"}]}`
	_, answer = post(t, url, long)
	require.Equal(t, `{"input_tokens":6,"output_tokens":1,"cache_creation_input_tokens":96,"cache_read_input_tokens":0}`, gjson.Get(answer, "usage").Raw)
	_, answer = post(t, url, long)
	require.Equal(t, `{"input_tokens":6,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":96}`, gjson.Get(answer, "usage").Raw,
		"what was cached is no input")
	// In a stream vLLM reports the whole prompt first, and at the end how much of it was cached.
	streamed := func(fault string) (first, last string) {
		_, answer, err := call(t, http.MethodPost, url, `{"stream":true,`+long[1:], fault)
		require.NoError(t, err)
		events := named(t, answer)
		return gjson.Get(events[0], "message.usage").Raw, gjson.Get(events[len(events)-2], "usage").Raw
	}
	first, last := streamed("")
	require.Equal(t, `{"input_tokens":102,"output_tokens":0}`, first)
	require.Equal(t, `{"input_tokens":6,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":96}`, last)
	first, last = streamed("no-cached")
	require.Equal(t, `{"input_tokens":102,"output_tokens":0}`, first)
	require.Equal(t, `{"input_tokens":102,"output_tokens":1}`, last)
	chat := server.URL() + "/v1/chat/completions"
	_, answer, err = call(t, http.MethodPost, chat, long, "no-cached")
	require.NoError(t, err)
	require.Equal(t, `{"prompt_tokens":102,"total_tokens":103,"completion_tokens":1,"prompt_tokens_details":null,"completion_tokens_details":null}`, gjson.Get(answer, "usage").Raw)
	_, answer, err = call(t, http.MethodPost, chat, `{"stream":true,"stream_options":{"include_usage":true},`+long[1:], "no-cached")
	require.NoError(t, err)
	require.Contains(t, answer, `"choices":[],"usage":{"prompt_tokens":102,"total_tokens":103,"completion_tokens":1},`)
}

// TestMessagesErrors: errors have Anthropic's form.
func TestMessagesErrors(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"m"}, StrictModels: true})
	for _, test := range []struct {
		body, fault   string
		status        int
		kind, message string
	}{
		{`{"model":"m","messages":[]}`, "", 400, "invalid_request_error", "Field required: max_tokens"},
		{`{"model":"gpt","max_tokens":1,"messages":[]}`, "", 404, "NotFoundError", "The model `gpt` does not exist. Valid aliases: m."},
		{`{}`, "status=429", 429, "rate_limit_error", "This is a fault on demand."},
		{`{}`, "status=503", 503, "api_error", "This is a fault on demand."},
	} {
		res, answer, err := call(t, http.MethodPost, server.URL()+"/v1/messages", test.body, test.fault)
		require.NoError(t, err)
		require.Equal(t, test.status, res.StatusCode)
		require.JSONEq(t, fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q}}`, test.kind, test.message), answer)
	}
}

// TestResponses: OpenAI's own client understands response and stream.
func TestResponses(t *testing.T) {
	for _, echo := range []bool{false, true} {
		server := start(t, sim.Config{Models: []string{"m"}, Echo: echo})
		client := openai.NewClient(option.WithBaseURL(server.URL()+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
		params := responses.ResponseNewParams{
			Model: "m", MaxOutputTokens: openai.Int(4), Instructions: openai.String("be brief"),
			Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("hello \"you\"")},
		}
		text, status := "The quick brown fox", "incomplete"
		if echo {
			text, status = "hello \"you\"", "completed"
		}
		check := func(r *responses.Response, cached int64) {
			require.Equal(t, text, r.OutputText())
			require.EqualValues(t, status, r.Status)
			require.EqualValues(t, 9, r.Usage.InputTokens)
			require.EqualValues(t, cached, r.Usage.InputTokensDetails.CachedTokens)
			require.EqualValues(t, r.Usage.OutputTokens+9, r.Usage.TotalTokens)
			require.EqualValues(t, 4, r.MaxOutputTokens)
		}
		whole, err := client.Responses.New(t.Context(), params)
		require.NoError(t, err)
		check(whole, 0)

		stream := client.Responses.NewStreaming(t.Context(), params)
		var kinds []string
		var streamed strings.Builder
		for n := int64(0); stream.Next(); n++ {
			event := stream.Current()
			require.Equal(t, n, event.SequenceNumber)
			kinds = append(kinds, event.Type)
			if event.Type == "response.output_text.delta" {
				streamed.WriteString(event.Delta)
			}
			if event.Type == "response.completed" {
				check(&event.Response, 0)
			}
		}
		require.NoError(t, stream.Err())
		require.Equal(t, text, streamed.String())
		require.Equal(t, []string{
			"response.created", "response.in_progress", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
			"response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
		}, slices.Compact(kinds))
	}
}

// TestResponsesInput: items of all kinds are prompt.
func TestResponsesInput(t *testing.T) {
	server := start(t, sim.Config{})
	for _, test := range []struct {
		input  string
		tokens int64
	}{
		{`"hello"`, 3}, // "\nuser\nhello"
		{`[{"role":"user","content":"hello"}]`, 3},
		{`[{"role":"user","content":[{"type":"input_text","text":"hello"}]}]`, 3},
		{`[{"role":"user","content":"hello"},{"type":"function_call_output","call_id":"c","output":"42"}]`, 4},
	} {
		_, answer := post(t, server.URL()+"/v1/responses", `{"input":`+test.input+`}`)
		require.Equal(t, test.tokens, gjson.Get(answer, "usage.input_tokens").Int(), "%s: %s", test.input, answer)
	}
	res, answer := post(t, server.URL()+"/v1/responses", `{"input":7}`)
	require.Equal(t, 400, res.StatusCode)
	require.Equal(t, "Input should be a valid string or list: input", gjson.Get(answer, "error.message").Str)
}

// TestTranscription: the transcript describes what arrived; OpenAI's own client understands it.
func TestTranscription(t *testing.T) {
	server := start(t, sim.Config{})
	client := openai.NewClient(option.WithBaseURL(server.URL()+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	sound := bytes.Repeat([]byte{0, 255, '\r', '\n', '-'}, 20000)
	got, err := client.Audio.Transcriptions.New(t.Context(), openai.AudioTranscriptionNewParams{
		Model: "whisper-large", File: openai.File(bytes.NewReader(sound), "talk \"1\".wav", "audio/wav"),
	})
	require.NoError(t, err)
	require.Regexp(t, `^model whisper-large, file talk "1"\.wav of 100000 bytes, 2 fields in 100\d{3} bytes$`, got.Text)

	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	require.NoError(t, w.WriteField("model", "w"))
	require.NoError(t, w.Close())
	for name, test := range map[string]struct{ contentType, body, message string }{
		"no file":   {w.FormDataContentType(), form.String(), "Field required: file"},
		"no form":   {"application/json", "{}", "Field required: file (the body is not multipart/form-data)"},
		"truncated": {w.FormDataContentType(), form.String()[:form.Len()-20], "The form is malformed: unexpected EOF"},
	} {
		res, err := http.Post(server.URL()+"/v1/audio/transcriptions", test.contentType, strings.NewReader(test.body))
		require.NoError(t, err)
		answer, err := io.ReadAll(res.Body)
		res.Body.Close()
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, res.StatusCode, name)
		require.Equal(t, test.message, gjson.GetBytes(answer, "error.message").Str, name)
	}
}

func TestRerankAndScore(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"m"}})
	_, answer := post(t, server.URL()+"/v1/rerank", `{"query":"q","documents":["a","b",{"text":"c"},"d"],"top_n":3}`)
	scores := map[string]float64{}
	last := 1.0
	for _, result := range gjson.Get(answer, "results").Array() {
		score := result.Get("relevance_score").Num
		require.LessOrEqual(t, score, last)
		last = score
		require.Equal(t, result.Get("document.text").Str, []string{"a", "b", "c", "d"}[result.Get("index").Int()])
		scores[result.Get("document.text").Str] = score
	}
	require.Len(t, scores, 3)
	require.EqualValues(t, 2, gjson.Get(answer, "usage.total_tokens").Int())

	_, answer = post(t, server.URL()+"/v1/score", `{"text_1":"q","text_2":["a","b","c","d"]}`)
	for i, document := range []string{"a", "b", "c", "d"} {
		if score, known := scores[document]; known {
			require.Equal(t, score, gjson.Get(answer, fmt.Sprintf("data.%d.score", i)).Num, "the same pair, the same score")
		}
	}
	for body, message := range map[string]string{
		`{"text_1":"q"}`: "Field required: text_2",
		`{"text_1":["q","r"],"text_2":["a","b","c"]}`:    "Input lengths must be either 1:1, 1:N or N:N",
		`{"text_1":[],"text_2":"a"}`:                     "At least one text_pair element must be given",
		`{"text_1":"q","text_2":{"a":[1,{"text":"b"}]}}`: "",
	} {
		_, answer := post(t, server.URL()+"/score", body)
		require.Equal(t, message, gjson.Get(answer, "error.message").Str, body)
	}
	_, answer = post(t, server.URL()+"/rerank", `{"query":"q"}`)
	require.Equal(t, "Field required: documents", gjson.Get(answer, "error.message").Str)
}

// TestNoUsageAnywhere: the fault applies to every API.
func TestNoUsageAnywhere(t *testing.T) {
	server := start(t, sim.Config{})
	for path, body := range map[string]string{
		"messages":  `{"max_tokens":1,"messages":[]}`,
		"responses": `{"input":"x"}`,
		"rerank":    `{"query":"q","documents":["a"]}`,
		"score":     `{"text_1":"q","text_2":"a"}`,
	} {
		for _, stream := range []string{"", `"stream":true,`} {
			res, answer, err := call(t, http.MethodPost, server.URL()+"/v1/"+path, "{"+stream+body[1:], "no-usage")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, res.StatusCode, answer)
			require.NotRegexp(t, `"usage":\{`, answer, path)
		}
	}
}

// TestDialects: each kind of server exposes its own names, in well-formed text.
func TestDialects(t *testing.T) {
	prompt, err := json.Marshal(strings.Repeat("abcd", 40))
	require.NoError(t, err)
	for _, test := range []struct {
		cfg  sim.Config
		want map[string]float64
		not  string
	}{
		{sim.Config{Dialect: sim.VLLM, OldKVName: true}, map[string]float64{
			"vllm:gpu_cache_usage_perc{engine=0,model_name=a-b}":              0,
			"vllm:gpu_prefix_cache_hits_total{engine=0,model_name=a-b}":       32,
			"vllm:gpu_prefix_cache_queries_total{engine=0,model_name=a-b}":    80,
			"vllm:generation_tokens_total{engine=0,model_name=a-b}":           6,
			"vllm:request_prompt_tokens_count{engine=0,model_name=a-b}":       2,
			"vllm:time_to_first_token_seconds_count{engine=0,model_name=a-b}": 2,
		}, "kv_cache_usage_perc"},
		{sim.Config{Dialect: sim.SGLang, KVBlocks: 100, Engines: 2}, map[string]float64{
			"sglang:num_running_reqs{dp_rank=1,engine_type=unified,model_name=a-b,pp_rank=0,tp_rank=0}":                             0,
			"sglang:num_queue_reqs{dp_rank=0,engine_type=unified,model_name=a-b,pp_rank=0,tp_rank=0}":                               0,
			"sglang:token_usage{dp_rank=0,engine_type=unified,model_name=a-b,pp_rank=0,tp_rank=0}":                                  0,
			"sglang:num_requests_total{dp_rank=0,engine_type=unified,model_name=a-b,pp_rank=0,tp_rank=0}":                           1,
			"sglang:num_requests_total{dp_rank=1,engine_type=unified,model_name=a-b,pp_rank=0,tp_rank=0}":                           1,
			"sglang:cache_config_info{dp_rank=1,engine_type=unified,model_name=a-b,num_pages=100,page_size=16,pp_rank=0,tp_rank=0}": 1,
		}, "vllm:"},
		{sim.Config{Dialect: sim.TensorRTLLM, KVBlocks: 100}, map[string]float64{
			"trtllm_num_requests_running{engine_type=pytorch,model_name=a-b}":                         0,
			"trtllm_num_requests_waiting{engine_type=pytorch,model_name=a-b}":                         0,
			"trtllm_kv_cache_utilization{engine_type=pytorch,model_name=a-b}":                         0,
			"trtllm_kv_cache_hit_rate{engine_type=pytorch,model_name=a-b}":                            0.4,
			"trtllm_kv_cache_tokens_per_block{engine_type=pytorch,model_name=a-b}":                    16,
			"trtllm_kv_cache_max_blocks{engine_type=pytorch,model_name=a-b}":                          100,
			"trtllm_kv_cache_free_blocks{engine_type=pytorch,model_name=a-b}":                         100,
			"trtllm_request_success_total{engine_type=pytorch,finished_reason=length,model_name=a-b}": 2,
		}, "vllm:"},
		{sim.Config{Dialect: sim.Triton, KVBlocks: 100}, map[string]float64{
			"nv_trt_llm_request_metrics{model=a-b,request_type=waiting,version=1}":                  0,
			"nv_trt_llm_request_metrics{model=a-b,request_type=scheduled,version=1}":                0,
			"nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction,model=a-b,version=1}":   0,
			"nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per,model=a-b,version=1}": 16,
			"nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max,model=a-b,version=1}":        100,
			"nv_inference_pending_request_count{model=a-b,version=1}":                               0,
			"nv_inference_exec_count{model=a-b,version=1}":                                          6,
		}, ".0\n"},
		{sim.Config{Dialect: sim.JetStream}, map[string]float64{
			"jetstream_prefill_backlog_size{id=r1,model_name=a_b}":        0,
			"jetstream_slots_used_percentage{id=r1,idx=0,model_name=a_b}": 0,
		}, "vllm:"},
	} {
		t.Run(string(test.cfg.Dialect), func(t *testing.T) {
			test.cfg.Name, test.cfg.Models = "r1", []string{"a-b"}
			server := start(t, test.cfg)
			for range 2 {
				post(t, server.URL()+"/v1/completions", `{"max_tokens":3,"prompt":`+string(prompt)+`}`)
			}
			got := scrape(t, server)
			for name, want := range test.want {
				value, found := got[name]
				require.True(t, found, "%s is missing", name)
				require.Equal(t, want, value, name)
			}
			_, text, err := call(t, http.MethodGet, server.URL()+"/prometheus/metrics", "", "")
			require.NoError(t, err)
			require.NotContains(t, text, test.not)
		})
	}
}

// TestDialectsUnderLoad: a running and a waiting request are visible in every dialect.
func TestDialectsUnderLoad(t *testing.T) {
	for dialect, want := range map[sim.Dialect][]string{ // running, waiting, KV use
		sim.VLLM:        {`vllm:num_requests_running{engine="0",model_name="m"} 1.0`, `vllm:num_requests_waiting{engine="0",model_name="m"} 1.0`, `vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.1`},
		sim.SGLang:      {`sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 1.0`, `sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 1.0`, `sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.1`},
		sim.TensorRTLLM: {`trtllm_num_requests_running{engine_type="pytorch",model_name="m"} 1.0`, `trtllm_num_requests_waiting{engine_type="pytorch",model_name="m"} 1.0`, `trtllm_kv_cache_utilization{engine_type="pytorch",model_name="m"} 0.1`},
		sim.Triton:      {`nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 1`, `nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 1`, `nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.1`, `nv_inference_pending_request_count{model="m",version="1"} 1`},
		sim.JetStream:   {`jetstream_prefill_backlog_size{id="r1",model_name="m"} 1.0`, `jetstream_slots_used_percentage{id="r1",idx="0",model_name="m"} 1.0`},
	} {
		t.Run(string(dialect), func(t *testing.T) {
			server := start(t, sim.Config{Name: "r1", Models: []string{"m"}, Dialect: dialect, MaxNumSeqs: 1, KVBlocks: 10})
			for range 2 {
				go func() { // ends with the server
					req, err := http.NewRequest(http.MethodPost, server.URL()+"/v1/completions", strings.NewReader(`{"prompt":"x"}`))
					if err != nil {
						panic(err)
					}
					req.Header.Set(sim.FaultHeader, "hang")
					if res, err := http.DefaultClient.Do(req); err == nil {
						res.Body.Close()
					}
				}()
			}
			eventually(t, func() bool {
				_, text, err := call(t, http.MethodGet, server.URL()+"/metrics", "", "")
				require.NoError(t, err)
				lines := strings.Split(text, "\n")
				for _, line := range want {
					if !slices.Contains(lines, line) {
						return false
					}
				}
				return true
			})
		})
	}
}

package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"
)

// testdata/vllm contains responses of a real vLLM; these tests compare the simulation with them.
type recording struct {
	Exchanges []struct {
		Name, Method, Path, Request string
		Status                      int
		Headers                     map[string]string
		Answer                      string
	}
	Cached []struct {
		Model, Salt string
		Prompt      []any // a letter, how often, another one, how often
		Usage       usage
	}
	CachedChat []struct {
		Request json.RawMessage
		Usage   usage
	}
}

type usage struct {
	PromptTokens        int `json:"prompt_tokens"`
	PromptTokensDetails struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

func readRecording(t *testing.T) (r recording) {
	text, err := os.ReadFile("testdata/vllm/exchanges.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &r))
	return r
}

// likeRecorded is configured like the recorded server.
func likeRecorded() *Server {
	return New(Config{
		Models: []string{"tiny", "tiny-too"}, LoRAs: []string{"sql", "law"}, MaxLoRAs: 2, StrictModels: true,
		MaxModelLen: 4096, KVBlocks: 8192, BlockSize: 128, BytesPerToken: 1,
	})
}

func call(s *Server, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

// told are the members whose values are compared, not only their presence and type. Errors have more of them.
var told = []string{
	"object", "type", "role", "finish_reason", "stop_reason", "status", "owned_by", "parent", "max_model_len", "index", "model", "code", "detail",
	"prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens", "sequence_number",
}

// shapeOf lists the members of a document in their order, each with its type, and with its value if told has it.
func shapeOf(path string, v gjson.Result, told []string) (lines []string) {
	switch {
	case v.IsObject():
		v.ForEach(func(key, member gjson.Result) bool {
			lines = append(lines, shapeOf(path+"."+key.String(), member, told)...)
			return true
		})
		return append(lines, path+" {}")
	case v.IsArray():
		for _, element := range v.Array() {
			lines = append(lines, shapeOf(path+"[]", element, told)...)
		}
		return append(lines, path+" []")
	}
	name := path[strings.LastIndexByte(path, '.')+1:]
	if slices.Contains(told, name) {
		return []string{path + " = " + v.Raw}
	}
	return []string{path + " " + v.Type.String()}
}

// eventsOf returns the shapes of a stream's events. How text is split into pieces is not compared: of several equal
// shapes only the first is listed.
func eventsOf(text string) (events []string) {
	for event := range strings.SplitSeq(strings.TrimSuffix(text, "\n\n"), "\n\n") {
		var lines []string
		for line := range strings.SplitSeq(event, "\n") {
			if data, ok := strings.CutPrefix(line, "data: {"); ok {
				lines = append(lines, shapeOf("", gjson.Parse("{"+data), []string{"object", "type", "role", "finish_reason", "stop_reason", "status", "index"})...)
			} else {
				lines = append(lines, line)
			}
		}
		if shape := strings.Join(lines, "\n"); len(events) == 0 || events[len(events)-1] != shape {
			events = append(events, shape)
		}
	}
	return events
}

// own are messages in the simulation's own words, instead of the output of a validation library.
var own = map[string]bool{"not-json": true, "no-messages": true, "messages-a-string": true}

func TestAnswersAsRecorded(t *testing.T) {
	s := likeRecorded() // one for all, as its cache remembers
	for _, e := range readRecording(t).Exchanges {
		t.Run(e.Name, func(t *testing.T) {
			w := call(s, e.Method, e.Path, e.Request)
			require.Equal(t, e.Status, w.Code, w.Body)
			require.Equal(t, e.Headers["content-type"], w.Header().Get("Content-Type"))
			require.Equal(t, e.Headers["allow"], w.Header().Get("Allow"))
			if strings.HasPrefix(e.Answer, "data: ") || strings.HasPrefix(e.Answer, "event: ") {
				require.Equal(t, strings.Join(eventsOf(e.Answer), "\n\n"), strings.Join(eventsOf(w.Body.String()), "\n\n"))
				return
			}
			values := told
			switch {
			case e.Name == "version":
				values = nil
			case e.Status >= 400 && !own[e.Name]:
				values = append(slices.Clone(told), "message", "param")
			case !strings.HasPrefix(e.Name, "completion"): // another chat template: its prompt is one token shorter
				values = slices.DeleteFunc(slices.Clone(told), func(name string) bool {
					return name == "prompt_tokens" || name == "input_tokens" || name == "total_tokens"
				})
			}
			require.Equal(t, strings.Join(shapeOf("", gjson.Parse(e.Answer), values), "\n"), strings.Join(shapeOf("", gjson.Parse(w.Body.String()), values), "\n"))
		})
	}
}

// The cache counts as the real one does: whole blocks, never the last token, separately for each adapter and salt.
func TestCachedTokensAsRecorded(t *testing.T) {
	r := readRecording(t)
	s := likeRecorded()
	for i, c := range r.Cached {
		part := func(i int) string { return strings.Repeat(c.Prompt[i].(string), int(c.Prompt[i+1].(float64))) }
		body, err := json.Marshal(map[string]any{"model": cmp.Or(c.Model, "tiny"), "prompt": part(0) + part(2), "max_tokens": 1, "cache_salt": c.Salt})
		require.NoError(t, err)
		var got struct{ Usage usage }
		require.NoError(t, json.Unmarshal(call(s, "POST", "/v1/completions", string(body)).Body.Bytes(), &got))
		require.Equal(t, c.Usage, got.Usage, "%d: %v", i, c.Prompt)
	}
	for i, c := range r.CachedChat {
		var got struct{ Usage usage }
		require.NoError(t, json.Unmarshal(call(s, "POST", "/v1/chat/completions", string(c.Request)).Body.Bytes(), &got))
		require.Equal(t, c.Usage.PromptTokensDetails, got.Usage.PromptTokensDetails, i)
		require.InDelta(t, c.Usage.PromptTokens, got.Usage.PromptTokens, 2, "another chat template")
	}
}

// Each metric of the simulation exists in the real server: name, type, help text, labels and buckets.
func TestMetricsAsRecorded(t *testing.T) {
	text, err := os.ReadFile("testdata/vllm/metrics-busy.txt")
	require.NoError(t, err)
	want := families(t, string(text))
	s := likeRecorded()
	for _, model := range []string{"tiny", "sql", "law"} {
		require.Equal(t, 200, call(s, "POST", "/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"hello","max_tokens":3}`, model)).Code)
	}
	got := families(t, call(s, "GET", "/metrics", "").Body.String())
	require.Greater(t, len(got), 30)
	for name, shape := range got {
		assert.Equal(t, want[name], shape, name)
	}
	for name := range want {
		if _, ok := got[name]; !ok && strings.HasPrefix(name, "vllm:") {
			t.Log("not simulated:", name)
		}
	}
}

// families are the metrics of an exposition, each with its help, its type, the names of its labels (or, if they show a
// state, their values) and its buckets.
func families(t *testing.T, text string) map[string]string {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	shapes := map[string]string{}
	for name, family := range parsed {
		series := map[string]bool{}
		for _, m := range family.Metric {
			var line []string
			for _, l := range m.Label {
				if name == "vllm:cache_config_info" && !slices.Contains([]string{"engine", "block_size", "num_gpu_blocks", "kv_cache_size_tokens", "enable_prefix_caching"}, l.GetName()) {
					continue // its labels are the whole configuration
				}
				switch l.GetName() {
				case "engine", "model_name", "finished_reason", "reason", "source", "sleep_state", "kv_cache_size_tokens", "block_size", "num_gpu_blocks", "enable_prefix_caching", "max_lora":
					line = append(line, l.GetName()+"="+l.GetValue())
				default:
					line = append(line, l.GetName())
				}
			}
			for _, b := range m.GetHistogram().GetBucket() {
				line = append(line, fmt.Sprint(b.GetUpperBound()))
			}
			series[strings.Join(line, " ")] = true
		}
		shapes[name] = fmt.Sprintf("%s %s\n%s", family.GetType(), family.GetHelp(), strings.Join(slices.Sorted(maps.Keys(series)), "\n"))
	}
	return shapes
}

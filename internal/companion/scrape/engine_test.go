package scrape

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

var vllm = engines["vllm"]

// custom is a mapping as a configuration has it.
var custom = Engine{
	Waiting: []Metric{{Name: "requests", Label: "state", Value: "queued"}},
	Running: []Metric{{Name: "requests", Label: "state", Value: "running"}},
	KVUse:   named("cache_use"),
}

// textPieces is a text that comes in pieces of a size.
type textPieces struct {
	text string
	size int
}

func (p *textPieces) Read(b []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.text)
	p.text = p.text[n:]
	return n, nil
}

// sizes are those of the pieces in which a text is read, the small ones only if it is short.
func sizes(text string) []int {
	if len(text) > 1<<20 {
		return []int{10_000, 1 << 20}
	}
	return []int{1, 7, 10_000, 1 << 20}
}

func gauges(waiting, running int, kvUse float64) endpoint.Gauges {
	return endpoint.Gauges{Known: true, Waiting: waiting, Running: running, KVUse: kvUse}
}

// recordings say what each file in testdata means.
var recordings = []struct {
	file   string
	engine string
	want   Reading
}{
	{"vllm.txt", "vllm", Reading{Gauges: gauges(3, 17, 0.4375), Cache: endpoint.Cache{BlockTokens: 16, Blocks: 27876}}},
	{"vllm-v0.txt", "vllm", Reading{Gauges: gauges(0, 2, 0.125)}},
	{"vllm-data-parallel.txt", "vllm", Reading{Gauges: gauges(7, 100, 0.625), Cache: endpoint.Cache{BlockTokens: 16, Blocks: 4001}}},
	{"vllm-lora.txt", "vllm", Reading{Gauges: gauges(2, 5, 0.5), LoRA: &endpoint.LoRA{
		Running: []string{"law", "sql-lora"}, Waiting: []string{"tweet-summary"}, Max: 4,
	}}},
	{"sglang.txt", "sglang", Reading{Gauges: gauges(2826, 161, 0.28), Cache: endpoint.Cache{BlockTokens: 1, Blocks: 442000}}},
	{"sglang-0.5.11.txt", "sglang", Reading{Gauges: gauges(14, 16, 0.5), Cache: endpoint.Cache{BlockTokens: 64, Blocks: 10000}}},
	{"trtllm-serve.txt", "trtllm-serve", Reading{Gauges: gauges(1, 8, 0.62), Cache: endpoint.Cache{BlockTokens: 32, Blocks: 6239}}},
	{"triton-tensorrt-llm.txt", "triton-tensorrt-llm", Reading{Gauges: gauges(6, 2, 0.4875), Cache: endpoint.Cache{BlockTokens: 64, Blocks: 6239}}},
	{"triton.txt", "triton", Reading{Gauges: gauges(14, 0, 0)}},
	{"jetstream.txt", "jetstream", Reading{Gauges: gauges(4, 0, 0.375)}},
	{"custom.txt", Custom, Reading{Gauges: gauges(7, 2, 0.125)}},
}

func engineNamed(word string) Engine {
	if word == Custom {
		return custom
	}
	return engines[word]
}

func TestRead(t *testing.T) {
	files := map[string]bool{}
	read := map[string]bool{}
	for _, r := range recordings {
		t.Run(r.file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", r.file))
			require.NoError(t, err)
			e := engineNamed(r.engine)
			got, err := e.Read(bytes.NewReader(text))
			require.NoError(t, err)
			require.Equal(t, r.want, got)

			got, err = e.Read(iotest.OneByteReader(bytes.NewReader(text)))
			require.NoError(t, err)
			require.Equal(t, r.want, got, "byte by byte")

			// Each line that the result is made of is needed: without the metric, it is missing.
			for _, m := range e.Waiting {
				without := bytes.ReplaceAll(text, []byte(m.Name), []byte("x"+m.Name))
				_, err = e.Read(bytes.NewReader(without))
				require.ErrorIs(t, err, ErrMissing)
			}
		})
		files[r.file], read[r.engine] = true, true
	}
	all, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.Len(t, files, len(all), "a file without a test")
	require.Len(t, read, len(engines)+1, "an engine without a file")
}

// exposition is the three gauges with the given values as written, "" for none.
func exposition(waiting, running, kv string) string {
	var b strings.Builder
	for _, m := range [][2]string{{"vllm:num_requests_waiting", waiting}, {"vllm:num_requests_running", running}, {"vllm:kv_cache_usage_perc", kv}} {
		if m[1] != "" {
			fmt.Fprintf(&b, "%s{engine=\"0\"} %s\n", m[0], m[1])
		}
	}
	return b.String()
}

func TestReadForms(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want endpoint.Gauges
	}{
		"plain":                 {exposition("1", "2", "0.5"), gauges(1, 2, 0.5)},
		"no labels":             {"vllm:num_requests_waiting 1\nvllm:num_requests_running\t2\nvllm:kv_cache_usage_perc   0.5", gauges(1, 2, 0.5)},
		"no last newline":       {strings.TrimSuffix(exposition("1", "2", "0.5"), "\n"), gauges(1, 2, 0.5)},
		"timestamps":            {exposition("1 1790000000000", "2 -5", "0.5 0"), gauges(1, 2, 0.5)},
		"blanks":                {" \tvllm:num_requests_waiting {a=\"b\"}  1 \n" + exposition("", "2", "0.5"), gauges(1, 2, 0.5)},
		"exponents":             {exposition("1e1", "2.0E+0", "5e-1"), gauges(10, 2, 0.5)},
		"braces in labels":      {"vllm:num_requests_waiting{a=\"} 9\",b=\"\\\"} 8\\\\\"} 1\n" + exposition("", "2", "0.5"), gauges(1, 2, 0.5)},
		"longer names":          {"vllm:num_requests_waiting_by_reason 9\n" + exposition("1", "2", "0.5"), gauges(1, 2, 0.5)},
		"over the top":          {exposition("1e300", "2", "1.5"), gauges(math.MaxInt32, 2, 1)},
		"one rank says nothing": {"vllm:kv_cache_usage_perc{engine=\"1\"} NaN\n" + exposition("1", "2", "0.5"), gauges(1, 2, 0.5)},
		"new name before old":   {"vllm:gpu_cache_usage_perc 0.9\n" + exposition("1", "2", "0.5"), gauges(1, 2, 0.5)},
		"new name says nothing": {"vllm:gpu_cache_usage_perc 0.9\n" + exposition("1", "2", "NaN"), gauges(1, 2, 0.9)},
		"blank lines":           {strings.Repeat(" ", 100) + "\n\n\t\n" + exposition("1", "2", "0.5"), gauges(1, 2, 0.5)},
		"labels without quotes": {"vllm:num_requests_waiting{engine=1,a=} 1\n" + exposition("", "2", "0.5"), gauges(1, 2, 0.5)},
		"a long foreign line":   {"other{a=\"" + strings.Repeat("x", 3*maxLine) + "\"} 1\n" + exposition("1", "2", "0.5"), gauges(1, 2, 0.5)},
		"a long line like ours": {"vllm:other{a=\"" + strings.Repeat("x", 3*maxLine) + "\"} 1\n" + exposition("1", "2", "0.5"), gauges(1, 2, 0.5)},
		"a long comment at end": {exposition("1", "2", "0.5") + "# " + strings.Repeat("x", 3*maxLine), gauges(1, 2, 0.5)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range sizes(c.text) {
				got, err := vllm.Read(&textPieces{c.text, size})
				require.NoError(t, err, "in pieces of %d", size)
				require.Equal(t, Reading{Gauges: c.want}, got, "in pieces of %d", size)
			}
		})
	}
}

// What is told several times counts once, what is told whole and in parts counts by the whole.
func TestReadSeries(t *testing.T) {
	vllmOf := func(lines string) string { return lines + "\n" + exposition("0", "0", "0") }
	sglangOf := func(lines string) string {
		return lines + "\n" + `sglang:num_running_reqs 0
sglang:num_queue_reqs 0
sglang:token_usage 0`
	}
	kvByPid := `vllm:kv_cache_usage_perc{engine="0",model_name="m",pid="8"} 0.953` + strings.Repeat("\n"+`vllm:kv_cache_usage_perc{engine="0",model_name="m",pid="%d"} 0.0`, 7)
	for name, c := range map[string]struct {
		engine string
		text   string
		want   Reading
	}{
		// The API servers of one engine, by pid; where a gauge is not kept up to date by all, it is 0 in the others.
		"kv by pid": {"vllm", "vllm:num_requests_waiting{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"0\"} 2\n" + fmt.Sprintf(kvByPid, 11, 12, 13, 14, 15, 16, 17), Reading{Gauges: gauges(1, 2, 0.953)}},
		"two engines, by pid": {"vllm", `vllm:num_requests_waiting{engine="0",pid="1"} 4
vllm:num_requests_waiting{engine="0",pid="2"} 3
vllm:num_requests_waiting{pid="1",engine="1"} 0
vllm:num_requests_waiting{pid="2",engine="1"} 5
vllm:num_requests_running{engine="0",api_server_index="0"} 7
vllm:num_requests_running{engine="0",api_server_index="1"} 7
vllm:num_requests_running{engine="1",api_server_index="0"} 8
vllm:num_requests_running{engine="1",api_server_index="1"} 0
vllm:kv_cache_usage_perc{engine="0",pid="1"} 0
vllm:kv_cache_usage_perc{engine="0",pid="2"} 0.5
vllm:kv_cache_usage_perc{engine="1",pid="1"} 0.25
vllm:kv_cache_usage_perc{engine="1",pid="2"} 0`, Reading{Gauges: gauges(9, 15, 0.375)}},

		"priorities and their sum": {"sglang", `sglang:num_queue_reqs{model_name="m",priority=""} 3
sglang:num_queue_reqs{model_name="m",priority="0"} 2
sglang:num_queue_reqs{model_name="m",priority="1"} 1
sglang:num_running_reqs{model_name="m",priority="1"} 4
sglang:num_running_reqs{model_name="m",priority=""} 5
sglang:num_running_reqs{model_name="m",priority="0"} 1
sglang:token_usage{model_name="m",priority=""} 0.5`, Reading{Gauges: gauges(3, 5, 0.5)}},
		"priorities, the sum is 0 for now": {"sglang", `sglang:num_queue_reqs{priority=""} 0
sglang:num_queue_reqs{priority="0"} 0
sglang:num_running_reqs 1
sglang:token_usage{priority="0"} 0.5
sglang:token_usage 0.25`, Reading{Gauges: gauges(0, 1, 0.25)}},
		"priorities without their sum": {"sglang", `sglang:num_queue_reqs{priority="0"} 2
sglang:num_queue_reqs{priority="1"} 1
sglang:num_running_reqs{priority="None"} 2
sglang:token_usage 0.5`, Reading{Gauges: gauges(3, 2, 0.5)}},
		"priorities by rank and model": {"sglang", `sglang:num_queue_reqs{dp_rank="0",model_name="m",priority="",tp_rank="0"} 3
sglang:num_queue_reqs{dp_rank="0",model_name="m",priority="",tp_rank="1"} 3
sglang:num_queue_reqs{dp_rank="0",model_name="m",priority="7",tp_rank="0"} 3
sglang:num_queue_reqs{dp_rank="1",model_name="m",priority="",tp_rank="2"} 2
sglang:num_queue_reqs{dp_rank="1",model_name="m",priority="7",tp_rank="2"} 2
sglang:num_queue_reqs{dp_rank="0",model_name="n",priority="",tp_rank="0"} 1
sglang:num_running_reqs{dp_rank="0",model_name="m",pp_rank="0",priority=""} 6
sglang:num_running_reqs{dp_rank="0",model_name="m",pp_rank="1",priority=""} 6
sglang:token_usage{dp_rank="0",pp_rank="0"} 0.5
sglang:token_usage{dp_rank="0",pp_rank="1"} 0.5
sglang:token_usage{dp_rank="1",pp_rank="0"} 0`, Reading{Gauges: gauges(6, 6, 0.25)}},

		"cache in tokens": {
			"vllm", vllmOf(`vllm:cache_config_info{block_size="8",num_gpu_blocks="320",kv_cache_size_tokens="463459"} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 8, Blocks: 57932}},
		},
		"cache in tokens of two engines": {
			"vllm", vllmOf(`vllm:cache_config_info{engine="0",block_size="16",kv_cache_size_tokens="1600",num_gpu_blocks="20"} 1.0
vllm:cache_config_info{engine="1",block_size="16",kv_cache_size_tokens="3200",num_gpu_blocks="20"} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 16, Blocks: 300}},
		},
		"cache in tokens, one engine says nothing": {
			"vllm", vllmOf(`vllm:cache_config_info{engine="0",block_size="16",kv_cache_size_tokens="1600",num_gpu_blocks="20"} 1.0
vllm:cache_config_info{engine="1",block_size="16",kv_cache_size_tokens="None",num_gpu_blocks="20"} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 16, Blocks: 200}},
		},
		"cache in tokens, by pid": {
			"vllm", vllmOf(`vllm:cache_config_info{engine="0",pid="1",block_size="16",kv_cache_size_tokens="1600",num_gpu_blocks="20"} 1.0
vllm:cache_config_info{engine="0",pid="2",block_size="16",kv_cache_size_tokens="1600",num_gpu_blocks="20"} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 16, Blocks: 100}},
		},
		"cache in tokens told once, two engines": {"vllm", `vllm:num_requests_waiting{engine="1"} 0
vllm:cache_config_info{block_size="16",kv_cache_size_tokens="1600",num_gpu_blocks="20"} 1.0
` + exposition("0", "0", "0"), Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 16, Blocks: 200}}},
		"cache in tokens, no blocks": {
			"vllm", vllmOf(`vllm:cache_config_info{block_size="None",kv_cache_size_tokens="1600",num_gpu_blocks="None"} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 1, Blocks: 1600}},
		},
		"cache in blocks": {
			"vllm", vllmOf(`vllm:cache_config_info{block_size="8",num_gpu_blocks="320",kv_cache_size_tokens="None"} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 8, Blocks: 320}},
		},
		"cache in blocks, empty tokens": {
			"vllm", vllmOf(`vllm:cache_config_info{block_size="8",num_gpu_blocks="320",kv_cache_size_tokens=""} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 8, Blocks: 320}},
		},
		"cache in blocks, no tokens": {
			"vllm", vllmOf(`vllm:cache_config_info{block_size="8",num_gpu_blocks="320",kv_cache_size_tokens="0"} 1.0`),
			Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 8, Blocks: 320}},
		},
		"cache not told": {"vllm", vllmOf(`vllm:cache_config_info{block_size="8",num_gpu_blocks="None",kv_cache_size_tokens="None"} 1.0`), Reading{Gauges: gauges(0, 0, 0)}},
		"cache of SGLang in tokens": {"sglang", sglangOf(`sglang:max_total_num_tokens{dp_rank="0",tp_rank="0"} 4096
sglang:max_total_num_tokens{dp_rank="1",tp_rank="1"} 4096
sglang:cache_config_info{page_size="64",num_pages="32"} 1`), Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 64, Blocks: 128}}},
		"cache of SGLang in tokens alone": {"sglang", sglangOf(`sglang:max_total_num_tokens 4096`), Reading{Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 1, Blocks: 4096}}},

		"awake": {"vllm", vllmOf(`vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",sleep_state="weights_offloaded"} 0.0
vllm:engine_sleep_state{engine="0",sleep_state="discard_all"} 0.0`), Reading{Gauges: gauges(0, 0, 0)}},
		"asleep":             {"vllm", vllmOf(`vllm:engine_sleep_state{sleep_state="awake"} 0`), Reading{Gauges: gauges(0, 0, 0), Asleep: true}},
		"asleep, level 1":    {"vllm", vllmOf("vllm:engine_sleep_state{sleep_state=\"awake\"} 0\nvllm:engine_sleep_state{sleep_state=\"weights_offloaded\"} 1"), Reading{Gauges: gauges(0, 0, 0), Asleep: true}},
		"asleep, level 2":    {"vllm", vllmOf(`vllm:engine_sleep_state{sleep_state="discard_all"} 1`), Reading{Gauges: gauges(0, 0, 0), Asleep: true}},
		"awake by the first": {"vllm", vllmOf("vllm:engine_sleep_state{sleep_state=\"awake\"} 1\nvllm:engine_sleep_state{sleep_state=\"weights_offloaded\"} 1"), Reading{Gauges: gauges(0, 0, 0)}},
		"one of two asleep": {"vllm", vllmOf(`vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="1",sleep_state="awake"} 0.0`), Reading{Gauges: gauges(0, 0, 0), Asleep: true}},
		"sleep of no number": {"vllm", vllmOf(`vllm:engine_sleep_state{sleep_state="awake"} NaN`), Reading{Gauges: gauges(0, 0, 0)}},

		"process start":            {"vllm", vllmOf("process_start_time_seconds 1.79563953608e+09"), Reading{Gauges: gauges(0, 0, 0), Started: 1795639536}},
		"process start, the last":  {"sglang", sglangOf("process_start_time_seconds{pid=\"1\"} 1790000000\nprocess_start_time_seconds{pid=\"2\"} 1790000009.9"), Reading{Gauges: gauges(0, 0, 0), Started: 1790000009}},
		"process start of nothing": {"vllm", vllmOf("process_start_time_seconds NaN\nprocess_start_time_seconds -1\nprocess_start_time_seconds_x 5"), Reading{Gauges: gauges(0, 0, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := engines[c.engine].Read(strings.NewReader(c.text))
			require.NoError(t, err)
			require.InDelta(t, c.want.Gauges.KVUse, got.Gauges.KVUse, 1e-9)
			c.want.Gauges.KVUse = got.Gauges.KVUse
			require.Equal(t, c.want, got)
			judged, complete := parse(t, c.text+"\n").judge(engines[c.engine])
			require.True(t, complete)
			judged.Gauges.KVUse = got.Gauges.KVUse
			require.Equal(t, judged, got, "the other reader")
		})
	}
}

// A configuration chooses the sum, where a label is empty, by an empty value.
func TestReadAnEmptyLabel(t *testing.T) {
	for _, text := range []string{`q{priority=""}`, "q{priority=}"} {
		m, err := ParseMetric(text)
		require.NoError(t, err)
		for lines, want := range map[string]int{
			"q{priority=\"\"} 3\nq{priority=\"0\"} 2\nq{priority=\"1\"} 1": 3,
			"q{a=\"b\"} 3\nq{priority=\"0\"} 2":                            3,
		} {
			got, err := Engine{Waiting: []Metric{m}}.Read(strings.NewReader(lines))
			require.NoError(t, err)
			require.Equal(t, want, got.Gauges.Waiting)
		}
		_, err = Engine{Waiting: []Metric{m}}.Read(strings.NewReader("q{priority=\"0\"} 2\n"))
		require.ErrorIs(t, err, ErrMissing)
	}
}

// With several API servers a LoRA series is the sum of the times that they set.
func TestReadLoRATimes(t *testing.T) {
	now := float64(time.Now().Unix())
	series := func(running string, value float64) string {
		return fmt.Sprintf("vllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=%q,waiting_lora_adapters=\"\"} %f\n", running, value)
	}
	for name, c := range map[string]struct {
		lines string
		want  []string
	}{
		"of two, later by one":          {series("", 2*now-600) + series("sql", now), []string{"sql"}},
		"the same in the other order":   {series("sql", now) + series("", 2*now-600), []string{"sql"}},
		"of one, later by two":          {series("law", now-600) + series("sql", 2*now-20), []string{"sql"}},
		"of eight":                      {series("law", 8*now-80000) + series("sql", 3*now-9) + series("", 5*now-60), []string{"sql"}},
		"weeks ago":                     {series("law", 2*now-2*40*86400) + series("sql", now-30*86400), []string{"sql"}},
		"a clock ahead by a minute":     {series("law", now-600) + series("sql", now+60), []string{"sql"}},
		"clocks ahead by a day, of two": {series("law", now) + series("sql", 2*(now+86400)), []string{"sql"}},
		"a clock behind":                {series("law", now-3700) + series("sql", now-3600), []string{"sql"}},
		"infinite":                      {series("law", math.Inf(1)) + series("sql", now), []string{"sql"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vllm.Read(strings.NewReader(exposition("1", "2", "0.5") + c.lines))
			require.NoError(t, err)
			require.Equal(t, c.want, got.LoRA.Running)
		})
	}
}

func TestReadLoRA(t *testing.T) {
	const name = "vllm:lora_requests_info"
	for about, c := range map[string]struct {
		lines string
		want  *endpoint.LoRA
	}{
		"none":            {"", nil},
		"one":             {name + `{max_lora="2",running_lora_adapters="b,a",waiting_lora_adapters="c"} 5`, &endpoint.LoRA{Max: 2, Running: []string{"a", "b"}, Waiting: []string{"c"}}},
		"latest first":    {name + `{max_lora="2",running_lora_adapters="a"} 5` + "\n" + name + `{max_lora="2",running_lora_adapters="b"} 4`, &endpoint.LoRA{Max: 2, Running: []string{"a"}}},
		"latest last":     {name + `{max_lora="2",running_lora_adapters="a"} 5` + "\n" + name + `{max_lora="2",running_lora_adapters="b"} 5.5`, &endpoint.LoRA{Max: 2, Running: []string{"b"}}},
		"of two equal":    {name + `{running_lora_adapters="a"} 5` + "\n" + name + `{running_lora_adapters="b"} 5`, &endpoint.LoRA{Running: []string{"b"}}},
		"twice and blank": {name + `{max_lora="many",running_lora_adapters="a, a,,",waiting_lora_adapters=""} 5`, &endpoint.LoRA{Running: []string{"a"}}},
		"at work, too":    {name + `{max_lora="2",running_lora_adapters="b,a",waiting_lora_adapters="a,c,b"} 5`, &endpoint.LoRA{Max: 2, Running: []string{"a", "b"}, Waiting: []string{"c"}}},
		"escapes":         {name + `{max_lora="1",running_lora_adapters="q\"\\,\n"} 5`, &endpoint.LoRA{Max: 1, Running: []string{`q"\`}}},
		"the largest":     {name + `{max_lora="2147483647",running_lora_adapters="a"} 5`, &endpoint.LoRA{Max: 1<<31 - 1, Running: []string{"a"}}},
		"over it":         {name + `{max_lora="2147483648",running_lora_adapters="a"} 5`, &endpoint.LoRA{Running: []string{"a"}}},
		"not decimal":     {name + `{max_lora="1a",running_lora_adapters="a"} 5`, &endpoint.LoRA{Running: []string{"a"}}},
		"no time":         {name + `{max_lora="1",running_lora_adapters="a"} NaN`, nil},
	} {
		t.Run(about, func(t *testing.T) {
			got, err := vllm.Read(strings.NewReader(exposition("1", "2", "0.5") + c.lines + "\n"))
			require.NoError(t, err)
			require.Equal(t, c.want, got.LoRA)
		})
	}
}

func TestReadErrors(t *testing.T) {
	good := exposition("1", "2", "0.5")
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"", "metric missing: vllm:num_requests_waiting\nmetric missing: vllm:num_requests_running\nmetric missing: vllm:kv_cache_usage_perc"},
		"not metrics":       {"<html>", "metric missing: vllm:num_requests_waiting\nmetric missing: vllm:num_requests_running\nmetric missing: vllm:kv_cache_usage_perc"},
		"no kv":             {exposition("1", "2", ""), "metric missing: vllm:kv_cache_usage_perc"},
		"kv not a number":   {exposition("1", "2", "NaN"), "metric missing: vllm:kv_cache_usage_perc"},
		"queue infinite":    {exposition("+Inf", "2", "0.5"), "metric missing: vllm:num_requests_waiting"},
		"running negative":  {exposition("1", "-2", "0.5"), "metric missing: vllm:num_requests_running"},
		"no value":          {good + "vllm:num_requests_waiting\n", `vllm:num_requests_waiting: value "" is not a number`},
		"a word":            {good + " vllm:num_requests_running many\n", `vllm:num_requests_running: value "many" is not a number`},
		"a word at the end": {good + "vllm:num_requests_running many", `vllm:num_requests_running: value "many" is not a number`},
		"labels cut off":    {good + "vllm:num_requests_waiting{a=\"} 1\n", "vllm:num_requests_waiting: labels do not end"},
		"a long line of us": {"vllm:num_requests_waiting{a=\"" + strings.Repeat("x", maxLine) + "\"} 1\n", "a line over 64 KiB"},
		"endless":           {strings.Repeat("other 1\n", maxExposition/8+1), "exposition over 8 MiB"},
		"endless line":      {strings.Repeat("other 1 ", maxExposition/8+maxLine), "exposition over 8 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range sizes(c.text) {
				got, err := vllm.Read(&textPieces{c.text, size})
				require.EqualError(t, err, c.want, "in pieces of %d", size)
				require.Zero(t, got)
			}
		})
	}
	_, err := vllm.Read(io.MultiReader(strings.NewReader(good), iotest.ErrReader(io.ErrUnexpectedEOF)))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a cut connection is not a short exposition")
	_, err = custom.Read(strings.NewReader("requests{state=queued} 1\nrequests{state=} 1\nrequests{state=\"running\"} 1\ncache_use 0"))
	require.EqualError(t, err, "metric missing: requests{state=queued}", "a value without quotes is none")
	_, err = custom.Read(strings.NewReader("requests{state=\"running\"} 1\ncache_use 0"))
	require.EqualError(t, err, "metric missing: requests{state=queued}")
}

func TestEngines(t *testing.T) {
	require.Equal(t, []string{"jetstream", "sglang", "triton", "triton-tensorrt-llm", "trtllm", "trtllm-serve", "vllm"}, Engines())
	for word, e := range engines {
		require.Contains(t, detection, word)
		require.NotEmpty(t, e.Waiting, word)
	}
	for other, word := range alias {
		require.Contains(t, engines, word)
		require.NotContains(t, engines, other)
	}
}

// A file of one engine is not taken for another's that is tried before it.
func TestDetectionOrder(t *testing.T) {
	for _, r := range recordings {
		text, err := os.ReadFile(filepath.Join("testdata", r.file))
		require.NoError(t, err)
		found := Custom
		for _, word := range detection {
			if _, err := engines[word].Read(bytes.NewReader(text)); err == nil {
				found = word
				break
			}
		}
		require.Equal(t, r.engine, found, r.file)
	}
}

func TestParseMetric(t *testing.T) {
	for text, want := range map[string]Metric{
		"a":                     {Name: "a"},
		"vllm:a_1":              {Name: "vllm:a_1"},
		"a{b=c}":                {Name: "a", Label: "b", Value: "c"},
		`a{b_2="c d"}`:          {Name: "a", Label: "b_2", Value: "c d"},
		`a{b=""}`:               {Name: "a", Label: "b"},
		`a{b=}`:                 {Name: "a", Label: "b"},
		"a{request_type=w-x.9}": {Name: "a", Label: "request_type", Value: "w-x.9"},
	} {
		got, err := ParseMetric(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		again, err := ParseMetric(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for text, want := range map[string]string{
		"":           `"" is not a metric name`,
		"1a":         `"1a" is not a metric name`,
		"a b":        `"a b" is not a metric name`,
		"a{":         `"a{" is not name{label=value}`,
		"a{b}":       `"a{b}" is not name{label=value}`,
		"a{b=c":      `"a{b=c" is not name{label=value}`,
		"a{b:c=d}":   `"a{b:c=d}" is not name{label=value}`,
		"a{b=c,d=e}": `"a{b=c,d=e}" is not name{label=value}: one label, and a plain value`,
		`a{b="\n"}`:  `"a{b=\"\\n\"}" is not name{label=value}: one label, and a plain value`,
	} {
		_, err := ParseMetric(text)
		require.EqualError(t, err, want)
	}
}

// anyExposition draws a valid exposition with an engine's metrics among others, in many series, with hostile label values.
func anyExposition(t *rapid.T, e Engine) string {
	names := []string{"process_cpu_seconds", processStart, "a"}
	labelsOf := map[string]map[string][]string{}
	for _, w := range compile(e).wanted {
		if labelsOf[w.Name] == nil {
			labelsOf[w.Name] = map[string][]string{}
			names = append(names, w.Name, w.Name+"_total", w.Name+"_by_reason")
		}
		if w.Label != "" {
			labelsOf[w.Name][w.Label] = append(labelsOf[w.Name][w.Label], w.Value, "other")
		}
		if e.Split != "" {
			labelsOf[w.Name][e.Split] = []string{"", "", "0", "1"}
		}
		if w.Read != "" {
			labelsOf[w.Name][w.Read] = []string{"16", "32", "None", "-1", ""}
		}
		if w.Name == e.LoRA {
			labelsOf[w.Name] = map[string][]string{loraMax: {"4", "x"}, loraRunning: {"", "a", "b,a", `"\`}, loraWaiting: {"", "c,c", "c,a"}}
		}
	}
	label := rapid.OneOf(rapid.Just("m"), rapid.String(), rapid.StringMatching(`[{}",\\ 0-9=]*`), rapid.Just(names[3]+" 7"))
	rank := e.Ranks
	if rank == nil {
		rank = []string{"engine"}
	}
	escape := strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)
	blank := rapid.SampledFrom([]string{" ", "  ", "\t"})
	var b strings.Builder
	for _, name := range rapid.Permutation(names).Draw(t, "order") {
		if rapid.IntRange(0, 4).Draw(t, "left out") == 0 {
			continue
		}
		if rapid.Bool().Draw(t, "help") {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(label.Draw(t, "text")), name)
		}
		for i := range rapid.IntRange(1, 5).Draw(t, "series") {
			fmt.Fprintf(&b, `%s{%s="%d",pid="%d",model_name="%s"`, name, rank[0], rapid.IntRange(0, 1).Draw(t, "rank"), i, escape.Replace(label.Draw(t, "label")))
			for _, l := range slices.Sorted(maps.Keys(labelsOf[name])) {
				fmt.Fprintf(&b, `%s%s="%s"`, rapid.SampledFrom([]string{",", ", "}).Draw(t, "comma"), l, escape.Replace(rapid.SampledFrom(labelsOf[name][l]).Draw(t, l)))
			}
			b.WriteString("}" + blank.Draw(t, "blank"))
			b.WriteString(strconv.FormatFloat(rapid.OneOf(
				rapid.Float64Range(0, 100), rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0}),
			).Draw(t, "value"), 'g', -1, 64))
			if rapid.Bool().Draw(t, "timestamp") {
				b.WriteString(" 1790000000000")
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(exposition("1", "2", "0.5")))
	f.Add([]byte("vllm:num_requests_waiting{a=\"\\\"} 1 2\n"))
	f.Add([]byte("vllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=\"a\\\\\"} 1 2\n"))
	for _, r := range recordings {
		text, err := os.ReadFile(filepath.Join("testdata", r.file))
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, r := range recordings {
			got, err := engineNamed(r.engine).Read(bytes.NewReader(text))
			if err != nil {
				require.Zero(t, got)
				continue
			}
			g := got.Gauges
			require.True(t, g.Known && g.Waiting >= 0 && g.Running >= 0 && g.KVUse >= 0 && g.KVUse <= 1)
			require.True(t, got.Cache.BlockTokens >= 0 && got.Cache.Blocks >= 0 && (got.Cache.BlockTokens > 0) == (got.Cache.Blocks > 0))
			if got.LoRA != nil {
				require.NotContains(t, append(got.LoRA.Running, got.LoRA.Waiting...), "")
			}
		}
	})
}

// large is what a real vLLM with one model and two adapters says.
func large(b *testing.B) []byte {
	text, err := os.ReadFile(recorded + "metrics-busy.txt")
	require.NoError(b, err)
	return text
}

func BenchmarkRead(b *testing.B) {
	text := large(b)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	scan := new(scanner)
	for b.Loop() {
		scan.reset(compiled["vllm"])
		if _, err := scan.Write(text); err != nil {
			b.Fatal(err)
		}
		if _, err := scan.reading(); err != nil {
			b.Fatal(err)
		}
	}
}

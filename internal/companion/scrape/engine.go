package scrape

import (
	"fmt"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Metric selects samples of a metric.
type Metric struct {
	Name         string
	Label, Value string // only samples with this label and value; all if Label is empty. Without a value: only those whose label is empty or absent
	// Read is the label whose value is the number that is read; the sample's value if empty. Metrics that exist for their labels (…_info) have
	// no other number.
	Read  string
	Whole bool // each rank reports for all ranks together: the largest counts, not the sum
}

// String writes the metric as the configuration has it.
func (m Metric) String() string {
	if m.Label == "" {
		return m.Name
	}
	return fmt.Sprintf("%s{%s=%s}", m.Name, m.Label, m.Value)
}

// ParseMetric reads name or name{label=value}, the value with or without quotes; it may be empty.
func ParseMetric(text string) (Metric, error) {
	name, rest, labelled := strings.Cut(text, "{")
	if !isMetricName(name) {
		return Metric{}, fmt.Errorf("%q is not a metric name", name)
	}
	if !labelled {
		return Metric{Name: name}, nil
	}
	label, value, found := strings.Cut(strings.TrimSuffix(rest, "}"), "=")
	if !found || !strings.HasSuffix(rest, "}") || !isLabelName(label) {
		return Metric{}, fmt.Errorf("%q is not name{label=value}", text)
	}
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	if strings.ContainsAny(value, "\"\\{}=,") {
		return Metric{}, fmt.Errorf("%q is not name{label=value}: one label, and a plain value", text)
	}
	return Metric{Name: name, Label: label, Value: value}, nil
}

func isMetricName(s string) bool { return s != "" && isName(s, ":") }

func isLabelName(s string) bool { return s != "" && isName(s, "") }

func isName(s, more string) bool {
	for i, c := range s {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || strings.ContainsRune(more, c)
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// Engine maps the metrics of one kind of model server. Each signal has the metrics that provide it, the preferred first: only the first one
// with samples counts. A signal without metrics is one that this kind of server does not have: it is 0 for all its replicas, and nothing is
// missing.
type Engine struct {
	// Ranks are the labels that distinguish the ranks of a data-parallel engine, and models. Series of a metric that differ in other labels
	// (the process that wrote them, the tensor-parallel rank) repeat the same value: the largest of them counts. Nil: each series is a rank.
	Ranks []string
	// Split is a label that splits a metric into parts, in addition to their total, whose label is empty: the total counts, or the parts if
	// there is none. "" if there is no such label.
	Split string

	// Waiting and running requests, summed over the ranks, which have a queue each.
	Waiting, Running []Metric
	// KVUse is the share of the KV cache in use, 0..1, the mean over the ranks, which have a cache of the same size each.
	KVUse []Metric
	// CacheTokens is how many tokens the KV cache of one rank holds. If present it counts, and not the number of blocks: with several
	// groups of layers (full attention, sliding window, state space) a token takes a block in each, or none, and blocks cannot be multiplied.
	CacheTokens []Metric
	// BlockTokens is the tokens in a block of the KV cache, the same in all series; Blocks how many there are, of all ranks together.
	BlockTokens, Blocks []Metric
	// Awake is 0, and Asleep above 0, for a rank that was put to sleep: requests wait until it is woken. Awake is preferred.
	Awake, Asleep []Metric
	// LoRA is a metric with labels as vLLM has them, "" if there is none.
	LoRA string

	Path   string // of its metrics, "" for /metrics
	Health string // answers 200 when it is ready, "" for /health
}

// processStart is a metric of Prometheus's client libraries in all languages: when the process started, in seconds since 1970.
const processStart = "process_start_time_seconds"

// The labels of the LoRA metric. Its value is the time when it had these labels: the latest is the present state. With several API servers
// it is the sum of such times.
const (
	loraMax     = "max_lora"
	loraRunning = "running_lora_adapters"
	loraWaiting = "waiting_lora_adapters"
)

// named returns metrics without labels.
func named(names ...string) []Metric {
	var list []Metric
	for _, n := range names {
		list = append(list, Metric{Name: n})
	}
	return list
}

// engines are the known model servers, by the values of the label llm-d.ai/engine-type.
var engines = map[string]Engine{
	// vLLM, docs/usage/metrics. The KV gauge was called gpu_cache_usage_perc in V0 and up to 0.9, and some releases have both.
	"vllm": {
		Ranks:       []string{"engine", "model_name"}, // with several API servers some gauges are there once for each, by their pid
		Waiting:     named("vllm:num_requests_waiting"),
		Running:     named("vllm:num_requests_running"),
		KVUse:       named("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
		BlockTokens: []Metric{{Name: "vllm:cache_config_info", Read: "block_size"}},
		CacheTokens: []Metric{{Name: "vllm:cache_config_info", Read: "kv_cache_size_tokens"}},
		// Each engine's series has the blocks of all data-parallel engines (vllm/v1/engine/core_client.py adds them up before it is written).
		Blocks: []Metric{{Name: "vllm:cache_config_info", Read: "num_gpu_blocks", Whole: true}},
		Awake:  []Metric{{Name: "vllm:engine_sleep_state", Label: "sleep_state", Value: "awake"}},
		Asleep: []Metric{
			{Name: "vllm:engine_sleep_state", Label: "sleep_state", Value: "weights_offloaded"},
			{Name: "vllm:engine_sleep_state", Label: "sleep_state", Value: "discard_all"},
		},
		LoRA: "vllm:lora_requests_info",
	},
	// SGLang with --enable-metrics, python/sglang/srt/metrics/collector.py. The cache's size came as labels before 0.5.11. Each
	// pipeline-parallel rank reports the same requests, and with --enable-metrics-for-all-schedulers each tensor-parallel one. With
	// --enable-priority-scheduling, requests are reported by priority in addition to their total.
	"sglang": {
		Ranks:       []string{"dp_rank", "model_name", "engine_type"},
		Split:       "priority",
		CacheTokens: named("sglang:max_total_num_tokens"),
		Waiting:     named("sglang:num_queue_reqs"),
		Running:     named("sglang:num_running_reqs"),
		KVUse:       named("sglang:token_usage"),
		BlockTokens: []Metric{{Name: "sglang:page_size"}, {Name: "sglang:cache_config_info", Read: "page_size"}},
		Blocks:      []Metric{{Name: "sglang:num_pages"}, {Name: "sglang:cache_config_info", Read: "num_pages"}},
	},
	// trtllm-serve, tensorrt_llm/metrics/collector.py. Its /metrics is JSON; the Prometheus text is elsewhere.
	"trtllm-serve": {
		Ranks:       []string{"engine", "model_name"},
		Waiting:     named("trtllm_num_requests_waiting"),
		Running:     named("trtllm_num_requests_running"),
		KVUse:       named("trtllm_kv_cache_utilization"),
		BlockTokens: named("trtllm_kv_cache_tokens_per_block"),
		Blocks:      named("trtllm_kv_cache_max_blocks"),
		Path:        "/prometheus/metrics",
	},
	// Triton with the TensorRT-LLM backend, from 25.03 on: before, neither waiting nor fraction were there.
	"triton-tensorrt-llm": {
		Waiting:     []Metric{{Name: "nv_trt_llm_request_metrics", Label: "request_type", Value: "waiting"}},
		Running:     []Metric{{Name: "nv_trt_llm_request_metrics", Label: "request_type", Value: "scheduled"}},
		KVUse:       []Metric{{Name: "nv_trt_llm_kv_cache_block_metrics", Label: "kv_cache_block_type", Value: "fraction"}},
		BlockTokens: []Metric{{Name: "nv_trt_llm_kv_cache_block_metrics", Label: "kv_cache_block_type", Value: "tokens_per"}},
		Blocks:      []Metric{{Name: "nv_trt_llm_kv_cache_block_metrics", Label: "kv_cache_block_type", Value: "max"}},
		Health:      "/v2/health/ready",
	},
	// Triton with any backend, docs/user_guide/metrics.md. It has counters of finished requests and no gauge of running ones.
	"triton": {
		Waiting: named("nv_inference_pending_request_count"),
		Health:  "/v2/health/ready",
	},
	// JetStream, jetstream/core/metrics/prometheus.py. It has decode slots, each with room for a longest sequence: their use is its KV use.
	"jetstream": {
		Waiting: named("jetstream_prefill_backlog_size"),
		KVUse:   named("jetstream_slots_used_percentage"),
	},
}

const (
	// Auto stands for the engine that is detected by its metrics.
	Auto = "auto"
	// Custom stands for metrics that the configuration names.
	Custom = "custom"
)

// alias are other names for an engine.
var alias = map[string]string{"trtllm": "trtllm-serve"}

// Engines returns the names of the known engines, sorted.
func Engines() []string {
	var words []string
	for word := range engines {
		words = append(words, word)
	}
	for word := range alias {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

// engineOf returns the engine with that name, and its canonical name.
func engineOf(word string) (name string, e Engine, ok bool) {
	if proper := alias[word]; proper != "" {
		word = proper
	}
	e, ok = engines[word]
	return word, e, ok
}

// signals are the indexes of what is read from an exposition.
const (
	waiting = iota
	running
	kvUse
	blockTokens
	blocks
	cacheTokens
	awake
	asleep
	numSignals
)

// required are the signals without which there are no gauges.
const required = blockTokens

// mapping is an engine, compiled for the scanner.
type mapping struct {
	signals [numSignals][]Metric
	wanted  []wanted
	ranks   []string
	split   string

	// Most other lines are discarded by two of their bytes.
	first [256]bool     // first bytes of the names
	fork  int           // where the names begin to differ, but within the shortest ...
	names [256][]string // ... and those that have each byte there, each once
}

// wanted is a metric that is looked for.
type wanted struct {
	Metric
	signal     int // numSignals: LoRA
	preference int
}

func compile(e Engine) *mapping {
	m := &mapping{
		signals: [numSignals][]Metric{e.Waiting, e.Running, e.KVUse, e.BlockTokens, e.Blocks, e.CacheTokens, e.Awake, e.Asleep},
		ranks:   e.Ranks, split: e.Split,
	}
	for signal, metrics := range m.signals {
		for i, metric := range metrics {
			m.wanted = append(m.wanted, wanted{metric, signal, i})
		}
	}
	if e.LoRA != "" {
		m.wanted = append(m.wanted, wanted{Metric{Name: e.LoRA}, numSignals, 0})
	}
	m.fork = len(m.wanted[0].Name) - 1
	for _, w := range m.wanted {
		m.fork = min(m.fork, commonPrefix(w.Name, m.wanted[0].Name), len(w.Name)-1)
	}
	for _, w := range m.wanted {
		m.first[w.Name[0]] = true
		if names := &m.names[w.Name[m.fork]]; !slices.Contains(*names, w.Name) {
			*names = append(*names, w.Name)
		}
	}
	m.first[processStart[0]] = true
	return m
}

func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// compiled are the known engines, compiled.
var compiled = func() map[string]*mapping {
	all := make(map[string]*mapping)
	for word, e := range engines {
		all[word] = compile(e)
	}
	return all
}()

// Reading is what was read from one exposition.
type Reading struct {
	Gauges  endpoint.Gauges // their age is 0
	Cache   endpoint.Cache
	LoRA    *endpoint.LoRA
	Asleep  bool
	Started int64 // when the process started, in seconds since 1970; 0: unknown
}

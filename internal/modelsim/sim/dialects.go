package sim

import (
	"slices"
	"strconv"
	"strings"
)

// Dialect is a kind of model server, as its metrics show it.
type Dialect string

// The dialects: names, labels and help texts of these servers' metrics.
const (
	VLLM        Dialect = "vllm"      // vllm/v1/metrics/loggers.py
	SGLang      Dialect = "sglang"    // python/sglang/srt/metrics/collector.py
	TensorRTLLM Dialect = "trtllm"    // trtllm-serve: tensorrt_llm/metrics/collector.py
	Triton      Dialect = "triton"    // Triton with the TensorRT-LLM backend: both its own and the backend's metrics
	JetStream   Dialect = "jetstream" // jetstream/core/metrics/prometheus.py; not compared with a running server
)

// Dialects are all dialects.
var Dialects = []Dialect{VLLM, SGLang, TensorRTLLM, Triton, JetStream}

// each returns the labels of every engine; rank is its number.
func (t *metricsText) each(of func(rank string) []label) {
	for i := range t.ranks {
		t.labels = append(t.labels, of(strconv.Itoa(i)))
	}
}

func (t *metricsText) vllm(cfg *Config) {
	t.each(func(rank string) []label { return []label{{"engine", rank}, {"model_name", cfg.Models[0]}} })
	t.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", func(s *snapshot) float64 { return float64(s.running) })
	t.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", func(s *snapshot) float64 { return float64(s.waiting) })
	t.sleepState()
	kv := func(s *snapshot) float64 { return s.kvUse }
	queries := func(s *snapshot) uint64 { return s.CacheQueries }
	hits := func(s *snapshot) uint64 { return s.CacheHits }
	if cfg.OldKVName {
		t.gauge("vllm:gpu_cache_usage_perc", "GPU KV-cache usage. 1 means 100 percent usage.", kv)
		t.counter("vllm:gpu_prefix_cache_queries", "GPU prefix cache queries, in terms of number of queried tokens.", queries)
		t.counter("vllm:gpu_prefix_cache_hits", "GPU prefix cache hits, in terms of number of cached tokens.", hits)
	} else {
		t.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", kv)
		t.counter("vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", queries)
		t.counter("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", hits)
	}
	t.counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.", func(s *snapshot) uint64 { return s.Preemptions })
	t.counter("vllm:prompt_tokens", "Number of prefill tokens processed.", func(s *snapshot) uint64 { return s.PromptTokens })
	t.counter("vllm:generation_tokens", "Number of generation tokens processed.", func(s *snapshot) uint64 { return s.GeneratedTokens })
	t.successes("vllm:request_success", "Count of successfully processed requests.", len(finishReasons))
	t.histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", func(s *snapshot) *histogram { return &s.requestPrompt })
	t.histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", func(s *snapshot) *histogram { return &s.requestGenerated })
	t.histogram("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", func(s *snapshot) *histogram { return &s.requestMaxTokens })
	t.histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", func(s *snapshot) *histogram { return &s.firstToken })
	t.histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", func(s *snapshot) *histogram { return &s.interToken })
	t.histogram("vllm:request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", func(s *snapshot) *histogram { return &s.perOutputToken })
	t.histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", func(s *snapshot) *histogram { return &s.endToEnd })
	t.histogram("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", func(s *snapshot) *histogram { return &s.queue })
	t.histogram("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", func(s *snapshot) *histogram { return &s.inference })
	t.histogram("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", func(s *snapshot) *histogram { return &s.prefill })
	t.histogram("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", func(s *snapshot) *histogram { return &s.decode })
	t.family("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig")
	for i := range t.ranks {
		labels := []label{
			{"block_size", strconv.Itoa(cfg.BlockSize)},
			{"enable_prefix_caching", "True"},
			{"engine", strconv.Itoa(i)},
			{"num_gpu_blocks", strconv.Itoa(orDefault(cfg.HybridBlocks, cfg.KVBlocks) * cfg.Engines)}, // of all engines, in the series of each
		}
		if cfg.OldKVName { // at that time there was no size in tokens
			t.sample("vllm:cache_config_info", labels, 1)
			continue
		}
		t.sample("vllm:cache_config_info", labels, 1, label{"kv_cache_size_tokens", strconv.Itoa(cfg.KVBlocks * cfg.BlockSize)}) // of this engine
	}
	if len(cfg.LoRAs) > 0 {
		t.loraInfo(cfg)
	}
}

// loraInfo writes vllm:lora_requests_info. It has no label for the engine: if several engines have had the same adapters,
// the latest time counts, as in vLLM.
func (t *metricsText) loraInfo(cfg *Config) {
	const name = "vllm:lora_requests_info"
	t.family(name, "gauge", "Running stats on lora requests.")
	var all []loraSample
	for _, rank := range t.ranks {
		for _, s := range rank.loras {
			i := slices.IndexFunc(all, func(o loraSample) bool { return o.running == s.running && o.waiting == s.waiting })
			if i < 0 {
				all = append(all, s)
			} else if s.at.After(all[i].at) {
				all[i].at = s.at
			}
		}
	}
	for _, s := range all {
		t.sample(name, []label{
			{"max_lora", strconv.Itoa(cfg.MaxLoRAs)}, {"running_lora_adapters", s.running}, {"waiting_lora_adapters", s.waiting},
		}, unixSeconds(s.at))
	}
}

func (t *metricsText) sglang(cfg *Config) {
	t.each(func(rank string) []label {
		labels := []label{{"engine_type", "unified"}, {"model_name", cfg.Models[0]}, {"pp_rank", "0"}, {"tp_rank", "0"}}
		if cfg.Engines > 1 {
			labels = append([]label{{"dp_rank", rank}}, labels...)
		}
		return labels
	})
	capacity := float64(cfg.KVBlocks * cfg.BlockSize)
	t.byPriority(cfg, "sglang:num_running_reqs", "The number of running requests.", func(s *snapshot) float64 { return float64(s.running) })
	t.gauge("sglang:num_used_tokens", "The number of used tokens.", func(s *snapshot) float64 { return float64(int(s.kvUse*capacity + 0.5)) })
	t.gauge("sglang:token_usage", "The token usage.", func(s *snapshot) float64 { return s.kvUse })
	t.byPriority(cfg, "sglang:num_queue_reqs", "The number of requests in the waiting queue.", func(s *snapshot) float64 { return float64(s.waiting) })
	t.gauge("sglang:num_retracted_reqs", "The number of retracted requests.", func(s *snapshot) float64 { return float64(s.Preemptions) })
	t.gauge("sglang:cache_hit_rate", "The prefix cache hit rate.", (*snapshot).hitRate)
	t.gauge("sglang:max_total_num_tokens", "Maximum total number of tokens in the KV cache pool.", func(*snapshot) float64 { return capacity })
	t.family("sglang:cache_config_info", "gauge", "Information of the KV cache.")
	for _, labels := range t.labels {
		t.sample("sglang:cache_config_info", labels, 1, label{"num_pages", strconv.Itoa(cfg.KVBlocks)}, label{"page_size", strconv.Itoa(cfg.BlockSize)})
	}
	t.counter("sglang:prompt_tokens", "Number of prefill tokens processed.", func(s *snapshot) uint64 { return s.PromptTokens })
	t.counter("sglang:generation_tokens", "Number of generation tokens processed.", func(s *snapshot) uint64 { return s.GeneratedTokens })
	t.counter("sglang:num_requests", "Number of requests processed.", (*snapshot).completed)
	t.histogram("sglang:time_to_first_token_seconds", "Histogram of time to first token in seconds.", func(s *snapshot) *histogram { return &s.firstToken })
	t.histogram("sglang:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", func(s *snapshot) *histogram { return &s.interToken })
	t.histogram("sglang:e2e_request_latency_seconds", "Histogram of End-to-end request latency in seconds", func(s *snapshot) *histogram { return &s.endToEnd })
}

// byPriority writes a gauge of requests. With priority scheduling SGLang reports it in total, under an empty priority,
// and by priority: here all requests have the same one.
func (t *metricsText) byPriority(cfg *Config, name, help string, v func(*snapshot) float64) {
	if !cfg.PriorityScheduling {
		t.gauge(name, help, v)
		return
	}
	t.family(name, "gauge", help)
	for i := range t.ranks {
		for _, priority := range []string{"", "0"} {
			t.sample(name, t.labels[i], v(&t.ranks[i]), label{"priority", priority})
		}
	}
}

func (t *metricsText) tensorRTLLM(cfg *Config) {
	t.each(func(rank string) []label {
		labels := []label{{"engine_type", "pytorch"}, {"model_name", cfg.Models[0]}}
		if cfg.Engines > 1 {
			labels = append([]label{{"engine", rank}}, labels...) // trtllm-serve itself exports only its first rank
		}
		return labels
	})
	used := func(s *snapshot) float64 { return float64(int(s.kvUse*float64(cfg.KVBlocks) + 0.5)) }
	t.successes("trtllm_request_success", "Count of successfully processed requests.", 3)
	t.histogram("trtllm_e2e_request_latency_seconds", "Histogram of end to end request latency in seconds.", func(s *snapshot) *histogram { return &s.endToEnd })
	t.histogram("trtllm_time_to_first_token_seconds", "Histogram of time to first token in seconds.", func(s *snapshot) *histogram { return &s.firstToken })
	t.histogram("trtllm_time_per_output_token_seconds", "Histogram of time per output token in seconds.", func(s *snapshot) *histogram { return &s.perOutputToken })
	t.histogram("trtllm_request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", func(s *snapshot) *histogram { return &s.queue })
	t.counter("trtllm_prompt_tokens", "Cumulative number of prompt (input) tokens processed.", func(s *snapshot) uint64 { return s.PromptTokens })
	t.counter("trtllm_generation_tokens", "Cumulative number of generation (output) tokens produced.", func(s *snapshot) uint64 { return s.GeneratedTokens })
	t.gauge("trtllm_kv_cache_hit_rate", "KV cache hit rate", (*snapshot).hitRate)
	t.gauge("trtllm_kv_cache_utilization", "KV cache utilization", func(s *snapshot) float64 { return s.kvUse })
	t.gauge("trtllm_num_requests_running", "Number of active requests", func(s *snapshot) float64 { return float64(s.running) })
	t.gauge("trtllm_num_requests_waiting", "Number of queued requests", func(s *snapshot) float64 { return float64(s.waiting) })
	t.counter("trtllm_num_requests_completed", "Total number of completed requests across iterations", (*snapshot).completed)
	t.gauge("trtllm_max_num_active_requests", "Maximum number of active requests", func(*snapshot) float64 { return float64(cfg.MaxNumSeqs) })
	t.gauge("trtllm_kv_cache_max_blocks", "Maximum number of KV cache blocks", func(*snapshot) float64 { return float64(cfg.KVBlocks) })
	t.gauge("trtllm_kv_cache_free_blocks", "Number of free KV cache blocks", func(s *snapshot) float64 { return float64(cfg.KVBlocks) - used(s) })
	t.gauge("trtllm_kv_cache_used_blocks", "Number of used KV cache blocks", used)
	t.gauge("trtllm_kv_cache_tokens_per_block", "Number of tokens per KV cache block", func(*snapshot) float64 { return float64(cfg.BlockSize) })
}

// triton writes Triton's own metrics and the gauges of its TensorRT-LLM backend, whose families have a label for the kind
// of number. Triton has no data-parallel ranks: each engine is a separate model there, as instances are.
func (t *metricsText) triton(cfg *Config) {
	t.created, t.integer = 0, true
	t.each(func(rank string) []label {
		name := cfg.Models[0]
		if cfg.Engines > 1 {
			name += "_" + rank
		}
		return []label{{"model", name}, {"version", "1"}}
	})
	kinds := func(family, help, name string, kinds []string, v func(*snapshot, string) float64) {
		t.family(family, "gauge", help)
		for _, kind := range kinds {
			for i := range t.ranks {
				t.sample(family, t.labels[i], v(&t.ranks[i], kind), label{name, kind})
			}
		}
	}
	kinds("nv_trt_llm_request_metrics", "TRT LLM request metrics", "request_type", []string{"waiting", "context", "scheduled", "max", "active"},
		func(s *snapshot, kind string) float64 {
			switch kind {
			case "waiting":
				return float64(s.waiting)
			case "scheduled":
				return float64(s.running)
			case "max":
				return float64(cfg.MaxNumSeqs)
			case "active":
				return float64(s.running + s.waiting)
			}
			return 0 // prompts in a separate chunk are not distinguished
		})
	kinds("nv_trt_llm_kv_cache_block_metrics", "TRT LLM KV cache block metrics", "kv_cache_block_type",
		[]string{"fraction", "tokens_per", "used", "free", "max"},
		func(s *snapshot, kind string) float64 {
			used := float64(int(s.kvUse*float64(cfg.KVBlocks) + 0.5))
			switch kind {
			case "fraction":
				return s.kvUse
			case "tokens_per":
				return float64(cfg.BlockSize)
			case "used":
				return used
			case "free":
				return float64(cfg.KVBlocks) - used
			}
			return float64(cfg.KVBlocks)
		})
	count := func(name, help string, v func(*snapshot) uint64) {
		t.family(name, "counter", help)
		for i := range t.ranks {
			t.sample(name, t.labels[i], float64(v(&t.ranks[i])))
		}
	}
	count("nv_inference_request_success", "Number of successful inference requests, all batch sizes", (*snapshot).completed)
	count("nv_inference_count", "Number of inferences performed (does not include cached requests)", (*snapshot).completed)
	count("nv_inference_exec_count", "Number of model executions performed (does not include cached requests)", func(s *snapshot) uint64 { return s.Steps })
	t.gauge("nv_inference_pending_request_count", "Instantaneous number of pending requests awaiting execution per-model.",
		func(s *snapshot) float64 { return float64(s.waiting) })
}

// jetStream writes the gauges of JetStream that a picker needs. Its model names are written so that Prometheus accepts
// them in metric names.
func (t *metricsText) jetStream(cfg *Config) {
	model := strings.ReplaceAll(cfg.Models[0], "-", "_")
	t.each(func(rank string) []label { return []label{{"id", cfg.Name}, {"idx", rank}} })
	perModel := func(labels []label) []label {
		for i := range len(model) {
			c := model[i]
			if c != '_' && c != ':' && (c < '0' || c > '9' || i == 0) && (c|0x20 < 'a' || c|0x20 > 'z') {
				return labels
			}
		}
		return append(labels, label{"model_name", model})
	}
	for i := range t.labels {
		t.labels[i] = perModel(t.labels[i])
	}
	backlog := 0
	for i := range t.ranks {
		backlog += t.ranks[i].waiting
	}
	t.family("jetstream_prefill_backlog_size", "gauge", "Size of prefill queue")
	t.sample("jetstream_prefill_backlog_size", perModel([]label{{"id", cfg.Name}}), float64(backlog))
	t.gauge("jetstream_transfer_backlog_size", "Size of transfer queue", func(*snapshot) float64 { return 0 })
	t.gauge("jetstream_generate_backlog_size", "Size of generate queue", func(*snapshot) float64 { return 0 })
	t.gauge("jetstream_slots_used_percentage", "The percentage of decode slots currently being used",
		func(s *snapshot) float64 { return float64(s.running) / float64(cfg.MaxNumSeqs) })
}

func (s *snapshot) hitRate() float64 {
	if s.CacheQueries == 0 {
		return 0
	}
	return float64(s.CacheHits) / float64(s.CacheQueries)
}

// completed counts the requests that ended normally.
func (s *snapshot) completed() uint64 { return s.success[0] + s.success[1] }

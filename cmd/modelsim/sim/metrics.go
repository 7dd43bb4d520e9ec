package sim

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

// The metrics carry the names, labels, help texts and buckets of vLLM's V1 engine (vllm/v1/metrics/loggers.py). They
// are written by hand: the set is small and fixed, the text comes out as Python's client writes it (labels sorted,
// 1.0 for whole numbers, _created beside counters and histograms), and a request pays for no registry.

var (
	firstTokenBuckets = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	interTokenBuckets = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
	latencyBuckets    = []float64{0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
)

// finishReasons are vLLM's values of finished_reason that the simulation can have.
var finishReasons = [...]string{"stop", "length", "abort"}

// stats is everything that vLLM counts per request. Guarded by engine.mu.
type stats struct {
	created time.Time

	promptTokens, generatedTokens uint64
	cacheQueries, cacheHits       uint64 // tokens
	success                       [len(finishReasons)]uint64

	requestPrompt, requestGenerated, requestMaxTokens histogram // tokens
	firstToken, interToken, perOutputToken            histogram // seconds
	endToEnd, queue, inference, prefill, decode       histogram // seconds
}

func newStats(maxModelLen int) stats {
	tokens := tokenBuckets(maxModelLen)
	return stats{
		created:          time.Now(),
		requestPrompt:    histogram{buckets: tokens},
		requestGenerated: histogram{buckets: tokens},
		requestMaxTokens: histogram{buckets: tokens},
		firstToken:       histogram{buckets: firstTokenBuckets},
		interToken:       histogram{buckets: interTokenBuckets},
		perOutputToken:   histogram{buckets: interTokenBuckets},
		endToEnd:         histogram{buckets: latencyBuckets},
		queue:            histogram{buckets: latencyBuckets},
		inference:        histogram{buckets: latencyBuckets},
		prefill:          histogram{buckets: latencyBuckets},
		decode:           histogram{buckets: latencyBuckets},
	}
}

// tokenBuckets are 1, 2, 5, 10, 20, 50, … up to limit.
func tokenBuckets(limit int) (buckets []float64) {
	for power := 1; ; power *= 10 {
		for _, step := range []int{1, 2, 5} {
			if step*power > limit {
				return buckets
			}
			buckets = append(buckets, float64(step*power))
		}
	}
}

func (s *stats) admitted(j *job) {
	s.promptTokens += uint64(j.promptTokens)
	s.cacheQueries += uint64(j.promptTokens)
	s.cacheHits += uint64(j.cachedTokens)
}

func (s *stats) finished(j *job, reason string, now time.Time) {
	for i, known := range finishReasons {
		if known == reason {
			s.success[i]++
		}
	}
	s.generatedTokens += uint64(j.generated)
	s.requestPrompt.observe(float64(j.promptTokens))
	s.requestGenerated.observe(float64(j.generated))
	s.requestMaxTokens.observe(float64(j.maxTokens))
	s.endToEnd.observe(now.Sub(j.arrived).Seconds())
	if j.admitted.IsZero() {
		return // left the queue: it was never running
	}
	s.queue.observe(j.admitted.Sub(j.arrived).Seconds())
	s.inference.observe(now.Sub(j.admitted).Seconds())
	if j.generated == 0 {
		return
	}
	s.prefill.observe(j.firstToken.Sub(j.admitted).Seconds())
	s.decode.observe(j.lastToken.Sub(j.firstToken).Seconds())
	s.interToken.add(&j.gaps)
	if j.generated > 1 {
		s.perOutputToken.observe(j.lastToken.Sub(j.firstToken).Seconds() / float64(j.generated-1))
	}
}

// histogram is one Prometheus histogram.
type histogram struct {
	buckets []float64
	histogramCounts
}

// histogramCounts are the observations per bucket, not cumulative; what exceeds every bucket counts in n alone.
type histogramCounts struct {
	count [32]uint64
	n     uint64
	sum   float64
}

func (h *histogram) observe(v float64) { h.histogramCounts.observe(h.buckets, v) }

func (c *histogramCounts) observe(buckets []float64, v float64) {
	for i, bound := range buckets {
		if v <= bound {
			c.count[i]++
			break
		}
	}
	c.n++
	c.sum += v
}

func (c *histogramCounts) add(other *histogramCounts) {
	for i, n := range other.count {
		c.count[i] += n
	}
	c.n += other.n
	c.sum += other.sum
}

// appendMetrics appends the Prometheus text format 0.0.4.
func (e *engine) appendMetrics(dst []byte) []byte {
	e.mu.Lock()
	s := e.stats // a copy, so that writing the text does not hold up the requests
	waiting, usage := e.waiting.Len(), e.kv.usage()
	runningLoRAs, waitingLoRAs := e.adapters()
	e.mu.Unlock()

	t := metricsText{buf: dst, created: s.created, labels: labels("engine", "0", "model_name", e.cfg.Models[0])}
	t.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", float64(e.running.Load()))
	t.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", float64(waiting))
	t.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", usage)
	t.counter("vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", s.cacheQueries)
	t.counter("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", s.cacheHits)
	t.counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.", 0)
	t.counter("vllm:prompt_tokens", "Number of prefill tokens processed.", s.promptTokens)
	t.counter("vllm:generation_tokens", "Number of generation tokens processed.", s.generatedTokens)
	t.successes(s.success)
	t.histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", &s.requestPrompt)
	t.histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", &s.requestGenerated)
	t.histogram("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", &s.requestMaxTokens)
	t.histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", &s.firstToken)
	t.histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", &s.interToken)
	t.histogram("vllm:request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", &s.perOutputToken)
	t.histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", &s.endToEnd)
	t.histogram("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", &s.queue)
	t.histogram("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", &s.inference)
	t.histogram("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", &s.prefill)
	t.histogram("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", &s.decode)
	t.info("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", 1, labels(
		"block_size", strconv.Itoa(e.cfg.BlockSize),
		"enable_prefix_caching", "True",
		"engine", "0",
		"num_gpu_blocks", strconv.Itoa(e.cfg.KVBlocks),
	))
	if len(e.cfg.LoRAs) > 0 {
		t.info("vllm:lora_requests_info", "Running stats on lora requests.", float64(time.Now().UnixNano())/1e9, labels(
			"max_lora", strconv.Itoa(e.cfg.MaxLoRAs),
			"running_lora_adapters", runningLoRAs,
			"waiting_lora_adapters", waitingLoRAs,
		))
	}
	return t.buf
}

// adapters are the names of the adapters with running and with waiting requests, comma separated. mu is held.
func (e *engine) adapters() (running, waiting string) {
	var run, wait []string
	for name, load := range e.loras {
		if load.running > 0 {
			run = append(run, name)
		}
		if load.waiting > 0 {
			wait = append(wait, name)
		}
	}
	sort.Strings(run)
	sort.Strings(wait)
	return strings.Join(run, ","), strings.Join(wait, ",")
}

// metricsText writes families that all carry the same labels.
type metricsText struct {
	buf     []byte
	labels  string // without braces
	created time.Time
}

func (t *metricsText) gauge(name, help string, v float64) {
	t.family(name, "gauge", help)
	t.sample(name, t.labels, v)
}

func (t *metricsText) info(name, help string, v float64, labels string) {
	t.family(name, "gauge", help)
	t.sample(name, labels, v)
}

func (t *metricsText) counter(name, help string, v uint64) {
	t.family(name+"_total", "counter", help)
	t.sample(name+"_total", t.labels, float64(v))
	t.createdAt(name, help, t.labels)
}

func (t *metricsText) successes(counts [len(finishReasons)]uint64) {
	const name, help = "vllm:request_success", "Count of successfully processed requests."
	t.family(name+"_total", "counter", help)
	for i, reason := range finishReasons {
		t.sample(name+"_total", t.withLabel("finished_reason", reason), float64(counts[i]))
	}
	t.family(name+"_created", "gauge", help)
	for _, reason := range finishReasons {
		t.sample(name+"_created", t.withLabel("finished_reason", reason), unixSeconds(t.created))
	}
}

func (t *metricsText) histogram(name, help string, h *histogram) {
	t.family(name, "histogram", help)
	sum := uint64(0)
	for i, bound := range h.buckets {
		sum += h.count[i]
		t.sample(name+"_bucket", t.withLabel("le", number(bound)), float64(sum))
	}
	t.sample(name+"_bucket", t.withLabel("le", "+Inf"), float64(h.n))
	t.sample(name+"_count", t.labels, float64(h.n))
	t.sample(name+"_sum", t.labels, h.sum)
	t.createdAt(name, help, t.labels)
}

func (t *metricsText) createdAt(name, help, labels string) {
	t.family(name+"_created", "gauge", help)
	t.sample(name+"_created", labels, unixSeconds(t.created))
}

func (t *metricsText) family(name, kind, help string) {
	t.buf = fmt.Appendf(t.buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (t *metricsText) sample(name, labels string, v float64) {
	t.buf = append(t.buf, name...)
	t.buf = append(t.buf, '{')
	t.buf = append(t.buf, labels...)
	t.buf = append(t.buf, "} "...)
	t.buf = append(t.buf, number(v)...)
	t.buf = append(t.buf, '\n')
}

// withLabel adds a label whose name sorts between engine and model_name.
func (t *metricsText) withLabel(name, value string) string {
	engine, rest, _ := strings.Cut(t.labels, ",")
	return engine + "," + labels(name, value) + "," + rest
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labels renders name, value, name, value, …
func labels(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pairs[i] + `="` + labelEscaper.Replace(pairs[i+1]) + `"`)
	}
	return b.String()
}

// number renders a value as Python does: whole numbers with .0.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

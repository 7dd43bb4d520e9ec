package sim

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// The metrics are written by hand: the sets are small and fixed, the text equals what the servers' own clients write, and
// requests do not pay for a registry. What each kind of server exposes is in dialects.go.

var (
	firstTokenBuckets = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	interTokenBuckets = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
	latencyBuckets    = []float64{0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
)

// finishReasons are vLLM's values of finished_reason. The simulation has the first three.
var finishReasons = [...]string{"stop", "length", "abort", "error", "repetition"}

// stats are the counters that the engine does not have. Guarded by replica.mu.
type stats struct {
	success [len(finishReasons)]uint64

	requestPrompt, requestGenerated, requestMaxTokens histogram // tokens
	firstToken, interToken, perOutputToken            histogram // seconds
	endToEnd, queue, inference, prefill, decode       histogram // seconds
}

func newStats(maxModelLen int) stats {
	tokens := tokenBuckets(maxModelLen)
	return stats{
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

// finished counts a request that has ended, normally or because its client has gone. The reason is vLLM's
// finished_reason.
func (s *stats) finished(j *job, reason string, now time.Duration, cfg *Config) {
	for i, known := range finishReasons {
		if known == reason {
			s.success[i]++
		}
	}
	s.requestPrompt.observe(float64(j.PromptTokens))
	s.requestGenerated.observe(float64(j.Generated))
	s.requestMaxTokens.observe(float64(j.maxTokens))
	s.endToEnd.observe(cfg.seconds(now - j.Arrived))
	if j.Admissions == 0 {
		return // it left the queue: it never ran
	}
	s.queue.observe(cfg.seconds(j.Queued()))
	s.inference.observe(cfg.seconds(now - j.Admitted))
	if j.Generated == 0 {
		return
	}
	s.prefill.observe(cfg.seconds(j.FirstToken - j.Admitted))
	s.decode.observe(cfg.seconds(j.lastToken - j.FirstToken))
	if j.Generated > 1 {
		s.perOutputToken.observe(cfg.seconds(j.lastToken-j.FirstToken) / float64(j.Generated-1))
	}
}

// histogram is one Prometheus histogram.
type histogram struct {
	buckets []float64
	count   [32]uint64 // per bucket, not cumulative; a value above every bucket counts only in n
	n       uint64
	sum     float64
}

func (h *histogram) observe(v float64) {
	for i, bound := range h.buckets {
		if v <= bound {
			h.count[i]++
			break
		}
	}
	h.n++
	h.sum += v
}

// snapshot is what a scrape sees of one engine: a copy, so that writing the text does not block requests.
type snapshot struct {
	stats
	engine.Totals
	waiting, running int
	kvUse            float64
	loras            []loraSample
}

// snapshots copies the state of all engines.
func (p *replica) snapshots() []snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.advance(now)
	p.arm(now)
	ranks := make([]snapshot, len(p.ranks))
	for i, r := range p.ranks {
		ranks[i] = snapshot{
			stats: r.stats, Totals: r.engine.Totals(), waiting: r.engine.Waiting(), running: r.engine.Running(),
			kvUse: r.engine.KVUse(), loras: slices.Clone(r.loras.series),
		}
	}
	return ranks
}

// appendMetrics appends the Prometheus text format 0.0.4.
func (p *replica) appendMetrics(dst []byte) []byte {
	t := metricsText{buf: dst, ranks: p.snapshots(), created: unixSeconds(p.began)}
	t.asleep, t.level = p.rest.state()
	if p.cfg.Dialect != Triton { // the others have Python's client
		t.family("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
		t.sample("process_start_time_seconds", nil, t.created)
	}
	switch p.cfg.Dialect {
	case VLLM:
		t.vllm(&p.cfg)
	case SGLang:
		t.sglang(&p.cfg)
	case TensorRTLLM:
		t.tensorRTLLM(&p.cfg)
	case Triton:
		t.triton(&p.cfg)
	case JetStream:
		t.jetStream(&p.cfg)
	}
	return t.buf
}

// metricsText writes families with one sample, or one histogram, per engine.
type metricsText struct {
	buf     []byte
	ranks   []snapshot
	labels  [][]label // of each engine, sorted by name
	created float64   // 0: no _created series
	integer bool      // whole numbers as 1, not as Python's 1.0
	asleep  bool
	level   int // of the sleep
}

type label struct{ name, value string }

func (t *metricsText) gauge(name, help string, v func(*snapshot) float64) {
	t.family(name, "gauge", help)
	for i := range t.ranks {
		t.sample(name, t.labels[i], v(&t.ranks[i]))
	}
}

// counter writes a counter whose name has no _total yet.
func (t *metricsText) counter(name, help string, v func(*snapshot) uint64) {
	t.family(name+"_total", "counter", help)
	for i := range t.ranks {
		t.sample(name+"_total", t.labels[i], float64(v(&t.ranks[i])))
	}
	t.createdAt(name, help)
}

// successes is the counter of finished requests by the first n reasons.
func (t *metricsText) successes(name, help string, reasons int) {
	t.family(name+"_total", "counter", help)
	for i := range t.ranks {
		for k, reason := range finishReasons[:reasons] {
			t.sample(name+"_total", t.labels[i], float64(t.ranks[i].success[k]), label{"finished_reason", reason})
		}
	}
	if t.created == 0 {
		return
	}
	t.family(name+"_created", "gauge", help)
	for i := range t.ranks {
		for _, reason := range finishReasons[:reasons] {
			t.sample(name+"_created", t.labels[i], t.created, label{"finished_reason", reason})
		}
	}
}

func (t *metricsText) histogram(name, help string, of func(*snapshot) *histogram) {
	t.family(name, "histogram", help)
	for i := range t.ranks {
		h := of(&t.ranks[i])
		sum := uint64(0)
		for k, bound := range h.buckets {
			sum += h.count[k]
			t.sample(name+"_bucket", t.labels[i], float64(sum), label{"le", pythonNumber(bound)})
		}
		t.sample(name+"_bucket", t.labels[i], float64(h.n), label{"le", "+Inf"})
		t.sample(name+"_count", t.labels[i], float64(h.n))
		t.sample(name+"_sum", t.labels[i], h.sum)
	}
	t.createdAt(name, help)
}

// createdAt writes the _created series of Python's client.
func (t *metricsText) createdAt(name, help string) {
	if t.created == 0 {
		return
	}
	t.family(name+"_created", "gauge", help)
	for i := range t.ranks {
		t.sample(name+"_created", t.labels[i], t.created)
	}
}

func (t *metricsText) family(name, kind, help string) {
	t.buf = fmt.Appendf(t.buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample writes one line. An extra label is inserted in sorted order.
func (t *metricsText) sample(name string, labels []label, v float64, extra ...label) {
	t.buf = append(t.buf, name...)
	separator := byte('{')
	put := func(l label) {
		t.buf = append(t.buf, separator)
		t.buf = append(t.buf, l.name...)
		t.buf = append(t.buf, `="`...)
		t.buf = append(t.buf, labelEscaper.Replace(l.value)...)
		t.buf = append(t.buf, '"')
		separator = ','
	}
	for _, l := range labels {
		for len(extra) > 0 && extra[0].name < l.name {
			put(extra[0])
			extra = extra[1:]
		}
		put(l)
	}
	for _, l := range extra {
		put(l)
	}
	if separator == ',' {
		t.buf = append(t.buf, '}')
	}
	t.buf = append(t.buf, ' ')
	if t.integer {
		t.buf = strconv.AppendFloat(t.buf, v, 'g', -1, 64)
	} else {
		t.buf = append(t.buf, pythonNumber(v)...)
	}
	t.buf = append(t.buf, '\n')
}

// pythonNumber formats a value as Python does: whole numbers with .0.
func pythonNumber(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

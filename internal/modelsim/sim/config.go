package sim

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// Config describes one simulated replica. The zero value is a working replica without delays; every zero field takes the
// default in its comment.
type Config struct {
	// Name is the replica's name, shown in x-modelsim-replica. Default "modelsim".
	Name string
	// Models are the names under which the base model is served; the first is the model_name of the metrics.
	// Default DefaultModel.
	Models []string
	// LoRAs are the names of the adapters of Models[0].
	LoRAs []string
	// MaxLoRAs is how many adapters have a slot at the same time; requests for others wait. Default 1 (vLLM's own
	// default).
	MaxLoRAs int
	// StrictModels refuses a model that is neither in Models nor in LoRAs with 404, as vLLM does. Without it the replica
	// accepts any name, so that one kind of replica can replace all.
	StrictModels bool
	// MaxModelLen is the longest prompt plus output in tokens. Default: what the KV cache holds.
	MaxModelLen int
	// Engines is how many data-parallel engines share the replica's requests; each has its own KV cache, limits and series
	// of metrics. Default 1.
	Engines int
	// MaxNumSeqs is how many requests one engine runs at the same time; the others wait in order of arrival. Default 256.
	MaxNumSeqs int
	// MaxNumBatchedTokens is how many tokens one step computes at most; longer prompts are split into chunks. Default
	// 8192.
	MaxNumBatchedTokens int
	// KVBlocks is the size of one engine's KV cache in blocks. Default engine.DefaultBlocks.
	KVBlocks int
	// BlockSize is the size of one KV block in tokens. Default 16.
	BlockSize int
	// BytesPerToken replaces a tokenizer: this many bytes of text are one token. Default 4, as in English text.
	BytesPerToken int
	// MaxBody is the longest request body in bytes that is read. Default 64 MiB.
	MaxBody int64
	// Echo responds with the text of the prompt's last message instead of filler words.
	Echo bool
	// Speed divides every simulated duration: 1 is real time, 10 is ten times as fast, 0 has no delays at all.
	Speed float64
	// Timing is the simulated hardware. All of it zero: engine.Default.
	Timing engine.Timing
	// Dialect is the kind of server whose metrics /metrics exposes. Default VLLM.
	Dialect Dialect
	// OldKVName exposes vLLM's KV cache under its old names, with "gpu" (vllm:gpu_cache_usage_perc).
	OldKVName bool
	// HybridBlocks is what vLLM's metrics report as the number of blocks of an engine instead of KVBlocks. In a hybrid
	// model (sliding window, state space) the number of blocks does not give the number of tokens that fit; the metrics
	// report that separately. Default KVBlocks.
	HybridBlocks int
	// PriorityScheduling also exposes SGLang's requests by priority, in addition to their sum.
	PriorityScheduling bool
	// Logger gets the structured log. Default: discarded.
	Logger *slog.Logger
}

// DefaultModel is the model of a replica without a configured one.
const DefaultModel = "meta-llama/Llama-3.1-8B-Instruct"

// Validate returns all errors of the configuration, joined into one.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(printable(c.Name), "name %q is not printable ASCII", c.Name)
	for _, model := range append(append([]string{}, c.Models...), c.LoRAs...) {
		check(model != "", "a model name is empty")
	}
	check(c.Engines > 0, "engines is %d, must be at least 1", c.Engines)
	check(slices.Contains(Dialects, c.Dialect), "dialect %q is not one of %v", c.Dialect, Dialects)
	if err := c.engine().Validate(); err != nil {
		errs = append(errs, err)
	}
	check(c.BytesPerToken > 0, "bytes per token is %d, must be at least 1", c.BytesPerToken)
	check(c.MaxBody > 0, "max body is %d bytes, must be at least 1", c.MaxBody)
	check(c.MaxModelLen > 0, "max model len is %d tokens, must be at least 1", c.MaxModelLen)
	check(c.MaxModelLen <= 1e9, "max model len is %d tokens, must be at most 1e9", c.MaxModelLen)
	// vLLM refuses to start in this case too: such a request could never be scheduled.
	check(c.MaxModelLen <= c.KVBlocks*c.BlockSize, "max model len is %d tokens, but the KV cache holds %d", c.MaxModelLen, c.KVBlocks*c.BlockSize)
	check(c.Speed >= 0 && !math.IsInf(c.Speed, 0) && !math.IsNaN(c.Speed), "speed is %v, must be 0 or more", c.Speed)
	return errors.Join(errs...)
}

// engine is the configuration of each engine.
func (c Config) engine() engine.Config {
	return engine.Config{
		Blocks: c.KVBlocks, BlockTokens: c.BlockSize, MaxNumSeqs: c.MaxNumSeqs, MaxNumBatchedTokens: c.MaxNumBatchedTokens,
		MaxLoRAs: c.MaxLoRAs, Timing: c.Timing, TokenEvents: true,
	}
}

func (c Config) withDefaults() Config {
	c.Name = orDefault(c.Name, "modelsim")
	if len(c.Models) == 0 {
		c.Models = []string{DefaultModel}
	}
	c.Engines = orDefault(c.Engines, 1)
	c.Dialect = orDefault(c.Dialect, VLLM)
	model := c.engine().WithDefaults()
	c.KVBlocks, c.BlockSize, c.Timing = model.Blocks, model.BlockTokens, model.Timing
	c.MaxNumSeqs, c.MaxNumBatchedTokens, c.MaxLoRAs = model.MaxNumSeqs, model.MaxNumBatchedTokens, model.MaxLoRAs
	c.MaxModelLen = orDefault(c.MaxModelLen, c.KVBlocks*c.BlockSize)
	c.BytesPerToken = orDefault(c.BytesPerToken, 4)
	c.MaxBody = orDefault(c.MaxBody, 64<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

package sim

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Config describes one simulated replica. The zero value is a working replica without delays; every zero field
// takes the default that its comment names.
type Config struct {
	// Name is the replica's name, told in x-modelsim-replica. Default "modelsim".
	Name string
	// Models are the names under which the base model is served; the first is the model_name of the metrics.
	// Default DefaultModel.
	Models []string
	// LoRAs are the names of the adapters of Models[0].
	LoRAs []string
	// MaxLoRAs is the max_lora label of vllm:lora_requests_info. Default 1 (vLLM's own default).
	MaxLoRAs int
	// StrictModels refuses a model that is neither in Models nor in LoRAs with 404, as vLLM does. Without it the
	// replica answers under any name, so that one kind of replica can stand in for all.
	StrictModels bool
	// MaxModelLen is the longest prompt plus answer in tokens. Default: what the KV cache holds.
	MaxModelLen int
	// MaxNumSeqs is how many requests run at once; the others wait in order of arrival. Default 256.
	MaxNumSeqs int
	// KVBlocks is the size of the KV cache in blocks. Default DefaultKVBlocks.
	KVBlocks int
	// BlockSize is the size of one KV block in tokens. Default 16.
	BlockSize int
	// MaxBody is the longest request body in bytes that is read. Default 64 MiB.
	MaxBody int64
	// Echo answers with the text of the prompt's last message instead of filler words.
	Echo bool
	// Speed divides every simulated duration: 1 is real time, 10 is ten times as fast, 0 has no delays at all.
	Speed float64
	// Timing is the simulated hardware. All of it zero: DefaultTiming.
	Timing Timing
	// Logger takes the structured log. Default: discarded.
	Logger *slog.Logger
}

// Timing is the timing model of one replica at speed 1:
//
//	time to first token = wait in the queue + wait for the prefills before it + uncached prompt tokens / PrefillRate + Overhead
//	time per output token = TokenTime + (requests running - 1) * TokenTimePerSeq
type Timing struct {
	// Overhead is what every request pays before its first token: HTTP, tokenizer, scheduler, first sampling.
	Overhead time.Duration
	// PrefillRate is how many uncached prompt tokens one replica computes per second; prefills run one after another.
	PrefillRate float64
	// TokenTime is the time of one decode step for a single request.
	TokenTime time.Duration
	// TokenTimePerSeq is what each further running request adds to a decode step.
	TokenTimePerSeq time.Duration
}

const (
	// DefaultModel is the model that a replica serves when none is named.
	DefaultModel = "meta-llama/Llama-3.1-8B-Instruct"

	// DefaultKVBlocks follows from arithmetic for an 8B model in bfloat16 on a GPU of 80 GB: 0.9 * 80 GB less 16 GB
	// of weights and some working memory leaves about 54 GB; one token takes 2 (K and V) * 32 layers * 8 heads *
	// 128 dimensions * 2 bytes = 128 KiB; so about 416,000 tokens, which are 26,000 blocks of 16.
	DefaultKVBlocks = 26000

	// bytesPerToken stands in for a tokenizer: about 4 bytes of English text make one token.
	bytesPerToken = 4
)

// DefaultTiming is chosen, not measured: the order of magnitude of an 8B model in bfloat16 on one H100.
//
//   - PrefillRate: 16 GFLOP a token (2 per weight) at about 40 % of the card's 989 dense TFLOP/s.
//   - TokenTime: reading 16 GB of weights at 3.35 TB/s takes 4.8 ms; launch and sampling bring it to about 7 ms.
//   - TokenTimePerSeq: published curves of such servers about double the step from 1 to 100 requests.
//   - Overhead: HTTP, tokenizer and scheduler of a Python server, in the order of 15 ms.
var DefaultTiming = Timing{
	Overhead:        15 * time.Millisecond,
	PrefillRate:     25000,
	TokenTime:       7 * time.Millisecond,
	TokenTimePerSeq: 70 * time.Microsecond,
}

// Validate names everything that is wrong with the configuration, joined into one error.
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
	check(c.MaxLoRAs > 0, "max LoRAs is %d, must be at least 1", c.MaxLoRAs)
	check(c.MaxNumSeqs > 0, "max num seqs is %d, must be at least 1", c.MaxNumSeqs)
	check(c.KVBlocks > 0, "KV blocks is %d, must be at least 1", c.KVBlocks)
	check(c.BlockSize > 0, "block size is %d tokens, must be at least 1", c.BlockSize)
	check(c.MaxBody > 0, "max body is %d bytes, must be at least 1", c.MaxBody)
	check(c.MaxModelLen > 0, "max model len is %d tokens, must be at least 1", c.MaxModelLen)
	check(c.MaxModelLen <= 1e9, "max model len is %d tokens, must be at most 1e9", c.MaxModelLen)
	// vLLM refuses to start in this case too: such a request could never be scheduled.
	check(c.MaxModelLen <= c.KVBlocks*c.BlockSize, "max model len is %d tokens, but the KV cache holds %d", c.MaxModelLen, c.KVBlocks*c.BlockSize)
	check(c.Speed >= 0 && !math.IsInf(c.Speed, 0) && !math.IsNaN(c.Speed), "speed is %v, must be 0 or more", c.Speed)
	check(c.Timing.Overhead >= 0, "overhead is %v, must be 0 or more", c.Timing.Overhead)
	check(c.Timing.PrefillRate > 0, "prefill rate is %v tokens a second, must be more than 0", c.Timing.PrefillRate)
	check(c.Timing.TokenTime >= 0, "token time is %v, must be 0 or more", c.Timing.TokenTime)
	check(c.Timing.TokenTimePerSeq >= 0, "token time per sequence is %v, must be 0 or more", c.Timing.TokenTimePerSeq)
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Name = orDefault(c.Name, "modelsim")
	if len(c.Models) == 0 {
		c.Models = []string{DefaultModel}
	}
	c.MaxLoRAs = orDefault(c.MaxLoRAs, 1)
	c.MaxNumSeqs = orDefault(c.MaxNumSeqs, 256)
	c.KVBlocks = orDefault(c.KVBlocks, DefaultKVBlocks)
	c.BlockSize = orDefault(c.BlockSize, 16)
	c.MaxModelLen = orDefault(c.MaxModelLen, c.KVBlocks*c.BlockSize)
	c.MaxBody = orDefault(c.MaxBody, 64<<20)
	c.Timing = orDefault(c.Timing, DefaultTiming)
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

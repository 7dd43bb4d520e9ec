package engine

import (
	"errors"
	"fmt"
)

// Config describes one engine: one scheduler with its KV cache. Zero fields take the default in their comment.
type Config struct {
	// Blocks is the size of the KV cache in blocks. Default DefaultBlocks.
	Blocks int
	// BlockTokens is the size of one block in tokens. Default 16, as vLLM on a GPU.
	BlockTokens int
	// MaxNumSeqs is how many requests run at the same time; the others wait. Default 256, as in vLLM's server.
	MaxNumSeqs int
	// MaxNumBatchedTokens is how many tokens one step computes at most. Longer prompts are computed in chunks. Default
	// 8192, as in vLLM's server on an H100.
	MaxNumBatchedTokens int
	// MaxLoRAs is how many adapters have a slot at the same time. Default 1, as in vLLM.
	MaxLoRAs int
	// Timing is the simulated hardware. All of it zero: Default.
	Timing Timing
	// TokenEvents reports every output token, not just the first one and the end of a request.
	TokenEvents bool
}

// DefaultBlocks is calculated for the hardware of Default: 0.9 * 80 GB minus 16 GB of weights and some working memory
// leaves about 54 GB. At 128 KiB per token these are about 416,000 tokens, or 26,000 blocks of 16.
const DefaultBlocks = 26000

// Validate returns all errors, joined into one.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs errorList
	errs.check(c.Blocks > 0, "KV blocks is %d, must be at least 1", c.Blocks)
	errs.check(c.BlockTokens > 0, "block size is %d tokens, must be at least 1", c.BlockTokens)
	errs.check(c.MaxNumSeqs > 0, "max num seqs is %d, must be at least 1", c.MaxNumSeqs)
	errs.check(c.MaxNumBatchedTokens > 0, "max num batched tokens is %d, must be at least 1", c.MaxNumBatchedTokens)
	errs.check(c.MaxLoRAs > 0, "max LoRAs is %d, must be at least 1", c.MaxLoRAs)
	return errors.Join(errors.Join(errs...), c.Timing.Validate())
}

// WithDefaults fills in the zero fields.
func (c Config) WithDefaults() Config {
	c.Blocks = orDefault(c.Blocks, DefaultBlocks)
	c.BlockTokens = orDefault(c.BlockTokens, 16)
	c.MaxNumSeqs = orDefault(c.MaxNumSeqs, 256)
	c.MaxNumBatchedTokens = orDefault(c.MaxNumBatchedTokens, 8192)
	c.MaxLoRAs = orDefault(c.MaxLoRAs, 1)
	c.Timing = orDefault(c.Timing, Default)
	return c
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

type errorList []error

func (l *errorList) check(ok bool, format string, args ...any) {
	if !ok {
		*l = append(*l, fmt.Errorf(format, args...))
	}
}

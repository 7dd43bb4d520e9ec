// Command modelsim is a simulated model server: one vLLM replica without a GPU. See README.md.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
	"github.com/inlet-proxy/inlet/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		os.Exit(1)
	}
}

func command() *cobra.Command {
	cfg := sim.Config{Timing: engine.Default, Dialect: sim.VLLM}
	var listen, fault, logLevel, logFormat string
	var drain time.Duration

	cmd := &cobra.Command{
		Use:     "modelsim",
		Version: version.String(),
		Short:   "A simulated model server: OpenAI and Anthropic APIs, the metrics of vLLM or other servers, plausible timing, faults on demand",
		Example: `  modelsim --listen 127.0.0.1:8000 --name a1 --model llama-3-8b --lora llama-sql
  modelsim --listen 127.0.0.1:0 --speed 0                                  # any port, no delays
  curl -d 'status=503,delay=200ms' http://127.0.0.1:8000/admin/fault       # break the replica
  curl -X DELETE http://127.0.0.1:8000/admin/fault                         # repair it`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(cmd.ErrOrStderr(), logLevel, logFormat)
			if err != nil {
				return err
			}
			cfg.Logger = logger
			// In sim.Config 0 means the default; on the command line 0 means 0.
			for _, name := range []string{"max-loras", "engines", "max-num-seqs", "max-num-batched-tokens", "kv-blocks", "block-size", "bytes-per-token", "max-body"} {
				if cmd.Flag(name).Value.String() == "0" {
					return fmt.Errorf("--%s must be at least 1", name)
				}
			}
			if err := cfg.Validate(); err != nil {
				return err
			}
			server := sim.New(cfg)
			if fault != "" {
				f, err := sim.ParseFault(fault)
				if err != nil {
					return err
				}
				server.SetFault(f)
			}
			return serve(cmd.Context(), cmd.OutOrStdout(), server, cfg.Name, listen, drain, logger)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&listen, "listen", "127.0.0.1:8000", "address to listen on; port 0 takes any free one")
	f.StringVar(&cfg.Name, "name", "modelsim", "the replica's name, shown in x-modelsim-replica")
	f.StringArrayVar(&cfg.Models, "model", []string{sim.DefaultModel}, "name of the served model; repeat it for further names of the same model")
	f.StringArrayVar(&cfg.LoRAs, "lora", nil, "name of a LoRA adapter; repeatable")
	f.IntVar(&cfg.MaxLoRAs, "max-loras", 1, "LoRA adapters that have a slot at the same time; requests for others wait")
	f.BoolVar(&cfg.StrictModels, "strict-models", false, "refuse other models with 404, as vLLM does")
	f.IntVar(&cfg.MaxModelLen, "max-model-len", 0, "longest prompt plus output in tokens (default: what the KV cache holds)")
	f.IntVar(&cfg.Engines, "engines", 1, "data-parallel engines, each with its own KV cache, limits and metrics")
	f.IntVar(&cfg.MaxNumSeqs, "max-num-seqs", 256, "requests that one engine runs at the same time; the others wait")
	f.IntVar(&cfg.MaxNumBatchedTokens, "max-num-batched-tokens", 8192, "most tokens that one step computes; longer prompts are split into chunks")
	f.IntVar(&cfg.KVBlocks, "kv-blocks", engine.DefaultBlocks, "size of one engine's KV cache in blocks")
	f.IntVar(&cfg.BlockSize, "block-size", 16, "tokens per KV block")
	f.IntVar(&cfg.BytesPerToken, "bytes-per-token", 4, "bytes of text per token; replaces a tokenizer")
	f.Int64Var(&cfg.MaxBody, "max-body", 64<<20, "longest request body in bytes")
	f.BoolVar(&cfg.Echo, "echo", false, "respond with the text of the last message instead of filler words")
	f.Float64Var(&cfg.Speed, "speed", 1, "how many times faster than real time; 0 means no delays")
	f.DurationVar(&cfg.Timing.Overhead, "overhead", cfg.Timing.Overhead, "time of every request before the scheduler sees it")
	f.Float64Var(&cfg.Timing.PrefillRate, "prefill-rate", cfg.Timing.PrefillRate, "uncached prompt tokens per second")
	f.DurationVar(&cfg.Timing.TokenTime, "token-time", cfg.Timing.TokenTime, "shortest step: time per output token of a single request")
	f.DurationVar(&cfg.Timing.TokenTimePerSeq, "token-time-per-seq", cfg.Timing.TokenTimePerSeq, "time that each further request in a step adds to it")
	f.DurationVar(&cfg.Timing.ContextTime, "context-time", cfg.Timing.ContextTime, "time per output token that every 1,000 tokens of context add")
	f.DurationVar(&cfg.Timing.LoRALoad, "lora-load", cfg.Timing.LoRALoad, "time to load a LoRA adapter into its slot")
	f.StringVar((*string)(&cfg.Dialect), "dialect", string(cfg.Dialect), "whose metrics to expose: "+dialects())
	f.BoolVar(&cfg.OldKVName, "old-kv-name", false, "dialect vllm: the KV cache under its old names (vllm:gpu_cache_usage_perc)")
	f.IntVar(&cfg.HybridBlocks, "hybrid-blocks", 0, "dialect vllm: blocks that the metrics report, as for a hybrid model, whose blocks do not give the size of the cache (default: --kv-blocks)")
	f.BoolVar(&cfg.PriorityScheduling, "priority-scheduling", false, "dialect sglang: expose requests also by priority, in addition to their sum")
	f.StringVar(&fault, "fault", "", "fault to start with, as POST /admin/fault accepts it")
	f.DurationVar(&drain, "drain", 30*time.Second, "how long requests in flight may take to finish after SIGINT or SIGTERM")
	f.StringVar(&logLevel, "log-level", "info", "debug (one line per request), info, warn or error")
	f.StringVar(&logFormat, "log-format", "text", "text or json, to stderr")
	return cmd
}

// dialects are the names for --dialect.
func dialects() string {
	words := ""
	for i, d := range sim.Dialects {
		if i > 0 {
			words += ", "
		}
		words += string(d)
	}
	return words
}

// serve runs until ctx ends, then drains. The line on stdout is for the process that started this one with port 0.
func serve(ctx context.Context, stdout io.Writer, server *sim.Server, name, listen string, drain time.Duration, logger *slog.Logger) error {
	if err := server.Start(listen); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "modelsim %s listening on %s\n", name, server.Addr())
	<-ctx.Done()

	logger.Info("draining", "replica", name, "limit", drain)
	draining, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := server.Shutdown(draining); err != nil {
		return fmt.Errorf("requests were cut off after %v: %w", drain, err)
	}
	logger.Info("stopped", "replica", name)
	return nil
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var options slog.HandlerOptions
	var min slog.Level
	if err := min.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	options.Level = min
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &options)), nil
	}
	return nil, fmt.Errorf("log format %q: must be text or json", format)
}

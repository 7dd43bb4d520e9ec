// Command replay compares ways of routing: it plays traces of production services, and synthetic workloads, to fleets of
// simulated replicas, in virtual time. The picker is the same code that runs inside Envoy; the replicas are those of
// modelsim.
//
//	make bench-routing QUICK=1
//
// See docs/benchmarks/routing.md for what is simulated and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"

	"github.com/inlet-proxy/inlet/bench/figures"
)

// options are the command line's options.
type options struct {
	trace       string // file; "": the shipped traces, and the synthetic workloads
	blocks      int    // of each replica's cache, for traces
	load        float64
	quick, full bool // fewer cases, or all
	check       bool
	only        *regexp.Regexp // "<case> <mode>"
	jobs        int
	out         string
	pictures    string // folder
	sensitivity bool
}

func main() {
	var o options
	flag.StringVar(&o.trace, "trace", "", "replay only this trace: a .jsonl file in Mooncake's format or a .csv file in Azure's, also .gz or .zst")
	flag.IntVar(&o.blocks, "blocks", 10_000, "blocks of 512 tokens in each replica's cache, for traces")
	flag.Float64Var(&o.load, "load", 0.8, "how busy computing prompts would keep the replicas if they shared one infinite cache, for traces")
	flag.BoolVar(&o.quick, "quick", false, "small fleets only: some minutes")
	flag.BoolVar(&o.full, "full", false, "all cases, which takes much longer: of each trace 8, 64, 512 and 2000 replicas, each behind 1, 4 and 16 proxies;\n"+
		"without it 2000 replicas are behind only 1, and Azure's trace is played only to 8")
	flag.BoolVar(&o.check, "check", false, "also compare the simulation with real processes behind a real Envoy, and fail if they differ")
	flag.BoolVar(&o.sensitivity, "sensitivity", false, "instead, play several workloads with other weights of a cached token")
	only := flag.String("only", "", "run only cells that match this regular expression (case and mode, separated by a space), such as \"8r-4p sticky\"")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "cells that are simulated concurrently")
	flag.StringVar(&o.out, "out", "bench/out/routing.jsonl", "file for the figures, one JSON object per line")
	flag.StringVar(&o.pictures, "pictures", "bench/out", "folder for the pictures, none if empty")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.sensitivity {
		return sensitivity(ctx, o)
	}
	cases, err := casesOf(o)
	if err != nil {
		return err
	}
	if err := prepare(cases); err != nil {
		return err
	}
	file, err := figures.Create(o.out)
	if err != nil {
		return err
	}
	results, err := playAll(ctx, o, file, cases, modes)
	file.Table(os.Stdout)
	if o.pictures != "" && err == nil {
		err = results.draw(o.pictures)
	}
	if o.check && err == nil {
		err = check(ctx, file)
	}
	return errors.Join(err, file.Close())
}

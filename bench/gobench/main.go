// Command gobench runs the Go benchmarks of the given packages, and writes their results like the other benchmarks.
//
//	dist/gobench ./shared/... ./filters/...
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/perf/benchfmt"

	"github.com/inlet-proxy/inlet/bench/figures"
)

// module is the prefix of package names.
const module = "github.com/inlet-proxy/inlet/"

func main() {
	out := flag.String("out", "bench/out/go.jsonl", "file for the figures, one JSON object per line")
	pattern := flag.String("bench", ".", "benchmarks to run, as for go test -bench")
	time := flag.String("benchtime", "0.5s", "how long each runs")
	count := flag.Int("count", 3, "how many times each runs; the median is reported")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	args := append([]string{
		"test", "-run", "^$", "-benchmem", "-p", "1", "-bench", *pattern, "-benchtime", *time, "-count", fmt.Sprint(*count),
	}, flag.Args()...)
	if err := run(ctx, *out, args); err != nil {
		fmt.Fprintln(os.Stderr, "gobench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, args []string) error {
	var text bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stdout = io.MultiWriter(&text, os.Stderr)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	f, err := figures.Create(out)
	if err != nil {
		return err
	}
	if err := write(f, &text); err != nil {
		return errors.Join(err, f.Close())
	}
	f.Table(os.Stdout, "ns_op", "mb_s", "allocs_op", "bytes_op")
	return f.Close()
}

// columns are the units that go test writes, and our names for them.
var columns = []struct{ from, metric, unit string }{
	{"ns/op", "ns_op", "ns"},
	{"MB/s", "mb_s", "MB/s"},
	{"allocs/op", "allocs_op", ""},
	{"B/op", "bytes_op", "B"},
}

// write writes the median of the runs of each benchmark, in the order of the first run.
func write(f *figures.File, text io.Reader) error {
	type key struct{ name, unit string }
	values := map[key][]float64{}
	var names []string
	r := benchfmt.NewReader(text, "go test")
	for r.Scan() {
		switch record := r.Result().(type) {
		case *benchfmt.Result:
			name := caseName(record)
			if values[key{name, "ns/op"}] == nil {
				names = append(names, name)
			}
			for _, v := range record.Values {
				k, value := key{name, v.OrigUnit}, v.OrigValue
				if v.OrigUnit == "" { // as go test wrote it
					k.unit, value = v.Unit, v.Value
				}
				values[k] = append(values[k], value)
			}
		case *benchfmt.SyntaxError:
			return record
		}
	}
	for _, name := range names {
		for _, c := range columns {
			if all := values[key{name, c.from}]; len(all) > 0 {
				slices.Sort(all)
				f.Line(name, "native", c.metric, all[len(all)/2], c.unit)
			}
		}
	}
	return r.Err()
}

// caseName is the package within the module, and the benchmark's name without the number of threads.
func caseName(r *benchfmt.Result) string {
	name := r.Name.String()
	if _, parts := r.Name.Parts(); len(parts) > 0 && parts[len(parts)-1][0] == '-' {
		name = strings.TrimSuffix(name, string(parts[len(parts)-1]))
	}
	return strings.TrimPrefix(r.GetConfig("pkg"), module) + "." + name
}

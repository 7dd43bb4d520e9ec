// Command guardrail compares Inlet's detectors of personal data and secrets with Microsoft's Presidio (its patterns),
// gitleaks and detect-secrets: what they find in generated lines, and how long they take. Presidio and detect-secrets are
// Python packages, which it installs at exact versions into Inlet's cache folder.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/internal/lines"
)

//go:embed requirements.txt
var pins embed.FS

//go:embed peers.py
var script string

func main() {
	out := flag.String("out", "bench/out/guardrail.jsonl", "file for the figures, one JSON object per line")
	seed := flag.Uint64("seed", 20261130, "of the first set of lines")
	sets := flag.Int("sets", 3, "how many sets of lines, each of the next seed")
	file := flag.String("lines", "", "file with lines to judge in place of generated ones: JSON objects with kind, real and text, one a line")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := readLines(*file)
	for i := range *sets {
		if *file == "" {
			all = append(all, lines.Generate(*seed+uint64(i))...)
		}
	}
	if err == nil {
		err = run(ctx, *out, all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// tool is one detector.
type tool struct {
	name  string
	kinds []string // that it knows
	// find returns the kinds found in each line, and the seconds that each text takes.
	find func(ctx context.Context, texts []string, timed []string) (found [][]string, seconds []float64, err error)
}

var secrets = []string{"aws", "github", "jwt", "pem"}

// readLines reads lines from a file, none if it has no name.
func readLines(name string) (all []lines.Line, err error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	for d := json.NewDecoder(f); ; {
		var l lines.Line
		if err := d.Decode(&l); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, l)
	}
}

func run(ctx context.Context, out string, all []lines.Line) error {
	python, err := (&clients.Installer{
		CacheDir: filepath.Join(envoybin.CacheDir(), "guardrail"), Pins: pins, Progress: os.Stderr,
	}).Python(ctx)
	if err != nil {
		return err
	}
	personal := []string{"card", "iban", "email", "phone", "ssn", "ip"}
	tools := []tool{
		{"inlet", lines.Kinds, inlet},
		{"presidio", personal, inPython(python, "presidio")},
		{"gitleaks", secrets, leaks},
		{"detect-secrets", secrets, inPython(python, "detect-secrets")},
	}
	f, err := figures.Create(out)
	if err != nil {
		return err
	}
	for _, t := range tools {
		if err := measure(ctx, f, t, all); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", t.name, err), f.Close())
		}
	}
	f.Table(os.Stdout, "recall", "precision", "time")
	return f.Close()
}

// sizes are those of the texts that are timed: the lines one below the other, and prose in which nothing is found.
var sizes = []struct {
	name  string
	bytes int
	clean bool
}{{"4 KB", 4 << 10, false}, {"64 KB", 64 << 10, false}, {"4 KB, nothing found", 4 << 10, true}, {"64 KB, nothing found", 64 << 10, true}}

func measure(ctx context.Context, f *figures.File, t tool, all []lines.Line) error {
	var texts, timed []string
	for _, l := range all {
		texts = append(texts, l.Text)
	}
	for _, s := range sizes {
		from := strings.Join(texts, "\n") + "\n"
		if s.clean {
			from = lines.Prose
		}
		timed = append(timed, strings.Repeat(from, s.bytes/len(from)+1)[:s.bytes])
	}
	found, seconds, err := t.find(ctx, texts, timed)
	if err != nil {
		return err
	}
	total := &score{}
	for _, kind := range lines.Kinds {
		if !slices.Contains(t.kinds, kind) {
			continue
		}
		s := judge(all, found, kind)
		s.write(f, kind, t.name)
		total.right, total.missed, total.wrong = total.right+s.right, total.missed+s.missed, total.wrong+s.wrong
	}
	total.write(f, fmt.Sprintf("all %d kinds it knows", len(t.kinds)), t.name)
	for i, s := range sizes {
		f.Line(s.name, t.name, "time", seconds[i]*1e6, "µs")
	}
	return nil
}

// score counts lines.
type score struct{ right, missed, wrong int }

// judge judges the findings of a kind: right if the line has such a datum, wrong if it has none or another.
func judge(all []lines.Line, found [][]string, kind string) (s score) {
	for i, l := range all {
		is, says := l.Real && l.Kind == kind, slices.Contains(found[i], kind)
		switch {
		case is && says:
			s.right++
		case is:
			s.missed++
		case says:
			s.wrong++
		}
	}
	return s
}

func (s *score) write(f *figures.File, kind, name string) {
	f.Line(kind, name, "recall", float64(s.right)/float64(s.right+s.missed), "")
	f.Line(kind, name, "precision", float64(s.right)/float64(max(1, s.right+s.wrong)), "")
}

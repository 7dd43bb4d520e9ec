// Command mutate measures what the unit tests check: it changes the code in one place, runs the tests, and reports which
// changes no test noticed.
//
//	make mutate                                  # 50 changes in each group of packages, drawn with seed 1
//	make mutate SEED=7 COUNT=20 PACKAGES=llm,kv  # another draw, smaller, in two groups
//	make mutate PACKAGES=kv AT=lease.go COUNT=999  # every place of one file
//
// A change (a mutant) replaces an operator, negates a condition, removes a statement, an early return or an else branch,
// or changes a constant by one. It is drawn at random from all places of the group's packages; the same seed draws the
// same on the same code. The changed file is given to `go test` as an overlay, so the tree is never touched, and only
// what depends on the file is recompiled. First the tests of the changed package run, then those of the group's other
// packages and of the packages that use them (groups.go). A mutant is killed when a test fails, panics, or does not end
// in time. A mutant that does not compile does not count.
//
// It is not part of CI: 500 mutants take most of an hour on two cores. Some tests draw their input at random, so a mutant
// that only a rare input reveals can be killed in one run and survive in the next.
//
// Why not an existing mutation tester: none of them draws a sample with a seed, and most run all tests of the module for
// each mutant, or edit copies of the whole tree.
//
// The survivors are printed with file, line and difference. There are three ways to handle one: a test, if the behavior
// matters; simpler code, if it does not; an entry in equivalent.txt with the reason, if no test could detect it. An entry
// is the block that was printed for the survivor, below a line `# reason`. It is found by file, function and text, not by
// line, and does not count. An entry whose text is no longer in the file is reported at the start, and must be removed.
//
// The exit code is 1 if a group's share is below -min.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	flags.SetOutput(progress)
	root := flags.String("root", ".", "the module's directory")
	seed := flags.Uint64("seed", 1, "seed of the draw")
	count := flags.Int("count", 50, "mutants to draw in each group")
	names := flags.String("packages", "", "groups to change, separated by commas; all if empty")
	at := flags.String("at", "", "change only where this is part of \"file function\", such as \"kv/lease.go\" or \"Scanner.value\"")
	parallel := flags.Int("parallel", 2, "mutants to test concurrently")
	least := flags.Float64("min", 92, "share of killed mutants, in percent, that each group must reach")
	list := flags.Bool("list", false, "print the drawn mutants, and test nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*names)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	known, err := readEquivalent(filepath.Join(dir, equivalentFile))
	if err != nil {
		return err
	}
	if err := known.check(dir); err != nil {
		fmt.Fprintln(progress, err)
	}
	scratch, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	t := &tester{
		root: dir, scratch: scratch, progress: progress, parallel: *parallel, known: known,
		patience: 30 * time.Second, interrupted: make(chan struct{}),
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() { <-stop; close(t.interrupted) }()

	report := report{seed: *seed, least: *least}
	for _, g := range chosen {
		drawn, err := draw(dir, g, *at, *seed, *count)
		if err != nil {
			return err
		}
		if *list {
			for _, m := range drawn {
				fmt.Fprintf(out, "%s:%d %s\n%s\n", m.File, m.Line, m.Kind, m.block())
			}
			continue
		}
		if err := t.test(g, drawn); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		report.add(g, drawn, out)
	}
	if *list {
		return nil
	}
	return report.print(out)
}

// report is the final report of the run.
type report struct {
	seed  uint64
	least float64
	rows  []row
}

// row counts the mutants of a group.
type row struct {
	group                                   string
	drawn, uncompiled, equivalent, survived int
}

func (r row) counted() int { return r.drawn - r.uncompiled - r.equivalent }

// share is the percentage of the counted mutants that were killed.
func (r row) share() float64 {
	if r.counted() == 0 {
		return 100
	}
	return 100 * float64(r.counted()-r.survived) / float64(r.counted())
}

// add records a group's results, and prints the survivors at once, because a long run may be stopped.
func (r *report) add(g group, drawn []*mutant, out io.Writer) {
	n := row{group: g.name, drawn: len(drawn)}
	for _, m := range drawn {
		switch m.verdict {
		case uncompiled:
			n.uncompiled++
		case equivalent:
			n.equivalent++
		case survived:
			n.survived++
			fmt.Fprintf(out, "survived: %s:%d (%s)\n%s\n", m.File, m.Line, m.Kind, m.block())
		}
	}
	r.rows = append(r.rows, n)
}

// print prints the table, and returns an error if a group is below the minimum.
func (r *report) print(out io.Writer) error {
	fmt.Fprintf(out, "seed %d\n\n%-10s %6s %9s %11s %9s %7s\n", r.seed, "group", "drawn", "compiled", "equivalent", "killed", "share")
	var all row
	var below []string
	line := func(n row) {
		fmt.Fprintf(out, "%-10s %6d %9d %11d %9d %6.1f%%\n",
			n.group, n.drawn, n.drawn-n.uncompiled, n.equivalent, n.counted()-n.survived, n.share())
	}
	for _, n := range r.rows {
		line(n)
		all.drawn += n.drawn
		all.uncompiled += n.uncompiled
		all.equivalent += n.equivalent
		all.survived += n.survived
		if n.share() < r.least {
			below = append(below, n.group)
		}
	}
	all.group = "all"
	line(all)
	if len(below) > 0 {
		return fmt.Errorf("below %g %%: %s", r.least, strings.Join(below, ", "))
	}
	return nil
}

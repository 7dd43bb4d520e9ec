package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tester runs the tests with mutants in place.
type tester struct {
	root, scratch string
	progress      io.Writer
	parallel      int
	known         equivalents
	patience      time.Duration // minimum time limit of tests, and of compilation in addition
	interrupted   chan struct{}

	mu   sync.Mutex
	took map[string]taken // by run: its time without changes
}

// taken is the time that a run takes.
type taken struct {
	whole time.Duration // including compilation
	tests time.Duration // of the slowest package
}

var errInterrupted = errors.New("interrupted")

// test gives each mutant its verdict. First it runs all tests on the unchanged code: they must pass.
func (t *tester) test(g group, drawn []*mutant) error {
	if t.took == nil {
		t.took = map[string]taken{}
	}
	for _, pkg := range g.packages {
		for _, args := range g.runs(pkg) {
			if err := t.baseline(args); err != nil {
				return err
			}
		}
	}
	jobs := make(chan int)
	failed := make(chan error, len(drawn))
	var workers sync.WaitGroup
	done := 0
	for w := range t.parallel {
		workers.Go(func() {
			for i := range jobs {
				m := drawn[i]
				if err := t.judge(g, m, w); err != nil {
					failed <- err
					continue
				}
				t.mu.Lock()
				done++
				fmt.Fprintf(t.progress, "%s %d/%d %s: %s:%d %s\n", g.name, done, len(drawn), words[m.verdict], m.File, m.Line, m.Kind)
				t.mu.Unlock()
			}
		})
	}
	for i := range drawn {
		if len(failed) > 0 {
			break
		}
		jobs <- i
	}
	close(jobs)
	workers.Wait()
	close(failed)
	return <-failed
}

var words = map[verdict]string{killed: "killed", survived: "SURVIVED", uncompiled: "does not compile", equivalent: "equivalent"}

// baseline runs tests on the unchanged code, once, and records their time.
func (t *tester) baseline(args []string) error {
	name := strings.Join(args, " ")
	if _, ok := t.took[name]; ok {
		return nil
	}
	began := time.Now()
	got, out, err := t.goTest(args, "", 20*t.patience, 40*t.patience)
	if err != nil {
		return err
	}
	if got != survived {
		return fmt.Errorf("the tests of %s fail on the unchanged code:\n%s", name, out)
	}
	t.took[name] = taken{whole: time.Since(began), tests: slowest(out)}
	return nil
}

// judge runs the tests with the mutant in place until one fails.
func (t *tester) judge(g group, m *mutant, worker int) error {
	if t.known.has(m) {
		m.verdict = equivalent
		return nil
	}
	overlay, err := t.overlay(m, worker)
	if err != nil {
		return err
	}
	for _, args := range g.runs(m.Package) {
		// A test that takes far longer than usual waits for something that will not happen. The limit is generous,
		// because the machine may be busy.
		took := t.took[strings.Join(args, " ")]
		got, _, err := t.goTest(args, overlay, t.patience+4*took.tests, 3*t.patience+8*took.whole)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", m.File, m.Line, err)
		}
		if m.verdict = got; got != survived {
			return nil
		}
	}
	return nil
}

// overlay writes the changed file, and the file that makes the go command use it.
func (t *tester) overlay(m *mutant, worker int) (string, error) {
	changed := filepath.Join(t.scratch, fmt.Sprintf("mutant%d.go", worker))
	if err := os.WriteFile(changed, m.text(), 0o600); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(t.root, m.File): changed}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(t.scratch, fmt.Sprintf("overlay%d.json", worker))
	return path, os.WriteFile(path, replace, 0o600)
}

// memory limits a process, in KiB of address space: a loop that allocates must not use up the machine's memory.
const memory = 8 << 20

// goTest runs tests, with an overlay if there is one. They fail if those of one package exceed the limit. If everything,
// compilation included, exceeds the other limit, they are killed, because go test did not stop them.
func (t *tester) goTest(args []string, overlay string, limit, all time.Duration) (verdict, string, error) {
	full := []string{"-c", fmt.Sprintf(`ulimit -v %d && exec "$@"`, memory), "sh", "go", "test", "-vet=off", "-ldflags=-s -w", "-failfast", "-count=1", "-timeout=" + limit.String()}
	if overlay != "" {
		full = append(full, "-overlay="+overlay)
	}
	cmd := exec.Command("sh", append(full, args...)...)
	cmd.Dir = t.root
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return untested, "", err
	}
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = cmd.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(all):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		return killed, out.String(), nil
	case <-t.interrupted:
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		return untested, "", errInterrupted
	}
	return judgeOutput(err, out.String())
}

var passed = regexp.MustCompile(`(?m)^ok\s+\S+\s+([0-9.]+s)`)

// slowest returns how long the tests of the slowest package took.
func slowest(out string) (d time.Duration) {
	for _, m := range passed.FindAllStringSubmatch(out, -1) {
		if took, err := time.ParseDuration(m[1]); err == nil {
			d = max(d, took)
		}
	}
	return d
}

// judgeOutput reads the end of a go test run.
func judgeOutput(err error, out string) (verdict, string, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return survived, out, nil
	case !errors.As(err, &exit):
		return untested, "", err
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return uncompiled, out, nil
	case strings.Contains(out, "FAIL"):
		return killed, out, nil
	}
	return untested, "", fmt.Errorf("go test: %w\n%s", err, out)
}

// tail keeps the end of what is written to it: an endless loop may print without limit.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*tailBytes {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

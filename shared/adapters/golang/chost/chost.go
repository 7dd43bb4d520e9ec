// Package chost runs a program that stands in for an Envoy with the contrib filter
// envoy.filters.http.golang: it loads a plugin and drives it through the functions that the plugin exports, for tests.
//
// The program is C (folder src), since one process takes one Go runtime only. It has the filter's states and as much of
// Envoy's filter manager as these meet. It is a fake, written after the sources of Envoy 1.39.1: it shows that a plugin
// loads and keeps to the rules that stand there, not what Envoy does with it.
package chost

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/shared/adapters/golang"
)

//go:embed src
var source embed.FS

// envoyModule is the Go module with the header file.
const envoyModule = "github.com/envoyproxy/envoy"

// Build compiles the program in a folder and returns its path. It runs go and the C compiler.
func Build(ctx context.Context, folder string) (string, error) {
	module, err := command(ctx, "go", "list", "-m", "-f", "{{.Dir}}", envoyModule)
	if err != nil {
		return "", err
	}
	cc, err := command(ctx, "go", "env", "CC")
	if err != nil {
		return "", err
	}
	program := filepath.Join(folder, "envoy-stand-in")
	args := append(strings.Fields(cc)[1:], "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wno-parentheses", "-Werror",
		"-I"+filepath.Join(module, "contrib/golang/common/go/api"), "-rdynamic", "-o", program)
	err = fs.WalkDir(source, "src", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := source.ReadFile(path)
		if err != nil {
			return err
		}
		file := filepath.Join(folder, d.Name())
		if filepath.Ext(file) == ".c" {
			args = append(args, file)
		}
		return os.WriteFile(file, text, 0o644)
	})
	if err != nil {
		return "", err
	}
	_, err = command(ctx, strings.Fields(cc)[0], append(args, "-ldl", "-lpthread")...)
	return program, err
}

// command runs a program and returns what it says.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// Host is the running program.
type Host struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	said strings.Builder // on standard error
	over chan struct{}   // closed when the program has ended
	err  error

	write sync.Mutex
	mu    sync.Mutex
	last  uint64 // number of a stream or a question
	asked map[uint64]func(Event)
	log   []string
	wrong []string
}

// Event is what happened, or an answer.
type Event struct {
	Verb  string
	ID    uint64
	A, B  int64
	Parts [][]byte
}

// Headers are the parts of an event with headers.
func (e Event) Headers() (all [][2]string) {
	for i := 0; i+1 < len(e.Parts); i += 2 {
		all = append(all, [2]string{string(e.Parts[i]), string(e.Parts[i+1])})
	}
	return all
}

// Start starts the program with a plugin. Its environment is this process's, without what would change Go's run time.
func Start(program, plugin string, workers int) (*Host, error) {
	h := &Host{cmd: exec.Command(program, plugin, fmt.Sprint(workers)), over: make(chan struct{}), asked: map[uint64]func(Event){}}
	h.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GODEBUG=") || strings.HasPrefix(v, "GOMAXPROCS=") })
	h.cmd.Stderr = &h.said
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	go h.receive(bufio.NewReaderSize(out, 1<<20))
	return h, nil
}

// Pid is that of the program.
func (h *Host) Pid() int { return h.cmd.Process.Pid }

// Close ends the program. It returns what was wrong, also with what the plugin asked for.
func (h *Host) Close() error {
	_ = h.in.Close()
	select {
	case <-h.over:
	case <-time.After(10 * time.Second):
		_ = h.cmd.Process.Kill()
		<-h.over
		return errors.New("the stand-in for Envoy did not end")
	}
	if h.err != nil {
		return fmt.Errorf("the stand-in for Envoy: %w\n%s", h.err, h.said.String())
	}
	if wrong := h.Wrong(); len(wrong) > 0 {
		return fmt.Errorf("Envoy would not have it: %q", wrong)
	}
	return nil
}

func (h *Host) receive(r *bufio.Reader) {
	defer close(h.over)
	for {
		e, err := read(r)
		if err != nil {
			if h.err = h.cmd.Wait(); h.err == nil && !errors.Is(err, io.EOF) {
				h.err = err
			}
			return
		}
		h.take(e)
	}
}

func read(r *bufio.Reader) (e Event, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return e, err
	}
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return e, fmt.Errorf("no frame: %q", line)
	}
	e.Verb = fields[0]
	var n int
	if _, err := fmt.Sscan(strings.Join(fields[1:5], " "), &e.ID, &e.A, &e.B, &n); err != nil || len(fields) != 5+n {
		return e, fmt.Errorf("no frame: %q", line)
	}
	for _, length := range fields[5:] {
		var size int
		if _, err := fmt.Sscan(length, &size); err != nil {
			return e, err
		}
		part := make([]byte, size)
		if _, err := io.ReadFull(r, part); err != nil {
			return e, err
		}
		e.Parts = append(e.Parts, part)
	}
	return e, nil
}

var levels = []string{"trace", "debug", "info", "warn", "error", "critical"}

func (h *Host) take(e Event) {
	h.mu.Lock()
	deliver := h.asked[e.ID]
	switch e.Verb {
	case "log":
		h.log = append(h.log, levels[e.A]+" "+string(e.Parts[0]))
		deliver = nil
	case "violation", "panic":
		h.wrong = append(h.wrong, fmt.Sprintf("%s of stream %d: %s", e.Verb, e.ID, e.Parts[0]))
		deliver = nil
	}
	h.mu.Unlock()
	if deliver != nil {
		deliver(e)
	}
}

// Log are the lines that the plugin has logged, each after its level.
func (h *Host) Log() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.log)
}

// Wrong is what the plugin asked for that Envoy would not do, or not survive.
func (h *Host) Wrong() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.wrong)
}

func (h *Host) send(verb string, id uint64, a, b int64, parts ...[]byte) {
	var frame strings.Builder
	fmt.Fprintf(&frame, "%s %d %d %d %d", verb, id, a, b, len(parts))
	for _, p := range parts {
		fmt.Fprintf(&frame, " %d", len(p))
	}
	frame.WriteByte('\n')
	for _, p := range parts {
		frame.Write(p)
	}
	h.write.Lock()
	defer h.write.Unlock()
	_, _ = io.WriteString(h.in, frame.String()) // an error means that the program has ended, which Close and ask report
}

// number has the events of a new number delivered, on the goroutine that reads them.
func (h *Host) number(deliver func(Event)) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.asked[h.last] = deliver
	return h.last
}

func (h *Host) forget(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.asked, id)
}

// ask waits for the answer.
func (h *Host) ask(verb string, a, b int64, parts ...[]byte) (Event, error) {
	answer := make(chan Event, 1)
	id := h.number(func(e Event) { answer <- e })
	defer h.forget(id)
	h.send(verb, id, a, b, parts...)
	select {
	case e := <-answer:
		return e, nil
	case <-h.over:
		return Event{}, fmt.Errorf("%w\n%s", errors.Join(errEnded, h.err), h.said.String())
	}
}

var errEnded = errors.New("the stand-in for Envoy has ended")

// ErrRefused says that the plugin refused a configuration.
var ErrRefused = errors.New("the plugin refuses the configuration")

// Where a configuration is read.
const (
	OfFilter    = "config"    // of the filter, on the main thread
	OfRoute     = "route"     // of a route, on the main thread
	OfRouteLate = "lateroute" // of a route, on a worker, when a request needs it
)

// Configure has the plugin read a configuration under its plugin_name.
func (h *Host) Configure(where string, message *anypb.Any) (uint64, error) {
	return h.ConfigureAs(golang.PluginName, where, message)
}

// ConfigureAs has the plugin read a configuration under a plugin_name.
func (h *Host) ConfigureAs(name, where string, message *anypb.Any) (uint64, error) {
	bytes, err := proto.Marshal(message)
	if err != nil {
		return 0, err
	}
	e, err := h.ask(where, 0, 0, []byte(name), bytes)
	if err == nil && e.A == 0 {
		err = ErrRefused
	}
	return uint64(e.A), err
}

// Merge has the plugin merge the configuration of a route into the one above.
func (h *Host) Merge(above, route uint64) (uint64, error) {
	e, err := h.ask("merge", int64(above), int64(route), []byte(golang.PluginName))
	return uint64(e.A), err
}

// Drop tells the plugin that Envoy has dropped a configuration.
func (h *Host) Drop(config uint64, later bool) error {
	delay := int64(0)
	if later {
		delay = 1
	}
	_, err := h.ask("drop", int64(config), delay)
	return err
}

// Metrics are the counters and gauges, by name.
func (h *Host) Metrics() (map[string]int64, error) {
	e, err := h.ask("metrics", 0, 0)
	all := map[string]int64{}
	for _, m := range e.Headers() {
		var n int64
		if _, err := fmt.Sscan(m[1], &n); err != nil {
			return nil, err
		}
		all[m[0]] = n
	}
	return all, err
}

// Alive counts the exchanges and the configurations of which the plugin holds memory of Envoy's.
func (h *Host) Alive() (exchanges, configs int, err error) {
	e, err := h.ask("alive", 0, 0)
	return int(e.A), int(e.B), err
}

// CleanUp has the plugin collect its garbage.
func (h *Host) CleanUp() error {
	_, err := h.ask("cleanup", 0, 0)
	return err
}

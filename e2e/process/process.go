// Package process runs the programs that tests and benchmarks need: each in its own process group, with its output in a
// log. They end with the program that started them.
package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Command is a program to start.
type Command struct {
	Name string // for messages
	Path string
	Args []string
	Env  []string // in addition to this process's own
	Dir  string
	Log  string // file for its output; appended to
	// OnLine gets the lines of its stdout; if it is nil they go to Log, like all of stderr.
	OnLine func(line string)
}

// Process is a running program.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read
	err  error         // how it ended; read after done
}

// Start starts a program. It always ends with ctx and with this process.
func Start(ctx context.Context, c Command) (*Process, error) {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(environment(), c.Env...)
	cmd.Stderr = log
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	p := &Process{name: c.Name, cmd: cmd, done: make(chan struct{})}
	go func() {
		readLines(stdout, log, c.OnLine)
		p.err = cmd.Wait()
		_ = log.Close()
		close(p.done)
	}()
	return p, nil
}

func readLines(stdout io.Reader, log io.Writer, onLine func(string)) {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if onLine != nil {
				onLine(strings.TrimRight(line, "\n"))
			} else {
				_, _ = io.WriteString(log, line)
			}
		}
		if err != nil {
			return
		}
	}
}

// environment is this process's own without GODEBUG: shipped programs must run without it.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GODEBUG=") {
			env = append(env, v)
		}
	}
	return env
}

// Until polls ok until it is true, the process has ended, or the time is over.
func (p *Process) Until(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		if ok() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was %s: %w", p.name, what, p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s was not %s within %v", p.name, what, limit)
		case <-poll.C:
		}
	}
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the process has ended, nil with exit code 0. Only after Done.
func (p *Process) Err() error { return p.err }

// Stop asks the process to end, and kills it after the grace time.
func (p *Process) Stop(grace time.Duration) {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) // a paused process does not receive it
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
}

// Kill ends the process at once, like a crash.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

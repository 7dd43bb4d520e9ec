package stack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// command is a program to start.
type command struct {
	name   string
	path   string
	args   []string
	dir    string
	log    string            // file for what it prints; appended to
	onLine func(line string) // takes the lines of its stdout; the rest, and all of stderr, goes to log
}

// process is a running program, alone in its process group.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read
	err  error         // how it ended; read after done
	log  string
}

// start starts a program. It ends, whatever happens, with ctx and with this process.
func start(ctx context.Context, c command) (*process, error) {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Dir = c.dir
	cmd.Env = environment()
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
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	p := &process{name: c.name, cmd: cmd, done: make(chan struct{}), log: c.log}
	go func() {
		readLines(stdout, log, c.onLine)
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

// environment is this process's own, less GODEBUG: what is shipped must run without.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GODEBUG=") {
			env = append(env, v)
		}
	}
	return env
}

// until polls ok until it is true, the process has ended, or the time is over.
func (p *process) until(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
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

// stop asks the process to end, and after the grace time makes it.
func (p *process) stop(grace time.Duration) {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) // a paused process hears nothing
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill()
	}
}

// kill ends the process at once, as a crash would.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// server is a program that prints the address it listens on, can be ended, and
// comes back at the same address.
type server struct {
	command command
	// arguments returns the command line for an address; port 0 the first time.
	arguments func(address string) ([]string, error)
	address   string
	process   *process
}

var listening = regexp.MustCompile(`listening on (\S+)`)

// Start starts the server again, at the address it had.
func (s *server) Start(ctx context.Context) error {
	address := s.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	c := s.command
	var err error
	if c.args, err = s.arguments(address); err != nil {
		return err
	}
	printed := make(chan string, 1)
	c.onLine = func(line string) {
		if m := listening.FindStringSubmatch(line); m != nil {
			select {
			case printed <- m[1]:
			default:
			}
		}
	}
	if s.process, err = start(ctx, c); err != nil {
		return err
	}
	return s.process.until(ctx, 30*time.Second, "listening", func() bool {
		select {
		case s.address = <-printed:
			return true
		default:
			return false
		}
	})
}

// Stop ends the server with SIGTERM, after two seconds with SIGKILL.
func (s *server) Stop() {
	if s.process != nil {
		s.process.stop(2 * time.Second)
	}
}

// Kill ends the server at once: its connections are cut.
func (s *server) Kill() {
	if s.process != nil {
		s.process.kill()
	}
}

// Pause stops the process as it is: the kernel goes on accepting connections, and nothing answers.
func (s *server) Pause(ctx context.Context) error {
	pid := s.process.cmd.Process.Pid
	if err := syscall.Kill(-pid, syscall.SIGSTOP); err != nil {
		return err
	}
	return s.process.until(ctx, 10*time.Second, "paused", func() bool { return isStopped(pid) })
}

// Resume ends a Pause.
func (s *server) Resume() error { return syscall.Kill(-s.process.cmd.Process.Pid, syscall.SIGCONT) }

// Address is the server's ip:port.
func (s *server) Address() string { return s.address }

// URL is the server's base URL.
func (s *server) URL() string { return "http://" + s.address }

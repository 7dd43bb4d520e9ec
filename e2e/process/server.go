package process

import (
	"context"
	"regexp"
	"syscall"
	"time"
)

// Server is a program that prints its address, and that can be ended and started again
// at the same address.
type Server struct {
	Command Command
	// Arguments returns the command line for an address; port 0 the first time.
	Arguments func(address string) ([]string, error)
	address   string
	process   *Process
}

var listening = regexp.MustCompile(`listening on (\S+)`)

// Start starts the server again, at the address it had.
func (s *Server) Start(ctx context.Context) error {
	address := s.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	c := s.Command
	var err error
	if c.Args, err = s.Arguments(address); err != nil {
		return err
	}
	printed := make(chan string, 1)
	c.OnLine = func(line string) {
		if m := listening.FindStringSubmatch(line); m != nil {
			select {
			case printed <- m[1]:
			default:
			}
		}
	}
	if s.process, err = Start(ctx, c); err != nil {
		return err
	}
	return s.process.Until(ctx, 30*time.Second, "listening", func() bool {
		select {
		case s.address = <-printed:
			return true
		default:
			return false
		}
	})
}

// Stop ends the server with SIGTERM, after two seconds with SIGKILL.
func (s *Server) Stop() {
	if s.process != nil {
		s.process.Stop(2 * time.Second)
	}
}

// Kill ends the server at once: its connections are cut.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Kill()
	}
}

// Pause stops the process: the kernel still accepts connections, but nothing responds.
func (s *Server) Pause(ctx context.Context) error {
	pid := s.process.PID()
	if err := syscall.Kill(-pid, syscall.SIGSTOP); err != nil {
		return err
	}
	return s.process.Until(ctx, 10*time.Second, "paused", func() bool { return isStopped(pid) })
}

// Resume ends a Pause.
func (s *Server) Resume() error { return syscall.Kill(-s.process.PID(), syscall.SIGCONT) }

// Address is the server's ip:port.
func (s *Server) Address() string { return s.address }

// URL is the server's base URL.
func (s *Server) URL() string { return "http://" + s.address }

// PID is the server's process id, for measurements.
func (s *Server) PID() int { return s.process.PID() }

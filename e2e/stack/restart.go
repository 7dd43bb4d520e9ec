package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/e2e/process"
)

// restartArgs are Envoy's arguments about hot restarts.
func (s *Stack) restartArgs() ([]string, error) {
	if !s.o.HotRestart {
		return []string{"--disable-hot-restart"}, nil // several Envoys on one machine do not know each other
	}
	file := filepath.Join(s.Dir, "base-id")
	common := []string{"--parent-shutdown-time-s", fmt.Sprint(int(s.o.ParentShutdown.Seconds())), "--drain-strategy", "immediate"}
	if s.epoch == 0 {
		return append(common, "--use-dynamic-base-id", "--base-id-path", file), nil
	}
	id, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return append(common, "--base-id", strings.TrimSpace(string(id)), "--restart-epoch", fmt.Sprint(s.epoch)), nil
}

// StartNext starts an Envoy that takes over from the running one, which ends by itself when its time is over. It returns
// the replaced one when the new one serves.
func (s *Stack) StartNext(ctx context.Context) (*process.Process, error) {
	if !s.o.HotRestart || s.o.Port == 0 {
		return nil, errors.New("stack: StartNext without Options.HotRestart and Port")
	}
	replaced := s.envoy
	s.epoch++
	s.admin = ""
	return replaced, s.startEnvoy(ctx)
}

// EndEnvoy asks Envoy to end, and returns how it has ended: nil with exit code 0.
func (s *Stack) EndEnvoy(grace time.Duration) error {
	s.envoy.Stop(grace)
	return s.envoy.Err()
}

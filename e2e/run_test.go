package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestRun runs `make run` as a user would: it prints three commands, they work as
// printed, and Ctrl-C ends everything.
func TestRun(t *testing.T) {
	port := freePort(t)
	cmd, lines, printed := startRun(t, buildProgram(t, "./cmd/inletctl"), port, stack.Module, "envoy/static/inlet-keys.yaml")
	tryPrinted(t, printed, `"chat.completion"`, "data: [DONE]", `"model_not_found"`)

	endRun(t, cmd, lines)
	_, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// tryPrinted runs the commands that `make run` printed, and finds something in the output of each.
func tryPrinted(t *testing.T, printed string, want ...string) {
	t.Helper()
	commands := regexp.MustCompile(`(?m)^  (curl .*) \\\n *(-d '.*')$`).FindAllStringSubmatch(printed, -1)
	require.Len(t, commands, len(want))
	for i := range want {
		out, err := exec.Command("sh", "-c", commands[i][1]+" "+commands[i][2]).CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), want[i])
	}
}

// startRun starts `make run` with a configuration, and returns what it printed before the requests.
func startRun(t *testing.T, program string, port int, abi, config string) (cmd *exec.Cmd, lines <-chan string, printed string) {
	t.Helper()
	cmd = exec.Command(program, "run")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), fmt.Sprintf("PORT=%d", port), "ABI="+abi, "CONFIG="+config)
	lines = startLines(t, cmd)
	waitForLine(t, lines, 2*time.Minute, func(line string) bool {
		printed += line + "\n"
		return strings.HasPrefix(line, "Ctrl-C stops everything")
	})
	return cmd, lines, printed
}

// endRun ends it with Ctrl-C.
func endRun(t *testing.T, cmd *exec.Cmd, lines <-chan string) {
	t.Helper()
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	waitForLine(t, lines, 30*time.Second, func(line string) bool { return line == "stopping" })
	for range lines { // until it has ended
	}
	require.NoError(t, cmd.Wait())
}

// TestRunOnATakenPort: the error says what to do.
func TestRunOnATakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	cmd := exec.Command(buildProgram(t, "./cmd/inletctl"), "run")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), fmt.Sprintf("PORT=%d", taken.Addr().(*net.TCPAddr).Port))
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "choose another with PORT=")
}

// TestCompanionCommand runs the README's companion command, at a free port.
func TestCompanionCommand(t *testing.T) {
	require.NoError(t, stack.Build(t.Context(), root(t), os.Stderr, stack.CompanionProgram))
	cmd := exec.Command(stack.CompanionProgram.Path(root(t)), "--config", "envoy/static/companion.yaml", "--listen", "127.0.0.1:0")
	cmd.Dir = root(t)
	lines := startLines(t, cmd)
	waitForLine(t, lines, 20*time.Second, func(line string) bool { return strings.HasPrefix(line, "companion listening on ") })
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for range lines {
	}
	require.NoError(t, cmd.Wait())
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := stack.Root()
	require.NoError(t, err)
	return dir
}

func buildProgram(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", program, pkg)
	cmd.Dir = root(t)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := process.FreePort()
	require.NoError(t, err)
	return port
}

// startLines starts a program that ends with the test, and returns its output lines.
// The channel is closed when it has ended.
func startLines(t *testing.T, cmd *exec.Cmd) <-chan string {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // an error means that it has ended
		_ = cmd.Wait()
	})
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return lines
}

func waitForLine(t *testing.T, lines <-chan string, limit time.Duration, ok func(string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		select {
		case line, open := <-lines:
			require.True(t, open, "it ended before it printed what was waited for")
			if ok(line) {
				return
			}
		case <-ctx.Done():
			require.FailNow(t, "it did not print what was waited for")
		}
	}
}

package e2e_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// funcE is a func-e with folders of its own, which has one Envoy and cannot fetch another.
type funcE struct {
	program string
	env     []string
}

// newFuncE builds func-e, and puts the Envoy of the tests where func-e keeps what it has fetched.
func newFuncE(t *testing.T, variable, folder string) (_ *funcE, envoy string) {
	t.Helper()
	dir := t.TempDir()
	f := &funcE{program: filepath.Join(dir, "func-e")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", f.program, "github.com/tetratelabs/func-e/cmd/func-e")
	build.Dir = filepath.Join(root(t), "tools", "func-e")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	found, err := envoybin.Find(t.Context(), envoybin.Options{})
	require.NoError(t, err)
	envoy = filepath.Join(dir, "home", folder, envoybin.DefaultVersion, "bin", "envoy")
	require.NoError(t, os.MkdirAll(filepath.Dir(envoy), 0o755))
	require.NoError(t, os.Symlink(found, envoy))
	f.env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "FUNC_E_") || strings.HasPrefix(v, "ENVOY_") || strings.HasPrefix(v, "GODEBUG=")
	})
	for _, name := range []string{"CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR"} {
		f.env = append(f.env, "FUNC_E_"+name+"="+filepath.Join(dir, name))
	}
	f.env = append(f.env, variable+"="+filepath.Join(dir, "home"), "ENVOY_VERSION="+envoybin.DefaultVersion, "ENVOY_VERSIONS_URL=http://127.0.0.1:1/nobody-listens-here")
	return f, envoy
}

func (f *funcE) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), f.program, args...)
	cmd.Env = f.env
	return cmd
}

// TestFuncELayout: Inlet looks for an Envoy where this func-e has it.
func TestFuncELayout(t *testing.T) {
	for variable, folder := range map[string]string{"FUNC_E_DATA_HOME": "envoy-versions", "FUNC_E_HOME": "versions"} {
		t.Run(variable, func(t *testing.T) {
			f, envoy := newFuncE(t, variable, folder)
			out, err := f.command(t, "which").Output()
			require.NoError(t, err)
			require.Equal(t, envoy, lastLine(string(out)))
			t.Setenv("FUNC_E_HOME", "")
			t.Setenv(variable, strings.TrimSuffix(envoy, filepath.Join("/", folder, envoybin.DefaultVersion, "bin", "envoy")))
			found, err := envoybin.Find(t.Context(), envoybin.Options{Version: envoybin.DefaultVersion})
			require.NoError(t, err)
			require.Equal(t, envoy, found)
		})
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// readmeFuncE are the README's commands of func-e, by build.
func readmeFuncE(t *testing.T) map[string][]string {
	t.Helper()
	commands := map[string][]string{}
	for _, b := range readmeBlocks(t) {
		for line := range strings.Lines(b.text) {
			if m := funcECommand.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				commands[m[1]] = strings.Fields(line)[1:]
			}
		}
	}
	require.Len(t, commands, len(abis))
	return commands
}

// TestFuncE runs the README's commands of func-e in a copy of envoy/static whose ports are free.
func TestFuncE(t *testing.T) {
	require.NoError(t, stack.Build(t.Context(), root(t), os.Stderr, stack.ModelSim))
	f, _ := newFuncE(t, "FUNC_E_DATA_HOME", "envoy-versions")
	replica := startReplica(t)
	for abi, command := range readmeFuncE(t) {
		t.Run(abi, func(t *testing.T) {
			dir, ports := copyStatic(t, replica.Address())
			testShipped(t, f.command(t, command...), dir, ports)
		})
	}
}

// TestEmbeddedAsShipped runs the README's command of the embedded companion in such a copy: nothing but Envoy runs.
func TestEmbeddedAsShipped(t *testing.T) {
	require.NoError(t, stack.Build(t.Context(), root(t), os.Stderr, stack.ModelSim))
	envoy, err := envoybin.Find(t.Context(), envoybin.Options{})
	require.NoError(t, err)
	dir, ports := copyStatic(t, startReplica(t).Address())
	testShipped(t, exec.CommandContext(t.Context(), envoy, strings.Fields(embeddedCommand)[1:]...), dir, ports)
}

// testShipped runs a command that starts Envoy with a shipped bootstrap in the folder, and sends it a request.
func testShipped(t *testing.T, cmd *exec.Cmd, dir string, ports map[string]string) {
	t.Helper()
	// With an id of its own this Envoy does not meet another one of this machine.
	cmd.Args = append(cmd.Args, "--use-dynamic-base-id")
	cmd.Dir = dir
	lines := startLines(t, cmd)
	gateway := "http://127.0.0.1:" + ports["8080"]
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://127.0.0.1:" + ports["9901"] + "/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, time.Minute, 20*time.Millisecond)

	resp, err := http.Post(gateway+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"llama","messages":[{"role":"user","content":"Hello"}],"max_tokens":5}`))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	require.Contains(t, string(body), `"model":"llama"`)
	require.Equal(t, "llama-3-8b", resp.Header.Get("x-modelsim-model"))

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	for range lines { // until it has ended
	}
	require.NoError(t, cmd.Wait())
	_, err = net.Dial("tcp", "127.0.0.1:"+ports["8080"])
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// startReplica starts the one replica of both pools.
func startReplica(t *testing.T) *process.Server {
	t.Helper()
	s := &process.Server{
		Command: process.Command{Name: "modelsim", Path: stack.ModelSim.Path(root(t)), Log: filepath.Join(t.TempDir(), "modelsim.log")},
		Arguments: func(address string) ([]string, error) {
			return []string{"--listen", address, "--model", "llama-3-8b"}, nil
		},
	}
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(s.Stop)
	return s
}

var shippedPort = regexp.MustCompile(`port_value: (\d+)`)

// copyStatic copies what the shipped bootstraps need to a folder, with free ports, and all replicas at one address. It returns
// the port that each shipped one has become.
func copyStatic(t *testing.T, replica string) (dir string, ports map[string]string) {
	t.Helper()
	dir, ports = t.TempDir(), map[string]string{}
	require.NoError(t, os.Symlink(filepath.Join(root(t), "dist"), filepath.Join(dir, "dist")))
	files, err := filepath.Glob(filepath.Join(root(t), "envoy", "static", "*.yaml"))
	require.NoError(t, err)
	lists, err := filepath.Glob(filepath.Join(root(t), "envoy", "static", "eds", "*.yaml"))
	require.NoError(t, err)
	_, replicaPort, err := net.SplitHostPort(replica)
	require.NoError(t, err)
	for _, file := range append(files, lists...) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		at, err := filepath.Rel(root(t), file)
		require.NoError(t, err)
		changed := shippedPort.ReplaceAllStringFunc(string(text), func(s string) string {
			port := shippedPort.FindStringSubmatch(s)[1]
			if filepath.Base(filepath.Dir(file)) == "eds" {
				return "port_value: " + replicaPort
			}
			if ports[port] == "" {
				ports[port] = strconv.Itoa(freePort(t))
			}
			return "port_value: " + ports[port]
		})
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, at)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, at), []byte(changed), 0o644))
	}
	return dir, ports
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	// servedModel is the model's name at vLLM. Clients ask for publicModel.
	servedModel = "tiny"
	// contextLength is the longest prompt plus output of the model, in tokens: the model has this many positions.
	contextLength = 8192
	// modelScript makes the model; from the root of the repository.
	modelScript = "internal/modelsim/sim/testdata/vllm/model.py"
	// startPatience is how long a vLLM may take to start. On two cores with two of them it is up to five minutes.
	startPatience = 15 * time.Minute
)

// httpClient queries vLLM directly.
var httpClient = &http.Client{Timeout: 30 * time.Second}

// server is one vLLM.
type server struct {
	name, address string
	log           string // file
	process       *process.Process
}

func (s *server) url() string { return "http://" + s.address }

// makeModel writes a random model, whose tokenizer makes one token of each byte, and returns its folder.
func makeModel(ctx context.Context, py *python, root, dir string) (string, error) {
	model := filepath.Join(dir, "model", servedModel)
	script := filepath.Join(root, modelScript)
	log := filepath.Join(dir, "model.log")
	p, err := process.Start(ctx, process.Command{Name: "model.py", Path: py.path, Args: []string{script, model, fmt.Sprint(contextLength)}, Env: append(py.env(), offline...), Log: log})
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Kill()
		return "", ctx.Err()
	}
	if _, err := os.Stat(filepath.Join(model, "config.json")); err != nil {
		return "", fmt.Errorf("model.py made no model:\n%s", tail(log, 30))
	}
	return model, nil
}

// offline keeps vLLM and its libraries from using the network.
var offline = []string{"HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", "DO_NOT_TRACK=1"}

// startServers starts n vLLMs concurrently and waits until they serve. After an error it also returns those that were
// started.
func startServers(ctx context.Context, py *python, model, dir string, n int, progress io.Writer) ([]*server, error) {
	var all []*server
	for i := range n {
		s := &server{name: fmt.Sprintf("vllm-%d", i+1)}
		s.log = filepath.Join(dir, s.name+".log")
		if err := s.start(ctx, py, model, dir); err != nil {
			return all, err
		}
		all = append(all, s)
	}
	_, _ = fmt.Fprintf(progress, "starting %d vLLMs (some minutes on a small machine; logs in %s)\n", n, dir)
	group, groupCtx := errgroup.WithContext(ctx)
	for _, s := range all {
		group.Go(func() error { return s.untilReady(groupCtx, progress) })
	}
	return all, group.Wait()
}

func (s *server) start(ctx context.Context, py *python, model, dir string) error {
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	s.address = fmt.Sprintf("127.0.0.1:%d", port)
	// Only stop passes Ctrl-C to it, so that it ends in order.
	s.process, err = process.Start(context.WithoutCancel(ctx), process.Command{
		Name: s.name,
		Path: py.path,
		Args: []string{
			filepath.Join(py.lib, "bin", "vllm"), "serve", model, "--served-model-name", servedModel,
			"--load-format", "dummy", "--enforce-eager", "--dtype", "float32",
			"--max-model-len", fmt.Sprint(contextLength), "--max-num-seqs", "8",
			"--enable-prompt-tokens-details", // cached_tokens in the usage
			"--host", "127.0.0.1", "--port", fmt.Sprint(port),
		},
		Env: append(append(py.env(), offline...),
			"TORCHDYNAMO_DISABLE=1", "OMP_NUM_THREADS=1", "VLLM_CPU_OMP_THREADS_BIND=nobind", // two servers share the cores
			"VLLM_CPU_KVCACHE_SPACE=1", // GiB: a million tokens of this model
			"VLLM_CACHE_ROOT="+filepath.Join(dir, "cache"), "TMPDIR="+dir,
			"VLLM_HOST_IP=127.0.0.1", "GLOO_SOCKET_IFNAME=lo", // its processes speak over the loopback
		),
		Dir: dir,
		Log: s.log,
	})
	return err
}

// untilReady waits until the server serves, and logs its progress.
func (s *server) untilReady(ctx context.Context, progress io.Writer) error {
	began := time.Now()
	told := began
	err := s.process.Until(ctx, startPatience, "ready", func() bool {
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			_, _ = fmt.Fprintf(progress, "%s: starting for %v: %.160s\n", s.name, time.Since(began).Round(time.Second), tail(s.log, 1))
		}
		_, err := fetch(ctx, s.url()+"/health")
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, tail(s.log, 40))
	}
	_, _ = fmt.Fprintf(progress, "%s: ready after %v\n", s.name, time.Since(began).Round(time.Second))
	return nil
}

// stop ends the server with all of its processes.
func (s *server) stop() {
	if s.process != nil {
		s.process.Stop(20 * time.Second)
	}
}

// metrics scrapes the server.
func (s *server) metrics(ctx context.Context) (stack.Metrics, error) {
	page, err := fetch(ctx, s.url()+"/metrics")
	if err != nil {
		return nil, err
	}
	return stack.ParseMetrics(string(page))
}

// fetch is a GET. Any status but 200 is an error.
func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// tail is the end of a file.
func tail(file string, lines int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

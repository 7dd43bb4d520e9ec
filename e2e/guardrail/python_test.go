package guardrail_test

import (
	"context"
	"embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/process"
)

// pins are the exact versions of the Python packages, with hashes.
//
//go:embed requirements.txt
var pins embed.FS

// python runs Python programs that can import the packages.
type python struct{ path, lib string }

// env is what Python needs in addition to this process's own environment. Nothing asks the network.
func (p *python) env() []string {
	return []string{"PYTHONPATH=" + p.lib, "PYTHONNOUSERSITE=1", "PYTHONUNBUFFERED=1", "DO_NOT_TRACK=1", "HF_HUB_OFFLINE=1", "OPENAI_API_KEY=none", "NO_COLOR=1"}
}

// installing is how long the download may take. It is less than what the Makefile gives all tests of a package.
const installing = 10 * time.Minute

// installed puts the packages into the cache folder, unless they are there.
var installed = sync.OnceValues(func() (*python, error) {
	ctx, cancel := context.WithTimeout(context.Background(), installing)
	defer cancel()
	path, version, err := clients.FindPython(ctx)
	if err != nil {
		return nil, err
	}
	in := &clients.Installer{CacheDir: filepath.Join(envoybin.CacheDir(), "guardrail"), Pins: pins, Progress: os.Stderr}
	what := "NeMo Guardrails and Google's types of Model Armor (360 MB on the disk; a minute or two)"
	dir, err := in.Install("python", version, []string{"requirements.txt"}, what, func(dir string) error {
		begin := time.Now()
		err := clients.Pip(ctx, path, filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "lib"))
		if ctx.Err() != nil {
			return fmt.Errorf("not done in %s: %w", installing, err)
		}
		if err == nil {
			_, _ = fmt.Fprintf(os.Stderr, "downloaded them in %s\n", time.Since(begin).Round(time.Second))
		}
		return err
	})
	return &python{path: path, lib: filepath.Join(dir, "lib")}, err
})

// TestPins: every package has an exact version and a hash, and no address to download it from.
func TestPins(t *testing.T) {
	text, err := pins.ReadFile("requirements.txt")
	require.NoError(t, err)
	require.NotContains(t, string(text), "://")
	packages := 0
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); line == "" || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "#") {
			continue
		}
		packages++
		require.Regexp(t, `^[a-z0-9-]+(\[[a-z,]+\])?==[0-9.a-z]+ .*\\$`, line)
	}
	require.Greater(t, packages, 50)
	require.GreaterOrEqual(t, strings.Count(string(text), "--hash=sha256:"), packages)
	for _, must := range []string{"\nnemoguardrails==0.24.1 ", "\ngoogle-cloud-modelarmor==0.7.3 "} {
		require.Contains(t, string(text), must)
	}
}

// startNemo starts a server of NeMo Guardrails with the configurations of testdata, and returns its ip:port. It loads a configuration
// when it is first asked, which takes seconds: so each is asked once before it returns.
func startNemo(t *testing.T) string {
	py, err := installed()
	require.NoError(t, err)
	log := filepath.Join(t.TempDir(), "nemo.log")
	ports := make(chan string, 1)
	configs, err := filepath.Abs("testdata/nemo")
	require.NoError(t, err)
	var once sync.Once
	// t.Context ends before the cleanups run.
	p, err := process.Start(context.WithoutCancel(t.Context()), process.Command{
		Name: "NeMo Guardrails", Path: py.path, Args: []string{"-s", "testdata/nemo_server.py", configs}, Env: py.env(), Log: log,
		OnLine: func(line string) { once.Do(func() { ports <- line }) },
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s", text)
		}
	})
	var address string
	select {
	case port := <-ports:
		address = "127.0.0.1:" + port
	case <-p.Done():
		require.Fail(t, "the server has ended")
	}
	warm := &http.Client{Timeout: 2 * time.Minute}
	for _, config := range []string{"guard", "mask", "broken", "input"} {
		body := fmt.Sprintf(`{"model":"none","messages":[{"role":"user","content":"hello"}],"guardrails":{"config_id":%q}}`, config)
		var status int
		require.NoError(t, p.Until(t.Context(), 3*time.Minute, "answering", func() bool {
			res, err := warm.Post("http://"+address+"/v1/checks", "application/json", strings.NewReader(body))
			if err != nil {
				return false
			}
			status = res.StatusCode
			return res.Body.Close() == nil
		}))
		require.Equal(t, map[string]int{"broken": 500}[config]+map[bool]int{true: 200}[config != "broken"], status, config)
	}
	return address
}

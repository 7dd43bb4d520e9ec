package kubebin

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModules(t *testing.T) {
	for p, s := range sources {
		mod, err := modules.ReadFile("modules/" + s.module + ".mod")
		require.NoError(t, err)
		name, _, _ := strings.Cut(s.pkg, "/cmd/")
		require.Contains(t, string(mod), "require "+name+" "+s.version+"\n", p)
		sum, err := modules.ReadFile("modules/" + s.module + ".sum")
		require.NoError(t, err)
		require.Contains(t, string(sum), name+" "+s.version+" h1:", p)
	}
}

func TestEtcd(t *testing.T) {
	path, err := Path(t.Context(), Etcd, nil)
	require.NoError(t, err)
	out, err := exec.Command(path, "--version").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "etcd Version: 3.")
}

func TestModule(t *testing.T) {
	dir, err := Module(t.Context(), "sigs.k8s.io/gateway-api", "v1.6.1")
	require.NoError(t, err)
	require.DirExists(t, filepath.Join(dir, "config", "crd", "standard"))
	_, err = Module(t.Context(), "sigs.k8s.io/gateway-api", "v0.0.0")
	require.ErrorContains(t, err, "go mod download sigs.k8s.io/gateway-api@v0.0.0")
}

// A caller that wants a program while another one gets it waits, and then finds it.
func TestOnce(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("INLET_CACHE", dir)
	path := filepath.Join(dir, "program")
	var gets atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			got, err := once(path, func() error {
				gets.Add(1)
				return os.WriteFile(path, nil, 0o755)
			})
			if err != nil || got != path {
				t.Errorf("once: %q, %v", got, err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, gets.Load())
}

func TestErrors(t *testing.T) {
	_, err := Path(t.Context(), "kubelet", nil)
	require.EqualError(t, err, "no such program: kubelet")
	dir := t.TempDir()
	t.Setenv("INLET_CACHE", dir)
	t.Setenv("PATH", dir)
	_, err = Path(t.Context(), Etcd, nil)
	require.ErrorContains(t, err, "install etcd")
	_, err = Path(t.Context(), Kubectl, nil)
	require.ErrorContains(t, err, "go build k8s.io/kubernetes/cmd/kubectl")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Path(ctx, Egctl, nil)
	require.Error(t, err)
	left, err := filepath.Glob(filepath.Join(dir, "kube", "*", ".build-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

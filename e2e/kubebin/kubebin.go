// Package kubebin gets the programs that tests of Kubernetes and Envoy Gateway need: it builds them from the Go module proxy, at the versions and
// with the checksums in folder modules, and takes etcd from Debian. They stand in Inlet's cache folder; a build takes minutes, once.
package kubebin

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/inlet-proxy/inlet/e2e/debian"
	"github.com/inlet-proxy/inlet/e2e/envoybin"
)

// Program is one of the programs.
type Program string

// The programs.
const (
	EnvoyGateway  Program = "envoy-gateway"
	Egctl         Program = "egctl"
	KubeAPIServer Program = "kube-apiserver"
	Kubectl       Program = "kubectl"
	Etcd          Program = "etcd"
)

// Versions of what is built. They stand in modules/*.mod too, which a test compares.
const (
	GatewayVersion    = "v1.9.1"
	KubernetesVersion = "v1.34.4"
)

// linked is what Kubernetes' own build writes into its programs. Without it they say v0.0.0.
const linked = "-X k8s.io/component-base/version.gitVersion=" + KubernetesVersion +
	" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"

// source says where a program comes from: a package of a module that a file of modules requires.
type source struct{ module, version, pkg string }

var sources = map[Program]source{
	EnvoyGateway:  {"gateway", GatewayVersion, "github.com/envoyproxy/gateway/cmd/envoy-gateway"},
	Egctl:         {"gateway", GatewayVersion, "github.com/envoyproxy/gateway/cmd/egctl"},
	KubeAPIServer: {"kubernetes", KubernetesVersion, "k8s.io/kubernetes/cmd/kube-apiserver"},
	Kubectl:       {"kubernetes", KubernetesVersion, "k8s.io/kubernetes/cmd/kubectl"},
}

// modules are the go.mod and go.sum of the modules that only require what is built. What a program's own go.mod replaces does not hold for who
// requires it, so the replacements of Kubernetes stand there again.
//
//go:embed modules
var modules embed.FS

// Path returns the absolute path of a program, which it builds or downloads if this machine has not got it. progress may be nil.
func Path(ctx context.Context, p Program, progress io.Writer) (string, error) {
	if p == Etcd {
		return etcd(ctx, progress)
	}
	s, ok := sources[p]
	if !ok {
		return "", fmt.Errorf("no such program: %s", p)
	}
	dir := filepath.Join(envoybin.CacheDir(), "kube", s.version)
	path := filepath.Join(dir, string(p))
	return once(path, func() error {
		say(progress, "building %s %s into %s: this takes minutes, once", p, s.version, dir)
		return build(ctx, s, path)
	})
}

// etcd returns the one in PATH, or that of Debian's package.
func etcd(ctx context.Context, progress io.Writer) (string, error) {
	if path, err := exec.LookPath("etcd"); err == nil {
		return filepath.Abs(path)
	}
	dir := filepath.Join(envoybin.CacheDir(), "kube", "etcd")
	return once(filepath.Join(dir, "usr", "bin", "etcd"), func() error {
		say(progress, "downloading etcd from Debian (about 8 MB) into %s", dir)
		if err := debian.Fetch(ctx, dir, "etcd-server"); err != nil {
			return fmt.Errorf("no etcd in PATH, and it could not be fetched from Debian: %w; install etcd", err)
		}
		return nil
	})
}

// once returns the absolute path of a file, which get makes if it is not there. Other processes that want the same file wait.
func once(path string, get func() error) (string, error) {
	file := filepath.Join(envoybin.CacheDir(), "kube", "."+filepath.Base(path)+".lock")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache folder: %w; set INLET_CACHE to a folder that can be written", err)
	}
	unlock, err := lock(file)
	if err != nil {
		return "", err
	}
	defer unlock()
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		if err := get(); err != nil {
			return "", err
		}
	}
	return filepath.Abs(path)
}

// lock waits until no other process builds the same program.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil // closing it ends the lock
}

// build builds a program at low priority and puts it at path when it is whole.
func build(ctx context.Context, s source, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(path), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a leftover in the cache folder does no harm
	for _, end := range []string{"mod", "sum"} {
		text, err := modules.ReadFile("modules/" + s.module + "." + end)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(work, "go."+end), text, 0o644); err != nil {
			return err
		}
	}
	args := []string{"go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-p", "2", "-ldflags", linked, "-o", "program", s.pkg}
	if nice, err := exec.LookPath("nice"); err == nil {
		args = append([]string{nice, "-n", "10"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOOS=", "GOARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", s.pkg, err, strings.TrimSpace(string(out)))
	}
	return os.Rename(filepath.Join(work, "program"), path)
}

func say(w io.Writer, format string, args ...any) {
	if w != nil {
		_, _ = fmt.Fprintf(w, format+"\n", args...)
	}
}

// Module returns the folder of a module of the Go module proxy, which may hold more than code, such as CustomResourceDefinitions.
func Module(ctx context.Context, path, version string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", path+"@"+version)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s@%s: %w\n%s", path, version, err, out)
	}
	var got struct{ Dir string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", err
	}
	return got.Dir, nil
}

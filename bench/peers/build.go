// Package peers runs what Inlet is compared with: the endpoint picker and the body-based router of the Gateway API
// Inference Extension, as published, with a real kube-apiserver; and Envoy's rate limit service with a real Redis. What is
// built comes from the Go module proxy, with the versions and sums in the folders below.
package peers

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// source is a folder with a go.mod, and what is built from it.
type source struct {
	folder   string
	module   string // the module that is built; its version names the result
	packages []string
}

var sources = []source{
	{"gie", "sigs.k8s.io/gateway-api-inference-extension", []string{"sigs.k8s.io/gateway-api-inference-extension/cmd/epp", "sigs.k8s.io/gateway-api-inference-extension/cmd/bbr"}},
	{"etcd", "go.etcd.io/etcd/server/v3", []string{"go.etcd.io/etcd/server/v3"}},
	{"kube", "k8s.io/kubernetes", []string{"k8s.io/kubernetes/cmd/kube-apiserver"}},
}

// ratelimit is the rate limit service of the comparison of quotas.
var ratelimit = source{"ratelimit", "github.com/envoyproxy/ratelimit", []string{"github.com/envoyproxy/ratelimit/src/service_cmd"}}

// programs are the paths of the built programs, and of the extension's custom resource definitions.
type programs struct{ epp, bbr, etcd, apiserver, definitions string }

// build builds what is not yet in .cache/peers: minutes and gigabytes the first time.
func build(ctx context.Context, root string, progress io.Writer) (programs, error) {
	var folders [3]string
	for i, s := range sources {
		var err error
		if folders[i], err = s.build(ctx, root, progress); err != nil {
			return programs{}, err
		}
	}
	definitions, err := sources[0].list(ctx, root, "{{.Dir}}")
	return programs{
		epp: filepath.Join(folders[0], "epp"), bbr: filepath.Join(folders[0], "bbr"),
		etcd: filepath.Join(folders[1], "etcd"), apiserver: filepath.Join(folders[2], "kube-apiserver"),
		definitions: filepath.Join(definitions, "config", "crd", "bases"),
	}, err
}

// build returns the folder of the built programs.
func (s *source) build(ctx context.Context, root string, progress io.Writer) (string, error) {
	version, err := s.list(ctx, root, "{{.Version}}")
	if err != nil {
		return "", err
	}
	built := filepath.Join(root, ".cache", "peers", s.folder+"@"+version)
	for _, p := range s.packages {
		file := filepath.Join(built, program(p))
		if _, err := os.Stat(file); err == nil {
			continue
		}
		fmt.Fprintf(progress, "building %s %s (the first time takes minutes)\n", p, version)
		if err := os.MkdirAll(built, 0o755); err != nil {
			return "", err
		}
		// Under another name first, so that a file with the final name is complete.
		if _, err := s.run(ctx, root, "build", "-trimpath", "-o", file+".new", p); err != nil {
			return "", err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return "", err
		}
	}
	return built, nil
}

// program is the name of a package's program.
func program(importPath string) string {
	if strings.Contains(importPath, "/etcd/") {
		return "etcd" // its main package is a separate module, called v3
	}
	return filepath.Base(importPath)
}

func (s *source) list(ctx context.Context, root, format string) (string, error) {
	if _, err := s.run(ctx, root, "mod", "download", s.module); err != nil {
		return "", err
	}
	return s.run(ctx, root, "list", "-m", "-f", format, s.module)
}

// run runs a go command in the folder.
func (s *source) run(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(root, "bench", "peers", s.folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: go %s: %w\n%s", s.folder, strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}

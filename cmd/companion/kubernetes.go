package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/kube"
	"github.com/inlet-proxy/inlet/internal/companion/quota"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// KubernetesConfig is how pools with a source in Kubernetes are followed.
type KubernetesConfig struct {
	Kubeconfig    string // "": see kube.Connect
	Namespace     string // of pools that name none; "": this Pod's, or the kubeconfig's
	AllNamespaces bool
	Gateway       *kube.Gateway // that the pools serve; nil: none, and nothing is written
}

func readKubernetes(o *conf.Object) *KubernetesConfig {
	k := new(KubernetesConfig)
	o.String("kubeconfig", &k.Kubeconfig, conf.NotEmpty)
	o.String("namespace", &k.Namespace, conf.NotEmpty)
	o.Bool("allNamespaces", &k.AllNamespaces)
	o.Object("gateway", func(o *conf.Object) {
		k.Gateway = &kube.Gateway{Controller: controllerName}
		o.Required("name")
		o.String("name", &k.Gateway.Name, conf.NotEmpty)
		o.String("namespace", &k.Gateway.Namespace, conf.NotEmpty)
		o.String("controllerName", &k.Gateway.Controller, isControllerName)
	})
	return k
}

// controllerName is the default name under which the companion writes the status of InferencePools.
const controllerName = "inlet-proxy.github.io/companion"

func isControllerName(s string) string {
	if domain, path, ok := strings.Cut(s, "/"); !ok || domain == "" || path == "" {
		return "is not domain/path"
	}
	return ""
}

// inKubernetes reports whether a pool has its source in Kubernetes.
func (c *Config) inKubernetes() bool {
	return slices.ContainsFunc(c.Pools, func(p replicas.Pool) bool { return p.Kubernetes != nil })
}

func (k *KubernetesConfig) connect() (*kube.Cluster, error) {
	cluster, err := kube.Connect(k.Kubeconfig, k.Namespace)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return cluster, nil
}

// followDirectory lets the directory of keys come from Kubernetes. Until it was read, proxies keep the one that they have.
func (c *QuotaConfig) followDirectory(o *quota.Options, log *slog.Logger) (*kube.Directory, error) {
	cluster, err := cmp.Or(c.cluster, new(KubernetesConfig)).connect()
	if err != nil {
		return nil, err
	}
	d := kube.NewDirectory(cluster, *c.Kubernetes, log)
	o.File = d.String()
	o.Read = func() ([]byte, error) {
		text, err := d.Read()
		if errors.Is(err, kube.ErrNotRead) {
			err = quota.Unavailable(err)
		}
		return text, err
	}
	return d, nil
}

// newWatcher returns what follows the pools that have their source in Kubernetes; nil if there are none.
func newWatcher(c *Config, log *slog.Logger) (*kube.Watcher, error) {
	if !c.inKubernetes() {
		return nil, nil
	}
	k := cmp.Or(c.Kubernetes, new(KubernetesConfig))
	cluster, err := k.connect()
	if err != nil {
		return nil, err
	}
	return kube.New(cluster, c.Pools, kube.Options{AllNamespaces: k.AllNamespaces, Gateway: k.Gateway, Log: log})
}

// follow passes the lists of replicas on until ctx ends.
func follow(ctx context.Context, group *errgroup.Group, w *kube.Watcher, found *replicas.Replicas) {
	if w == nil {
		return
	}
	group.Go(func() error {
		w.Run(ctx, found.Set)
		return nil
	})
}

// checkKubernetes reads what has its source in Kubernetes once, and reports on it.
func checkKubernetes(ctx context.Context, c *Config, out io.Writer) error {
	err := checkDirectory(ctx, c.Quota, out)
	w, failed := newWatcher(c, slog.New(slog.DiscardHandler))
	if failed != nil || w == nil {
		return errors.Join(err, failed)
	}
	return errors.Join(err, w.Check(ctx, func(p *replicas.Pool, a *discover.Assignment) {
		endpoints := "endpoints"
		if len(a.Endpoints) == 1 {
			endpoints = "endpoint"
		}
		fmt.Fprintf(out, "pool %s: Kubernetes, %d %s\n", p.Name, len(a.Endpoints), endpoints)
		if a.Skipped != nil {
			fmt.Fprintf(out, "pool %s: Kubernetes: note: %s\n", p.Name, a.Skipped)
		}
	}))
}

// checkDirectory reads the directory of keys once, if it is in Kubernetes.
func checkDirectory(ctx context.Context, c *QuotaConfig, out io.Writer) error {
	if c == nil || c.Kubernetes == nil {
		return nil
	}
	var o quota.Options
	d, err := c.followDirectory(&o, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	text, err := d.Check(ctx)
	var directory *quota.Directory
	if err == nil {
		directory, err = quota.ParseDirectory(text)
	}
	if err != nil {
		return fmt.Errorf("quota.kubernetes: %w", err)
	}
	fmt.Fprintf(out, "quota: %s: %d keys, %d apps, %d products\n", d, len(directory.Keys), len(directory.Apps), len(directory.Products))
	return nil
}

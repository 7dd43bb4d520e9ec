package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// DirectorySource is the ConfigMap and the Secret that have the directory of developers, apps, products and keys; one of them may be "".
type DirectorySource struct{ Namespace, ConfigMap, Secret string }

// document is what a ConfigMap or a Secret contains.
type document struct {
	metav1.ObjectMeta
	texts map[string]string
}

// Directory follows the parts of a directory. Its methods are safe for concurrent use.
type Directory struct {
	source DirectorySource
	parts  []*part
}

type part struct {
	*cache[*document]
	kind, name string
}

// ErrNotRead means that nothing is known yet, which is not the same as that there is nothing.
var ErrNotRead = errors.New("not read yet")

// NewDirectory returns a Directory that reads nothing until Run.
func NewDirectory(cluster *Cluster, source DirectorySource, log *slog.Logger) *Directory {
	if source.Namespace == "" {
		source.Namespace = cluster.Namespace
	}
	d := &Directory{source: source}
	if source.ConfigMap != "" {
		d.parts = append(d.parts, cluster.partOf(source.Namespace, "ConfigMap", "configmaps", source.ConfigMap, log))
	}
	if source.Secret != "" {
		d.parts = append(d.parts, cluster.partOf(source.Namespace, "Secret", "secrets", source.Secret, log))
	}
	return d
}

// partOf follows one object by its name, for which rights to that object alone are enough.
func (c *Cluster) partOf(namespace, kind, resource, name string, log *slog.Logger) *part {
	lw := filtered(c.core, resource, namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
	})
	return &part{kind: kind, name: name, cache: &cache[*document]{
		what: resource + " " + name + place(namespace), changed: func() {}, log: log, list: lw.ListWithContext, watch: lw.WatchWithContext, read: readDocument,
	}}
}

func readDocument(object any) *document {
	d := &document{texts: make(map[string]string)}
	switch o := object.(type) {
	case *corev1.ConfigMap:
		d.ObjectMeta = stripMeta(&o.ObjectMeta)
		maps.Copy(d.texts, o.Data)
	case *corev1.Secret:
		d.ObjectMeta = stripMeta(&o.ObjectMeta)
		for name, text := range o.Data {
			d.texts[name] = string(text)
		}
	}
	return d
}

// Run follows the parts until ctx ends.
func (d *Directory) Run(ctx context.Context) {
	var wait sync.WaitGroup
	for _, p := range d.parts {
		wait.Go(func() { p.run(ctx) })
	}
	wait.Wait()
}

// Check reads the directory once.
func (d *Directory) Check(ctx context.Context) (text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkFor)
	defer cancel()
	for _, p := range d.parts {
		p.changed = func() {
			if _, err := d.Read(); !errors.Is(err, ErrNotRead) {
				cancel()
			}
		}
	}
	d.Run(ctx)
	return d.Read()
}

// String names the parts for messages.
func (d *Directory) String() string {
	var names []string
	for _, p := range d.parts {
		names = append(names, p.kind+" "+d.source.Namespace+"/"+p.name)
	}
	return strings.Join(names, " and ")
}

// Read returns the whole directory: the lists of all YAML and JSON texts of both objects, one after the other. Before all of it was read the error is
// ErrNotRead.
func (d *Directory) Read() ([]byte, error) {
	whole := make(map[string][]any)
	for _, p := range d.parts {
		objects, synced := p.of(d.source.Namespace)
		if !synced {
			return nil, fmt.Errorf("%w: %s", ErrNotRead, p.missing())
		}
		o := objects[p.name]
		if o == nil {
			return nil, fmt.Errorf("there is no %s %s/%s", p.kind, d.source.Namespace, p.name)
		}
		for _, name := range slices.Sorted(maps.Keys(o.texts)) {
			if ext := path.Ext(name); ext != ".yaml" && ext != ".yml" && ext != ".json" {
				continue
			}
			var lists map[string][]any
			if yaml.Unmarshal([]byte(o.texts[name]), &lists) != nil { // whose message may contain what the text does
				return nil, fmt.Errorf("%s %s/%s, %s: not a mapping of lists", p.kind, d.source.Namespace, p.name, name)
			}
			for key, list := range lists {
				whole[key] = append(whole[key], list...)
			}
		}
	}
	return yaml.Marshal(whole)
}

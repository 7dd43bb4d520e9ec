// Package convert translates what was written for the Gateway API Inference Extension: pools of v1alpha2 into those of v1, and models, rewrites and
// objectives into the configuration of a chain and of the companion.
package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// API groups.
const (
	newGroup = "inference.networking.k8s.io"
	oldGroup = "inference.networking.x-k8s.io"
)

// metadata is what is used of an object's metadata.
type metadata struct {
	Name        string            `yaml:"name"`
	Namespace   string            `yaml:"namespace,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

type reference struct {
	Name  string `yaml:"name"`
	Group string `yaml:"group"`
	Kind  string `yaml:"kind"`
}

// object is one manifest; Spec is that of its kind.
type object struct {
	APIVersion string    `yaml:"apiVersion"`
	Kind       string    `yaml:"kind"`
	Metadata   metadata  `yaml:"metadata"`
	Spec       yaml.Node `yaml:"spec"`
	Items      []*object `yaml:"items"` // of a List
}

func (o *object) String() string {
	name := o.Metadata.Name
	if o.Metadata.Namespace != "" {
		name = o.Metadata.Namespace + "/" + name
	}
	return o.Kind + " " + name
}

type oldPool struct {
	Selector map[string]string `yaml:"selector"`
	Port     int               `yaml:"targetPortNumber"`
	Picker   *struct {
		reference   `yaml:",inline"`
		Port        *int   `yaml:"portNumber"`
		FailureMode string `yaml:"failureMode"`
	} `yaml:"extensionRef"`
}

type model struct {
	Name        string    `yaml:"modelName"`
	Criticality string    `yaml:"criticality"`
	Pool        reference `yaml:"poolRef"`
	Targets     []struct {
		Name   string `yaml:"name"`
		Weight *int   `yaml:"weight"`
	} `yaml:"targetModels"`
}

type rewrite struct {
	Pool  reference `yaml:"poolRef"`
	Rules []struct {
		Matches []struct {
			Model *struct {
				Type  string `yaml:"type"`
				Value string `yaml:"value"`
			} `yaml:"model"`
		} `yaml:"matches"`
		Targets []struct {
			Weight *int   `yaml:"weight"`
			Model  string `yaml:"modelRewrite"`
		} `yaml:"targets"`
	} `yaml:"rules"`
}

type objective struct {
	Priority int `yaml:"priority"`
}

// read reads all documents of a file.
func read(text []byte) (objects []*object, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(document.Content) == 0 || document.Content[0].Tag == "!!null" {
			continue // an empty one
		}
		var o object
		if err := document.Decode(&o); err != nil {
			return nil, err
		}
		switch {
		case len(o.Items) > 0:
			for _, item := range o.Items {
				if item == nil || item.Metadata.Name == "" {
					return nil, errors.New("a list with an item that is not a manifest")
				}
				objects = append(objects, item)
			}
		case o.Kind == "" || o.Metadata.Name == "":
			return nil, errors.New("a document without kind or metadata.name: not a manifest")
		default:
			objects = append(objects, &o)
		}
	}
}

func (o *object) group() string {
	group, _, _ := strings.Cut(o.APIVersion, "/")
	return group
}

// spec reads the spec of an object strictly enough that a wrong type is an error.
func (o *object) spec(into any) error {
	if err := o.Spec.Decode(into); err != nil {
		return fmt.Errorf("%s: spec: %w", o, err)
	}
	return nil
}

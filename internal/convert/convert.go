package convert

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Result is what manifests mean to Inlet. Each part is YAML, and nil if there is nothing.
type Result struct {
	Manifests []byte   // InferencePools of v1
	Chain     []byte   // filters bbr and picker
	Companion []byte   // pools of the companion
	Notes     []string // what is not the same, or was left out
}

type converter struct {
	manifests []any
	pools     []companionPool
	models    []chainModel
	goals     []chainObjective
	notes     []string
}

type companionPool struct {
	Name       string `yaml:"name"`
	Kubernetes struct {
		InferencePool string `yaml:"inferencePool"`
		Namespace     string `yaml:"namespace,omitempty"`
	} `yaml:"kubernetes"`
}

type chainModel struct {
	Name    string        `yaml:"name"`
	Targets []chainTarget `yaml:"targets,flow"`
}

type chainTarget struct {
	Model  string `yaml:"model,omitempty"`
	Pool   string `yaml:"pool"`
	Weight *int   `yaml:"weight,omitempty"`
}

type chainObjective struct {
	Name     string `yaml:"name"`
	Priority int    `yaml:"priority"`
}

// Convert translates the manifests of some files. What it does not know it leaves out, with a note.
func Convert(files ...[]byte) (*Result, error) {
	c := new(converter)
	for _, text := range files {
		objects, err := read(text)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if err := c.object(o); err != nil {
				return nil, err
			}
		}
	}
	return c.result()
}

func (c *converter) notef(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *converter) object(o *object) error {
	switch group := o.group(); {
	case group == newGroup && o.Kind == "InferencePool":
		c.notef("%s is of v1 already", o)
		c.manifests = append(c.manifests, map[string]any{"apiVersion": o.APIVersion, "kind": o.Kind, "metadata": o.Metadata, "spec": &o.Spec})
		c.addPool(o)
		return nil
	case group != oldGroup:
	case o.Kind == "InferencePool":
		return c.pool(o)
	case o.Kind == "InferenceModel":
		return c.model(o)
	case o.Kind == "InferenceModelRewrite":
		return c.rewrite(o)
	case o.Kind == "InferenceObjective":
		return c.objective(o)
	}
	c.notef("%s (%s) is left out: it is not of the Gateway API Inference Extension, or not known here", o, o.APIVersion)
	return nil
}

// Defaults of v1alpha2, which the API server filled in.
const (
	pickerPort    = 9002
	pickerFailure = "FailClose"
)

func (c *converter) pool(o *object) error {
	var old oldPool
	if err := o.spec(&old); err != nil {
		return err
	}
	if len(old.Selector) == 0 || old.Port == 0 {
		return fmt.Errorf("%s: needs spec.selector and spec.targetPortNumber", o)
	}
	spec := map[string]any{
		"selector":    map[string]any{"matchLabels": old.Selector},
		"targetPorts": []any{map[string]any{"number": old.Port}},
	}
	if p := old.Picker; p == nil {
		c.notef("%s has no extensionRef: the kind of v1 requires endpointPickerRef up to release 1.4 of the extension", o)
	} else {
		ref := map[string]any{"name": p.Name, "kind": cmp.Or(p.Kind, "Service"), "failureMode": cmp.Or(p.FailureMode, pickerFailure)}
		if p.Group != "" {
			ref["group"] = p.Group
		}
		port := pickerPort
		if p.Port != nil {
			port = *p.Port
		}
		ref["port"] = map[string]any{"number": port}
		spec["endpointPickerRef"] = ref
		c.notef("%s: Inlet picks the replica itself and does not ask the endpoint picker %s", o, p.Name)
	}
	c.manifests = append(c.manifests, map[string]any{"apiVersion": newGroup + "/v1", "kind": "InferencePool", "metadata": o.Metadata, "spec": spec})
	c.notef("%s: HTTPRoutes that name it must name the group %s", o, newGroup)
	c.addPool(o)
	return nil
}

func (c *converter) addPool(o *object) {
	p := companionPool{Name: o.Metadata.Name}
	p.Kubernetes.InferencePool, p.Kubernetes.Namespace = o.Metadata.Name, o.Metadata.Namespace
	for _, other := range c.pools {
		if other == p {
			return // in both groups
		}
		if other.Name == p.Name {
			c.notef("%s has the name of a pool in another namespace: give one of them another name in the companion's and the chain's configuration", o)
		}
	}
	c.pools = append(c.pools, p)
}

// priorities are those of criticalities. Only one below 0 changes what the picker does.
var priorities = map[string]int{"Critical": 1, "": 0, "Standard": 0, "Sheddable": -1}

func (c *converter) model(o *object) error {
	var m model
	if err := o.spec(&m); err != nil {
		return err
	}
	if m.Name == "" || m.Pool.Name == "" {
		return fmt.Errorf("%s: needs spec.modelName and spec.poolRef.name", o)
	}
	to := chainModel{Name: m.Name}
	for _, t := range m.Targets {
		to.Targets = append(to.Targets, chainTarget{Model: t.Name, Pool: m.Pool.Name, Weight: t.Weight})
	}
	if len(to.Targets) == 0 {
		to.Targets = []chainTarget{{Pool: m.Pool.Name}}
	}
	c.addModel(o, to)
	priority, known := priorities[m.Criticality]
	switch {
	case !known:
		c.notef("%s: criticality %q is not known and left out", o, m.Criticality)
	case priority != 0:
		c.goals = append(c.goals, chainObjective{Name: o.Metadata.Name, Priority: priority})
		c.notef("%s: criticality %s is the objective %s, which requests name in the header x-llm-d-inference-objective: let a route set it", o, m.Criticality, o.Metadata.Name)
	}
	return nil
}

func (c *converter) rewrite(o *object) error {
	var r rewrite
	if err := o.spec(&r); err != nil {
		return err
	}
	for i, rule := range r.Rules {
		if len(rule.Matches) == 0 {
			c.notef("%s: rule %d matches every model and is left out: Inlet needs the names (models[].aliases may end with *)", o, i)
			continue
		}
		for _, match := range rule.Matches {
			if match.Model == nil || match.Model.Type != "" && match.Model.Type != "Exact" {
				c.notef("%s: rule %d has a match other than by the exact name of a model: left out", o, i)
				continue
			}
			to := chainModel{Name: match.Model.Value}
			for _, t := range rule.Targets {
				to.Targets = append(to.Targets, chainTarget{Model: t.Model, Pool: r.Pool.Name, Weight: t.Weight})
			}
			if len(to.Targets) == 0 {
				to.Targets = []chainTarget{{Pool: r.Pool.Name}}
			}
			c.addModel(o, to)
		}
	}
	return nil
}

// addModel adds a model. Of two with one name the first counts, as the older object does in a cluster.
func (c *converter) addModel(o *object, m chainModel) {
	if slices.ContainsFunc(c.models, func(other chainModel) bool { return other.Name == m.Name }) {
		c.notef("%s: there is a model %s already, and this one is left out: with one name several pools are several targets", o, m.Name)
		return
	}
	c.models = append(c.models, m)
}

func (c *converter) objective(o *object) error {
	var g objective
	if err := o.spec(&g); err != nil {
		return err
	}
	c.goals = append(c.goals, chainObjective{Name: o.Metadata.Name, Priority: g.Priority})
	return nil
}

func (c *converter) result() (*Result, error) {
	r := &Result{Notes: c.notes}
	var err error
	if r.Manifests, err = documents(c.manifests); err != nil {
		return nil, err
	}
	if len(c.pools) > 0 {
		if r.Companion, err = documents([]any{map[string]any{"pools": c.pools}}); err != nil {
			return nil, err
		}
	}
	var filters []any
	if len(c.models) > 0 {
		filters = append(filters, map[string]any{"bbr": map[string]any{"models": c.models}})
	}
	if len(c.goals) > 0 {
		filters = append(filters, map[string]any{"picker": map[string]any{"objectives": c.goals}})
	}
	if len(filters) > 0 {
		r.Chain, err = documents([]any{map[string]any{"filters": filters}})
	}
	return r, err
}

func documents(all []any) ([]byte, error) {
	if len(all) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, one := range all {
		if err := e.Encode(one); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), e.Close()
}

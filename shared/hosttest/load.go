package hosttest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// Load reads the scenarios of the files that match the patterns (see
// [filepath.Glob]), in order. A file holds one scenario or several, separated
// by "---". A field that the format does not know, a step that expects nothing
// and a pattern that matches no file are errors.
func Load(patterns ...string) ([]*Scenario, error) {
	var all []*Scenario
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("no scenario file matches %s", pattern)
		}
		for _, file := range files {
			doc, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			scenarios, err := Parse(file, doc)
			if err != nil {
				return nil, err
			}
			all = append(all, scenarios...)
		}
	}
	return all, nil
}

// Parse reads the scenarios of one file.
func Parse(file string, doc []byte) ([]*Scenario, error) {
	var all []*Scenario
	names := map[string]bool{}
	decoder := yaml.NewDecoder(bytes.NewReader(doc))
	decoder.KnownFields(true)
	for {
		s := &Scenario{File: file}
		err := decoder.Decode(s)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := s.complete(); err != nil {
			return nil, fmt.Errorf("%s: scenario %q: %w", file, s.Name, err)
		}
		if names[s.Name] {
			return nil, fmt.Errorf("%s: two scenarios are called %q", file, s.Name)
		}
		names[s.Name] = true
		all = append(all, s)
	}
}

// UnmarshalYAML takes a string or a list of strings.
func (o *OneOf) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*o = OneOf{n.Value}
		return nil
	}
	return n.Decode((*[]string)(o))
}

// UnmarshalYAML takes a list of names, or a string with commas between them.
func (s *Subset) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return n.Decode(&s.Replicas)
	}
	s.Text = true
	s.Replicas = chain.AppendAddresses(nil, n.Value)
	return nil
}

// complete fills in defaults and refuses what makes no sense.
func (s *Scenario) complete() error {
	s.Workers = max(s.Workers, 1)
	switch {
	case s.Name == "":
		return errors.New("it has no name")
	case s.Config == "":
		return errors.New("it has no config")
	case (s.Hosts == nil) != (s.Because == ""):
		return errors.New("hosts goes with because: why the others cannot play it")
	case (s.Rejected == "") == (len(s.Steps) == 0):
		return errors.New("it needs either steps or \"rejected\"")
	}
	if err := s.checkReplicas(s.Pools); err != nil {
		return err
	}
	for cluster, answers := range s.Services {
		for i := range answers {
			if err := answers[i].complete(); err != nil {
				return fmt.Errorf("services.%s: %w", cluster, err)
			}
		}
		if len(answers) == 0 {
			return fmt.Errorf("services.%s: no answer", cluster)
		}
	}
	held := map[string]bool{}
	for i := range s.Steps {
		step := &s.Steps[i]
		if step.Name == "" {
			step.Name = fmt.Sprintf("step %d", i+1)
		}
		if err := s.completeStep(step, held); err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	for name, open := range held {
		if open {
			return fmt.Errorf("the held request %q is never finished", name)
		}
	}
	return nil
}

// checkReplicas refuses a replica without a name and one that stands twice.
func (s *Scenario) checkReplicas(pools map[string][]Replica) error {
	seen := map[string]bool{}
	for pool, replicas := range pools {
		for _, r := range replicas {
			if r.Name == "" || seen[r.Name] {
				return fmt.Errorf("pools.%s: replica %q: every replica needs a name of its own", pool, r.Name)
			}
			seen[r.Name] = true
		}
	}
	return nil
}

func (a *Answer) complete() error {
	if a.Status == 0 {
		a.Status = 200
	}
	return oneOf("fail", a.Fail, "timeout", "reset", "cut")
}

// oneOf refuses a word that is neither empty nor listed.
func oneOf(field, word string, words ...string) error {
	if word == "" || slices.Contains(words, word) {
		return nil
	}
	return fmt.Errorf("%s: %q is none of %s", field, word, strings.Join(words, ", "))
}

// completeStep checks a step; held tells which names hold a request by now.
func (s *Scenario) completeStep(step *Step, held map[string]bool) error {
	step.Repeat = max(step.Repeat, 1)
	if step.Expect.empty() {
		return errors.New("it expects nothing")
	}
	if err := s.checkChange(step.Pools); err != nil {
		return err
	}
	if c := step.Companion; c != nil {
		if err := oneOf("companion.quota", cmp.Or(c.Quota, "nothing"), quotaUp, quotaDown, quotaRestarted); err != nil {
			return err
		}
	}
	if len(step.Spread) > 0 && step.Repeat == 1 {
		return errors.New("spread: needs repeat")
	}
	for replica, bounds := range step.Spread {
		if len(bounds) != 2 || bounds[0] > bounds[1] {
			return fmt.Errorf("spread.%s: %v is not [min, max]", replica, bounds)
		}
	}
	if step.Finish != "" {
		return step.completeFinish(held)
	}
	if step.Request == nil {
		return errors.New("it has neither request nor finish")
	}
	if step.Hold != "" {
		if step.Repeat > 1 || step.Request.Cancel != "" || held[step.Hold] {
			return fmt.Errorf("hold: %q must be a name of its own, without repeat and cancel", step.Hold)
		}
		held[step.Hold] = true
	}
	if err := step.Request.complete(); err != nil {
		return err
	}
	if step.Upstream == nil {
		step.Upstream = &Upstream{Headers: map[string]string{"content-type": "application/json"}, Body: "{}"}
	}
	return step.Upstream.complete()
}

// checkChange refuses a change of pools that adds or forgets a replica.
func (s *Scenario) checkChange(pools map[string][]Replica) error {
	if pools == nil {
		return nil
	}
	if err := s.checkReplicas(pools); err != nil {
		return err
	}
	if a, b := replicaNames(pools), replicaNames(s.Pools); !slices.Equal(a, b) {
		return fmt.Errorf("pools: lists %v where the scenario has %v", a, b)
	}
	return nil
}

// replicaNames lists the replicas as "pool/name", sorted.
func replicaNames(pools map[string][]Replica) []string {
	var names []string
	for pool, replicas := range pools {
		for _, r := range replicas {
			names = append(names, pool+"/"+r.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (step *Step) completeFinish(held map[string]bool) error {
	if !held[step.Finish] {
		return fmt.Errorf("finish: no request %q is held here", step.Finish)
	}
	held[step.Finish] = false
	if step.Request != nil || step.Upstream != nil || step.Hold != "" || step.Repeat > 1 {
		return errors.New("a step that finishes a request has none of request, upstream, hold and repeat")
	}
	if step.Expect.Arrived != nil {
		return errors.New("what arrived is expected in the step that holds the request")
	}
	return nil
}

func (r *Request) complete() error {
	if r.Method == "" {
		r.Method = "POST"
	}
	if r.Path == "" {
		r.Path = "/v1/chat/completions"
	}
	if (r.BodyRepeat != nil) != strings.Contains(r.Body, "$repeat") {
		return errors.New("bodyRepeat goes with $repeat in body")
	}
	if err := oneOf("encode", r.Encode, sortedKeys(encoders)...); err != nil {
		return err
	}
	if r.Encode != "" {
		if r.Headers == nil {
			r.Headers = map[string]string{}
		}
		r.Headers["content-encoding"] = r.Encode
	}
	if r.Patience > 0 && r.Cancel != CancelAfterBody && r.Cancel != CancelAfterResponseHeaders {
		return errors.New("patience goes with cancel afterBody or afterResponseHeaders")
	}
	return oneOf("cancel", r.Cancel, CancelAfterHeaders, CancelDuringCall, CancelAfterBody, CancelDuringResponse, CancelAfterResponseHeaders)
}

func (u *Upstream) complete() error {
	if u.Status == 0 {
		u.Status = 200
	}
	if u.Headers == nil {
		u.Headers = map[string]string{}
	}
	if u.Events != nil {
		if u.Body != "" {
			return errors.New("upstream: body and events exclude each other")
		}
		if _, ok := u.Headers["content-type"]; !ok {
			u.Headers["content-type"] = "text/event-stream"
		}
	}
	if u.Reset == ResetDuringBody && len(u.Pieces()) == 0 {
		return errors.New("upstream: there is no body to reset during")
	}
	return oneOf("upstream.reset", u.Reset, ResetBeforeHeaders, ResetDuringBody)
}

// empty reports whether nothing is expected.
func (e *Expect) empty() bool {
	return e.Status == nil && e.Cut == nil && e.Headers == nil && e.Body == nil && e.JSON == nil && e.Events == nil && e.Cancelled == nil &&
		e.Pool == "" && e.Replica == nil && e.Arrived == nil && e.Calls == nil && e.Metrics == nil && !e.Trap
}

#!/usr/bin/env bash
# Kubernetes' YAML renames keys: `on` and `y` become "true", `off` and `n` become "false". With Go's usual YAML library they stay as they are.
#
# Expected: a key is a string, whatever is made of values such as `off` and `no`.
# Seen (sigs.k8s.io/yaml 1.6.0, which kubectl and Helm use, and k8s.io/apimachinery 0.36.3): keys that YAML 1.1 takes for booleans or numbers are
# converted, and then written as JSON: {on: prompt, n: 2} becomes {"true": "prompt", "false": 2}, and 010 becomes "8". `on` and `y` in one object
# are the same key: an error where duplicates are refused, otherwise one of the two is lost. go.yaml.in/yaml/v3 keeps them all.
# Why it matters to a gateway: policies say on which phase they act, and `n` is the number of choices of a chat completion. A document that the
# gateway reads rightly from a file has other keys in a custom resource or in a chart's values. Quote such keys, or give them other names.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module example.com/keys

go 1.26.0

require (
	go.yaml.in/yaml/v3 v3.0.6
	k8s.io/apimachinery v0.36.3
	sigs.k8s.io/yaml v1.6.0
)
MOD
cat >main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"
	"strings"

	plain "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/yaml"
	kubernetes "sigs.k8s.io/yaml"
)

func show(name string, v any, err error) {
	b, _ := json.Marshal(v)
	if err != nil {
		b = []byte("error: " + strings.Join(strings.Fields(err.Error()), " "))
	}
	fmt.Printf("  %s: %s\n", name, b)
}

func main() {
	for _, doc := range []string{"{on: prompt, n: 2}", "{off: a, y: b}", "{010: a}", "{on: a, y: b}", `{"on": prompt, "n": 2}`} {
		fmt.Println(doc)
		var a, b, c, d map[string]any
		show("yaml.v3", a, plain.Unmarshal([]byte(doc), &a))
		show("sigs", b, kubernetes.Unmarshal([]byte(doc), &b))
		show("sigs, strict", c, kubernetes.UnmarshalStrict([]byte(doc), &c))
		show("apimachinery", d, yaml.NewYAMLToJSONDecoder(strings.NewReader(doc)).Decode(&d))
	}
}
GO
go mod tidy >/dev/null 2>&1
go run . | tee seen
diff - seen <<'WANT'
{on: prompt, n: 2}
  yaml.v3: {"n":2,"on":"prompt"}
  sigs: {"false":2,"true":"prompt"}
  sigs, strict: {"false":2,"true":"prompt"}
  apimachinery: {"false":2,"true":"prompt"}
{off: a, y: b}
  yaml.v3: {"off":"a","y":"b"}
  sigs: {"false":"a","true":"b"}
  sigs, strict: {"false":"a","true":"b"}
  apimachinery: {"false":"a","true":"b"}
{010: a}
  yaml.v3: {"010":"a"}
  sigs: {"8":"a"}
  sigs, strict: {"8":"a"}
  apimachinery: {"8":"a"}
{on: a, y: b}
  yaml.v3: {"on":"a","y":"b"}
  sigs: {"true":"b"}
  sigs, strict: error: error converting YAML to JSON: yaml: unmarshal errors: line 1: key true already set in map
  apimachinery: {"true":"b"}
{"on": prompt, "n": 2}
  yaml.v3: {"n":2,"on":"prompt"}
  sigs: {"n":2,"on":"prompt"}
  sigs, strict: {"n":2,"on":"prompt"}
  apimachinery: {"n":2,"on":"prompt"}
WANT

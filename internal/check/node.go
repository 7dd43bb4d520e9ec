package check

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a place in a bootstrap: a value, or the nearest thing around where a value is missing. The zero node is no place.
type node struct {
	value *yaml.Node // nil if it is missing
	place *yaml.Node // what to point at
}

func newNode(n *yaml.Node) node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return node{n, n}
}

// exists reports whether there is a value.
func (n node) exists() bool { return n.value != nil }

// get follows names of Envoy's API, written as_here or asHere: protobuf's JSON takes both.
func (n node) get(names ...string) node {
	for _, name := range names {
		n = n.member(name)
	}
	return n
}

func (n node) member(name string) node {
	missing := node{nil, n.place}
	if n.value == nil || n.value.Kind != yaml.MappingNode {
		return missing
	}
	content := n.value.Content
	for i := 0; i+1 < len(content); i += 2 {
		if content[i].Value == name || content[i].Value == camel(name) {
			found := newNode(content[i+1])
			if content[i+1].Kind == yaml.AliasNode || found.value.Kind == yaml.ScalarNode {
				found.place = content[i] // the key: where somebody would look
			}
			return found
		}
	}
	return missing
}

// camel is the other spelling of a name: as_here becomes asHere.
func camel(name string) string {
	words := strings.Split(name, "_")
	for i := 1; i < len(words); i++ {
		if w := words[i]; w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}

// items are those of a list.
func (n node) items() []node {
	if n.value == nil || n.value.Kind != yaml.SequenceNode {
		return nil
	}
	items := make([]node, len(n.value.Content))
	for i, item := range n.value.Content {
		items[i] = newNode(item)
	}
	return items
}

// text is a scalar as it stands, "" if there is none.
func (n node) text() string {
	if n.value == nil || n.value.Kind != yaml.ScalarNode {
		return ""
	}
	return n.value.Value
}

// isTrue reports whether the value is true.
func (n node) isTrue() bool { return n.text() == "true" }

// number is a whole number, or the default if there is none.
func (n node) number(otherwise int64) int64 {
	v, err := strconv.ParseInt(n.text(), 10, 64)
	if err != nil {
		return otherwise
	}
	return v
}

// is reports whether the value is a message of a type, named by the end of it: "wasm.v3.Wasm".
func (n node) is(name string) bool {
	t := n.get("@type").text()
	return t != "" && (strings.HasSuffix(t, "."+name) || strings.HasSuffix(t, "/"+name))
}

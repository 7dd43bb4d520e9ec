package endpoint

import (
	"slices"
	"strings"
)

// Serves reports whether a replica that lists these models serves one of this name, and whether as an adapter. Either is the name
// listed, or it is how SGLang names an adapter: parent:adapter. A listed name stands for itself, whatever it looks like.
func (m *Models) Serves(name string) (serves, adapter bool) {
	if _, adapter := m.find(name); adapter {
		return true, true
	}
	if m.lists(name) {
		return true, false
	}
	parent, own, both := strings.Cut(name, ":")
	if !both || own == "" {
		return false, false
	}
	for i, _ := m.find(own); i < len(m.Adapters) && m.Adapters[i].Name == own; i++ {
		if parent == "" || parent == m.Adapters[i].Parent || m.lists(parent) { // a model may be served under several names
			return true, true
		}
	}
	return false, false
}

// find returns the index of the first adapter with a name.
func (m *Models) find(name string) (int, bool) {
	return slices.BinarySearchFunc(m.Adapters, name, func(a Adapter, name string) int { return strings.Compare(a.Name, name) })
}

func (m *Models) lists(name string) bool {
	_, ok := slices.BinarySearch(m.Names, name)
	return ok
}

// Known reports whether a name is that of the adapter: its own, or with its parent's before it.
func (a Adapter) Known(name string) bool {
	return name == a.Name || a.Parent != "" && len(name) == len(a.Parent)+1+len(a.Name) &&
		name[:len(a.Parent)] == a.Parent && name[len(a.Parent)] == ':' && name[len(a.Parent)+1:] == a.Name
}

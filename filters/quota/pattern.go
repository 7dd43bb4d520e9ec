package quota

import (
	"cmp"
	"slices"
	"strings"
)

// pattern is a name in which each asterisk stands for any text.
type pattern string

func (p pattern) match(s string) bool {
	before, rest, some := strings.Cut(string(p), "*")
	if !some {
		return string(p) == s
	}
	if !strings.HasPrefix(s, before) {
		return false
	}
	s = s[len(before):]
	for {
		var piece string
		piece, rest, some = strings.Cut(rest, "*")
		if !some {
			return strings.HasSuffix(s, piece)
		}
		at := strings.Index(s, piece)
		if at < 0 {
			return false
		}
		s = s[at+len(piece):]
	}
}

// patterns are names of which one has to fit; without any, all do.
type patterns []pattern

func (p patterns) match(s string) bool {
	return len(p) == 0 || slices.ContainsFunc(p, func(one pattern) bool { return one.match(s) })
}

// forModel has a value for some models: by name, or by pattern, of which the longest that fits counts.
type forModel[T any] struct {
	exact map[string]T
	like  []modelPattern[T]
}

type modelPattern[T any] struct {
	pattern pattern
	value   T
}

func (m *forModel[T]) set(name string, value T) {
	if strings.Contains(name, "*") {
		m.like = append(m.like, modelPattern[T]{pattern(name), value})
		slices.SortStableFunc(m.like, func(a, b modelPattern[T]) int { return cmp.Compare(len(b.pattern), len(a.pattern)) })
		return
	}
	if m.exact == nil {
		m.exact = map[string]T{}
	}
	m.exact[name] = value
}

// get returns the value for a model.
func (m *forModel[T]) get(model string) (value T, ok bool) {
	if value, ok = m.exact[model]; ok {
		return value, true
	}
	for i := range m.like {
		if m.like[i].pattern.match(model) {
			return m.like[i].value, true
		}
	}
	return value, false
}

func (m *forModel[T]) empty() bool { return len(m.exact)+len(m.like) == 0 }

// names are the keys of a map in order.
func names[T any](m map[string]T) []string {
	all := make([]string, 0, len(m))
	for name := range m {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

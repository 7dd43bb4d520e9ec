package valid

import (
	"regexp"
	"slices"
	"unicode/utf8"
)

// Schema is a compiled JSON Schema. It is immutable.
type Schema struct {
	doc  *Document // of the schema, for enum and const
	root *rule
}

// rule is one schema within it.
type rule struct {
	never bool // the schema false
	types types
	enum  []int // in Schema.doc
	oneOf bool  // enum holds
	ref   *rule

	properties map[string]*rule
	additional *rule
	required   []string
	prefix     []*rule
	items      *rule
	bounds     []bound
	lengths    [3]length // of strings, arrays, objects
	pattern    *regexp.Regexp

	all, any, one []*rule
	not           *rule
}

// bound is what a number is compared with: it fails if the order is bad.
type bound struct {
	value []byte
	bad   func(order int) bool
}

// length is how many there must be.
type length struct{ min, max int }

const (
	ofText = iota
	ofArray
	ofObject
)

// maxSteps bounds the work for one text: a schema whose alternatives repeat each other could take exponential time in the depth of the text.
const maxSteps = 1 << 20

// Accepts reports whether the schema accepts a value. It does not if that cannot be found out with a reasonable amount of work.
func (s *Schema) Accepts(d *Document) bool {
	v := validator{s.doc, d, maxSteps}
	return v.accepts(s.root, 0) && v.steps > 0
}

// validator judges one value.
type validator struct {
	schema, doc *Document
	steps       int // that are left
}

func (v *validator) accepts(r *rule, i int) bool {
	if v.steps--; v.steps <= 0 || r.never {
		return false
	}
	return v.type_(r, i) && (r.ref == nil || v.accepts(r.ref, i)) && v.value(r, i) && v.combined(r, i)
}

// type_ judges type, enum and const.
func (v *validator) type_(r *rule, i int) bool {
	n := &v.doc.nodes[i]
	if r.types&n.kind == 0 && (r.types&integer == 0 || n.kind != number || !isInteger(v.doc.of(n.value))) {
		return false
	}
	return !r.oneOf || slices.ContainsFunc(r.enum, func(k int) bool { return v.doc.equal(i, v.schema, k) })
}

// value judges what only holds for values of one type.
func (v *validator) value(r *rule, i int) bool {
	n := &v.doc.nodes[i]
	switch n.kind {
	case number:
		return !slices.ContainsFunc(r.bounds, func(b bound) bool { return b.bad(compare(v.doc.of(n.value), b.value)) })
	case text:
		s := v.doc.of(n.value)
		l := r.lengths[ofText]
		return (l == length{} || l.fits(utf8.RuneCount(s))) && (r.pattern == nil || r.pattern.Match(s))
	case array:
		return r.lengths[ofArray].fits(n.count) && v.array(r, i)
	case object:
		return r.lengths[ofObject].fits(n.count) && v.object(r, i)
	}
	return true
}

func (l length) fits(n int) bool { return n >= l.min && (l.max == 0 || n < l.max) }

func (v *validator) array(r *rule, i int) bool {
	at := 0
	return v.doc.each(i, func(item int) bool {
		at++
		if at <= len(r.prefix) {
			return v.accepts(r.prefix[at-1], item)
		}
		return r.items == nil || v.accepts(r.items, item)
	})
}

// object judges members. One that stands twice must be right both times, since clients do not agree which counts.
func (v *validator) object(r *rule, i int) bool {
	for _, name := range r.required {
		if v.doc.member(i, name) < 0 {
			return false
		}
	}
	if r.properties == nil && r.additional == nil {
		return true
	}
	return v.doc.each(i, func(at int) bool {
		if p := r.properties[string(v.doc.of(v.doc.nodes[at].key))]; p != nil {
			return v.accepts(p, at)
		}
		return r.additional == nil || v.accepts(r.additional, at)
	})
}

// combined judges allOf, anyOf, oneOf and not.
func (v *validator) combined(r *rule, i int) bool {
	for _, each := range r.all {
		if !v.accepts(each, i) {
			return false
		}
	}
	if r.any != nil && !slices.ContainsFunc(r.any, func(each *rule) bool { return v.accepts(each, i) }) {
		return false
	}
	if r.one != nil {
		n := 0
		for _, each := range r.one {
			if v.accepts(each, i) {
				n++
			}
		}
		if n != 1 {
			return false
		}
	}
	return r.not == nil || !v.accepts(r.not, i)
}

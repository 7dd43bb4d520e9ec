// Package valid judges whether a text is what a policy wants: its size, JSON, members that must be there, a JSON Schema.
//
// The schema language is a part of JSON Schema 2020-12: type, enum, const; properties, required, additionalProperties, minProperties, maxProperties;
// items, prefixItems, minItems, maxItems; minimum, maximum, exclusiveMinimum, exclusiveMaximum; minLength, maxLength, pattern (RE2); allOf, anyOf, oneOf,
// not; $ref to a place in the schema itself. Keywords that only tell people something, format among them, have no effect. All others are
// refused: a rule that is not applied would be a hole that nobody sees.
package valid

import "slices"

// Rules are what a text must be. The zero value accepts every text.
type Rules struct {
	MaxBytes int      // 0: any size
	JSON     bool     // it is one JSON value, with nothing but white space around it
	Required []string // it is a JSON object that has these members
	Schema   *Schema  // it is JSON that the schema accepts; nil: no schema
}

// Wrong is what is wrong with a text.
type Wrong uint8

// What can be wrong, in the order in which it is looked for.
const (
	Nothing Wrong = iota
	Size
	Syntax
	Member
	Shape
)

// String is the word for it.
func (w Wrong) String() string {
	return [...]string{"nothing", "size", "json", "required", "schema"}[w]
}

// NeedJSON reports whether the whole text must be read as JSON.
func (r *Rules) NeedJSON() bool { return r.JSON || len(r.Required) > 0 || r.Schema != nil }

// Check judges a whole text. It keeps nothing of it in the Document, whose memory it uses.
func (r *Rules) Check(d *Document, text []byte) Wrong {
	if r.Long(len(text)) {
		return Size
	}
	if !r.NeedJSON() {
		return Nothing
	}
	if d.Read(text) != nil {
		return Syntax
	}
	for _, name := range r.Required {
		if d.member(0, name) < 0 {
			return Member
		}
	}
	if r.Schema != nil && !r.Schema.Accepts(d) {
		return Shape
	}
	return Nothing
}

// Long reports whether a text of which so many bytes have come is too long, whatever comes.
func (r *Rules) Long(bytes int) bool { return r.MaxBytes > 0 && bytes > r.MaxBytes }

// types is a set of the kinds of values.
type types uint8

const (
	null types = 1 << iota
	boolean
	number
	text
	array
	object
	integer // a number without a fraction
)

var typeNames = []string{"null", "boolean", "number", "string", "array", "object", "integer"}

// typeNamed returns the type of a name, 0 if there is none.
func typeNamed(name string) types {
	if i := slices.Index(typeNames, name); i >= 0 {
		return 1 << i
	}
	return 0
}

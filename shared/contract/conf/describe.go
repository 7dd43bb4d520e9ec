package conf

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what a value is.
type Kind string

// The kinds of values.
const (
	KindString   Kind = "string"
	KindBool     Kind = "boolean"
	KindInt      Kind = "integer"
	KindFloat    Kind = "number"
	KindDuration Kind = "duration"
	KindSize     Kind = "size"
	KindList     Kind = "list"
	KindObject   Kind = "object"
)

// Form is what a value may be. It is recorded from the code that reads it: see [Describe].
type Form struct {
	Kind Kind
	// Default is what holds if the value is absent, as a document would have it; "" if there is none. Of a list it is in Defaults.
	Default  string
	Defaults []string
	NotEmpty bool     // of a string: it may not be ""
	Words    []string // of a string: it is one of them; empty if it is free
	// Min and Max are the bounds of a number or a size; infinite for none.
	Min, Max float64
	// Bounds are the bounds in words, "1 to 16"; "" for none.
	Bounds string
	Keys   []*Key  // of an object, in the order in which they are read
	OneOf  bool    // of an object: exactly one of the keys is there
	Item   *Form   // of a list, or of an object whose names are free
	Or     []*Form // what the value may be instead
	Same   *Form   // the value has the form of one around it
}

// Key is a member of an object.
type Key struct {
	Name     string
	Required bool
	Old      []string // older names of it
	Form     Form
}

// Help is what people should know of a key beyond what the code that reads it says.
type Help struct {
	Key     string // its path, such as "models[].targets[].weight"
	Text    string // a sentence or two, in Markdown
	Default string // in words, where it is not one value
	// Old: the key is an older spelling, which new configurations should not use.
	Old bool
}

// Describe returns the form of the documents that [Decode] takes with the same f. It has f read a document of which nothing is
// known: each method records what it was asked for, says that the value is absent, and calls the functions for objects and
// for items of lists once. What f does with a value by itself is not seen. In a wasm module it records nothing.
func Describe(f func(*Object)) *Form {
	form := &Form{}
	(&Value{form: form}).Object(f)
	return form
}

// reading is the code that reads the object around a value that is being recorded.
type reading struct {
	in   *reading
	code uintptr
	form *Form
}

// child is a value within this one that is being recorded.
func (v *Value) child(form *Form) *Value { return &Value{form: form, reading: v.reading} }

// describeObject records an object. Code that is at work already reads a form that can have itself in it.
func (v *Value) describeObject(f func(*Object)) {
	code := reflect.ValueOf(f).Pointer()
	for r := v.reading; r != nil; r = r.in {
		if r.code == code {
			v.form.Same = r.form
			return
		}
	}
	v.form.as(KindObject)
	f(&Object{self: &Value{form: v.form, reading: &reading{v.reading, code, v.form}}})
}

// described reports whether what is read is being recorded, and there is no document.
func (v *Value) described() bool { return describes && v.form != nil }

// as returns the form to fill in for a value that is read as a kind: the form itself, or one more that it may have.
func (f *Form) as(k Kind) *Form {
	if f.Kind == "" || f.Kind == k {
		f.Kind = k
		return f
	}
	for _, other := range f.Or {
		if other.Kind == k {
			return other
		}
	}
	other := &Form{Kind: k}
	f.Or = append(f.Or, other)
	return other
}

// key returns the member of a name.
func (f *Form) key(name string) *Key {
	for _, k := range f.Keys {
		if k.Name == name {
			return k
		}
	}
	k := &Key{Name: name}
	f.Keys = append(f.Keys, k)
	return k
}

// item returns the form of the items.
func (f *Form) item() *Form {
	if f.Item == nil {
		f.Item = &Form{}
	}
	return f.Item
}

func (f *Form) describeString(value string, checks []Check) {
	s := f.as(KindString)
	s.Default = value
	s.NotEmpty = slices.ContainsFunc(checks, func(check Check) bool { return check("") != "" })
}

func (f *Form) describeStrings(values []string, checks []Check) {
	l := f.as(KindList)
	l.Defaults = slices.Clone(values)
	l.item().describeString("", checks)
}

func (f *Form) describeEnum(value string, words []string) {
	s := f.as(KindString)
	s.Words = words
	if slices.Contains(words, value) {
		s.Default = value
	}
}

func (f *Form) describeBool(value bool) { f.as(KindBool).Default = fmt.Sprint(value) }

// large is a bound that stands for "as much as you like".
const large = 1 << 30

func (f *Form) describeInt(value, min, max int) {
	if min <= -large {
		min = math.MinInt
	}
	if max >= large {
		max = math.MaxInt
	}
	n := describeRange(f.as(KindInt), int64(value), int64(min), int64(max), math.MinInt, math.MaxInt, decimal)
	n.Min, n.Max = openInt(min), openInt(max)
}

func openInt(n int) float64 {
	switch n {
	case math.MinInt:
		return math.Inf(-1)
	case math.MaxInt:
		return math.Inf(1)
	}
	return float64(n)
}

func (f *Form) describeFloat(value, min, max float64) {
	n := describeRange(f.as(KindFloat), value, min, max, math.Inf(-1), math.Inf(1), func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) })
	n.Min, n.Max = min, max
}

func (f *Form) describeDuration(value, min, max time.Duration) {
	d := describeRange(f.as(KindDuration), value, min, max, math.MinInt64, math.MaxInt64, shortDuration)
	d.Min, d.Max = math.Inf(-1), math.Inf(1)
}

func (f *Form) describeSize(value, min, max int64) {
	s := describeRange(f.as(KindSize), value, min, max, math.MinInt64, math.MaxInt64, shortSize)
	s.Min, s.Max = float64(min), float64(max)
	if max == math.MaxInt64 {
		s.Max = math.Inf(1)
	}
}

// describeRange fills in what a range says. A default out of the range is none: it stands for "not given".
func describeRange[T int64 | float64 | time.Duration](f *Form, value, min, max, none, all T, word func(T) string) *Form {
	if min != none || max != all {
		f.Bounds = bounds(min, max, none, all, word)
	}
	if min <= value && value <= max {
		f.Default = word(value)
	}
	return f
}

// At returns the form at a path such as "models[].targets[].pool", nil if there is none.
func (f *Form) At(path string) *Form {
	for _, name := range strings.Split(path, ".") {
		name, lists := strings.CutSuffix(name, "[]")
		if f = f.member(name); f == nil {
			return nil
		}
		if lists {
			if f = f.kind(KindList); f == nil || f.Item == nil {
				return nil
			}
			f = f.Item
		}
	}
	return f
}

// kind returns the form if it is, or may be, of a kind.
func (f *Form) kind(k Kind) *Form {
	for _, one := range append([]*Form{f}, f.Or...) {
		if one.Kind == k {
			return one
		}
	}
	return nil
}

func (f *Form) member(name string) *Form {
	o := f.kind(KindObject)
	if o == nil {
		return nil
	}
	for _, k := range o.Keys {
		if k.Name == name {
			return &k.Form
		}
	}
	return nil
}

package conf

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Object is an object of the document. It is valid during the function that decodes it. The methods that decode a key
// make it known, decode its value into *p if it is present, report what is wrong, and return whether the key is present.
// That includes a wrong value, so that nobody reports it as missing too. A wrong or absent value leaves *p unchanged: set
// *p to the default first.
type Object struct {
	self    *Value
	members []member
	asked   []string  // every key that the decoding function has asked for: an unknown key may be a misspelling of one
	few     [8]string // memory for asked
}

type member struct {
	key   string // by which it is asked for: its name, if that is no alias
	name  *yaml.Node
	value Value
	known bool
}

// newObject records the members and reports invalid ones.
func newObject(self *Value) *Object {
	content := self.node.Content
	o := &Object{self: self, members: make([]member, 0, len(content)/2)}
	o.asked = o.few[:0]
	for i := 0; i+1 < len(content); i += 2 {
		if name := content[i]; isName(self, name) {
			o.members = append(o.members, member{
				key: name.Value, name: name, value: Value{d: self.d, node: content[i+1], in: self, name: name.Value, index: -1},
			})
		}
	}
	o.reportRepeated()
	return o
}

// reportRepeated reports members with a repeated name, and removes them.
func (o *Object) reportRepeated() {
	first := o.self.d.first
	clear(first)
	o.members = slices.DeleteFunc(o.members, func(m member) bool {
		other := first[m.name.Value]
		if other == nil {
			first[m.name.Value] = m.name
			return false
		}
		o.self.d.errorf(o.self, m.name, "duplicate key %s (first at %d:%d)", quote(m.name.Value), other.Line, other.Column)
		return true
	})
}

// isName reports whether key n of an object is a name, and what it is otherwise. Any plain word is a name, also on, true
// and 1.
func isName(object *Value, n *yaml.Node) bool {
	key := *object // the path for an invalid key
	key.node = n
	switch {
	case !key.usable():
	case n.Kind != yaml.ScalarNode:
		key.Errorf("found %s as a key, want a name", key.found())
	case n.Value == "<<" && n.Style == 0:
		key.Errorf(`found the key "<<": merging is not supported`)
	default:
		return true
	}
	return false
}

// join appends a member's name to a path. A name that would make the path ambiguous is quoted: headers["a.b"].
func join(path, name string) string {
	name = shorten(name)
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) || strings.ContainsRune(` ."[]:`, r) }) {
		return path + "[" + strconv.Quote(name) + "]"
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// Path returns the position of the object, such as "filters[1].quota"; "" is the root.
func (o *Object) Path() string { return o.self.Path() }

// Has reports whether the key is present. It does not make the key known; only reading the value does.
func (o *Object) Has(key string) bool { return o.find(key) != nil }

// Required reports each absent key, at the object.
func (o *Object) Required(keys ...string) {
	for _, key := range keys {
		if o.self.described() {
			o.self.form.as(KindObject).key(key).Required = true
			continue
		}
		if !o.Has(key) {
			o.self.Errorf("missing key %s", quote(key))
		}
	}
}

// Errorf reports a mistake at the key's value, or at the object if key is "" or absent.
func (o *Object) Errorf(key, format string, args ...any) {
	at := o.self
	if m := o.find(key); key != "" && m != nil {
		at, m.known = &m.value, true
	}
	at.Errorf(format, args...)
}

// Warnf warns of what is valid and can hardly be meant, at the key's value, or at the object if key is "" or absent.
func (o *Object) Warnf(key, format string, args ...any) {
	if o.self.described() {
		return
	}
	at := o.self
	if m := o.find(key); key != "" && m != nil {
		at = &m.value
	}
	at.d.warn(mistake(at, at.node, format, args...))
}

// String decodes a string that passes every check.
func (o *Object) String(key string, p *string, checks ...Check) bool {
	return o.read(key, func(v *Value) { v.String(p, checks...) })
}

// Strings decodes a list of strings that each pass every check.
func (o *Object) Strings(key string, p *[]string, checks ...Check) bool {
	return o.read(key, func(v *Value) { v.Strings(p, checks...) })
}

// Bool decodes true or false.
func (o *Object) Bool(key string, p *bool) bool {
	return o.read(key, func(v *Value) { v.Bool(p) })
}

// Int decodes an integer in min..max. math.MinInt and math.MaxInt mean no limit.
func (o *Object) Int(key string, p *int, min, max int) bool {
	return o.read(key, func(v *Value) { v.Int(p, min, max) })
}

// Float decodes a number in min..max. An infinity means no limit.
func (o *Object) Float(key string, p *float64, min, max float64) bool {
	return o.read(key, func(v *Value) { v.Float(p, min, max) })
}

// Duration decodes a duration in min..max: 800ms, 10s, 1h30m. math.MinInt64 and math.MaxInt64 mean no limit.
func (o *Object) Duration(key string, p *time.Duration, min, max time.Duration) bool {
	return o.read(key, func(v *Value) { v.Duration(p, min, max) })
}

// Size decodes a number of bytes in min..max: 4096, 64KiB, 1MB. math.MaxInt64 means no limit.
func (o *Object) Size(key string, p *int64, min, max int64) bool {
	return o.read(key, func(v *Value) { v.Size(p, min, max) })
}

// Enum decodes one of the words.
func (o *Object) Enum(key string, p *string, words ...string) bool {
	return o.read(key, func(v *Value) { v.Enum(p, words...) })
}

// Object decodes an object with f.
func (o *Object) Object(key string, f func(*Object)) bool {
	return o.read(key, func(v *Value) { v.Object(f) })
}

// List decodes a list: f is called for each item in order.
func (o *Object) List(key string, f func(*Value)) bool {
	return o.read(key, func(v *Value) { v.List(f) })
}

// Each calls f for every member in document order and makes it known. It is for objects with free names.
func (o *Object) Each(f func(name string, v *Value)) {
	if form := o.self.form; o.self.described() {
		f("name", o.self.child(form.as(KindObject).item()))
	}
	for i := range o.members {
		m := &o.members[i]
		m.known = true
		f(m.key, &m.value)
	}
}

// Value passes the value of a key to f, for values that may be of several kinds.
func (o *Object) Value(key string, f func(*Value)) bool { return o.read(key, f) }

// Alias makes the object also accept a key under its old name, with a warning. Call it before the key is read. Suggestions and
// messages about missing keys contain only the new name.
func (o *Object) Alias(key, old string) {
	if form := o.self.form; o.self.described() {
		k := form.as(KindObject).key(key)
		k.Old = append(k.Old, old)
		return
	}
	at := slices.IndexFunc(o.members, func(m member) bool { return m.key == old })
	if at < 0 {
		return
	}
	m := &o.members[at]
	if slices.ContainsFunc(o.members, func(m member) bool { return m.key == key }) {
		m.known = true
		o.self.d.errorf(o.self, m.name, "%s is the old name of %s, which is here too", quote(old), quote(key))
		return
	}
	m.key = key
	o.self.d.warn(mistake(o.self, m.name, "%s is now called %s; the old name will stop working with the next release", quote(old), quote(key)))
}

// read makes the key known and passes its value to f. It reports whether the key is present.
func (o *Object) read(key string, f func(*Value)) bool {
	if form := o.self.form; o.self.described() {
		f(o.self.child(&form.as(KindObject).key(key).Form))
		return false
	}
	m := o.find(key)
	if m == nil {
		return false
	}
	m.known = true
	f(&m.value)
	return true
}

// find returns the member with that name, nil if there is none.
func (o *Object) find(key string) *member {
	o.asked = append(o.asked, key)
	for i := range o.members {
		if o.members[i].key == key {
			return &o.members[i]
		}
	}
	return nil
}

// reportUnknown reports the members that nobody decoded.
func (o *Object) reportUnknown() {
	for _, m := range o.members {
		if !m.known {
			o.self.d.errorf(o.self, m.name, "unknown key %s%s", quote(m.name.Value), Suggest(m.name.Value, o.asked))
		}
	}
}

package valid

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Compile reads a JSON Schema. The error says where in it what is wrong.
func Compile(schema []byte) (*Schema, error) {
	c := compiler{doc: &Document{}, rules: map[int]*rule{}}
	if err := c.doc.Read(schema); err != nil {
		return nil, err
	}
	root := c.rule(0, "")
	for c.err == nil && len(c.later) > 0 { // $ref are compiled last: what they name may be within itself
		f := c.later[0]
		c.later = c.later[1:]
		f()
	}
	if c.err == nil && c.circular() {
		c.err = errors.New("has a $ref that leads back to itself")
	}
	return &Schema{doc: c.doc, root: root}, c.err
}

// compiler compiles a schema.
type compiler struct {
	doc   *Document
	rules map[int]*rule // by node
	later []func()
	err   error // the first
}

func (c *compiler) errorf(place, format string, args ...any) {
	if c.err == nil {
		if place == "" {
			place = "/"
		}
		c.err = fmt.Errorf("%s: %s", place, fmt.Sprintf(format, args...))
	}
}

// rule compiles the schema at a node.
func (c *compiler) rule(i int, place string) *rule {
	if r := c.rules[i]; r != nil {
		return r
	}
	r := &rule{types: 1<<len(typeNames) - 1}
	c.rules[i] = r
	switch n := &c.doc.nodes[i]; {
	case n.kind == boolean:
		r.never = string(c.doc.of(n.value)) == "false"
	case n.kind == object:
		seen := map[string]bool{}
		c.doc.each(i, func(at int) bool {
			name := string(c.doc.of(c.doc.nodes[at].key))
			if seen[name] {
				c.errorf(place+"/"+pointed(name), "is there twice")
			}
			seen[name] = true
			c.keyword(r, name, at, place+"/"+pointed(name))
			return c.err == nil
		})
	default:
		c.errorf(place, "is not a schema: want an object, true or false")
	}
	return r
}

// pointed is a name as it stands in a JSON pointer.
func pointed(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// keyword compiles one member of a schema.
func (c *compiler) keyword(r *rule, name string, i int, place string) {
	switch name {
	case "$schema", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format",
		"contentEncoding", "contentMediaType":
	case "$id":
		if place != "/$id" {
			c.errorf(place, "is only supported at the beginning")
		}
	case "$defs", "definitions":
		c.named(i, place)
	case "type":
		c.types(r, i, place)
	case "enum":
		r.oneOf = true
		c.list(i, place, func(at int, _ string) { r.enum = append(r.enum, at) })
	case "const":
		c.constant(r, i)
	case "$ref":
		c.ref(r, i, place)
	case "pattern":
		c.pattern(r, i, place)
	case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum":
		c.bound(r, name, i, place)
	case "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties":
		c.length(r, name, i, place)
	default:
		c.applied(r, name, i, place)
	}
}

// applied compiles the keywords that have schemas in them, for the value or for what is in it.
func (c *compiler) applied(r *rule, name string, i int, place string) {
	rules := func() (all []*rule) {
		c.list(i, place, func(at int, place string) { all = append(all, c.rule(at, place)) })
		if len(all) == 0 {
			c.errorf(place, "is empty")
		}
		return all
	}
	switch name {
	case "properties":
		r.properties = c.named(i, place)
	case "additionalProperties":
		r.additional = c.rule(i, place)
	case "required":
		c.list(i, place, func(at int, place string) { r.required = append(r.required, c.string(at, place)) })
	case "prefixItems":
		r.prefix = rules()
	case "items":
		r.items = c.rule(i, place)
	case "allOf":
		r.all = append(r.all, rules()...) // const may be there
	case "anyOf":
		r.any = rules()
	case "oneOf":
		r.one = rules()
	case "not":
		r.not = c.rule(i, place)
	default:
		c.errorf(place, "this keyword is not supported")
	}
}

// named compiles the schemas that an object has by name.
func (c *compiler) named(i int, place string) map[string]*rule {
	all := map[string]*rule{}
	if c.doc.nodes[i].kind != object {
		c.errorf(place, "is not an object")
		return all
	}
	c.doc.each(i, func(at int) bool {
		name := string(c.doc.of(c.doc.nodes[at].key))
		if all[name] != nil {
			c.errorf(place+"/"+pointed(name), "is there twice")
		}
		all[name] = c.rule(at, place+"/"+pointed(name))
		return c.err == nil
	})
	return all
}

// list calls f for each item of an array.
func (c *compiler) list(i int, place string, f func(at int, place string)) {
	if c.doc.nodes[i].kind != array {
		c.errorf(place, "is not an array")
		return
	}
	n := 0
	c.doc.each(i, func(at int) bool {
		f(at, place+"/"+strconv.Itoa(n))
		n++
		return c.err == nil
	})
}

func (c *compiler) string(i int, place string) string {
	n := &c.doc.nodes[i]
	if n.kind != text {
		c.errorf(place, "is not a string")
	}
	return string(c.doc.of(n.value))
}

// number returns a number as it is written.
func (c *compiler) number(i int, place string) string {
	n := &c.doc.nodes[i]
	if n.kind != number {
		c.errorf(place, "is not a number")
	}
	return string(c.doc.of(n.value))
}

func (c *compiler) types(r *rule, i int, place string) {
	r.types = 0
	add := func(at int, place string) {
		t := typeNamed(c.string(at, place))
		if t == 0 {
			c.errorf(place, "is not one of %s", strings.Join(typeNames, ", "))
		}
		r.types |= t
	}
	if c.doc.nodes[i].kind == array {
		c.list(i, place, add)
		if r.types == 0 {
			c.errorf(place, "is empty")
		}
		return
	}
	add(i, place)
}

// constant compiles const, which may stand beside enum.
func (c *compiler) constant(r *rule, i int) {
	r.all = append(r.all, &rule{types: 1<<len(typeNames) - 1, oneOf: true, enum: []int{i}})
}

func (c *compiler) pattern(r *rule, i int, place string) {
	var err error
	if r.pattern, err = regexp.Compile(c.string(i, place)); err != nil {
		c.errorf(place, "is not a regular expression in RE2 syntax: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
}

func (c *compiler) bound(r *rule, name string, i int, place string) {
	r.bounds = append(r.bounds, bound{[]byte(c.number(i, place)), map[string]func(int) bool{
		"minimum":          func(order int) bool { return order < 0 },
		"maximum":          func(order int) bool { return order > 0 },
		"exclusiveMinimum": func(order int) bool { return order <= 0 },
		"exclusiveMaximum": func(order int) bool { return order >= 0 },
	}[name]})
}

func (c *compiler) length(r *rule, name string, i int, place string) {
	raw := c.number(i, place)
	if c.err != nil {
		return
	}
	n := -1
	if isInteger([]byte(raw)) && compare([]byte(raw), []byte("1e9")) <= 0 {
		whole, _ := strconv.ParseFloat(raw, 64)
		n = int(whole)
	}
	if n < 0 {
		c.errorf(place, "is not a number from 0 to 1e9 without a fraction")
		return
	}
	of := slices.Index([]string{"Length", "Items", "Properties"}, name[3:])
	if strings.HasPrefix(name, "min") {
		r.lengths[of].min = n
	} else {
		r.lengths[of].max = n + 1
	}
}

// ref compiles a reference to a place in the schema, in the form of a JSON pointer behind a #.
func (c *compiler) ref(r *rule, i int, place string) {
	to := c.string(i, place)
	if to != "#" && !strings.HasPrefix(to, "#/") || strings.Contains(to, "%") {
		c.errorf(place, "%q is not supported: want # or #/$defs/name", to)
		return
	}
	c.later = append(c.later, func() {
		at, ok := c.find(strings.TrimPrefix(to, "#"))
		if !ok {
			c.errorf(place, "there is nothing at %s", to)
			return
		}
		r.ref = c.rule(at, strings.TrimPrefix(to, "#"))
	})
}

// find returns the node that a JSON pointer names.
func (c *compiler) find(pointer string) (at int, ok bool) {
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if pointer == "" {
			break
		}
		switch c.doc.nodes[at].kind {
		case object:
			at = c.doc.member(at, strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~"))
		case array:
			at = c.item(at, step)
		default:
			return 0, false
		}
		if at < 0 {
			return 0, false
		}
	}
	return at, true
}

// item returns an item of an array, -1 if there is none of that number.
func (c *compiler) item(i int, number string) int {
	found, n := -1, 0
	c.doc.each(i, func(at int) bool {
		if strconv.Itoa(n) == number {
			found = at
		}
		n++
		return found < 0
	})
	return found
}

// circular reports whether a schema applies itself to the same value, which would not end.
func (c *compiler) circular() bool {
	const under, done = 1, 2
	state := map[*rule]int{}
	var visit func(r *rule) bool
	visit = func(r *rule) bool {
		if r == nil || state[r] == done {
			return false
		}
		if state[r] == under {
			return true
		}
		state[r] = under
		again := visit(r.ref) || visit(r.not) || slices.ContainsFunc(slices.Concat(r.all, r.any, r.one), visit)
		state[r] = done
		return again
	}
	for _, r := range c.rules {
		if visit(r) {
			return true
		}
	}
	return false
}

package conf

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Value is one item of a list, or one member of an object with free names. Each method reports what is wrong with the
// value and returns whether it was right; a wrong value leaves *p unchanged.
type Value struct {
	d    *decoder
	node *yaml.Node
	form *Form // being recorded, if there is no document: see Describe

	reading *reading // of the objects around a value that is being recorded

	in    *Value // the list or object that it is in; nil for the root
	name  string // of a member
	index int    // of an item; -1 for a member
}

// Path returns the position of the value, such as "filters[1].quota.keys". It is built on demand: a document without
// mistakes needs none of its paths.
func (v *Value) Path() string {
	switch {
	case v.in == nil:
		return ""
	case v.index >= 0:
		return v.in.Path() + "[" + strconv.Itoa(v.index) + "]"
	}
	return join(v.in.Path(), v.name)
}

// Errorf reports a mistake at the value.
func (v *Value) Errorf(format string, args ...any) {
	if !v.described() {
		v.d.errorf(v, v.node, format, args...)
	}
}

// IsNumber reports whether the value is a number, for messages that say what to write instead.
func (v *Value) IsNumber() bool { return !v.described() && v.kind() == number }

// Keys returns the member names in document order if the value is an object, else nil.
func (v *Value) Keys() []string {
	if v.described() || v.node.Kind != yaml.MappingNode {
		return nil
	}
	names := make([]string, 0, len(v.node.Content)/2)
	for i := 0; i < len(v.node.Content); i += 2 {
		names = append(names, v.node.Content[i].Value)
	}
	return names
}

// Object decodes an object: f reads its members; afterwards the keys that f did not ask for are reported.
func (v *Value) Object(f func(*Object)) bool {
	if v.described() {
		v.describeObject(f)
		return false
	}
	if !v.is("an object", object) {
		return false
	}
	o := newObject(v)
	f(o)
	o.reportUnknown()
	return true
}

// Either decodes an object with f, and any other value with other: for values that may be of several kinds.
func (v *Value) Either(f func(*Object), other func(*Value)) {
	if v.described() || v.kind() == object {
		v.Object(f)
	}
	if v.described() || v.kind() != object {
		other(v)
	}
}

// List decodes a list: f is called for each item in order.
func (v *Value) List(f func(*Value)) bool {
	if v.described() {
		f(v.child(v.form.as(KindList).item()))
		return false
	}
	if !v.is("a list", list) {
		return false
	}
	for i, item := range v.node.Content {
		f(&Value{d: v.d, node: item, in: v, index: i})
	}
	return true
}

// OneOrList decodes one item with f, or a list of them.
func (v *Value) OneOrList(f func(*Value)) bool {
	if !v.described() && v.kind() != list {
		n := len(v.d.errs)
		f(v)
		return len(v.d.errs) == n
	}
	if v.described() {
		f(v)
	}
	return v.List(f)
}

// String decodes a string that passes every check.
func (v *Value) String(p *string, checks ...Check) bool {
	if v.described() {
		v.form.describeString(*p, checks)
		return false
	}
	if !v.is("a string", text) {
		return false
	}
	for _, check := range checks {
		if wrong := check(v.node.Value); wrong != "" {
			v.Errorf("%s %s", quote(v.node.Value), wrong)
			return false
		}
	}
	*p = v.node.Value
	return true
}

// Strings decodes a list of strings that each pass every check.
func (v *Value) Strings(p *[]string, checks ...Check) bool {
	if v.described() {
		v.form.describeStrings(*p, checks)
		return false
	}
	right, items := true, []string{}
	if !v.List(func(item *Value) {
		var s string
		right = item.String(&s, checks...) && right
		items = append(items, s)
	}) || !right {
		return false
	}
	*p = items
	return true
}

// Bool decodes true or false. YAML 1.1's other words for them (yes, on, ...) are strings.
func (v *Value) Bool(p *bool) bool {
	if v.described() {
		v.form.describeBool(*p)
		return false
	}
	if !v.is("true or false", boolean) {
		return false
	}
	*p = v.node.Value == "true"
	return true
}

// Int decodes an integer in min..max. math.MinInt and math.MaxInt mean no limit. 1e3 and 5.0 are integers, because a
// protobuf Struct holds every number as a double.
func (v *Value) Int(p *int, min, max int) bool {
	if v.described() {
		v.form.describeInt(*p, min, max)
		return false
	}
	if !v.is("a whole number", number) {
		return false
	}
	n, ok := wholeNumber(v.node.Value)
	switch {
	case !ok:
		v.Errorf("found %s, want a whole number below 2^53", v.found())
	case n < int64(min) || n > int64(max):
		v.outOfRange(bounds(int64(min), int64(max), math.MinInt, math.MaxInt, decimal))
	default:
		*p = int(n)
		return true
	}
	return false
}

// Float decodes a number in min..max. An infinity means no limit.
func (v *Value) Float(p *float64, min, max float64) bool {
	if v.described() {
		v.form.describeFloat(*p, min, max)
		return false
	}
	if !v.is("a number", number) {
		return false
	}
	n, _ := strconv.ParseFloat(v.node.Value, 64) // of a JSON number: an infinity if it is too large, else no error
	if n < min || n > max || math.IsInf(n, 0) {
		v.outOfRange(bounds(min, max, math.Inf(-1), math.Inf(1), func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }))
		return false
	}
	*p = n
	return true
}

// Duration decodes a duration in min..max with its unit, as time.ParseDuration reads it. math.MinInt64 and math.MaxInt64
// mean no limit.
func (v *Value) Duration(p *time.Duration, min, max time.Duration) bool {
	if v.described() {
		v.form.describeDuration(*p, min, max)
		return false
	}
	if !v.is("a duration such as 800ms, 10s, 1h30m", number, text) {
		return false
	}
	d, err := time.ParseDuration(v.node.Value)
	switch {
	case err != nil:
		v.Errorf("%s is not a duration (want 800ms, 10s, 1h30m)", quote(v.node.Value))
	case d < min || d > max:
		v.outOfRange(bounds(min, max, math.MinInt64, math.MaxInt64, shortDuration))
	default:
		*p = d
		return true
	}
	return false
}

// Size decodes a number of bytes in min..max: 4096, 64KiB, 8MiB, 1MB. math.MaxInt64 means no limit.
func (v *Value) Size(p *int64, min, max int64) bool {
	if v.described() {
		v.form.describeSize(*p, min, max)
		return false
	}
	if !v.is("a size such as 4096, 64KiB, 1MB", number, text) {
		return false
	}
	n, ok := bytesOf(v.node.Value)
	switch {
	case !ok:
		v.Errorf("%s is not a size (want 4096, 64KiB, 1MB)", quote(v.node.Value))
	case n < min || n > max:
		v.outOfRange(bounds(min, max, math.MinInt64, math.MaxInt64, shortSize))
	default:
		*p = n
		return true
	}
	return false
}

// OneOf decodes an object with one member, whose name is one of the words: f reads its value. The kind of thing that the
// words name is for messages.
func (v *Value) OneOf(kind string, words []string, f func(name string, v *Value)) bool {
	if v.described() {
		form := v.form.as(KindObject)
		form.OneOf = true
		for _, word := range words {
			f(word, v.child(&form.key(word).Form))
		}
		return false
	}
	names := v.Keys()
	if len(names) != 1 {
		v.Errorf("one %s an item, like %q; found %d keys", kind, "- "+words[0]+": {…}", len(names))
		return false
	}
	if !slices.Contains(words, names[0]) {
		v.Errorf("unknown %s %q%s; known: %s", kind, names[0], Suggest(names[0], words), strings.Join(words, ", "))
		return false
	}
	return v.Object(func(o *Object) { o.read(names[0], func(v *Value) { f(names[0], v) }) })
}

// Enum decodes one of the words.
func (v *Value) Enum(p *string, words ...string) bool {
	if v.described() {
		v.form.describeEnum(*p, words)
		return false
	}
	var word string
	if !v.String(&word) {
		return false
	}
	if !slices.Contains(words, word) {
		v.Errorf("%s is not one of %s%s", quote(word), strings.Join(words, ", "), Suggest(word, words))
		return false
	}
	*p = word
	return true
}

// kind is the type of a node. conf reads YAML like JSON: a plain word is true, false, null, a JSON number, or a string.
// So yes, on, 1_000, 0x10 and 2026-01-02 are strings in every YAML version.
type kind int

const (
	refused kind = iota // an alias or a tagged value: reported by usable
	null
	boolean
	number
	text
	list
	object
)

func (v *Value) kind() kind { return kindOf(v.node) }

func kindOf(n *yaml.Node) kind {
	switch {
	case n.Kind == yaml.MappingNode:
		return object
	case n.Kind == yaml.SequenceNode:
		return list
	case n.Kind != yaml.ScalarNode:
		return refused
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return text
	}
	switch n.Value {
	case "", "~", "null":
		return null
	case "true", "false":
		return boolean
	}
	if c := n.Value[0]; (c == '-' || '0' <= c && c <= '9') && jsonNumber.MatchString(n.Value) {
		return number
	}
	return text
}

// is reports whether the value is of one of the kinds, and otherwise reports what it is instead.
func (v *Value) is(wanted string, kinds ...kind) bool {
	if !v.usable() {
		return false
	}
	found, hint := v.kind(), ""
	switch {
	case slices.Contains(kinds, found):
		return true
	case kinds[0] == text && (found == number || found == boolean):
		hint = " (put it in quotes)"
	case kinds[0] == object && found == null:
		hint = " (write {} for an empty one)"
	}
	v.Errorf("found %s, want %s%s", v.found(), wanted, hint)
	return false
}

const quoteStar = " (put a string that begins with * or & in quotes)"

// usable refuses constructs that would make a document mean more than it says. Following aliases could also make a small
// document huge.
func (v *Value) usable() bool {
	switch {
	case v.node.Kind == yaml.AliasNode:
		v.Errorf("found the alias *%s: aliases are not supported%s", shorten(v.node.Value), quoteStar)
	case v.node.Anchor != "":
		v.Errorf("found the anchor &%s: anchors are not supported%s", shorten(v.node.Anchor), quoteStar)
	case v.node.Style&yaml.TaggedStyle != 0:
		v.Errorf("found the tag %s: tags are not supported", shorten(v.node.Tag))
	default:
		return true
	}
	return false
}

// found describes the value.
func (v *Value) found() string {
	switch v.kind() {
	case null:
		return "nothing"
	case boolean:
		return v.node.Value
	case number:
		return "the number " + shorten(v.node.Value)
	case text:
		return "the string " + quote(v.node.Value)
	case list:
		return "a list"
	}
	return "an object"
}

func (v *Value) outOfRange(wanted string) {
	v.Errorf("%s is out of range (want %s)", shorten(v.node.Value), wanted)
}

// bounds describes a range. A bound that equals none or all is left out.
func bounds[T int64 | float64 | time.Duration](min, max, none, all T, word func(T) string) string {
	switch {
	case min == none && max == all:
		return "a number that fits into a double" // only a float can break these bounds
	case max == all:
		return word(min) + " or more"
	case min == none:
		return word(max) + " or less"
	}
	return word(min) + " to " + word(max)
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// jsonNumber is a number of RFC 8259 section 6.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// wholeNumber parses a JSON number that has no fraction and is below 2^53, the limit of exact doubles: the document may
// have been converted to doubles on its way.
func wholeNumber(s string) (int64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	if !jsonNumber.MatchString(s) || err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// units of sizes, largest first, so that a size is written in the largest unit that divides it.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}}

func bytesOf(s string) (int64, bool) {
	for _, unit := range units {
		digits, found := strings.CutSuffix(s, unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		return int64(n) * unit.bytes, err == nil && n <= uint64(math.MaxInt64/unit.bytes)
	}
	return wholeNumber(s)
}

func shortSize(n int64) string {
	for _, unit := range units {
		if n >= unit.bytes && n%unit.bytes == 0 && unit.bytes > 1 {
			return decimal(n/unit.bytes) + unit.name
		}
	}
	return decimal(n)
}

// shortDuration formats a duration without the zero units that Duration.String appends: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// quote quotes a piece of the document for a message.
func quote(s string) string { return strconv.Quote(shorten(s)) }

// shorten keeps a message readable whatever the document holds.
func shorten(s string) string {
	const longest = 60 // bytes
	if len(s) <= longest {
		return s
	}
	end := longest
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// Package schema writes what the configuration may say in two forms: a JSON Schema for editors, and the key tables of the
// documentation. Both come from the code that reads the configuration.
package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// Title is the title of the schema.
const Title = "Inlet: configuration of a chain"

type object = map[string]any

// JSON returns a JSON Schema (draft 2020-12). It accepts all that the code accepts. What the code checks beyond types, bounds
// and words (names that are used twice, say) only `inletctl check` knows.
func JSON(form *conf.Form, help []conf.Help) ([]byte, error) {
	w := writer{help: map[string]conf.Help{}, at: map[*conf.Form]string{}}
	for _, h := range help {
		w.help[h.Key] = h
	}
	s := w.form(form, "", "#")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = Title
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(s)
	return out.Bytes(), err
}

type writer struct {
	help map[string]conf.Help
	at   map[*conf.Form]string // where in the schema a form is, as a JSON pointer
}

// form returns the schema of a value at a path; at is where the schema itself will be.
func (w *writer) form(f *conf.Form, path, at string) object {
	w.at[f] = at
	var s object
	switch {
	case f.Same != nil:
		s = object{"$ref": w.at[f.Same]}
	case len(f.Or) > 0:
		any := []object{w.kind(f, path, at+"/anyOf/0")}
		for i, other := range f.Or {
			any = append(any, w.kind(other, path, fmt.Sprintf("%s/anyOf/%d", at, i+1)))
		}
		s = object{"anyOf": any}
	default:
		s = w.kind(f, path, at)
	}
	h := w.help[path]
	if h.Text != "" {
		s["description"] = h.Text
	}
	if h.Old {
		s["deprecated"] = true
	}
	if h.Default != "" {
		delete(s, "default") // it is in words
		s["description"] = h.Text + " (default: " + h.Default + ")"
	}
	return s
}

func (w *writer) kind(f *conf.Form, path, at string) object {
	switch f.Kind {
	case conf.KindObject:
		return w.object(f, path, at)
	case conf.KindList:
		s := object{"type": "array", "items": w.form(f.Item, path+"[]", at+"/items")}
		if len(f.Defaults) > 0 {
			s["default"] = f.Defaults
		}
		return s
	case conf.KindBool:
		return object{"type": "boolean", "default": f.Default == "true"}
	case conf.KindInt, conf.KindFloat:
		s := object{"type": string(f.Kind)}
		bound(s, f)
		if f.Default != "" {
			s["default"] = json.Number(f.Default)
		}
		return s
	}
	s := text(f)
	if f.Default != "" {
		s["default"] = f.Default
	}
	return s
}

func bound(s object, f *conf.Form) {
	if !math.IsInf(f.Min, 0) {
		s["minimum"] = f.Min
	}
	if !math.IsInf(f.Max, 0) {
		s["maximum"] = f.Max
	}
}

const (
	durationPattern = `^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`
	sizePattern     = `^[0-9]+(GiB|GB|MiB|MB|KiB|KB|kB|B)$`
)

// text returns the schema of what is written as a string.
func text(f *conf.Form) object {
	switch f.Kind {
	case conf.KindDuration:
		return object{"anyOf": []object{{"type": "string", "pattern": durationPattern}, {"const": 0}}}
	case conf.KindSize:
		bytes := object{"type": "integer"}
		bound(bytes, f)
		return object{"anyOf": []object{bytes, {"type": "string", "pattern": sizePattern}}}
	}
	s := object{"type": "string"}
	if len(f.Words) > 0 {
		s["enum"] = f.Words
	} else if f.NotEmpty {
		s["minLength"] = 1
	}
	return s
}

func (w *writer) object(f *conf.Form, path, at string) object {
	s := object{"type": "object"}
	if f.Item != nil { // free names
		s["additionalProperties"] = w.form(f.Item, join(path, "*"), at+"/additionalProperties")
		return s
	}
	members, required, either := object{}, []string{}, []object{}
	for _, k := range f.Keys {
		members[k.Name] = w.form(&k.Form, join(path, k.Name), at+"/properties/"+k.Name)
		for _, old := range k.Old {
			members[old] = object{"$ref": at + "/properties/" + k.Name, "deprecated": true}
		}
		switch {
		case k.Required && len(k.Old) > 0:
			var any []object
			for _, name := range append([]string{k.Name}, k.Old...) {
				any = append(any, object{"required": []string{name}})
			}
			either = append(either, object{"anyOf": any})
		case k.Required:
			required = append(required, k.Name)
		}
	}
	s["additionalProperties"], s["properties"] = false, members
	if f.OneOf {
		s["minProperties"], s["maxProperties"] = 1, 1
	}
	if len(either) > 0 {
		s["allOf"] = either
	}
	if len(required) > 0 {
		slices.Sort(required)
		s["required"] = required
	}
	return s
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// Table returns the Markdown table of the keys of a form. The help has their order; the error names the keys that are read and
// have no help, and help for keys that nobody reads.
func Table(form *conf.Form, help []conf.Help) (string, error) {
	keys := keysOf(form)
	var b strings.Builder
	b.WriteString("| key | value | default | meaning |\n| --- | --- | --- | --- |\n")
	var wrong []string
	for _, h := range help {
		i := slices.IndexFunc(keys, func(k key) bool { return k.path == h.Key })
		if i < 0 {
			wrong = append(wrong, fmt.Sprintf("there is help for %s, which is not read", h.Key))
			continue
		}
		keys[i].helped = true
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", h.Key, cell(valueOf(keys[i].form, keys)), cell(defaultOf(&keys[i], h)), cell(meaningOf(&keys[i], h)))
	}
	for _, k := range keys {
		if inside := k.form.Same != nil || k.form.Kind == conf.KindObject || k.form.Kind == conf.KindList && k.form.Item.Kind == conf.KindObject; !k.helped && !inside {
			wrong = append(wrong, fmt.Sprintf("%s is read and has no help", k.path))
		}
	}
	if len(wrong) > 0 {
		return "", fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return b.String(), nil
}

// cell is a text that may stand in a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// key is one that a document may have.
type key struct {
	path     string
	form     *conf.Form
	required bool
	old      []string
	helped   bool
}

// keysOf are all keys of a form, those within lists and objects too.
func keysOf(form *conf.Form) []key {
	var keys []key
	var under func(f *conf.Form, path string)
	under = func(f *conf.Form, path string) {
		for _, one := range append([]*conf.Form{f}, f.Or...) {
			for _, k := range one.Keys {
				own := join(path, k.Name)
				keys = append(keys, key{path: own, form: &k.Form, required: k.Required, old: k.Old})
				under(&k.Form, own)
			}
			if one.Item != nil {
				name := "[]"
				if one.Kind == conf.KindObject {
					name = ".*"
				}
				under(one.Item, path+name)
			}
		}
	}
	under(form, "")
	return keys
}

// valueOf says what a value may be.
func valueOf(f *conf.Form, keys []key) string {
	if i := slices.IndexFunc(keys, func(k key) bool { return k.form == f.Same }); i >= 0 {
		return "as `" + keys[i].path + "`"
	}
	said := kindOf(f)
	for _, other := range f.Or {
		said += "; or " + kindOf(other)
	}
	return said
}

func kindOf(f *conf.Form) string {
	switch f.Kind {
	case conf.KindBool:
		return "`true` or `false`"
	case conf.KindInt:
		return bounded("whole number", f)
	case conf.KindFloat:
		return bounded("number", f)
	case conf.KindDuration, conf.KindSize:
		return bounded(string(f.Kind), f)
	case conf.KindList:
		switch f.Item.Kind {
		case conf.KindString:
			return "list of strings"
		default:
			return "list"
		}
	case conf.KindObject:
		return "object"
	}
	switch n := len(f.Words); n {
	case 0:
		return "string"
	case 1:
		return "`" + f.Words[0] + "`"
	default:
		return "`" + strings.Join(f.Words[:n-1], "`, `") + "` or `" + f.Words[n-1] + "`"
	}
}

func bounded(what string, f *conf.Form) string {
	if f.Bounds == "" {
		return what
	}
	return what + ", " + f.Bounds
}

func meaningOf(k *key, h conf.Help) string {
	if len(k.old) == 0 {
		return h.Text
	}
	return h.Text + " (older name: `" + strings.Join(k.old, "`, `") + "`)"
}

func defaultOf(k *key, h conf.Help) string {
	switch {
	case k.required:
		return "required"
	case h.Default != "":
		return h.Default
	case len(k.form.Defaults) > 0:
		return "`[" + strings.Join(k.form.Defaults, ", ") + "]`"
	case k.form.Default != "":
		return "`" + k.form.Default + "`"
	}
	return ""
}

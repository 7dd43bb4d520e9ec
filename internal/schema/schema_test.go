package schema_test

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/internal/check"
	"github.com/inlet-proxy/inlet/internal/schema"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

const root = "../.."

// compiled is the schema, which a validator has found to be one itself.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := schema.Chain()
	require.NoError(t, err)
	return compile(t, text)
}

func compile(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("inlet.schema.json", tree))
	s, err := c.Compile("inlet.schema.json")
	require.NoError(t, err)
	return s
}

// tree reads YAML as an editor's validator does.
func tree(t *testing.T, n *yaml.Node) any {
	t.Helper()
	var v any
	require.NoError(t, n.Decode(&v))
	text, err := json.Marshal(v)
	require.NoError(t, err)
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	return v
}

func parse(t *testing.T, text string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(text), &n))
	return &n
}

// examples are the configurations of the repository: those beside the bootstraps, in the documentation and in scenarios.
func examples(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && (d.Name() == ".git" || d.Name() == "dist") {
				return filepath.SkipDir
			}
			return err
		}
		text, err := os.ReadFile(path)
		switch {
		case err != nil:
			return err
		case filepath.Ext(path) == ".md":
			for _, m := range block.FindAllStringSubmatch(string(text), -1) {
				if strings.HasPrefix(m[1], "filters:\n") {
					found[path+"\n"+m[1]] = m[1]
				}
			}
		case strings.HasPrefix(path, root+"/envoy/static/inlet"):
			found[path] = string(text)
		case strings.Contains(path, "testdata/scenarios/") && filepath.Ext(path) == ".yaml":
			decoder := yaml.NewDecoder(bytes.NewReader(text))
			var scenario struct {
				Config string `yaml:"config"`
			}
			for decoder.Decode(&scenario) == nil {
				if !strings.Contains(scenario.Config, "probe") {
					found[path+"\n"+scenario.Config] = scenario.Config
				}
			}
		}
		return nil
	}))
	require.Greater(t, len(found), 30)
	return found
}

func TestExamples(t *testing.T) {
	s := compiled(t)
	for name, text := range examples(t) {
		if _, err := check.Load([]byte(text)); err != nil {
			continue // a scenario of a configuration that is refused
		}
		require.NoError(t, s.Validate(tree(t, parse(t, text))), name)
	}
}

// TestNegativeExamples: the kinds of mistakes that the schema finds, each in a configuration that is right otherwise.
func TestNegativeExamples(t *testing.T) {
	s := compiled(t)
	right := "filters:\n  - bbr: {models: [{name: a, targets: [{pool: a, weight: 3}]}], unknownModel: pass}\n  - quota: {keys: {from: [x-api-key], list: [{name: a, sha256: 2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea}]}}\n  - picker: {endpoints: 3, stale: 2s, room: {kv: 0.8}, prefix: {memory: 64MiB}, shed: false}\nlimits: {body: 16MiB}\n"
	require.NoError(t, s.Validate(tree(t, parse(t, right))))
	for _, c := range []struct{ name, old, with string }{
		{"an unknown key", "endpoints: 3", "endpoint: 3"},
		{"an unknown key of the chain", "limits:", "limit:"},
		{"an unknown filter", "- picker:", "- pickr:"},
		{"a key of another filter", "shed: false", "models: []"},
		{"two filters in one item", "  - picker:", "    picker:"},
		{"no filters", right, "limits: {body: 1MiB}"},
		{"a missing key", "name: a, targets", "base: a, targets"},
		{"a missing key deep down", "name: a, sha256", "sha256"},
		{"a string in place of a number", "endpoints: 3", "endpoints: three"},
		{"a number in place of a string", "name: a, targets", "name: 1, targets"},
		{"a fraction", "endpoints: 3", "endpoints: 3.5"},
		{"too large", "endpoints: 3", "endpoints: 17"},
		{"too small", "endpoints: 3", "endpoints: 0"},
		{"a share above all", "kv: 0.8", "kv: 1.5"},
		{"below nothing", "weight: 3", "weight: -1"},
		{"another word", "unknownModel: pass", "unknownModel: passs"},
		{"no unit", "stale: 2s", "stale: 2"},
		{"another unit", "stale: 2s", "stale: 2 sec"},
		{"a size of another unit", "memory: 64MiB", "memory: 64M"},
		{"a size that is too small", "body: 16MiB", "body: 0"},
		{"a list in place of an object", "limits: {body: 16MiB}", "limits: [16MiB]"},
		{"an object in place of a list", "from: [x-api-key]", "from: {x-api-key: true}"},
		{"a word in place of true", "shed: false", "shed: no"},
		{"an empty name", "pool: a", `pool: ""`},
		{"nothing", "limits: {body: 16MiB}", "limits:"},
	} {
		require.Contains(t, right, c.old, c.name)
		text := strings.Replace(right, c.old, c.with, 1)
		require.Error(t, s.Validate(tree(t, parse(t, text))), c.name)
		_, err := check.Load([]byte(text))
		require.Error(t, err, c.name)
	}
}

// TestNeverStricter changes every value and every name of the examples: what the code accepts, the schema accepts.
func TestNeverStricter(t *testing.T) {
	s := compiled(t)
	accepted, refused, seen := 0, 0, 0
	for name, text := range examples(t) {
		if !strings.HasPrefix(name, root+"/filters/") || strings.Contains(name, "testdata") {
			continue // there are hundreds, and the READMEs of the filters have every key
		}
		doc := parse(t, text)
		walk(doc.Content[0], func() {
			changed, err := yaml.Marshal(doc)
			require.NoError(t, err)
			_, wrong := check.Load(changed)
			bad := s.Validate(tree(t, parse(t, string(changed))))
			if wrong == nil {
				accepted++
				require.NoError(t, bad, "%s\n%s", name, changed)
				return
			}
			refused++
			if bad != nil {
				seen++
			}
		})
	}
	require.Greater(t, accepted, 300)
	require.Greater(t, seen*10, refused*7, "the schema sees most of what the code refuses (%d of %d)", seen, refused)
}

// values are what each value is changed to.
var values = []string{"0", "1", "-1", "0.5", "1e3", "99999999", `""`, "x", "true", "5s", "1h30m", "64KiB", "1MB", "[]", "{}", "[x]", "{x: 1}", "null", "/x", "FailOpen", "pass"}

// walk calls f once for each small change of a document, which is undone after.
func walk(n *yaml.Node, f func()) {
	before := *n
	for _, text := range values {
		var other yaml.Node
		if yaml.Unmarshal([]byte(text), &other) != nil {
			panic(text)
		}
		*n = *other.Content[0]
		f()
	}
	*n = before
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			n.Content[i].Value = key + "x"
			f()
			n.Content[i].Value = key
			all := n.Content
			n.Content = append(append([]*yaml.Node{}, all[:i]...), all[i+2:]...)
			f()
			n.Content = all
			walk(all[i+1], f)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			walk(item, f)
		}
	}
}

// readTree reads an object that may have another one in it.
func readTree(o *conf.Object) {
	o.Bool("leaf", new(bool))
	o.Object("left", readTree)
}

// TestForms: the forms that no chain has today.
func TestForms(t *testing.T) {
	form := conf.Describe(func(o *conf.Object) {
		n, word := 0, ""
		o.Object("limits", func(o *conf.Object) { o.Each(func(_ string, v *conf.Value) { v.Int(&n, 0, math.MaxInt) }) })
		o.Enum("profile", &word, "fast", "slow")
		o.Object("profile", func(o *conf.Object) { o.Int("weight", &n, 1, 9) })
		o.Object("tree", readTree)
		o.Required("saturation")
		o.Bool("saturation", new(bool))
	})
	for _, k := range form.Keys {
		if k.Name == "saturation" {
			k.Old = []string{"room"}
		}
	}
	help := []conf.Help{{Key: "limits", Text: "by name"}, {Key: "limits.*", Text: "one"}, {Key: "profile", Text: "a | b", Old: true}, {Key: "profile.weight", Text: "w", Default: "by size"}, {Key: "saturation", Text: "s"}, {Key: "tree.leaf", Text: "l"}}
	text, err := schema.JSON(form, help)
	require.NoError(t, err)
	s := compile(t, text)
	for doc, right := range map[string]bool{
		"limits: {a: 1, b: 2}": true, "limits: {a: x}": false, "profile: fast": true, "profile: {weight: 3}": true, "profile: {weight: 0}": false, "profile: other": false,
		"tree: {leaf: true, left: {leaf: false, left: {}}}": true, "tree: {left: {left: {leaf: 1}}}": false,
		"room: false": true, "room: 1": false,
	} {
		if !strings.HasPrefix(doc, "room") {
			require.Error(t, s.Validate(tree(t, parse(t, doc))), "without saturation: "+doc)
			doc += "\nsaturation: true"
		}
		require.Equal(t, right, s.Validate(tree(t, parse(t, doc))) == nil, doc)
	}
	require.Contains(t, string(text), `"deprecated": true`)
	require.Contains(t, string(text), `"description": "w (default: by size)"`)

	help = []conf.Help{{Key: "limits", Text: "by name"}, {Key: "profile", Text: "a | b"}, {Key: "profile.weight", Text: "w", Default: "by size"}, {Key: "saturation", Text: "s"}, {Key: "tree.leaf", Text: "l"}, {Key: "tree.left", Text: "t"}}
	table, err := schema.Table(form, help)
	require.NoError(t, err)
	require.Equal(t, "| key | value | default | meaning |\n| --- | --- | --- | --- |\n"+
		"| `limits` | object |  | by name |\n"+
		"| `profile` | `fast` or `slow`; or object |  | a \\| b |\n"+
		"| `profile.weight` | whole number, 1 to 9 | by size | w |\n"+
		"| `saturation` | `true` or `false` | required | s (older name: `room`) |\n"+
		"| `tree.leaf` | `true` or `false` | `false` | l |\n"+
		"| `tree.left` | as `tree` |  | t |\n", table)
	_, err = schema.Table(form, append(help, conf.Help{Key: "nobody"}))
	require.ErrorContains(t, err, "there is help for nobody, which is not read")
	_, err = schema.Table(form, help[:2])
	require.ErrorContains(t, err, "profile.weight is read and has no help")
}

package valid_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters/guardrail/valid"
)

// TestLikeALibrary: on made up schemas and values, what is accepted is what another implementation accepts.
func TestLikeALibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 4000 {
		schema := `{"$defs":{"a":` + schemaOf(r, 2) + `,"b":{"type":["string","integer","array"]}},"items":{"$ref":"#/$defs/b"},"allOf":[` + schemaOf(r, 3) + `]}`
		ours, err := valid.Compile([]byte(schema))
		require.NoError(t, err, schema)
		theirs := library(t, schema)
		for range 8 {
			value := valueOf(r, 3)
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(value))
			require.NoError(t, err)
			var d valid.Document
			require.NoError(t, d.Read([]byte(value)))
			want := theirs.Validate(instance) == nil
			require.Equal(t, want, ours.Accepts(&d), "%s\n%s", schema, value)
			if want {
				accepted++
			}
		}
	}
	require.Greater(t, accepted, 4000, "both happen")
	require.Less(t, accepted, 28000)
}

func library(t *testing.T, schema string) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("mem:///schema", doc))
	s, err := c.Compile("mem:///schema")
	require.NoError(t, err, schema)
	return s
}

func pick(r *rand.Rand, all ...string) string { return all[r.IntN(len(all))] }

// schemaOf makes up a schema.
func schemaOf(r *rand.Rand, depth int) string {
	if depth == 0 {
		return pick(r, "true", "{}", `{"type":"string"}`, `{"type":"number"}`, `{"const":1}`, `{"enum":["a",null,[1],{"x":1}]}`, "false")
	}
	in := func() string { return schemaOf(r, depth-1) }
	keywords := []func() string{
		func() string {
			return `"type":` + pick(r, `"string"`, `"integer"`, `"number"`, `"null"`, `"boolean"`, `["object","string"]`, `["array","integer","object"]`)
		},
		func() string { return `"const":` + valueOf(r, 1) },
		func() string { return `"enum":[` + valueOf(r, 1) + `,` + valueOf(r, 0) + `,"é"]` },
		func() string { return `"properties":{"x":` + in() + `,"é":` + in() + `}` },
		func() string { return `"additionalProperties":` + in() },
		func() string { return `"required":` + pick(r, `["x"]`, `["x","y"]`, `[]`) },
		func() string { return `"items":` + in() },
		func() string { return `"prefixItems":[` + in() + `,` + in() + `]` },
		func() string { return `"allOf":[` + in() + `,` + in() + `]` },
		func() string { return `"anyOf":[` + in() + `,` + in() + `]` },
		func() string { return `"oneOf":[` + in() + `,` + in() + `]` },
		func() string { return `"not":` + in() },
		func() string { return `"$ref":"#/$defs/b"` },
		func() string {
			return fmt.Sprintf(`"%s":%s`, pick(r, "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), pick(r, numbers...))
		},
		func() string {
			return fmt.Sprintf(`"%s":%d`, pick(r, "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), r.IntN(4))
		},
		func() string { return `"pattern":` + pick(r, `"^a"`, `"b$"`, `"[0-9]{2}"`, `"é"`) },
		func() string { return `"description":"x"` },
	}
	r.Shuffle(len(keywords), func(i, k int) { keywords[i], keywords[k] = keywords[k], keywords[i] })
	var said []string
	for _, keyword := range keywords[:1+r.IntN(3)] {
		said = append(said, keyword())
	}
	return "{" + strings.Join(said, ",") + "}"
}

var numbers = []string{"0", "-0", "1", "1.0", "10e-1", "2", "-1", "1.5", "1e2", "100", "0.1", "9007199254740993", "9007199254740992", "1E400", "-1.25e-3", "12345678901234567890.5"}

// valueOf makes up a value.
func valueOf(r *rand.Rand, depth int) string {
	switch r.IntN(7) {
	case 0, 1:
		if depth > 0 {
			var all []string
			for range r.IntN(4) {
				all = append(all, valueOf(r, depth-1))
			}
			return "[" + strings.Join(all, ",") + "]"
		}
	case 2, 3:
		if depth > 0 {
			var all []string
			for _, name := range []string{`"x"`, `"\u00e9"`, `"y"`} {
				if r.IntN(2) == 0 {
					all = append(all, name+":"+valueOf(r, depth-1))
				}
			}
			r.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
			return "{" + strings.Join(all, ",") + "}"
		}
	case 4:
		return pick(r, "null", "true", "false")
	case 5:
		return pick(r, numbers...)
	}
	return pick(r, `""`, `"a"`, `"ab"`, `"b12"`, `"é"`, `"🦙"`, `"\ud83e\udd99\u0000"`)
}

// FuzzCheck: nothing that a schema or a text says makes it fail, and what is judged twice is judged the same.
func FuzzCheck(f *testing.F) {
	f.Add(person, `{"name":"Ann"}`)
	f.Add(`{"$ref":"#/$defs/a","$defs":{"a":{"items":{"$ref":"#"}}}}`, `[[[1e5]]]`)
	f.Add(`{"minimum":1e999999999999999999999}`, `-0.00e-99999999999999999999999`)
	f.Fuzz(func(t *testing.T, schema, text string) {
		s, err := valid.Compile([]byte(schema))
		if err != nil {
			return
		}
		var d valid.Document
		r := valid.Rules{Schema: s}
		first := r.Check(&d, []byte(text))
		require.Equal(t, first, r.Check(&d, []byte(text)))
		if (&valid.Rules{JSON: true}).Check(&d, []byte(text)) == valid.Syntax {
			require.Equal(t, valid.Syntax, first)
		}
	})
}

package valid_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters/guardrail/valid"
)

func compile(t testing.TB, schema string) *valid.Schema {
	t.Helper()
	s, err := valid.Compile([]byte(schema))
	require.NoError(t, err, schema)
	return s
}

const person = `{"type":"object","required":["name"],"properties":{"name":{"type":"string","minLength":1},"age":{"type":"integer","minimum":0}},"additionalProperties":false}`

func TestCheck(t *testing.T) {
	for text, c := range map[string]struct {
		rules valid.Rules
		want  valid.Wrong
	}{
		"any text":                    {valid.Rules{}, valid.Nothing},
		"1234":                        {valid.Rules{MaxBytes: 4}, valid.Nothing},
		"12345":                       {valid.Rules{MaxBytes: 4}, valid.Size},
		"{}":                          {valid.Rules{JSON: true}, valid.Nothing},
		" \n[1, \"é\"]\t":             {valid.Rules{JSON: true}, valid.Nothing},
		"":                            {valid.Rules{JSON: true}, valid.Syntax},
		"Sure! {}":                    {valid.Rules{JSON: true}, valid.Syntax},
		"```json\n{}\n```":            {valid.Rules{JSON: true}, valid.Syntax},
		"{} {}":                       {valid.Rules{JSON: true}, valid.Syntax},
		`{"name":"Ann"`:               {valid.Rules{JSON: true}, valid.Syntax},
		`{"name": NaN}`:               {valid.Rules{JSON: true}, valid.Syntax},
		`{"name":"Ann",}`:             {valid.Rules{JSON: true}, valid.Syntax},
		`{"a":1,"b":null}`:            {valid.Rules{Required: []string{"a", "b"}}, valid.Nothing},
		`{"a":1,"c":{"b":1}}`:         {valid.Rules{Required: []string{"a", "b"}}, valid.Member},
		`["a","b"]`:                   {valid.Rules{Required: []string{"a"}}, valid.Member},
		`{"\u0061":1,"b":2}`:          {valid.Rules{Required: []string{"a"}}, valid.Nothing},
		`{"name":"Ann","age":3}`:      {valid.Rules{Schema: compile(t, person)}, valid.Nothing},
		`{"name":"Ann","age":3.0e1}`:  {valid.Rules{Schema: compile(t, person)}, valid.Nothing},
		`{"name":"Ann","age":-1}`:     {valid.Rules{Schema: compile(t, person)}, valid.Shape},
		`{"name":"Ann","age":1.5}`:    {valid.Rules{Schema: compile(t, person)}, valid.Shape},
		`{"name":"","age":1}`:         {valid.Rules{Schema: compile(t, person)}, valid.Shape},
		`{"age":1}`:                   {valid.Rules{Schema: compile(t, person)}, valid.Shape},
		`{"name":"Ann","pet":"cat"}`:  {valid.Rules{Schema: compile(t, person)}, valid.Shape},
		`{"name":1,"name":"Ann"}`:     {valid.Rules{Schema: compile(t, person)}, valid.Shape}, // clients do not agree which one counts
		`"Ann"`:                       {valid.Rules{Schema: compile(t, person)}, valid.Shape},
		`{"name":"Ann","age":"many"}`: {valid.Rules{MaxBytes: 5, Required: []string{"x"}, Schema: compile(t, person)}, valid.Size},
	} {
		var d valid.Document
		require.Equal(t, c.want, c.rules.Check(&d, []byte(text)), text)
		require.Equal(t, c.want, c.rules.Check(&d, []byte(text)), "the memory is used again: %s", text)
	}
	require.Equal(t, "nothing size json required schema", strings.Join([]string{
		valid.Nothing.String(), valid.Size.String(), valid.Syntax.String(), valid.Member.String(), valid.Shape.String(),
	}, " "))
}

// TestRefused: what a schema says that would not be applied is refused, and where.
func TestRefused(t *testing.T) {
	for schema, want := range map[string]string{
		`{`:                                     "invalid JSON: unexpected end at byte 1",
		`[]`:                                    "/: is not a schema: want an object, true or false",
		`{"typ":"object"}`:                      "/typ: this keyword is not supported",
		`{"properties":{"a":{"multipleOf":2}}}`: "/properties/a/multipleOf: this keyword is not supported",
		`{"properties":{"a/b~c":{"if":true}}}`:  "/properties/a~1b~0c/if: this keyword is not supported",
		`{"patternProperties":{}}`:              "/patternProperties: this keyword is not supported",
		`{"properties":{"a":3}}`:                "/properties/a: is not a schema: want an object, true or false",
		`{"properties":[]}`:                     "/properties: is not an object",
		`{"properties":{"a":{},"a":true}}`:      "/properties/a: is there twice",
		`{"type":"string","type":"number"}`:     "/type: is there twice",
		`{"type":"text"}`:                       "/type: is not one of null, boolean, number, string, array, object, integer",
		`{"type":["string",1]}`:                 "/type/1: is not a string",
		`{"type":[]}`:                           "/type: is empty",
		`{"required":"a"}`:                      "/required: is not an array",
		`{"items":[{}]}`:                        "/items: is not a schema: want an object, true or false",
		`{"minimum":"1"}`:                       "/minimum: is not a number",
		`{"exclusiveMinimum":true}`:             "/exclusiveMinimum: is not a number",
		`{"minLength":-1}`:                      "/minLength: is not a number from 0 to 1e9 without a fraction",
		`{"maxItems":1.5}`:                      "/maxItems: is not a number from 0 to 1e9 without a fraction",
		`{"maxItems":1e99}`:                     "/maxItems: is not a number from 0 to 1e9 without a fraction",
		`{"pattern":"(?=a)"}`:                   "/pattern: is not a regular expression in RE2 syntax: invalid or unsupported Perl syntax: `(?=`",
		`{"anyOf":[]}`:                          "/anyOf: is empty",
		`{"allOf":[{},{"oneOf":1}]}`:            "/allOf/1/oneOf: is not an array",
		`{"$ref":"other.json"}`:                 `/$ref: "other.json" is not supported: want # or #/$defs/name`,
		`{"$ref":"#/$defs/a"}`:                  "/$ref: there is nothing at #/$defs/a",
		`{"items":{"$id":"x"}}`:                 "/items/$id: is only supported at the beginning",
		`{"$ref":"#"}`:                          "has a $ref that leads back to itself",
		`{"$defs":{"a":{"not":{"anyOf":[{"$ref":"#/$defs/a"}]}}}}`: "has a $ref that leads back to itself",
	} {
		_, err := valid.Compile([]byte(schema))
		require.ErrorContains(t, err, want, schema)
	}
}

// TestRecursion: a schema may be within itself, and the work for a text is bounded.
func TestRecursion(t *testing.T) {
	var d valid.Document
	tree := valid.Rules{Schema: compile(t, `{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"}},"additionalProperties":false}}}`)}
	require.Equal(t, valid.Nothing, tree.Check(&d, []byte(strings.Repeat(`{"next":`, 100)+"{}"+strings.Repeat("}", 100))))
	require.Equal(t, valid.Shape, tree.Check(&d, []byte(strings.Repeat(`{"next":`, 100)+"1"+strings.Repeat("}", 100))))
	require.Equal(t, valid.Syntax, tree.Check(&d, []byte(strings.Repeat(`{"next":`, 200)+"{}"+strings.Repeat("}", 200))), "deeper than JSON may be")
	twice := valid.Rules{Schema: compile(t, `{"allOf":[{"items":{"$ref":"#"}},{"items":{"$ref":"#"}}]}`)}
	require.Equal(t, valid.Nothing, twice.Check(&d, []byte(strings.Repeat("[", 10)+strings.Repeat("]", 10))))
	require.Equal(t, valid.Shape, twice.Check(&d, []byte(strings.Repeat("[", 100)+strings.Repeat("]", 100))), "it would take 2^100 steps")
	never := valid.Rules{Schema: compile(t, `{"not":{"allOf":[{"items":{"$ref":"#/not"}},{"items":{"$ref":"#/not"}}]}}`)}
	require.Equal(t, valid.Shape, never.Check(&d, []byte(strings.Repeat("[", 100)+strings.Repeat("]", 100))), "what cannot be found out is not accepted")
}

func TestCheckAllocatesNothing(t *testing.T) {
	r := valid.Rules{MaxBytes: 1 << 20, Required: []string{"name"}, Schema: compile(t, `{"properties":{"name":{"type":"string","pattern":"^[A-Z]","maxLength":9},
		"list":{"type":"array","items":{"type":["integer","null"],"minimum":-3},"maxItems":100}},"additionalProperties":{"enum":["a",{"b":[1.0]}]}}`)}
	text := []byte(`{"name":"Ann","list":[1,2,null,-3e0],"x":"a","y":{"b":[1]}}`)
	var d valid.Document
	require.Equal(t, valid.Nothing, r.Check(&d, text))
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Check(&d, text) }))
}

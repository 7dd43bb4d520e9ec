package conf

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAlias(t *testing.T) {
	renamed := []string{`limits: 1:10: "max" is now called "most"; the old name will stop working with the next release`}
	for _, c := range []struct {
		doc      string
		n        int
		warnings []string
		err      string
	}{
		{doc: "{}", n: 7},
		{doc: "limits: {most: 1}", n: 1},
		{doc: "limits: {max: 1}", n: 1, warnings: renamed},
		{doc: "limits: {max: 99}", n: 7, warnings: renamed, err: "limits.max: 1:15: 99 is out of range (want 0 to 9)"},
		{doc: "limits: {max: 1, most: 2}", n: 2, err: `limits: 1:10: "max" is the old name of "most", which is here too`},
		{doc: "limits: {max: 1, max: 2}", n: 1, warnings: renamed, err: `limits: 1:18: duplicate key "max" (first at 1:10)`},
		{doc: "limits: {maxx: 1}", n: 7, err: `limits: 1:10: unknown key "maxx"`},
		{doc: "limits: {mast: 1}", n: 7, err: `limits: 1:10: unknown key "mast" (did you mean "most"?)`},
		{doc: "limits: {max: 1, no: 2}", n: 1, warnings: renamed, err: `limits: 1:18: unknown key "no"`},
	} {
		read := func(n *int) func(*Object) {
			return func(o *Object) {
				o.Object("limits", func(o *Object) {
					o.Alias("most", "max")
					o.Alias("most", "max") // nothing is said twice
					o.Int("most", n, 0, 9)
				})
			}
		}
		n, warnings := 7, []string(nil)
		err := DecodeWarn([]byte(c.doc), func(e Error) { warnings = append(warnings, e.Error()) }, read(&n))
		require.Equal(t, c.n, n, c.doc)
		require.Equal(t, c.warnings, warnings, c.doc)
		require.Equal(t, c.err != "", err != nil, "%s: %v", c.doc, err)
		if err != nil {
			require.EqualError(t, err, c.err, c.doc)
		}

		quiet := 7
		require.Equal(t, err, Decode([]byte(c.doc), read(&quiet)), "Decode drops the warnings and nothing else")
		require.Equal(t, c.n, quiet)
	}
}

// A required key may stand under its old name, and Each says the new one.
func TestAliasIsTheKey(t *testing.T) {
	require.NoError(t, Decode([]byte("old: 1"), func(o *Object) {
		o.Alias("new", "old")
		o.Required("new")
		require.True(t, o.Has("new"))
		var names []string
		o.Each(func(name string, v *Value) { names = append(names, name) })
		require.Equal(t, []string{"new"}, names)
	}))
}

func TestValueOfSeveralKinds(t *testing.T) {
	for doc, want := range map[string]string{"a: x": "x", "a: {b: y}": "y", "{}": ""} {
		got := ""
		require.NoError(t, Decode([]byte(doc), func(o *Object) {
			there := o.Value("a", func(v *Value) {
				if v.Keys() == nil {
					v.String(&got)
					return
				}
				v.Object(func(o *Object) { o.String("b", &got) })
			})
			require.Equal(t, doc != "{}", there)
		}))
		require.Equal(t, want, got)
	}
}

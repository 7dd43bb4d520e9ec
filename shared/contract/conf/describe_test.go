package conf_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// everything reads a document with every method there is.
func everything(o *conf.Object) {
	name, list, on, n, share, wait, size, mode := "here", []string{"a", "b"}, true, 3, 0.5, time.Minute, int64(64<<10), "fast"
	o.Required("name")
	o.String("name", &name, conf.NotEmpty)
	o.Strings("list", &list, conf.HeaderName)
	o.Bool("on", &on)
	o.Int("n", &n, 1, 16)
	var port int
	o.Int("port", &port, 1, math.MaxInt32)
	o.Float("share", &share, 0, 1)
	o.Duration("wait", &wait, time.Second, time.Hour)
	o.Size("size", &size, 1, math.MaxInt64)
	o.Enum("mode", &mode, "fast", "slow")
	if o.Has("name") {
		o.Errorf("name", "is never seen")
	}
	o.Object("inner", func(o *conf.Object) {
		if o.Path() != "" || o.Bool("deep", &on) {
			o.Errorf("", "is never seen")
		}
	})
	o.List("items", func(v *conf.Value) {
		if v.Keys() != nil {
			v.Errorf("is never seen")
		}
		v.Object(func(o *conf.Object) { o.String("id", &name) })
	})
	o.List("kinds", func(v *conf.Value) {
		v.OneOf("kind", []string{"x", "y"}, func(_ string, v *conf.Value) {
			v.Object(func(o *conf.Object) { o.Bool("z", &on) })
		})
	})
	o.Object("free", func(o *conf.Object) {
		o.Each(func(_ string, v *conf.Value) { v.Int(&n, 0, 9) })
	})
	o.Object("two", func(o *conf.Object) {}) // may be an object …
	o.String("two", &name)                   // … or a string
	o.Value("profile", profile)
}

// profile reads a name, or an object that may have another profile in it.
func profile(v *conf.Value) {
	n, name := 1, ""
	v.Either(func(o *conf.Object) {
		o.Int("weight", &n, 0, 9)
		o.Value("then", profile)
	}, func(v *conf.Value) { v.Enum(&name, "fast", "slow") })
}

func TestDescribe(t *testing.T) {
	f := conf.Describe(everything)
	form := func(path string) *conf.Form {
		t.Helper()
		at := f.At(path)
		require.NotNil(t, at, path)
		return at
	}
	inf := math.Inf(1)
	require.Equal(t, &conf.Form{Kind: conf.KindString, Default: "here", NotEmpty: true}, form("name"))
	require.Equal(t, &conf.Form{Kind: conf.KindList, Defaults: []string{"a", "b"}, Item: &conf.Form{Kind: conf.KindString, NotEmpty: true}}, form("list"))
	require.Equal(t, &conf.Form{Kind: conf.KindBool, Default: "true"}, form("on"))
	require.Equal(t, &conf.Form{Kind: conf.KindInt, Default: "3", Min: 1, Max: 16, Bounds: "1 to 16"}, form("n"))
	require.Equal(t, &conf.Form{Kind: conf.KindInt, Min: 1, Max: inf, Bounds: "1 or more"}, form("port"), "0 is out of bounds: there is no default")
	require.Equal(t, &conf.Form{Kind: conf.KindFloat, Default: "0.5", Min: 0, Max: 1, Bounds: "0 to 1"}, form("share"))
	require.Equal(t, &conf.Form{Kind: conf.KindDuration, Default: "1m", Min: -inf, Max: inf, Bounds: "1s to 1h"}, form("wait"))
	require.Equal(t, &conf.Form{Kind: conf.KindSize, Default: "64KiB", Min: 1, Max: inf, Bounds: "1 or more"}, form("size"))
	require.Equal(t, &conf.Form{Kind: conf.KindString, Default: "fast", Words: []string{"fast", "slow"}}, form("mode"))
	require.Equal(t, conf.KindBool, form("inner.deep").Kind)
	require.Equal(t, conf.KindString, form("items[].id").Kind)
	require.True(t, form("kinds[]").OneOf)
	require.Equal(t, conf.KindBool, form("kinds[].y.z").Kind)
	require.Equal(t, conf.KindInt, form("free").Item.Kind)
	require.Equal(t, conf.KindObject, form("two").Kind)
	require.Equal(t, conf.KindString, form("two").Or[0].Kind)
	require.Equal(t, []string{"fast", "slow"}, form("profile").Or[0].Words)
	require.Equal(t, conf.KindInt, form("profile.weight").Kind)
	require.Same(t, form("profile"), form("profile.then").Same)
	require.Nil(t, f.At("inner.nosuch"))
	require.Nil(t, f.At("name[]"))
	require.True(t, f.Keys[0].Required)
	require.Equal(t, "name", f.Keys[0].Name)
	for _, k := range f.Keys[1:] {
		require.False(t, k.Required, k.Name)
	}
}

func TestEither(t *testing.T) {
	for doc, message := range map[string]string{
		"profile: fast":                        "",
		"profile: {weight: 3}":                 "",
		"profile: {then: {then: slow}}":        "",
		"profile: fats":                        `profile: 1:10: "fats" is not one of fast, slow (did you mean "fast"?)`,
		"profile: {wait: 3}":                   `profile: 1:11: unknown key "wait"`,
		"profile: {then: {then: {weight: x}}}": `profile.then.then.weight: 1:33: found the string "x", want a whole number`,
	} {
		err := conf.Decode([]byte(doc), func(o *conf.Object) { o.Value("profile", profile) })
		if message == "" {
			require.NoError(t, err, doc)
		} else {
			require.EqualError(t, err, message)
		}
	}
}

func TestOneOf(t *testing.T) {
	decode := func(doc string) (string, error) {
		got := ""
		err := conf.Decode([]byte(doc), func(o *conf.Object) {
			o.List("kinds", func(v *conf.Value) {
				v.OneOf("kind", []string{"apple", "pear"}, func(name string, v *conf.Value) {
					n := 0
					v.Int(&n, 0, 9)
					got += name
				})
			})
		})
		return got, err
	}
	got, err := decode("kinds: [{apple: 1}, {pear: 2}]")
	require.NoError(t, err)
	require.Equal(t, "applepear", got)
	for doc, message := range map[string]string{
		"kinds: [{aple: 1}]":           `kinds[0]: 1:9: unknown kind "aple" (did you mean "apple"?); known: apple, pear`,
		"kinds: [{apple: 1, pear: 2}]": `kinds[0]: 1:9: one kind an item, like "- apple: {…}"; found 2 keys`,
		"kinds: [apple]":               `kinds[0]: 1:9: one kind an item, like "- apple: {…}"; found 0 keys`,
		"kinds: [{apple: x}]":          `kinds[0].apple: 1:17: found the string "x", want a whole number`,
	} {
		_, err := decode(doc)
		require.EqualError(t, err, message)
	}
}

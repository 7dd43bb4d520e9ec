package conf

import (
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite testdata/bad/*.err with the current errors")

// server is a configuration that uses every method.
type server struct {
	Name    string
	Mode    string
	Header  string
	Prefix  string
	Debug   bool
	Workers int
	Ratio   float64
	Timeout time.Duration
	Buffer  int64
	Tags    []string
	TLS     *tls
	Pools   []pool
	Labels  map[string]string
	Ranges  []any // the type of free-form items
}

type tls struct{ Cert string }

type pool struct {
	Name   string
	Weight int
}

func readServer(o *Object, s *server) {
	o.Required("name")
	o.String("name", &s.Name, NotEmpty)
	o.Enum("mode", &s.Mode, "sticky", "weighted", "round-robin")
	o.String("header", &s.Header, HeaderName)
	o.String("prefix", &s.Prefix, PathPrefix)
	o.Bool("debug", &s.Debug)
	o.Int("workers", &s.Workers, 1, 64)
	o.Float("ratio", &s.Ratio, 0, 1)
	o.Duration("timeout", &s.Timeout, 10*time.Millisecond, time.Hour)
	o.Size("buffer", &s.Buffer, 1<<10, 1<<30)
	o.Strings("tags", &s.Tags, NotEmpty)
	o.Object("tls", func(o *Object) {
		s.TLS = &tls{}
		o.Required("cert")
		o.String("cert", &s.TLS.Cert)
		if s.TLS.Cert == "self" {
			o.Errorf("cert", "a certificate of %q is no certificate", s.TLS.Cert)
		}
	})
	o.List("pools", func(v *Value) {
		p := pool{Weight: 1}
		v.Object(func(o *Object) {
			o.Required("name", "weight")
			o.String("name", &p.Name)
			o.Int("weight", &p.Weight, 0, math.MaxInt)
		})
		s.Pools = append(s.Pools, p)
	})
	o.Object("labels", func(o *Object) {
		s.Labels = map[string]string{}
		o.Each(func(name string, v *Value) {
			var text string
			if v.String(&text) {
				s.Labels[name] = text
			}
		})
	})
	o.List("ranges", func(v *Value) { s.Ranges = append(s.Ranges, readAny(v)) })
}

// readAny decodes a value of any type as encoding/json would.
func readAny(v *Value) any {
	switch v.kind() {
	case null:
		return nil
	case boolean:
		var b bool
		v.Bool(&b)
		return b
	case number:
		var f float64
		v.Float(&f, math.Inf(-1), math.Inf(1))
		return f
	case text:
		var s string
		v.String(&s)
		return s
	case list:
		items := []any{}
		v.List(func(item *Value) { items = append(items, readAny(item)) })
		return items
	case object:
		members := map[string]any{}
		v.Object(func(o *Object) {
			o.Each(func(name string, v *Value) { members[name] = readAny(v) })
		})
		return members
	}
	v.usable()
	return nil
}

func decodeServer(doc []byte) (server, error) {
	var s server
	err := Decode(doc, func(o *Object) { readServer(o, &s) })
	return s, err
}

// Each document of testdata/bad breaks the rule in its name; the .err file next to it is what the operator reads.
func TestBadDocuments(t *testing.T) {
	docs := glob(t, "testdata/bad/*.yaml", "testdata/bad/*.json")
	for _, name := range docs {
		t.Run(filepath.Base(name), func(t *testing.T) {
			_, err := decodeServer(read(t, name))
			require.Error(t, err)
			var all Errors
			require.ErrorAs(t, err, &all)
			got := err.Error() + "\n"
			golden := strings.TrimSuffix(name, filepath.Ext(name)) + ".err"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			require.Equal(t, string(read(t, golden)), got)
		})
	}
	require.Len(t, glob(t, "testdata/bad/*.err"), len(docs), "an .err file without its document, or two documents with one")
}

var wantServer = server{
	Name:    "gateway 🙂",
	Mode:    "sticky",
	Header:  "x-api-key",
	Prefix:  "/v1",
	Debug:   true,
	Workers: 8,
	Ratio:   0.25,
	Timeout: 90 * time.Second,
	Buffer:  8 << 20,
	Tags:    []string{"on", "yes", "0x10", "1_000", "2026-01-02", "tab\there", "a/b", "<>"},
	TLS:     &tls{Cert: "line one\nline two\n"},
	Pools:   []pool{{"llama", 90}, {"gemma", 10}},
	Labels:  map[string]string{"on": "1", "true": "2", "1": "3", "a.b": "4", "": "5", "null": "6", "<<": "7"},
	Ranges:  []any{nil, true, false, -1.5, 1e6, "", []any{}, map[string]any{}, []any{1.0, []any{2.0}}, map[string]any{"k": nil}},
}

// The same configuration in every notation gives the same values.
func TestGoodDocuments(t *testing.T) {
	for _, name := range glob(t, "testdata/good/*") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			got, err := decodeServer(read(t, name))
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(wantServer, got))
		})
	}
}

func TestWrongAndAbsentValuesLeaveTheDefault(t *testing.T) {
	s := server{Workers: 3, Ratio: 0.5, Debug: true, Mode: "sticky", Timeout: time.Second, Buffer: 4096, Tags: []string{"a"}}
	want := s
	doc := "{workers: 0, ratio: 2, debug: 1, mode: x, timeout: 1, buffer: 1, tags: [b, 1]}"
	err := Decode([]byte(doc), func(o *Object) {
		require.True(t, o.Int("workers", &s.Workers, 1, 64))
		require.True(t, o.Float("ratio", &s.Ratio, 0, 1))
		require.True(t, o.Bool("debug", &s.Debug))
		require.True(t, o.Enum("mode", &s.Mode, "sticky"))
		require.True(t, o.Duration("timeout", &s.Timeout, time.Second, time.Hour))
		require.True(t, o.Size("buffer", &s.Buffer, 1024, 1<<30))
		require.True(t, o.Strings("tags", &s.Tags))
		require.False(t, o.String("name", &s.Name))
		require.False(t, o.Object("tls", func(*Object) { t.Error("called for an absent key") }))
		require.False(t, o.List("pools", func(*Value) { t.Error("called for an absent key") }))
	})
	require.Equal(t, want, s)
	var all Errors
	require.ErrorAs(t, err, &all)
	require.Len(t, all, 7)
}

func TestEmptyListIsNotAnAbsentList(t *testing.T) {
	tags := []string{"default"}
	require.NoError(t, Decode([]byte("tags: []"), func(o *Object) { o.Strings("tags", &tags) }))
	require.Equal(t, []string{}, tags)
}

func TestHasDoesNotMakeAKeyKnown(t *testing.T) {
	err := Decode([]byte("a: 1\nb: 2"), func(o *Object) {
		require.True(t, o.Has("a"))
		require.True(t, o.Has("b"))
		require.False(t, o.Has("c"))
		o.Errorf("b", "is out of fashion")
		o.Errorf("c", "about what is absent")
		o.Errorf("", "about the whole")
	})
	require.EqualError(t, err, "1:1: about what is absent\n1:1: about the whole\n1:1: unknown key \"a\"\nb: 2:4: is out of fashion")
}

func TestPaths(t *testing.T) {
	var paths []string
	require.NoError(t, Decode([]byte(`{a: [{b c: {"": [[1]]}}], "a.b": 1, "x[0]": 2, ключ: 3, "\n": 4}`), func(o *Object) {
		require.Empty(t, o.Path())
		var walk func(v *Value)
		walk = func(v *Value) {
			paths = append(paths, v.Path())
			switch v.kind() {
			case list:
				v.List(walk)
			case object:
				v.Object(func(o *Object) {
					require.Equal(t, v.Path(), o.Path())
					o.Each(func(_ string, v *Value) { walk(v) })
				})
			}
		}
		o.Each(func(_ string, v *Value) { walk(v) })
	}))
	require.Equal(t, []string{
		"a", "a[0]", `a[0]["b c"]`, `a[0]["b c"][""]`, `a[0]["b c"][""][0]`, `a[0]["b c"][""][0][0]`,
		`["a.b"]`, `["x[0]"]`, "ключ", `["\n"]`,
	}, paths)
}

func TestKeys(t *testing.T) {
	keys := map[string][]string{}
	require.NoError(t, Decode([]byte("a: {y: 1, x: 2}\nb: []\nc: {}"), func(o *Object) {
		o.Each(func(name string, v *Value) { keys[name] = v.Keys() })
	}))
	require.Equal(t, map[string][]string{"a": {"y", "x"}, "b": nil, "c": {}}, keys)
}

func TestOversizedDocument(t *testing.T) {
	fits := "name: x" + strings.Repeat(" ", MaxBytes-len("name: x"))
	_, err := decodeServer([]byte(fits))
	require.NoError(t, err)
	_, err = decodeServer([]byte(fits + " "))
	require.EqualError(t, err, "1:1: the document has 1048577 bytes, want 1MiB or less")
}

// nested returns a document whose innermost list is depth lists and objects deep, itself counted.
func nested(depth int) string {
	return `{"a": ` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
}

func TestNesting(t *testing.T) {
	read := func(o *Object) { o.Each(func(_ string, v *Value) { readAny(v) }) }
	require.NoError(t, Decode([]byte(nested(MaxDepth)), read))
	require.Equal(t, Errors{{Line: 1, Column: 70, Message: tooDeep}}, Decode([]byte(nested(MaxDepth+1)), read))
	require.Equal(t, Errors{{Line: 2, Column: 70, Message: tooDeep}}, Decode([]byte("# not JSON\n"+nested(MaxDepth+1)), read))

	// The parser must refuse these before it starts: it recurses.
	indented := func(depth int) string {
		var doc strings.Builder
		for i := range depth {
			doc.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return doc.String()
	}
	for name, doc := range map[string]string{
		"JSON":                nested(9000),
		"flow":                "# not JSON\n" + nested(9000),
		"flow, never closed":  "a: " + strings.Repeat("[", 500_000),
		"flow, one a line":    strings.Repeat("[\n", 9000) + strings.Repeat("]\n", 9000),
		"flow, with braces":   "a: " + strings.Repeat("{a: [", 9000),
		"block, one a line":   indented(1000),
		"block, compact":      "a:\n  " + strings.Repeat("- ", 9000) + "a",
		"block, explicit key": strings.Repeat("? ", 9000) + "a",
	} {
		_, deep := looksDeep([]byte(doc))
		require.True(t, deep, name)
		require.ErrorContains(t, Decode([]byte(doc), read), tooDeep, name)
	}

	// The deepest document that it accepts fits the stack of a VM: run these tests in one to check.
	deepest := indented(512) + strings.Repeat(" ", 512) + strings.Repeat("[", 256) + strings.Repeat("]", 256)
	_, deep := looksDeep([]byte(deepest))
	require.False(t, deep)
	require.ErrorContains(t, Decode([]byte(deepest), read), tooDeep)
}

// Brackets in text are not nesting, however many are left open.
func TestBracketsInText(t *testing.T) {
	for name, item := range map[string]string{
		"quoted":  "- '\\[ {'\n",
		"plain":   "- a [ {\n",
		"literal": "- |\n  a [\n  b {\n",
		"comment": "- a # [ {\n",
		"flow":    "- [a, [b],\n   {c: [d]}]\n",
	} {
		var n int
		require.NoError(t, Decode([]byte("a:\n"+strings.Repeat(item, 1000)), func(o *Object) {
			o.List("a", func(*Value) { n++ })
		}), name)
		require.Equal(t, 1000, n, name)
	}
}

func TestManyMistakes(t *testing.T) {
	err := Decode([]byte(strings.Repeat("- x\n", 3)), nil)
	require.EqualError(t, err, "1:1: found a list, want an object")

	_, err = decodeServer([]byte("name: x\ntags:\n" + strings.Repeat("- 1\n", 250)))
	var all Errors
	require.ErrorAs(t, err, &all)
	require.Len(t, all, 250)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 101)
	require.Equal(t, "and 150 more", lines[100])
}

func TestNoMistakeIsNil(t *testing.T) {
	err := Decode([]byte("{}"), func(*Object) {})
	require.True(t, err == nil, "not a nil Errors in an error")
	require.False(t, errors.As(err, &Errors{}))
}

func glob(t testing.TB, patterns ...string) []string {
	var names []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		names = append(names, found...)
	}
	return names
}

func read(t testing.TB, name string) []byte {
	doc, err := os.ReadFile(name)
	require.NoError(t, err)
	return doc
}

func TestOneOrList(t *testing.T) {
	read := func(doc string) (words []string, err error) {
		err = Decode([]byte(doc), func(o *Object) {
			o.Value("a", func(v *Value) {
				v.OneOrList(func(v *Value) {
					var word string
					if v.Enum(&word, "x", "y") {
						words = append(words, word)
					}
				})
			})
		})
		return words, err
	}
	for doc, want := range map[string][]string{"a: x": {"x"}, "a: [y, x]": {"y", "x"}, "a: []": nil} {
		words, err := read(doc)
		require.NoError(t, err)
		require.Equal(t, want, words, doc)
	}
	_, err := read("a: z")
	require.EqualError(t, err, `a: 1:4: "z" is not one of x, y`)
	_, err = read("a: [x, 7]")
	require.EqualError(t, err, `a[1]: 1:8: found the number 7, want a string (put it in quotes)`)
}

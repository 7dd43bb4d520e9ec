package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// decodeAny decodes a free-form object as encoding/json would.
func decodeAny(doc []byte) (map[string]any, error) {
	members := map[string]any{}
	err := Decode(doc, func(o *Object) {
		o.Each(func(name string, v *Value) { members[name] = readAny(v) })
	})
	return members, err
}

// anyObject draws an object with the values that encoding/json decodes to.
func anyObject() *rapid.Generator[map[string]any] {
	words := rapid.OneOf(
		rapid.SampledFrom([]string{"", "on", "yes", "null", "true", "~", "<<", "1", "0x1F", "1e3", "- a", "a: b", "#", "*x", "&x", "!t", "🙂", "\u2028", "a\nb", " a "}),
		rapid.StringOfN(rapid.RuneFrom([]rune("ab :-#{}[],'\"\\\n\té🙂\u0085")), 0, 8, -1),
	)
	scalar := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.Float64Range(-1e300, 1e300), func(f float64) any { return f }),
		rapid.Map(rapid.IntRange(-1<<53, 1<<53), func(n int) any { return float64(n) }),
		rapid.Map(words, func(s string) any { return s }),
	)
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return scalar
		}
		return rapid.OneOf(
			scalar,
			rapid.Map(rapid.SliceOfN(value(depth-1), 0, 4), func(l []any) any { return l }),
			rapid.Map(rapid.MapOfN(words, value(depth-1), 0, 4), func(m map[string]any) any { return m }),
		)
	}
	return rapid.MapOfN(words, value(3), 0, 4)
}

// writeYAML writes a value in block style. (The YAML library writes some strings in a way that it cannot read itself.)
func writeYAML(v any, indent string) string {
	var s strings.Builder
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			s.WriteString("\n" + indent + "- " + writeYAML(item, indent+"  "))
		}
	case map[string]any:
		for name, value := range v {
			s.WriteString("\n" + indent + quoteYAML(name) + ": " + writeYAML(value, indent+"  "))
		}
	case string:
		return quoteYAML(v)
	case nil:
		return "~ # nothing"
	default:
		s.WriteString(strings.ReplaceAll(fmt.Sprint(v), "e+", "E"))
	}
	switch {
	case s.Len() > 0:
		return s.String()
	case reflect.TypeOf(v).Kind() == reflect.Slice:
		return "[]"
	}
	return "{}"
}

func quoteYAML(s string) string {
	if strings.ContainsAny(s, "\t\n\u0085\u2028") {
		return strconv.QuoteToASCII(s)
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// Decode reads back what is written as JSON or YAML, however it is laid out.
func TestReadsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyObject().Draw(t, "object")
		compact, err := json.Marshal(want)
		require.NoError(t, err)
		var indented bytes.Buffer
		require.NoError(t, json.Indent(&indented, compact, "", "\t"))
		block := []byte(writeYAML(want, ""))
		for _, doc := range [][]byte{compact, indented.Bytes(), block} {
			got, err := decodeAny(doc)
			require.NoError(t, err, "%s", doc)
			require.Empty(t, cmp.Diff(want, got, cmpopts.EquateEmpty()), "%s", doc)
		}
	})
}

// Both parsers build the same nodes, positions included, wherever YAML is a superset of JSON.
func TestParsersAgree(t *testing.T) {
	// U+0085 is a line break in YAML and a character in JSON.
	object := anyObject().Filter(func(o map[string]any) bool {
		text, err := json.Marshal(o)
		return err == nil && !bytes.ContainsRune(text, '\u0085')
	})
	rapid.Check(t, func(t *rapid.T) {
		var doc bytes.Buffer
		writer := json.NewEncoder(&doc)
		writer.SetIndent("", rapid.SampledFrom([]string{"", " ", "\t"}).Draw(t, "indent"))
		require.NoError(t, writer.Encode(object.Draw(t, "object")))
		asJSON, wrong := parseJSON(doc.Bytes())
		require.Nil(t, wrong)
		asYAML, wrong := parseYAML(doc.Bytes())
		require.Nil(t, wrong)
		require.Empty(t, cmp.Diff(asYAML, asJSON, cmpopts.IgnoreFields(yaml.Node{}, "Tag")))
	})
}

func TestNumbersAreThoseOfJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[-+]?[0-9]{0,3}(\.[0-9]{0,2})?([eE][-+]?[0-9]{0,2})?`).Draw(t, "s")
		require.Equal(t, json.Valid([]byte(s)), jsonNumber.MatchString(s), "%q", s)
	})
}

// For every document Decode returns, and each mistake has a position within the document, in order.
func FuzzDecode(f *testing.F) {
	for _, name := range glob(f, "testdata/bad/*.yaml", "testdata/bad/*.json", "testdata/good/*") {
		f.Add(read(f, name))
	}
	f.Add([]byte("{\"a\": \"\\ud83d\"}"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if len(doc) > 16<<10 {
			return // a slow run finds no more than a fast one
		}
		_, err := decodeServer(doc)
		requirePositions(t, doc, err)
		_, err = decodeAny(doc)
		requirePositions(t, doc, err)
	})
}

func requirePositions(t *testing.T, doc []byte, err error) {
	if err == nil {
		return
	}
	var all Errors
	require.ErrorAs(t, err, &all)
	require.NotEmpty(t, all)
	lines := 1
	for _, lineBreak := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} { // of YAML 1.1
		lines += bytes.Count(doc, []byte(lineBreak))
	}
	for i, e := range all {
		require.True(t, 1 <= e.Line && e.Line <= lines, "%v", e)
		require.True(t, 1 <= e.Column && e.Column <= len(doc)+1, "%v", e)
		require.NotEmpty(t, e.Message)
		require.Less(t, len(e.Message), 1000)
		if i > 0 {
			require.LessOrEqual(t, position(all[i-1], e), 0)
		}
	}
}

func TestSuggest(t *testing.T) {
	among := []string{"picker", "quota", "guardrail", "bbr", "failureMode", "from"}
	for word, want := range map[string]string{
		"pickr":                    "picker", // left out
		"pikcer":                   "picker", // swapped
		"quotas":                   "quota",  // added
		"quoda":                    "quota",  // replaced
		"form":                     "from",
		"bbq":                      "bbr",
		"FAILUREMODE":              "failureMode",
		"failure_mode":             "failureMode",
		"failure-mode":             "failureMode",
		"guard":                    "",
		"x":                        "",
		"":                         "",
		"bbr":                      "", // the word itself is not a suggestion
		strings.Repeat("bbr", 100): "",
	} {
		if want != "" {
			want = ` (did you mean "` + want + `"?)`
		}
		require.Equal(t, want, Suggest(word, among), "%q", word)
	}
	require.Equal(t, ` (did you mean "aab"?)`, Suggest("aaa", []string{"aab", "aac"}), "the first of equals")
	require.Equal(t, ` (did you mean "aaab"?)`, Suggest("aaaa", []string{"aabb", "aaab"}), "the nearest")
	require.Empty(t, Suggest("aaa", []string{strings.Repeat("a", 100)}))
	require.Empty(t, Suggest("aaa", nil))
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"abc", "abc", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abd", 1},
		{"abc", "ab", 1},
		{"abc", "xabc", 1},
		{"abcd", "abdc", 1},
		{"ca", "abc", 3},
		{"kitten", "sitting", 3},
		{"badc", "abcd", 2},
	} {
		require.Equal(t, c.want, distance(c.a, c.b), "%s %s", c.a, c.b)
	}
	word := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 6, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := distance(a, b)
		require.Equal(t, d, distance(b, a))
		require.Equal(t, a == b, d == 0)
		require.GreaterOrEqual(t, d, max(len(a)-len(b), len(b)-len(a)))
		require.LessOrEqual(t, d, max(len(a), len(b)))
	})
}

func TestHeaderName(t *testing.T) {
	for c := range rune(256) {
		name := string(c)
		// RFC 9110, section 5.6.2: any VCHAR except delimiters.
		token := c > ' ' && c < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
		lower := token && (c < 'A' || c > 'Z')
		require.Equal(t, lower, HeaderName(name) == "", "%q", name)
		require.Equal(t, token && !lower, strings.Contains(HeaderName(name), "lower case"), "%q", name)
	}
	require.NotEmpty(t, HeaderName(""))
	require.Empty(t, HeaderName("x-api-key"))
}

func TestSizesAndDurationsReadTheirOwnWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 1<<53-1).Draw(t, "n") << rapid.IntRange(0, 9).Draw(t, "shift")
		read, ok := bytesOf(shortSize(size))
		require.True(t, ok || shortSize(size) == decimal(size) && size >= 1<<53, shortSize(size))
		if ok {
			require.Equal(t, size, read)
		}
	})
	for s, want := range map[string]int64{
		"0": 0, "4096": 4096, "1e3": 1000, "7B": 7, "1kB": 1000, "1KB": 1000, "1KiB": 1024, "1MB": 1e6, "1MiB": 1 << 20, "1GB": 1e9, "8589934591GiB": 8589934591 << 30,
	} {
		n, ok := bytesOf(s)
		require.True(t, ok, s)
		require.Equal(t, want, n, s)
	}
	for _, s := range []string{"", "B", "KiB", "-1KiB", "+1KiB", "1 KiB", "1kib", "1K", "1Ki", "0x1KiB", "0x1p4", "inf", "nan", "1.5", "1_000", "8589934592GiB", "4 "} {
		_, ok := bytesOf(s)
		require.False(t, ok, s)
	}
	for s, want := range map[string]string{"1h": "1h", "60m": "1h", "90m": "1h30m", "10s": "10s", "100s": "1m40s", "10m": "10m", "0s": "0s", "1h0m5s": "1h0m5s", "10ms": "10ms", "20h": "20h"} {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		require.Equal(t, want, shortDuration(d))
	}
}

func TestUnboundedNumbers(t *testing.T) {
	n, f := 0, 0.0
	read := func(o *Object) {
		o.Int("n", &n, math.MinInt, math.MaxInt)
		o.Float("f", &f, math.Inf(-1), math.Inf(1))
	}
	for _, whole := range []int{1 - 1<<53, -1, 0, 1<<53 - 1} {
		require.NoError(t, Decode([]byte("n: "+decimal(int64(whole))+"\nf: -1.5e308"), read))
		require.Equal(t, whole, n)
		require.Equal(t, -1.5e308, f)
	}
	require.EqualError(t, Decode([]byte("f: -1e999"), read), "f: 1:4: -1e999 is out of range (want a number that fits into a double)")
	require.Error(t, Decode([]byte("n: 9007199254740992"), read), "the double of 2^53+1, too")
}

func TestAuthority(t *testing.T) {
	for _, good := range []string{"guard", "guard:8080", "a-b.example.com", "A.example:443", "10.0.0.1:80", "[::1]", "[2001:db8::1]:443", "my_service", "a:65535"} {
		require.Empty(t, Authority(good), good)
	}
	for _, bad := range []string{
		"", "http://x y/", "http://x", "x/", "x y", "guard:", ":80", "x:0", "x:65536", "x:port", "x:1:2", "::1", "[::1", "::1]", "[x]", "[]", "[::g]", "x\n", "a,b", "user@x", "x?y",
		"é", strings.Repeat("a", 254),
	} {
		require.NotEmpty(t, Authority(bad), bad)
	}
}

package jsonscan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// recorder writes tokens down, the pieces of a string joined, with their offsets: two scans are the same if and only if
// their records are equal. It insists that nothing is reported after an error.
type recorder struct {
	t      testing.TB
	s      *Scanner
	tokens []string
	text   []byte
	skip   func(name string) bool // skip this member's value
	open   func(array bool) bool  // skip this container
}

func (r *recorder) add(format string, args ...any) {
	require.Nil(r.t, r.s.err)
	r.tokens = append(r.tokens, fmt.Sprintf("%d-%d@%d ", r.s.Start(), r.s.Offset(), r.s.Depth())+fmt.Sprintf(format, args...))
}

func (r *recorder) Open(array bool) {
	r.add("open %v", array)
	if r.open != nil && r.open(array) {
		r.s.Skip()
	}
}
func (r *recorder) Close(array bool) { r.add("close %v", array) }
func (r *recorder) Key(name []byte) {
	r.add("key %q", name)
	if r.skip != nil && r.skip(string(name)) {
		r.s.Skip()
	}
}

func (r *recorder) Text(piece []byte) {
	require.Nil(r.t, r.s.err)
	require.NotEmpty(r.t, piece)
	require.True(r.t, utf8.Valid(piece), "piece %q", piece)
	r.text = append(r.text, piece...)
}

func (r *recorder) TextEnd() {
	r.add("text %q", r.text)
	r.text = r.text[:0]
}
func (r *recorder) Scalar(raw []byte) { r.add("scalar %s", raw) }

// scan returns the tokens of a document that arrives in the given chunks, and its error.
func scan(t testing.TB, lim Limits, prepare func(*recorder), chunks ...[]byte) ([]string, error) {
	s := new(Scanner)
	r := &recorder{t: t, s: s}
	if prepare != nil {
		prepare(r)
	}
	s.Reset(r, lim)
	for _, c := range chunks {
		// A chunk is only valid during Feed: what outlives it must have been copied.
		c = bytes.Clone(c)
		err := s.Feed(c)
		for i := range c {
			c[i] = 'X'
		}
		if err != nil {
			require.Same(t, err, s.Feed([]byte("1")), "the error stays")
			require.Same(t, err, s.End(), "the error stays")
			return r.tokens, err
		}
	}
	err := s.End()
	return r.tokens, err
}

// accepted are documents that must pass, as they stand in RFC 8259 or in the requests of model APIs.
var accepted = []string{
	`{}`, `[]`, `0`, `-0`, `true`, `false`, `null`, `""`, ` 1 `, "\t\r\n {}\r\n\t ",
	`{"model":"llama","messages":[{"role":"user","content":"Hello, world"}],"stream":true,"max_tokens":128,"temperature":0.7}`,
	`[0,-1,10,1.5,-0.0,1e5,1E+5,1e-5,123456789012345678901234567890,0e0,0.1e1]`,
	`["\"\\\/\b\f\n\r\t","\u0000\u0041\u00e9\u4f60\uffff","\ud83d\ude00","\uD83D\uDE00 \uDBFF\uDFFF"]`,
	`["aé€𐍈","` + "\u007f" + `","日本語のテキスト","😀😀😀"]`,
	`{"a":{"b":[{"c":[[[]]]}]},"":""}`,
	`{"mo\u0064el":"x","a\\b":1}`,
	`[[],{},"",0,true,false,null]`,
	"{ \"a\" :\n[ 1 ,\t2 ] ,\r\n\"b\" : { } }",
	`"` + strings.Repeat("0123456789abcdef", 9) + `"`,
	`{"` + strings.Repeat("k", 200) + `":1}`,
	`["\n\n\n\n\t\t\"\"\\\\", "` + strings.Repeat(`\u4f60\u597d`, 40) + `"]`,
}

// refused are documents that must not pass, with the reason and the place.
var refused = []struct {
	doc    string
	code   Code
	offset int64
}{
	{``, Incomplete, 0},
	{`  `, Incomplete, 2},
	{`{`, Incomplete, 1},
	{`{"a":1`, Incomplete, 6},
	{`"abc`, Incomplete, 4},
	{`"a\`, Incomplete, 3},
	{`"\u12`, Incomplete, 5},
	{`"\ud800`, Incomplete, 7},
	{"\"\xe4\xbd", Incomplete, 3},
	{`tru`, Incomplete, 3},
	{`-`, Incomplete, 1},
	{`1.`, Incomplete, 2},
	{`1e`, Incomplete, 2},
	{`1e+`, Incomplete, 3},
	{`{} {}`, Trailing, 3},
	{`1 2`, Trailing, 2},
	{`{}}`, Trailing, 2},
	{`{},`, Trailing, 2},
	{`01`, Trailing, 1},
	{`1x`, Trailing, 1},
	{`truex`, Trailing, 4},
	{"\xef\xbb\xbf{}", Syntax, 0},
	{`[1,]`, Syntax, 3},
	{`[,1]`, Syntax, 1},
	{`[1 2]`, Syntax, 3},
	{`[01]`, Syntax, 2},
	{`[1.2.3]`, Syntax, 4},
	{`[-]`, Syntax, 2},
	{`[-a]`, Syntax, 2},
	{`[.5]`, Syntax, 1},
	{`[+1]`, Syntax, 1},
	{`[1.]`, Syntax, 3},
	{`[1.e5]`, Syntax, 3},
	{`[1e+-5]`, Syntax, 4},
	{`[1}`, Syntax, 2},
	{`{"a":1]`, Syntax, 6},
	{`]`, Syntax, 0},
	{`{"a"}`, Syntax, 4},
	{`{"a":}`, Syntax, 5},
	{`{"a":1,}`, Syntax, 7},
	{`{a:1}`, Syntax, 1},
	{`{1:1}`, Syntax, 1},
	{`{"a" 1}`, Syntax, 5},
	{`{"a"::1}`, Syntax, 5},
	{`{,}`, Syntax, 1},
	{`{"a":1 "b":2}`, Syntax, 7},
	{`{[]:1}`, Syntax, 1},
	{`{"a",1}`, Syntax, 4},
	{`[tRue]`, Syntax, 2},
	{`[nul]`, Syntax, 4},
	{`[True]`, Syntax, 1},
	{`[NaN]`, Syntax, 1},
	{`['a']`, Syntax, 1},
	{`[1,//
2]`, Syntax, 3},
	{"[\"a\nb\"]", Syntax, 3},
	{"[\"a\x00b\"]", Syntax, 3},
	{"[\"0123456789abcdef\x1f\"]", Syntax, 18},
	{`["\x"]`, Syntax, 3},
	{`["\u12g4"]`, Syntax, 6},
	{`["\U0041"]`, Syntax, 3},
	{"[\x0b1]", Syntax, 1},
	{"[\u00a01]", Syntax, 1},
	{"[\"\x80\"]", UTF8, 2},
	{"[\"ab\xff\"]", UTF8, 4},
	{"[\"\xc0\x80\"]", UTF8, 2},
	{"[\"\xc1\xbf\"]", UTF8, 2},
	{"[\"\xe0\x80\x80\"]", UTF8, 2},
	{"[\"\xed\xa0\x80\"]", UTF8, 2},
	{"[\"\xf0\x80\x80\x80\"]", UTF8, 2},
	{"[\"\xf4\x90\x80\x80\"]", UTF8, 2},
	{"[\"\xf5\x80\x80\x80\"]", UTF8, 2},
	{"[\"\u4f60\xe4\xbd\"]", UTF8, 5},
	{"{\"\xe4\":1}", UTF8, 2},
	{`["\ud800"]`, Surrogate, 2},
	{`["\udc00"]`, Surrogate, 2},
	{`["\ud800\ud800"]`, Surrogate, 2},
	{`["\ud800\u0041"]`, Surrogate, 2},
	{`["a\ud800\n"]`, Surrogate, 3},
	{`["\ud83d\ude00\ude00"]`, Surrogate, 14},
	{`{"\udfff":1}`, Surrogate, 2},
}

func TestAccepted(t *testing.T) {
	for _, doc := range accepted {
		require.True(t, json.Valid([]byte(doc)), "the table: %s", doc)
		tokens, err := scan(t, Limits{}, nil, []byte(doc))
		require.NoError(t, err, doc)
		require.Equal(t, reference(t, []byte(doc)), bare(tokens), doc)
		everySplit(t, Limits{}, []byte(doc))
	}
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		_, err := scan(t, Limits{}, nil, []byte(c.doc))
		require.Equal(t, &Error{c.code, c.offset}, err, "%q", c.doc)
		everySplit(t, Limits{}, []byte(c.doc))
	}
}

func TestErrorSentence(t *testing.T) {
	require.EqualError(t, &Error{Code: Syntax, Offset: 17}, "invalid JSON: unexpected character at byte 17")
	require.EqualError(t, &Error{Code: 99}, "invalid JSON: code 99 at byte 0")
	for c := Syntax; c <= Trailing; c++ {
		require.NotContains(t, c.String(), "code")
	}
}

func TestTokens(t *testing.T) {
	tokens, err := scan(t, Limits{}, nil, []byte(` {"a\n": [1, "x\u00e9y", {}], "b":-2e3}`))
	require.NoError(t, err)
	require.Equal(t, []string{
		`1-2@1 open false`,
		`2-7@1 key "a\n"`,
		`9-10@2 open true`,
		`10-11@2 scalar 1`,
		`13-23@2 text "xéy"`,
		`25-26@3 open false`,
		`26-27@2 close false`,
		`27-28@1 close true`,
		`30-33@1 key "b"`,
		`34-38@1 scalar -2e3`,
		`38-39@0 close false`,
	}, tokens)
}

// A number that the end of the input has cut may be any number.
func TestCutNumberIsNotReported(t *testing.T) {
	tokens, err := scan(t, Limits{}, nil, []byte(`[1,23`))
	require.Equal(t, &Error{Incomplete, 5}, err)
	require.Equal(t, []string{"[", "1"}, bare(tokens))
}

// pieces keeps each Text piece and the scanner's offset after it.
type pieces struct {
	recorder
	got []string
}

func (p *pieces) Text(piece []byte) {
	p.got = append(p.got, fmt.Sprintf("%s %d", piece, p.s.Offset()))
}

// A filter that cuts text out of a body needs to know where each piece ends.
func TestTextOffsets(t *testing.T) {
	s := new(Scanner)
	p := &pieces{recorder: recorder{t: t, s: s}}
	s.Reset(p, Limits{})
	for _, chunk := range []string{`["ab\n\"cd`, `e`, "\u00e9"[:1], "\u00e9"[1:], `\u00e`, `9f\n with text behind it, as much as a line has",1]`} {
		require.NoError(t, s.Feed([]byte(chunk)))
	}
	require.NoError(t, s.End())
	require.Equal(t, []string{"ab 4", "\n 6", "\" 8", "cd 10", "e 11", "é 13", "é 19", "f 20", "\n with text behind it, as much as 54", " a line has 65"}, p.got)
}

func TestLimits(t *testing.T) {
	lim := Limits{Depth: 3, KeyBytes: 4, StringBytes: 6, ScalarBytes: 5, Members: 2, Items: 3}
	f := func(doc string, code Code, offset int64) {
		t.Helper()
		_, err := scan(t, lim, nil, []byte(doc))
		if code == 0 {
			require.NoError(t, err, doc)
		} else {
			require.Equal(t, &Error{code, offset}, err, doc)
		}
		everySplit(t, lim, []byte(doc))
	}
	f(`[[[]]]`, 0, 0)
	f(`[[[[]]]]`, Depth, 3)
	f(`{"a":{"b":{"c":{}}}}`, Depth, 15)
	f(`[{"a":[]},[[]]]`, 0, 0)
	f(`{"abcd":1}`, 0, 0)
	f(`{"abcde":1}`, KeyTooLong, 1)
	f(`{"ab\u0064d":1}`, 0, 0)
	f(`{"ab\u0064de":1}`, KeyTooLong, 1)
	f(`{"ab\n`+"\xff"+`":1}`, UTF8, 6)
	f(`{"abcd\n`+"\xff"+`":1}`, KeyTooLong, 1)
	f(`["abcdef"]`, 0, 0)
	f(`["abcdefg"]`, StringTooLong, 1)
	f(`["abcd\n\n"]`, 0, 0)
	f(`["abcd\n\n\n"]`, StringTooLong, 1)
	f(`["日本"]`, 0, 0)
	f(`["日本1"]`, StringTooLong, 1)
	f(`["日本\q"]`, Syntax, 9)
	f(`[12345,-1234]`, 0, 0)
	f(`[123456]`, ScalarTooLong, 1)
	f(`[1234.x]`, Syntax, 6)
	f(`[12345.x]`, ScalarTooLong, 1)
	f(`123456`, ScalarTooLong, 0)
	f(`[false]`, 0, 0)
	f(`{"a":1,"b":{"c":1,"d":2}}`, 0, 0)
	f(`{"a":1,"b":{"c":1,"d":2},"e":1}`, TooManyMembers, 24)
	f(`[1,[1,2,3],3]`, 0, 0)
	f(`[1,[1,2,3],3,4]`, TooManyItems, 12)
	f(`[1,[1,2,3,[]],3]`, TooManyItems, 9)
}

func TestLimitsDefaultsAndCeilings(t *testing.T) {
	want := Limits{Depth: 128, KeyBytes: 1024, StringBytes: 256 << 20, ScalarBytes: 256, Members: 1 << 16, Items: 1 << 20}
	require.Equal(t, want, DefaultLimits)
	require.Equal(t, want, Limits{}.capped())
	require.Equal(t, want, Limits{-1, -1, -1, -1, -1, -1}.capped())
	require.Equal(t, want, want.capped(), "the defaults fit the buffers")
	require.Equal(t, Limits{1, 1, 1, 1, 1, 1}, Limits{1, 1, 1, 1, 1, 1}.capped())
	const unbounded = 1<<31 - 1
	most := Limits{1 << 40, 1 << 40, 1 << 40, 1 << 40, 1 << 40, 1 << 40}.capped()
	require.Equal(t, Limits{256, 1024, unbounded, 1024, unbounded, unbounded}, most)
	require.Equal(t, most, most.capped())

	nested := func(n int) []byte {
		return []byte(strings.Repeat(`[{"a":`, n/2) + "1" + strings.Repeat("}]", n/2))
	}
	tokens, err := scan(t, most, nil, nested(MaxDepth))
	require.NoError(t, err)
	require.Equal(t, reference(t, nested(MaxDepth)), bare(tokens))
	_, err = scan(t, most, nil, nested(MaxDepth+2))
	require.Equal(t, &Error{Depth, MaxDepth * 3}, err)

	number := strings.Repeat("7", MaxScalarBytes)
	for _, doc := range []string{number, `[` + number + `]`} {
		tokens, err = scan(t, most, nil, []byte(doc[:500]), []byte(doc[500:]))
		require.NoError(t, err)
		require.Equal(t, reference(t, []byte(doc)), bare(tokens))
	}
	name := `{"` + strings.Repeat("n", MaxKeyBytes-1) + `\t":1}`
	tokens, err = scan(t, most, nil, []byte(name))
	require.NoError(t, err)
	require.Equal(t, reference(t, []byte(name)), bare(tokens))
}

func TestSkip(t *testing.T) {
	doc := []byte(`{"a":{"x":[1,"s",{"y":null}]},"b":[{"x":1}],"c":"text\n","d":12.5,"e":true,"f":[]}`)
	f := func(names string, want ...string) {
		t.Helper()
		prepare := func(r *recorder) { r.skip = func(name string) bool { return strings.Contains(names, name) } }
		tokens, err := scan(t, Limits{}, prepare, doc)
		require.NoError(t, err)
		require.Equal(t, want, bare(tokens))
		for i := range doc {
			split, err := scan(t, Limits{}, prepare, doc[:i], doc[i:])
			require.NoError(t, err)
			require.Equal(t, tokens, split)
		}
	}
	f("abcdef", "{", "key a", "key b", "key c", "key d", "key e", "key f", "}")
	f("acef", "{", "key a", "key b", "[", "{", "key x", "1", "}", "]", "key c", "key d", "12.5", "key e", "key f", "}")
	f("bdx", "{", "key a", "{", "key x", "}", "key b", "key c", "text text\n", "key d", "key e", "true", "key f", "[", "]", "}")

	arrays := func(r *recorder) { r.open = func(array bool) bool { return array } }
	tokens, err := scan(t, Limits{}, arrays, doc)
	require.NoError(t, err)
	require.Equal(t, []string{
		"{", "key a", "{", "key x", "[", "}", "key b", "[", "key c", "text text\n", "key d", "12.5",
		"key e", "true", "key f", "[", "}",
	}, bare(tokens))
	tokens, err = scan(t, Limits{}, arrays, []byte(`[1,[2]]`))
	require.NoError(t, err)
	require.Equal(t, []string{"["}, bare(tokens))
	tokens, err = scan(t, Limits{}, func(r *recorder) { r.open = func(bool) bool { return true } }, doc)
	require.NoError(t, err)
	require.Equal(t, []string{"{"}, bare(tokens))

	// Skipped parts are checked against the same grammar and limits.
	skipAll := func(r *recorder) { r.skip = func(string) bool { return true } }
	for _, c := range refused {
		if c.code == Incomplete || c.code == Trailing {
			continue
		}
		_, err := scan(t, Limits{}, skipAll, []byte(`{"a":[`+c.doc+`]}`))
		require.Error(t, err, c.doc)
	}
	for _, c := range []string{`"1234567"`, `{"12345":1}`, `123456`, `[[[]]]`, `[1,2,3,4]`, `{"1":1,"2":2,"3":3}`} {
		lim := Limits{Depth: 3, KeyBytes: 4, StringBytes: 6, ScalarBytes: 5, Members: 2, Items: 3}
		_, err := scan(t, lim, skipAll, []byte(`{"a":`+c+`}`))
		require.Error(t, err, c)
	}
}

// skipper calls Skip where it has no meaning.
type skipper struct{ recorder }

func (p *skipper) Text(piece []byte) { p.recorder.Text(piece); p.s.Skip() }
func (p *skipper) TextEnd()          { p.recorder.TextEnd(); p.s.Skip() }
func (p *skipper) Scalar(raw []byte) { p.recorder.Scalar(raw); p.s.Skip() }
func (p *skipper) Close(array bool)  { p.recorder.Close(array); p.s.Skip() }

func TestSkipElsewhereDoesNothing(t *testing.T) {
	doc := []byte(`{"a":[1,"x\ny",{"b":[]},2],"c":"d","e":3}`)
	want, err := scan(t, Limits{}, nil, doc)
	require.NoError(t, err)
	s := new(Scanner)
	p := &skipper{recorder{t: t, s: s}}
	s.Reset(p, Limits{})
	require.NoError(t, s.Feed(doc))
	require.NoError(t, s.End())
	require.Equal(t, want, p.tokens)
}

// A scanner that stopped anywhere must start afresh.
func TestReset(t *testing.T) {
	s := new(Scanner)
	for _, left := range []string{`{"a":[{"k`, `["\ud83d`, "[\"\xe4", `["\u12`, `[12`, `[tr`, `[1,2}`, `{"a":"b"}`} {
		s.Reset(&recorder{t: t, s: s, skip: func(string) bool { return true }}, Limits{Items: 1})
		_ = s.Feed([]byte(left))
		r := &recorder{t: t, s: s}
		s.Reset(r, Limits{})
		require.NoError(t, s.Feed([]byte(accepted[10])), left)
		require.NoError(t, s.End())
		want, err := scan(t, Limits{}, nil, []byte(accepted[10]))
		require.NoError(t, err)
		require.Equal(t, want, r.tokens, left)
	}
}

// everySplit asserts that one cut anywhere, and a cut everywhere, change nothing.
func everySplit(t testing.TB, lim Limits, doc []byte) {
	t.Helper()
	tokens, err := scan(t, lim, nil, doc)
	same := func(chunks ...[]byte) {
		t.Helper()
		got, gotErr := scan(t, lim, nil, chunks...)
		require.Equal(t, err, gotErr, "%q", chunks)
		require.Equal(t, tokens, got, "%q", chunks)
	}
	for i := 0; i <= len(doc); i++ {
		same(doc[:i], doc[i:])
	}
	same(singles(doc)...)
}

func singles(doc []byte) (chunks [][]byte) {
	for i := range doc {
		chunks = append(chunks, doc[i:i+1])
	}
	return chunks
}

// bare strips the offsets from a record and writes it as reference does.
func bare(tokens []string) (out []string) {
	for _, t := range tokens {
		_, t, _ = strings.Cut(t, " ")
		kind, arg, _ := strings.Cut(t, " ")
		switch kind {
		case "open":
			out = append(out, map[string]string{"true": "[", "false": "{"}[arg])
		case "close":
			out = append(out, map[string]string{"true": "]", "false": "}"}[arg])
		case "scalar":
			out = append(out, arg)
		default:
			var s string
			if err := json.Unmarshal(requote(arg), &s); err != nil {
				panic(err)
			}
			out = append(out, kind+" "+s)
		}
	}
	return out
}

// requote turns what %q wrote into a JSON string.
func requote(quoted string) []byte {
	var s string
	if _, err := fmt.Sscanf(quoted, "%q", &s); err != nil {
		panic(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return b
}

// reference reads the tokens of a valid document with encoding/json.
func reference(t testing.TB, doc []byte) (out []string) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	type level struct{ object, value bool }
	var stack []level
	for {
		token, err := d.Token()
		if err == io.EOF {
			return out
		}
		require.NoError(t, err)
		top := len(stack) - 1
		isKey := top >= 0 && stack[top].object && !stack[top].value
		if top >= 0 && stack[top].object {
			stack[top].value = isKey
		}
		switch v := token.(type) {
		case json.Delim:
			out = append(out, v.String())
			if v == '{' || v == '[' {
				stack = append(stack, level{object: v == '{'})
				continue
			}
			stack = stack[:top]
			if n := len(stack); n > 0 {
				stack[n-1].value = false
			}
		case string:
			if isKey {
				out = append(out, "key "+v)
			} else {
				out = append(out, "text "+v)
			}
		case json.Number:
			out = append(out, v.String())
		case bool:
			out = append(out, fmt.Sprint(v))
		case nil:
			out = append(out, "null")
		}
	}
}

// strict reports whether a document is valid by encoding/json and by the two rules that this package adds.
func strict(doc []byte) bool {
	return json.Valid(doc) && utf8.Valid(doc) && !loneSurrogate(doc)
}

// loneSurrogate looks for escapes of lone surrogates in a valid document, where a backslash always starts an escape.
func loneSurrogate(doc []byte) bool {
	unit := func(i int) (u uint64) {
		if i+6 > len(doc) || doc[i] != '\\' || doc[i+1] != 'u' {
			return 0
		}
		_, err := fmt.Sscanf(string(doc[i+2:i+6]), "%x", &u)
		if err != nil {
			panic(err)
		}
		return u
	}
	for i := 0; i < len(doc); i++ {
		if doc[i] != '\\' {
			continue
		}
		switch u := unit(i); {
		case u >= 0xd800 && u < 0xdc00:
			if low := unit(i + 6); low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 11
		case u >= 0xdc00 && u < 0xe000:
			return true
		default:
			i++
		}
	}
	return false
}

// differential holds a scan against encoding/json.
func differential(t testing.TB, doc []byte, chunks ...[]byte) {
	lim := Limits{Depth: MaxDepth, KeyBytes: MaxKeyBytes, ScalarBytes: MaxScalarBytes, Members: 1 << 30, Items: 1 << 30}
	tokens, err := scan(t, lim, nil, chunks...)
	if err != nil {
		code := err.(*Error).Code
		if code == Depth || code == KeyTooLong || code == ScalarTooLong {
			return // encoding/json does not have these limits
		}
	}
	if !strict(doc) {
		require.Error(t, err, "%q", doc)
		return
	}
	require.NoError(t, err, "%q", doc)
	require.Equal(t, reference(t, doc), bare(tokens), "%q", doc)
}

func FuzzScanner(f *testing.F) {
	for _, doc := range accepted {
		f.Add([]byte(doc), uint(len(doc)/2), uint(3))
	}
	for _, c := range refused {
		f.Add([]byte(c.doc), uint(c.offset), uint(1))
	}
	f.Fuzz(func(t *testing.T, doc []byte, at, second uint) {
		differential(t, doc, doc)
		i := int(at % uint(len(doc)+1))
		j := i + int(second%uint(len(doc)-i+1))
		want, wantErr := scan(t, Limits{}, nil, doc)
		for _, chunks := range [][][]byte{{doc[:i], doc[i:j], doc[j:]}, singles(doc)} {
			got, err := scan(t, Limits{}, nil, chunks...)
			require.Equal(t, wantErr, err)
			require.Equal(t, want, got)
		}
	})
}

// document draws a JSON text with every kind of token, and often a fault in it.
func document() *rapid.Generator[string] {
	space := rapid.SampledFrom([]string{"", "", "", " ", "\n", "\t ", "\r\n"})
	literal := rapid.SampledFrom([]string{"true", "false", "null", "0", "-1", "12.50", "1e9", "-0.1E-7", "31415926535897932384626"})
	fragment := rapid.SampledFrom([]string{
		"a", "model", "hello, world ", "0123456789abcdef0123456789abcdef0123456789", "é", "日本語", "😀",
		`\n`, `\"`, `\\`, `\/`, `\u0041`, `\u00e9`, `\u4f60`, `\ud83d\ude00`, "\u007f", `\t\t`,
	})
	str := rapid.Custom(func(t *rapid.T) string {
		return `"` + strings.Join(rapid.SliceOfN(fragment, 0, 8).Draw(t, "fragments"), "") + `"`
	})
	var value func(t *rapid.T, depth int) string
	value = func(t *rapid.T, depth int) string {
		kind := rapid.IntRange(0, 4).Draw(t, "kind")
		if depth == 0 {
			kind %= 2
		}
		sp := func() string { return space.Draw(t, "space") }
		switch kind {
		case 0:
			return literal.Draw(t, "literal")
		case 1:
			return str.Draw(t, "string")
		}
		var items []string
		for range rapid.IntRange(0, 4).Draw(t, "items") {
			item := sp() + value(t, depth-1) + sp()
			if kind > 2 {
				item = sp() + str.Draw(t, "name") + sp() + ":" + item
			}
			items = append(items, item)
		}
		if kind > 2 {
			return "{" + strings.Join(items, ",") + sp() + "}"
		}
		return "[" + strings.Join(items, ",") + sp() + "]"
	}
	return rapid.Custom(func(t *rapid.T) string { return value(t, 4) })
}

// cut draws a partition of doc.
func cut(t *rapid.T, doc []byte) (chunks [][]byte) {
	for len(doc) > 0 {
		n := rapid.IntRange(0, len(doc)).Draw(t, "cut")
		if rapid.Bool().Draw(t, "small") {
			n = min(n, 3)
		}
		chunks = append(chunks, doc[:n])
		doc = doc[n:]
	}
	return chunks
}

// Faulty documents differ from valid ones in one place: that is where parsers disagree.
func TestAgreesWithEncodingJSON(t *testing.T) {
	faults := rapid.SampledFrom([]string{
		"", ",", ":", `"`, `\`, "{", "}", "[", "]", "0", "1", "-", ".", "e", " ", "t", "\x00", "\n", "\x80",
		"\xc0", "\xe4", "\xed\xa0\x80", "\xf4\x90", `\u`, `\ud800`, `\udc00`, "é",
	})
	rapid.Check(t, func(rt *rapid.T) {
		doc := []byte(document().Draw(rt, "doc"))
		if rapid.Bool().Draw(rt, "faulty") {
			i := rapid.IntRange(0, len(doc)).Draw(rt, "at")
			j := min(len(doc), i+rapid.IntRange(0, 2).Draw(rt, "gone"))
			doc = append(append(bytes.Clone(doc[:i]), faults.Draw(rt, "fault")...), doc[j:]...)
		}
		chunks := cut(rt, doc)
		differential(t, doc, chunks...)

		lim := Limits{
			Depth:       rapid.IntRange(1, 5).Draw(rt, "depth"),
			KeyBytes:    rapid.IntRange(1, 20).Draw(rt, "key"),
			StringBytes: rapid.IntRange(1, 60).Draw(rt, "string"),
			ScalarBytes: rapid.IntRange(1, 9).Draw(rt, "scalar"),
			Members:     rapid.IntRange(1, 4).Draw(rt, "members"),
			Items:       rapid.IntRange(1, 4).Draw(rt, "items"),
		}
		want, wantErr := scan(t, lim, nil, doc)
		got, err := scan(t, lim, nil, chunks...)
		require.Equal(t, wantErr, err)
		require.Equal(t, want, got)
	})
}

// The fast path looks at words; a byte at any place within them must count the same.
func TestEveryByteAtEveryPlace(t *testing.T) {
	for c := range 256 {
		for at := range 70 {
			doc := []byte(`"` + strings.Repeat("a", 70) + `"`)
			doc[1+at] = byte(c)
			differential(t, doc, doc)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	docs := [][]byte{[]byte(accepted[10]), []byte(accepted[12]), []byte(accepted[15]), chat(4 << 10)}
	s := new(Scanner)
	h := new(counter)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for _, doc := range docs {
			for _, size := range []int{7, len(doc)} {
				if err := scanWith(s, h, doc, size); err != nil {
					panic(err)
				}
			}
		}
	}))
	require.NotZero(t, h.text)
}

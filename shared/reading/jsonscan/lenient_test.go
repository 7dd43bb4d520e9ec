package jsonscan

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// scanLenient is scan by a lenient scanner.
func scanLenient(t testing.TB, prepare func(*recorder), chunks ...[]byte) ([]string, error) {
	s := new(Scanner)
	r := &recorder{t: t, s: s}
	if prepare != nil {
		prepare(r)
	}
	s.ResetLenient(r)
	for _, c := range chunks {
		c = bytes.Clone(c)
		err := s.Feed(c)
		for i := range c {
			c[i] = 'X'
		}
		if err != nil {
			return r.tokens, err
		}
	}
	err := s.End()
	return r.tokens, err
}

// everyLenientSplit asserts that cuts anywhere (of long documents at many places) change nothing, and returns what is read.
func everyLenientSplit(t testing.TB, prepare func(*recorder), doc []byte) ([]string, error) {
	t.Helper()
	tokens, err := scanLenient(t, prepare, doc)
	step := 1 + len(doc)/500
	for i := 0; i < len(doc); i += step {
		got, gotErr := scanLenient(t, prepare, doc[:i], doc[i:])
		require.Equal(t, err, gotErr, "%q cut at %d", doc, i)
		require.Equal(t, tokens, got, "%q cut at %d", doc, i)
	}
	got, gotErr := scanLenient(t, prepare, singles(doc)...)
	require.Equal(t, err, gotErr, "%q", doc)
	require.Equal(t, tokens, got, "%q", doc)
	return tokens, err
}

func skipX(r *recorder) { r.skip = func(name string) bool { return name == "x" } }

// odd are values that stand in some server's answers and not in RFC 8259, or are beyond a limit.
var odd = []string{
	`"\ud83d"`, `"\ude00 \ud83d\ud83d\ude00"`, `"\ud83dx"`, `"\ud83d\n"`, `"\ud83d\u0041"`, `"\ud83d\\"`, `"\ud83d\""`, `"\u12"`, `"\x41\'"`, `"\u12g4"`,
	"\"\xff\xfe\"", "\"\xe4\"", "\"\xe4\xbd\"", "\"\xed\xa0\xbd\xed\xb8\x80\"", "\"\xf4\x90\x80\x80\"", "\"\x80\\\"\"", "\"a\x00b\tc\"", "\"\\\x01\"", "\"\\\xe4\xbd\xa0\"",
	`NaN`, `-Infinity`, `Infinity`, `nan`, `.5`, `+1`, `1.`, `-`, `1e`, `0x1F`, `undefined`, `None`, `True`, ` NaN `, `tru`, `1_000`,
	strings.Repeat("7", MaxScalarBytes+1), strings.Repeat("7", 3*MaxScalarBytes) + ".5e7",
	`[NaN,-Infinity,1.,[.5]]`, `{"a":NaN,"b":{"c":Infinity}}`, `{"` + strings.Repeat("n", 1100) + `":1}`,
	`{"\ud83d":1,"` + "\xff" + `":2}`, strings.Repeat("[", 300) + strings.Repeat("]", 300), strings.Repeat(`{"a":[`, 200) + `"]}"` + strings.Repeat("]}", 200),
	`[1,2,]`, `{"a":1,}`, `["]","}","\"]","\\"]`, `{"a":"[{\"\\\\\"\\"}`, "[1,//\n2]", "[\"a\nb\"]", `[]`, `{}`, `""`, `[[],{}]`,
}

// What is skipped may be anything with strings and brackets in order: what stands behind it is read.
func TestLenientSkip(t *testing.T) {
	for _, value := range append(odd, accepted...) {
		doc := []byte(`{"x":` + value + `,"x" : ` + value + ` ,"y":{"x":` + value + `},"z":1}`)
		tokens, err := everyLenientSplit(t, skipX, doc)
		require.NoError(t, err, "%q", doc)
		require.Equal(t, []string{"{", "key x", "key x", "key y", "{", "key x", "}", "key z", "1", "}"}, bare(tokens), "%q", doc)

		array := func(r *recorder) { r.open = func(array bool) bool { return array } }
		tokens, err = everyLenientSplit(t, array, []byte(`{"a":[`+value+`,`+value+`],"z":1}`))
		require.NoError(t, err, "%q", value)
		require.Equal(t, []string{"{", "key a", "[", "key z", "1", "}"}, bare(tokens), "%q", value)
	}
}

// What is reported is as near to what is written as can be, and what follows is right.
func TestLenientValues(t *testing.T) {
	const bad = "\ufffd"
	for value, want := range map[string]string{
		`"\ud83d"`:                      bad,
		`"a\ud83d"`:                     "a" + bad,
		`"\ude00b"`:                     bad + "b",
		`"\ud83d\ud83d\ude00"`:          bad + "😀",
		`"\ud83d\ude00\ude00"`:          "😀" + bad,
		`"\ud83d\u0041"`:                bad + "A",
		`"\ud83d\n"`:                    bad + "\n",
		`"\ud83d\""`:                    bad + `"`,
		`"\ud83dé"`:                     bad + "é",
		`"\ud83d\ud83d"`:                bad + bad,
		`"\u12x"`:                       bad + "x",
		`"\ud83d\u1"`:                   bad,
		`"\u12x\u0041"`:                 bad + "xA",
		`"\u12x\ude00"`:                 bad + "x" + bad,
		`"\ud83d\u1x\u0041"`:            bad + "xA",
		`"\ud83d\u1x\ude00"`:            bad + "x" + bad,
		`"\u12\ud83d\ude00"`:            bad + "😀",
		`"\q"`:                          bad + "q",
		"\"\xff\xfe\"":                  bad + bad,
		"\"\xe4\"":                      bad,
		"\"\xe4\xbd\"":                  bad,
		"\"\xe4\xbdx\xe4\xbd\xa0\"":     bad + "x你",
		"\"\xe4\\n\"":                   bad + "\n",
		"\"a\x00b\tc\"":                 "a\x00b\tc",
		`"` + strings.Repeat("b", 5000): strings.Repeat("b", 5000),
	} {
		if value[len(value)-1] != '"' || len(value) == 1 {
			value += `"`
		}
		tokens, err := everyLenientSplit(t, nil, []byte(`{"k":`+value+`,"z":1}`))
		require.NoError(t, err, "%q", value)
		require.Equal(t, []string{"{", "key k", "text " + want, "key z", "1", "}"}, bare(tokens), "%q", value)

		tokens, err = everyLenientSplit(t, nil, []byte(`{`+value+`:2,"z":1}`))
		require.NoError(t, err, "%q", value)
		require.Equal(t, []string{"{", "key " + want[:min(len(want), MaxKeyBytes)], "2", "key z", "1", "}"}, bare(tokens), "%q", value)
	}
	for _, value := range []string{`NaN`, `-Infinity`, `.5`, `1.`, `-`, `tru `, `nan`, strings.Repeat("7", MaxScalarBytes+1), `1e+}`[:3]} {
		tokens, err := everyLenientSplit(t, nil, []byte(`{"k":`+value+`,"l":[`+value+`,2],"m":{"n":`+value+`},"z":1}`))
		require.NoError(t, err, "%q", value)
		require.Equal(t, []string{"{", "key k", "key l", "[", "2", "]", "key m", "{", "key n", "}", "key z", "1", "}"}, bare(tokens), "%q", value)
	}
	deep := strings.Repeat("[", MaxDepth+5) + strings.Repeat("]", MaxDepth+5)
	tokens, err := everyLenientSplit(t, nil, []byte(`{"k":`+deep+`,"z":1}`))
	require.NoError(t, err)
	require.Len(t, tokens, 2+2*(MaxDepth-1)+3)
	require.Equal(t, []string{"key z", "1", "}"}, bare(tokens)[len(tokens)-3:])

	tokens, err = everyLenientSplit(t, nil, []byte("\xef\xbb\xbf{\"z\":1}"))
	require.NoError(t, err)
	require.Equal(t, []string{"{", "key z", "1", "}"}, bare(tokens))
}

// Where the structure of what is read is wrong nobody knows what stands where.
func TestLenientRefuses(t *testing.T) {
	for doc, want := range map[string]*Error{
		``:                       {Incomplete, 0},
		`upstream connect error`: {Syntax, 0},
		`NaN`:                    {Syntax, 0},
		`{"x":"\ud83d`:           {Incomplete, 12},
		`{"x":[{"y":1}`:          {Incomplete, 13},
		`{"x":{"y":"}`:           {Incomplete, 12},
		`{"x":NaN`:               {Incomplete, 8},
		`{"x":1,,"y":2}`:         {Syntax, 7},
		`{"x" 1}`:                {Syntax, 5},
		`{y:1}`:                  {Syntax, 1},
		"{\"y\":\"a\nb\"}":       {Syntax, 7},
		"{\"y\rz\":1}":           {Syntax, 3},
		`{"y":1]`:                {Syntax, 6},
		`{"y":1x}`:               {Syntax, 6},
		`{"x":1}}`:               {Trailing, 7},
	} {
		_, err := everyLenientSplit(t, skipX, []byte(doc))
		require.Equal(t, want, err, "%q", doc)
	}
	// The same scanner is strict again afterwards.
	s := new(Scanner)
	s.ResetLenient(&recorder{t: t, s: s})
	require.NoError(t, s.Feed([]byte(`{"x":"\ud83d`)))
	s.Reset(&recorder{t: t, s: s}, Limits{})
	require.Equal(t, &Error{Surrogate, 6}, s.Feed([]byte(`{"x":"\ud83d"}`)))
}

// atLeastStrict asserts that a lenient scanner reports all that a strict one does, and of what that accepts nothing else.
func atLeastStrict(t testing.TB, doc []byte, prepare func(*recorder), chunks ...[]byte) {
	want, wantErr := scan(t, Limits{}, prepare, doc)
	got, err := scanLenient(t, prepare, chunks...)
	if wantErr == nil {
		require.NoError(t, err, "%q", doc)
		require.Equal(t, want, got, "%q", doc)
		return
	}
	require.Equal(t, want, append([]string(nil), got[:min(len(got), len(want))]...), "%q", doc)
}

func TestLenientIsAtLeastStrict(t *testing.T) {
	faults := rapid.SampledFrom([]string{
		"", ",", ":", `"`, `\`, "{", "}", "[", "]", "0", "-", ".", "e", " ", "t", "\x00", "\n", "\x80", "\xe4", "\xed\xa0\x80", `\u`, `\ud800`, `\udc00`, "é", "NaN", "-Infinity",
	})
	rapid.Check(t, func(rt *rapid.T) {
		doc := []byte(document().Draw(rt, "doc"))
		if rapid.Bool().Draw(rt, "faulty") {
			i := rapid.IntRange(0, len(doc)).Draw(rt, "at")
			j := min(len(doc), i+rapid.IntRange(0, 2).Draw(rt, "gone"))
			doc = append(append(bytes.Clone(doc[:i]), faults.Draw(rt, "fault")...), doc[j:]...)
		}
		part := rapid.IntRange(0, 3).Draw(rt, "part")
		prepare := func(r *recorder) {
			r.skip = func(name string) bool { return len(name)%4 == part }
			r.open = func(array bool) bool { return array && part == 1 }
		}
		atLeastStrict(t, doc, prepare, cut(rt, doc)...)
	})
}

func FuzzLenient(f *testing.F) {
	for i, doc := range append(accepted, odd...) {
		f.Add([]byte(`{"x":`+doc+`,"z":`+doc+`}`), uint(len(doc)/2), uint8(i))
	}
	f.Fuzz(func(t *testing.T, doc []byte, at uint, skip uint8) {
		prepare := func(r *recorder) {
			r.skip = func(name string) bool { return len(name)%3 == int(skip%3) }
			r.open = func(array bool) bool { return array && skip%5 == 0 }
		}
		i := int(at % uint(len(doc)+1))
		atLeastStrict(t, doc, prepare, doc[:i], doc[i:])
		want, wantErr := scanLenient(t, prepare, doc)
		got, err := scanLenient(t, prepare, singles(doc)...)
		require.Equal(t, wantErr, err)
		require.Equal(t, want, got)
	})
}

func TestLenientAllocatesNothing(t *testing.T) {
	s, h := new(Scanner), new(counter)
	doc := []byte(`{"y":"\ud83d\xff ` + "\xff" + `","` + strings.Repeat("n", 1100) + `":NaN,"z":[[1,"\ud83d"]]}`)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for _, size := range []int{7, len(doc)} {
			s.ResetLenient(h)
			for i := 0; i < len(doc); i += size {
				if s.Feed(doc[i:min(i+size, len(doc))]) != nil {
					panic("refused")
				}
			}
			if s.End() != nil {
				panic("refused")
			}
		}
	}))
}

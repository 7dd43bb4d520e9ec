package llm

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// pythonReads answers lines "body edited-body", each in base64, with what json.loads makes of them: that is how the model
// servers behind (FastAPI on Starlette) read a body.
const pythonReads = `
import base64, json, sys

class Written(str):
    """A number as it is written."""

def field(v):
    if v is None:
        return "null"
    if isinstance(v, Written):
        return "scalar " + v
    if isinstance(v, bool):
        return "scalar " + json.dumps(v)
    if isinstance(v, str):
        return "text " + text(v)
    return "other"

def true(v):
    """Reads a boolean as pydantic does."""
    if isinstance(v, str):
        return v.lower() in ("true", "1", "yes", "on", "t", "y")
    return isinstance(v, (bool, int, float)) and v == 1

def text(s):
    return base64.b64encode(s.encode("utf-8", "surrogatepass")).decode()

for line in sys.stdin:
    body, _, edited = line.rstrip("\n").partition(" ")
    answer = {"valid": True}
    try:
        v = json.loads(base64.b64decode(body))
    except (ValueError, RecursionError) as e:
        answer = {"valid": False}
    else:
        if isinstance(v, dict):
            answer["has"] = "model" in v
            if isinstance(v.get("model"), str):
                answer["is_string"] = True
                answer["model"] = text(v["model"])
            answer["stream"] = true(v.get("stream"))
            w = json.loads(base64.b64decode(body), parse_int=Written, parse_float=Written, parse_constant=Written)
            answer["fields"] = {name: field(w[name]) for name in ("user", "x") if name in w}
            if edited:
                w = json.loads(base64.b64decode(edited))
                answer["edit"] = list(v) == list(w) and {**v, "model": w["model"]} == w and text(w["model"])
    print(json.dumps(answer), flush=True)
`

// python is a running interpreter.
type python struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func startPython(t testing.TB) *python {
	cmd := exec.Command("python3", "-c", pythonReads)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start(), "the tests need python3")
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
	})
	return &python{in: in, out: bufio.NewReader(out)}
}

// pythonReading is what one side makes of a body.
type pythonReading struct {
	Valid    bool   `json:"valid"`
	Has      bool   `json:"has"`
	IsString bool   `json:"is_string"`
	Model    string `json:"model"` // in base64
	Stream   bool   `json:"stream"`

	Fields map[string]string `json:"fields"` // kind and value of members that are read by name; texts in base64
	Edit   any               `json:"edit"`   // the model of the edited body, in base64, if all else is as it was
}

func (p *python) read(t require.TestingT, body, edited []byte) (r pythonReading) {
	_, err := fmt.Fprintf(p.in, "%s %s\n", base64.StdEncoding.EncodeToString(body), base64.StdEncoding.EncodeToString(edited))
	require.NoError(t, err)
	line, err := p.out.ReadBytes('\n')
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(line, &r), "%s", line)
	return r
}

// isObject reports whether a valid body is an object: only those have members.
func isObject(body []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) }

// newName is what the model becomes in an edited body.
const newName = "other/\"model\"\né"

// fieldReading is what Python says of a member that is read by name.
func fieldReading(f Field) string {
	switch f.Kind {
	case FieldNull:
		return "null"
	case FieldText:
		return "text " + base64.StdEncoding.EncodeToString(f.Value)
	case FieldScalar:
		return "scalar " + string(f.Value)
	}
	return "other"
}

// agree checks that a body is refused, or read as Python reads it: the model, whether to stream, the members that are read by name, and
// the body in which the model has another name. It reports whether the body was accepted.
func (p *python) agree(t require.TestingT, body []byte) (accepted bool) {
	var s RequestScanner
	s.Reset(Chat, Want{Fields: []string{"user", "x"}}, jsonscan.Limits{})
	if s.Feed(body) != nil || s.End() != nil || s.Request().Repeated != "" {
		return false
	}
	q := s.Request()
	want := pythonReading{Valid: true, Has: q.HasModel, IsString: q.ModelIsString, Stream: q.Stream}
	if isObject(body) {
		want.Fields = map[string]string{}
	}
	for _, name := range []string{"user", "x"} {
		f := q.Field(name)
		if f.Kind == FieldTooLong {
			return false // which is refused by who wants it
		}
		if f.Kind != FieldAbsent {
			want.Fields[name] = fieldReading(f)
		}
	}
	var edited []byte
	if q.ModelIsString {
		want.Model = base64.StdEncoding.EncodeToString([]byte(q.Model))
		want.Edit = base64.StdEncoding.EncodeToString([]byte(newName))
		edited = append(edited, body[:q.ModelSpan.Start]...)
		edited = AppendString(edited, newName)
		edited = append(edited, body[q.ModelSpan.End:]...)
	}
	require.Equal(t, want, p.read(t, body, edited), "%q", body)
	return true
}

// tricks are bodies that two parsers may well read differently.
var tricks = []string{
	`{"model":"a","model":"b"}`, `{"model":"a","mod\u0065l":"b"}`, `{"model":"a","MODEL":"b"}`, `{"model":"a","model\u0000":"b"}`,
	`{"model":"a\u0000b"}`, `{"model":"\ud83d\ude00"}`, `{"model":"\ud800"}`, `{"model":"\udc00\ud800"}`, "{\"model\":\"\xed\xa0\x80\"}",
	"{\"model\":\"\xc0\xaf\"}", "\xef\xbb\xbf{\"model\":\"a\"}", "{\x00\"\x00m\x00\"\x00", "{\"model\":\"a\tb\"}", "{\"model\":\"a\x7f\"}",
	`{"model":"a","n":NaN}`, `{"model":"a","n":-Infinity}`, `{"model":"a","n":1e999}`, `{"model":"a","n":-0}`, `{"model":"a","n":01}`, `{"model":"a","n":1.}`,
	`{"model":"a","n":` + strings.Repeat("9", 5000) + `}`, `{"model":"a","n":123456789012345678901234567890.5}`,
	`{"model":"a","x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`, `{"model":"a",}`, `{"model":"a"} x`, `{"model":"a"}{}`, `{'model':'a'}`,
	`{"model":"a","stream":1}`, `{"model":"a","stream":"true"}`, `{"stream":1.5}`, `{"stream":"1.0"}`, `{"stream":1e0}`, `{"model":"a","stream":True}`, `{"stream":true,"x":{"stream":false,"model":"b"},"model":"a"}`,
	`[{"model":"a"}]`, `"model"`, `null`, ``, ` `, `{"model":{"model":"a"}}`, `{"model":["a"]}`, "{\"model\":\"a\"}\x0c", "\u00a0{\"model\":\"a\"}", `{"":"","model":"a"}`,
	`{"__proto__":{"model":"b"},"model":"a"}`, "{\"model\":\"a\",\"x\":\"\u2028\u2029\"}", `{"model":"\/\b\f\n\r\t\"\\"}`, `{"model":"\x61"}`, `{"model":"\u00e9"}`, `{"model":"\uD83D"}`,
	`{"user":"a","us\u0065r":"b"}`, `{"model":"a","user":"\ud83d\ude00\u00e9","x":-1.50E+3}`, `{"user":null,"x":true}`, `{"user":["a"],"x":{"user":1}}`, `{"x":NaN}`,
	`{"user":"\udc00"}`, "{\"user\":\"\xff\"}", `{"user":"` + strings.Repeat("u", 300) + `"}`, `{"x":9007199254740993,"user":""}`, `{"USER":"a"}`,
	`{/* */"model":"a"}`, `{"model":"a"//` + "\n}", `{model:"a"}`, `{"model":"a";"stream":true}`, `{"model" "a"}`, `{"model":"a""stream":true}`,
}

func TestTricksAgainstPython(t *testing.T) {
	p := startPython(t)
	accepted := 0
	for _, body := range tricks {
		if p.agree(t, []byte(body)) {
			accepted++
		}
	}
	for _, c := range requests {
		if p.agree(t, []byte(c.body)) {
			accepted++
		}
	}
	require.Greater(t, accepted, len(requests)/2)
}

// Bodies are put together from pieces that matter, then damaged.
func TestBodiesAgainstPython(t *testing.T) {
	p := startPython(t)
	key := rapid.SampledFrom([]string{`"model"`, `"mod\u0065l"`, `"stream"`, `"x"`, `"messages"`, `"\u006dodel"`, `"user"`, `"us\u0065r"`, `"stream_options"`, `"Model"`, `"mo\del"`, `""`})
	scalar := rapid.SampledFrom([]string{
		`"a"`, `"\u0061\ud83d\ude00"`, `"é😀"`, `"\\\""`, `""`, `true`, `false`, `null`, `0`, `-1.5e+10`, `12345678901234567890`, `1E400`, `"\ud800"`, "\"\xff\"", `NaN`, `'a'`,
	})
	space := rapid.SampledFrom([]string{"", "", "", " ", "\n\t\r ", "\x0b"})
	var value func(depth int) *rapid.Generator[string]
	value = func(depth int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			kind := rapid.IntRange(0, 4).Draw(t, "kind")
			if depth == 0 && rapid.IntRange(0, 9).Draw(t, "object") > 0 {
				kind = 4
			}
			if depth == 3 || kind < 3 {
				return scalar.Draw(t, "scalar")
			}
			open, end := "[", "]"
			if kind == 4 {
				open, end = "{", "}"
			}
			s := open + space.Draw(t, "space")
			for i := range rapid.IntRange(0, 4).Draw(t, "items") {
				if i > 0 {
					s += "," + space.Draw(t, "space")
				}
				if kind == 4 {
					s += key.Draw(t, "key") + space.Draw(t, "space") + ":"
				}
				s += space.Draw(t, "space") + value(depth+1).Draw(t, "value")
			}
			return s + end
		})
	}
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		body := []byte(value(0).Draw(t, "body"))
		for range rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(t, "damages") {
			at := rapid.IntRange(0, len(body)-1).Draw(t, "at")
			body[at] = rapid.SampledFrom([]byte("\"\\{}[]:,ux0 \x00\x80\xc3e")).Draw(t, "byte")
		}
		if p.agree(t, body) {
			accepted++
		}
	})
	require.Positive(t, accepted)
}

func FuzzAgainstPython(f *testing.F) {
	for _, body := range tricks {
		f.Add([]byte(body))
	}
	for _, c := range requests {
		f.Add([]byte(c.body))
	}
	p := startPython(f)
	f.Fuzz(func(t *testing.T, body []byte) { p.agree(t, body) })
}

package formscan

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// part is what a handler was told.
type part struct {
	Name  string
	File  bool
	Data  string
	Start int64
	End   int64
	Done  bool
}

type collector struct {
	s     *Scanner
	parts []part
}

func (c *collector) Part(name []byte, file bool) {
	c.parts = append(c.parts, part{Name: string(name), File: file})
}

func (c *collector) Data(piece []byte) {
	if len(piece) == 0 {
		panic("an empty piece")
	}
	c.parts[len(c.parts)-1].Data += string(piece)
}

func (c *collector) PartEnd() {
	p := &c.parts[len(c.parts)-1]
	p.Start, p.End, p.Done = c.s.Start(), c.s.Offset(), true
}

// scan reads a form that arrives in these chunks.
func scan(boundary string, limit int, chunks ...[]byte) ([]part, error) {
	s := new(Scanner)
	c := &collector{s: s}
	s.Reset(c, boundary, limit)
	for _, chunk := range chunks {
		if err := s.Feed(bytes.Clone(chunk)); err != nil {
			return c.parts, err
		}
	}
	return c.parts, s.End()
}

// form writes lines with CR LF.
func form(lines ...string) string { return strings.Join(lines, "\r\n") }

const model = `Content-Disposition: form-data; name="model"`

var good = form("--b", model, "", "whisper",
	"--b", `content-disposition:form-data;filename="a;b=\c.wav" ; name=file`, "Content-Type: audio/wav", "", "RIFF\r\n--not\r\r\n-", "\r\n--", "",
	"--b", `Content-Disposition: form-data; name=""; filename=x; filename*=utf-8''x`, "", "", "--b--", "")

func TestParts(t *testing.T) {
	want := []part{
		{Name: "model", Data: "whisper", Done: true},
		{Name: "file", File: true, Data: "RIFF\r\n--not\r\r\n-\r\n\r\n--\r\n", Done: true},
		{Name: "", File: true, Done: true},
	}
	whole, err := scan("b", 0, []byte(good))
	require.NoError(t, err)
	for i := range want {
		want[i].Start, want[i].End = whole[i].Start, whole[i].End
		require.Equal(t, want[i].Data, good[whole[i].Start:whole[i].End])
	}
	require.Equal(t, want, whole)
	for i := range good {
		got, err := scan("b", 0, []byte(good[:i]), []byte(good[i:]))
		require.NoError(t, err)
		require.Equal(t, whole, got, "cut at %d", i)
	}
	var bytewise [][]byte
	for i := range good {
		bytewise = append(bytewise, []byte(good[i:i+1]))
	}
	got, err := scan("b", 0, bytewise...)
	require.NoError(t, err)
	require.Equal(t, whole, got)
}

func TestRefused(t *testing.T) {
	f := func(body string, code Code, offset int64) {
		t.Helper()
		for i := range len(body) + 1 {
			_, err := scan("b", 3, []byte(body[:i]), []byte(body[i:]))
			require.Equal(t, &Error{Code: code, Offset: offset}, err, "cut at %d", i)
		}
	}
	f("", Incomplete, 0)
	f("--b", Incomplete, 3)
	f("\n--b\r\n", Start, 0)
	f("\r--b\r\n", Start, 1)
	f("\r\r\n--b\r\n", Start, 1)
	f("\r\n\n--b\r\n", Start, 2)
	f("\r\n --b\r\n", Start, 2)
	f("\r\n-\r\n--b\r\n", Start, 3)
	f("\r\npreamble\r\n--b\r\n", Start, 2)
	f("\r\n--c\r\n--b\r\n", Start, 4)
	f("\r\n", Incomplete, 2)
	f("preamble\r\n--b\r\n", Start, 0)
	f("--c\r\n", Start, 2)
	f("--b \r\n", Delimiter, 3)
	f("--b\n", Delimiter, 3)
	f("--b-\r\n", Delimiter, 4)
	f("--b\r\r\n", Delimiter, 4)
	f("--b--x", Trailing, 5)
	f("--b--\r\n--b", Trailing, 7)
	f(form("--b", model, "", "x"), Incomplete, 54)
	f(form("--b", ""), Incomplete, 5)
	f(form("--b", "", "x", "--b--"), Disposition, 5)
	f(form("--b", model, "", "--b", model, "", "x", "--b--"), Delimiter, 55)
	head := func(lines ...string) string {
		return form(append(append([]string{"--b"}, lines...), "", "x", "--b--")...)
	}
	f(head("Content-Type: text/plain"), Disposition, 5)
	f(head(model, model), Disposition, 5)
	f(head(`Content-Disposition: form-data`), Disposition, 5)
	f(head(`Content-Disposition: attachment; name="model"`), Disposition, 5)
	f(head(`Content-Disposition: form-data; name="model"; name="x"`), Disposition, 5)
	f(head(`Content-Disposition: form-data; name="mo\del"`), Disposition, 5)
	for _, v := range []string{
		`name*=utf-8''model`, `name="x"; name*=utf-8''model`, `name="x"; name*0="model"`, `name="x"; filename*0="a"`, `name="x"; filename*0*=utf-8''a`,
		`name="model"; filename*=utf-8''a`, `filename*=utf-8''a; name="model"`, // a file for aiohttp, a text for Starlette
		`name="x"; filename="a"; filename="b"`, `name="/model"`, `name="\/model"`,
		`name="mo\"del"`, `name="mo\\del"`, `name="model\"`, `name="model\\"`, `name="a\"; name="model"`,
		`filename="a\"; name="model"`, `filename="a\\"; name="model"`, `filename="a\\\\"; name="model"`, `name="x"; filename="a\\"`, `name="x"; filename="a\"`,
		`name="x"; filename="a\\" b"`, `name="x"; filename="a\";b"`, `name="x"; filename="a;\"b"`, `filename="\"; name=\"model"; name="x"`,
		`name="x"; filename="a\"b" c`, `name="x"; filename="a"b"`, `name="x"; filename=a\"b`, `name="x"; filename=a b.wav`, `name="x"; filename='a b'`,
	} {
		f(head(`Content-Disposition: form-data; `+v), Disposition, 5)
	}
	f(head(`Content-Disposition: form-data; name="model" x`), Disposition, 5)
	f(head(`Content-Disposition: form-data; name="model`), Disposition, 5)
	f(head(`Content-Disposition: form-data; name=a b`), Disposition, 5)
	f(head(`Content-Disposition: form-data; name=`), Disposition, 5)
	f(head(`Content-Disposition: form-data; name="model";`, ` filename="x"`), Header, 5)
	f(head("no colon"), Header, 5)
	f(head("a b: c"), Header, 5)
	f(head("a: b\x00"), Header, 5)
	f(head("a: b\rc"), Header, 5)
	f(head("a: b\nc: d"), Header, 5)
	f(head(model, "Content-Transfer-Encoding: base64"), Header, 5)
	f(head(model, "x: "+strings.Repeat("y", MaxHeaderBytes)), HeadersTooLong, 5+MaxHeaderBytes)
	many := strings.Repeat(form("--b", model, "", "x", ""), 4)
	f(many, TooManyParts, int64(3*len(many)/4)+5)
}

func TestEncodingsThatChangeNothing(t *testing.T) {
	for _, encoding := range []string{"binary", "8bit", "7BIT"} {
		_, err := scan("b", 0, []byte(form("--b", model, "Content-Transfer-Encoding: "+encoding, "", "x", "--b--")))
		require.NoError(t, err, encoding)
	}
}

// What stands in a file's name changes nothing, as long as all parsers agree on where it ends.
func TestFileNames(t *testing.T) {
	for _, v := range []string{
		`name="file"; filename="say \"hi\".wav"`, `filename="say \"hi\".wav"; name="file"`, `name=file;filename="\""`, `name="file"; filename="\"\"\""`,
		`name="file"; filename="a\\\"b"`, `name="file"; filename="a\\b"`, `name="file"; filename="C:\dir\a.wav"`, `name="file"; filename="C:\\dir\\a.wav"`,
		`name="file"; filename="a\"b=c\"=d"`, `filename="x=\"y\""; size=3; name=file`, `name="file"; filename="say %22hi%22.wav"`, `name="file"; filename="a;b.wav"`,
		`name="file"; filename=a.wav`, `name="file"; filename=""`, `name="file"; filename="a.wav"; filename*=UTF-8''%C3%A4.wav`, `filename*=UTF-8''a; filename="a"; NAME=file`,
		`name="file"; filename="ä \"ö\".wav"`, `name="file"; FileName="a"; creation-date="Wed, 12 Feb 1997 16:29:51 -0500"`, `size="\"1\""; filename=x ; name="file" ;`,
	} {
		body := []byte(form("--b", "Content-Disposition: form-data; "+v, "", "x", "--b--"))
		for i := range body {
			parts, err := scan("b", 0, body[:i], body[i:])
			require.NoError(t, err, v)
			require.Len(t, parts, 1, v)
			require.Equal(t, "file", parts[0].Name, v)
			require.True(t, parts[0].File, v)
		}
	}
	for _, name := range []string{"file", "a b", "a/b", "%22", "ä", "a'b", "model[]", "x;y", ""} {
		parts, err := scan("b", 0, []byte(form("--b", `Content-Disposition: form-data; name="`+name+`"; x="\"y\""`, "", "x", "--b--")))
		require.NoError(t, err, name)
		require.Equal(t, name, parts[0].Name)
		require.False(t, parts[0].File)
	}
}

// Unity's writer begins with a line break, which is a preamble without content.
func TestLineBreaksBeforeTheFirstBoundary(t *testing.T) {
	want, err := scan("b", 0, []byte(good))
	require.NoError(t, err)
	for n := range 4 {
		body := []byte(strings.Repeat("\r\n", n) + good)
		for i := range 20 {
			got, err := scan("b", 0, body[:i], body[i:])
			require.NoError(t, err)
			require.Len(t, got, len(want))
			for k, p := range got {
				require.Equal(t, p.Data, string(body[p.Start:p.End]))
				p.Start, p.End = p.Start-int64(2*n), p.End-int64(2*n)
				require.Equal(t, want[k], p)
			}
		}
	}
}

func TestBoundary(t *testing.T) {
	long := strings.Repeat("b", MaxBoundary)
	for header, want := range map[string]string{
		"multipart/form-data; boundary=abc":                       "abc",
		`Multipart/Form-Data;BOUNDARY="a b=c"`:                    "a b=c",
		"multipart/form-data; charset=utf-8; boundary=--x":        "--x",
		"multipart/form-data; boundary=" + long + " ; charset=a;": long,
	} {
		got, form, ok := Boundary(header)
		require.True(t, form && ok, header)
		require.Equal(t, want, got, header)
	}
	for _, header := range []string{
		"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=a; boundary=a", "multipart/form-data; boundary=" + long + "b",
		`multipart/form-data; boundary="a "`, `multipart/form-data; boundary="a`, "multipart/form-data; boundary=a@b", "multipart/form-data; x", `multipart/form-data; boundary="a\"b"`,
		"multipart/form-data; boundary=a; boundary*=utf-8''b", "multipart/form-data; boundary*0=a; boundary=b", "multipart/form-data; boundary*=utf-8''b",
	} {
		_, form, ok := Boundary(header)
		require.True(t, form, header)
		require.False(t, ok, header)
	}
	for _, header := range []string{"", "application/json", "multipart/mixed; boundary=a", "multipart/form-datax; boundary=a"} {
		_, form, _ := Boundary(header)
		require.False(t, form, header)
	}
}

// What Go's writer writes is read as it was meant, and as Go's reader reads it, in whatever chunks it comes.
func TestAgainstGo(t *testing.T) {
	data := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 100), rapid.Custom(func(t *rapid.T) []byte {
		return []byte(strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"\r", "\n", "\r\n", "--", "-", "bo", "bound", "x"}), 0, 30).Draw(t, "pieces"), ""))
	})).Filter(func(b []byte) bool { // content that holds the boundary is not what was meant
		return !strings.Contains("\r\n"+string(b)+"\r\n", "\r\n--bound")
	})
	rapid.Check(t, func(t *rapid.T) {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		require.NoError(t, w.SetBoundary("bound"))
		var want []part
		for i := range rapid.IntRange(1, 4).Draw(t, "parts") {
			p := part{Name: fmt.Sprintf("field%d", i), File: rapid.Bool().Draw(t, "file"), Data: string(data.Draw(t, "data")), Done: true}
			var to io.Writer
			var err error
			if p.File {
				to, err = w.CreateFormFile(p.Name, rapid.SampledFrom([]string{"a.wav", `a "b" c.wav`, `a\b.wav`, `\"`, `"`, `c:\d\e "f"`}).Draw(t, "file name"))
			} else {
				to, err = w.CreateFormField(p.Name)
			}
			require.NoError(t, err)
			_, err = to.Write([]byte(p.Data))
			require.NoError(t, err)
			want = append(want, p)
		}
		require.NoError(t, w.Close())
		var chunks [][]byte
		for rest := body.Bytes(); len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 60)).Draw(t, "chunk")
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		got, err := scan("bound", 0, chunks...)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i := range got {
			require.Equal(t, want[i].Data, body.String()[got[i].Start:got[i].End])
			want[i].Start, want[i].End = got[i].Start, got[i].End
		}
		require.Equal(t, want, got)
	})
}

// Chunks make no difference, and what is accepted Go's reader reads in the same way.
func FuzzScanner(f *testing.F) {
	f.Add([]byte(good), uint(9))
	f.Add([]byte(form("--b", model, "", "x", "--b--")), uint(30))
	f.Fuzz(func(t *testing.T, body []byte, at uint) {
		whole, err := scan("b", 5, body)
		i := int(at % uint(len(body)+1))
		cut, cutErr := scan("b", 5, body[:i], body[i:])
		require.Equal(t, err, cutErr)
		if err != nil {
			return
		}
		require.Equal(t, whole, cut)
		r := multipart.NewReader(bytes.NewReader(body), "b")
		for _, p := range whole {
			g, err := r.NextRawPart()
			require.NoError(t, err)
			data, err := io.ReadAll(g)
			require.NoError(t, err)
			require.Equal(t, p.Data, string(data))
			require.Equal(t, p.Name, g.FormName())
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	s := new(Scanner)
	body := []byte(good)
	var h nothing
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s.Reset(h, "b", 0)
		if s.Feed(body[:50]) != nil || s.Feed(body[50:]) != nil || s.End() != nil {
			panic("refused")
		}
	}))
}

type nothing struct{}

func (nothing) Part([]byte, bool) {}
func (nothing) Data([]byte)       {}
func (nothing) PartEnd()          {}

func BenchmarkFile(b *testing.B) {
	file := make([]byte, 1<<20)
	for i := range file { // as noisy as audio
		file[i] = byte(i * i >> 7)
	}
	body := []byte(form("--b", `Content-Disposition: form-data; name="file"; filename="f"`, "", string(file), "--b--"))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	s := new(Scanner)
	for b.Loop() {
		s.Reset(nothing{}, "b", 0)
		if s.Feed(body) != nil || s.End() != nil {
			b.Fatal("refused")
		}
	}
}

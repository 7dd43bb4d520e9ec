package llm

import (
	"bytes"
	"io"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/formscan"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// form writes fields in order, as name and value in turn; the field "file" becomes a file.
func form(t testing.TB, fields ...string) []byte {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	require.NoError(t, w.SetBoundary("b"))
	for i := 0; i < len(fields); i += 2 {
		name, file := strings.CutPrefix(fields[i], "file:")
		create := w.CreateFormField
		if file {
			create = func(name string) (io.Writer, error) { return w.CreateFormFile(name, "a.wav") }
		}
		part, err := create(name)
		require.NoError(t, err)
		_, err = part.Write([]byte(fields[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return body.Bytes()
}

// readForm returns what a scanner makes of a form, the same for every cut.
func readForm(t testing.TB, api API, want Want, body []byte) (*Request, error) {
	r := new(RequestScanner)
	read := func(cut int) error {
		r.ResetForm(api, want, jsonscan.Limits{}, "b")
		if err := r.Feed(bytes.Clone(body[:cut])); err != nil {
			return err
		}
		if err := r.Feed(bytes.Clone(body[cut:])); err != nil {
			return err
		}
		return r.End()
	}
	err := read(0)
	whole := *r.Request()
	whole.Prompt = bytes.Clone(whole.Prompt)
	for cut := 1; cut < len(body); cut += 1 + len(body)/200 {
		require.Equal(t, err, read(cut), "cut at %d", cut)
		if err == nil {
			got := *r.Request()
			require.Equal(t, whole.Prompt, bytes.Clone(got.Prompt))
			got.Prompt = whole.Prompt
			require.Equal(t, whole, got, "cut at %d", cut)
		}
	}
	return &whole, err
}

func TestTranscription(t *testing.T) {
	audio := strings.Repeat("RIFF\r\n--\x00\xff", 100_000)
	body := form(t, "file:file", audio, "prompt", "Names: Zoë", "stream", "True", "stream_include_usage", "1", "max_completion_tokens", "12", "model", "whisper/large")
	q, err := readForm(t, Transcriptions, Want{Prompt: true}, body)
	require.NoError(t, err)
	require.True(t, q.Form && q.HasModel && q.ModelIsString && q.Stream && q.IncludeUsage)
	require.Equal(t, "whisper/large", q.Model)
	require.Equal(t, "whisper/large", string(body[q.ModelSpan.Start:q.ModelSpan.End]))
	require.Equal(t, "Names: Zoë", string(q.Prompt))
	require.Equal(t, 11, q.PromptBytes)
	require.Equal(t, 12, q.MaxTokens)
}

// With the prompt all text of a form is read but what is known to be a setting.
func TestFormText(t *testing.T) {
	body := form(t, "file:file", "sound", "hotwords", "Zoë", "user", "me", "prompt", "Names", "language", "en", "chat_template", "x")
	q, err := readForm(t, Transcriptions, Want{Prompt: true}, body)
	require.NoError(t, err)
	require.Equal(t, "Zoë\nNames\nen\nx", string(q.Prompt))
	_, err = readForm(t, Transcriptions, Want{Prompt: true}, form(t, "hotwords", "\xff"))
	require.Error(t, err, "what cannot be read must not pass as screened")
}

func TestForms(t *testing.T) {
	for name, c := range map[string]struct {
		fields   []string
		model    string
		isString bool
		repeated string
		code     formscan.Code
	}{
		"model first":         {fields: []string{"model", "m", "file:image", "x"}, model: "m", isString: true},
		"empty":               {fields: []string{"model", "", "file:image", "x"}, isString: true},
		"twice":               {fields: []string{"model", "a", "model", "b"}, model: "b", isString: true, repeated: "model"},
		"once as a file":      {fields: []string{"model", "a", "file:model", "b"}, repeated: "model"},
		"as a file":           {fields: []string{"file:model", "a"}},
		"other case":          {fields: []string{"Model", "a", "model ", "b", "model[]", "c"}},
		"too long":            {fields: []string{"model", strings.Repeat("m", MaxModelBytes+1)}, code: formscan.ContentTooLong},
		"not UTF-8":           {fields: []string{"model", "a\xff"}, code: formscan.ContentEncoding},
		"prompt not UTF-8":    {fields: []string{"prompt", "a\xff"}, code: formscan.ContentEncoding},
		"prompt too long":     {fields: []string{"prompt", strings.Repeat("m", maxFormText+1)}, code: formscan.ContentTooLong},
		"others are not read": {fields: []string{"language", "\xff", "file:x", strings.Repeat("\xff", maxFormText+1)}},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := readForm(t, ImageEdits, Want{}, form(t, c.fields...))
			if c.code != 0 {
				var refused *formscan.Error
				require.ErrorAs(t, err, &refused)
				require.Equal(t, c.code, refused.Code)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.model, q.Model)
			require.Equal(t, c.isString, q.ModelIsString)
			require.Equal(t, c.isString, q.ModelSpan.Present())
			require.Equal(t, c.repeated, q.Repeated)
		})
	}
}

// Without the prompt nothing else of a form is read, so that it may be anything: also where prompts are hashed, since no form has a prefix.
func TestFormsAreReadForTheirModel(t *testing.T) {
	for _, want := range []Want{{}, {PrefixBlocks: 4}} {
		for _, name := range []string{"tools", "functions", "chat_template", "documents", "prompt_token_ids", "prompt_embeds", "reasoning_effort", "hotwords", "user", "language"} {
			q, err := readForm(t, Transcriptions, want, form(t, name, "\xff", "model", "m"))
			require.NoError(t, err, name)
			require.Equal(t, "m", q.Model)
		}
	}
}

func TestTruth(t *testing.T) {
	for _, s := range []string{"true", "TRUE", "1", "on", "Yes", "t", "y"} {
		require.True(t, truth([]byte(s)), s)
	}
	for _, s := range []string{"", "false", "0", "off", "truey", "2"} {
		require.False(t, truth([]byte(s)), s)
	}
}

// A form leaves no trace in a JSON request, nor the other way round.
func TestResetBetweenForms(t *testing.T) {
	r := new(RequestScanner)
	body := form(t, "model", "a", "stream", "true")
	for range 3 {
		r.ResetForm(Transcriptions, Want{}, jsonscan.Limits{}, "b")
		require.NoError(t, r.Feed(body))
		require.NoError(t, r.End())
		require.True(t, r.Request().Form && r.Request().Stream)
		r.Reset(Chat, Want{}, jsonscan.Limits{})
		require.NoError(t, r.Feed([]byte(`{"model":"b"}`)))
		require.NoError(t, r.End())
		require.False(t, r.Request().Form || r.Request().Stream)
		require.Equal(t, "b", r.Request().Model)
	}
}

func TestFields(t *testing.T) {
	want := Want{Fields: []string{"user", "model", "n", "flag", "messages", "gone", "nothing", "long"}}
	long := strings.Repeat("x", MaxFieldBytes+1)
	body := []byte(`{"flag":true,"user":"al\u0069ce","messages":[{"content":"x"}],"n":-1.50e3,"model":"m","nothing":null,"long":"` + long + `","x":{"user":"no"}}`)
	expected := map[string]Field{
		"user": {FieldText, []byte("alice")}, "model": {FieldText, []byte("m")}, "n": {FieldScalar, []byte("-1.50e3")},
		"flag": {FieldScalar, []byte("true")}, "messages": {FieldOther, nil}, "gone": {FieldAbsent, nil}, "nothing": {FieldNull, nil},
		"long": {FieldTooLong, nil}, "not asked for": {},
	}
	r := new(RequestScanner)
	for cut := range body {
		r.Reset(Chat, want, jsonscan.Limits{})
		require.NoError(t, r.Feed(body[:cut]))
		require.NoError(t, r.Feed(body[cut:]))
		require.NoError(t, r.End())
		for name, f := range expected {
			got := r.Request().Field(name)
			require.Equal(t, f.Kind, got.Kind, name)
			require.Equal(t, string(f.Value), string(got.Value), name)
		}
		require.Empty(t, r.Request().Repeated)
	}
	r.Reset(Chat, want, jsonscan.Limits{})
	require.NoError(t, r.Feed([]byte(`{"user":"a","user":"b"}`)))
	require.Equal(t, "user", r.Request().Repeated)
	require.Equal(t, "b", string(r.Request().Field("user").Value))

	r.ResetForm(Transcriptions, want, jsonscan.Limits{}, "b")
	require.NoError(t, r.Feed(form(t, "user", "bob", "file:n", "x", "flag", "", "long", long)))
	require.Equal(t, Field{FieldText, []byte("bob")}, r.Request().Field("user"))
	require.Equal(t, FieldOther, r.Request().Field("n").Kind)
	require.Equal(t, FieldText, r.Request().Field("flag").Kind)
	require.Equal(t, FieldTooLong, r.Request().Field("long").Kind)

	require.Zero(t, testing.AllocsPerRun(100, func() {
		r.Reset(Chat, want, jsonscan.Limits{})
		if r.Feed(body) != nil || r.End() != nil {
			panic("refused")
		}
	}))
}

func TestWithin(t *testing.T) {
	for body, want := range map[string]string{
		`{"a":1,"messages":[{"content":"x\ud800"}]}`: "messages",
		`{"a":1,"b":[[[[[[`:                          "b",
		`{"a":1,"b":"0123456789"}`:                   "b",
		`{"a":1,}`:                                   "",
		`{"a":1}x`:                                   "",
		`x`:                                          "",
		`{"` + strings.Repeat("k", 100) + `":"0123456789"}`: strings.Repeat("k", maxName),
	} {
		r := new(RequestScanner)
		r.Reset(Chat, Want{}, jsonscan.Limits{Depth: 5, StringBytes: 9})
		err := r.Feed([]byte(body))
		require.Error(t, err, body)
		require.Equal(t, want, r.Within(), body)
	}
	r := new(RequestScanner)
	r.Reset(Chat, Want{}, jsonscan.Limits{})
	require.Error(t, r.Feed([]byte(`{"model":"`+strings.Repeat("m", MaxModelBytes+1)+`"}`)))
	require.Equal(t, "model", r.Within())
}

func BenchmarkTranscription(b *testing.B) {
	body := form(b, "file:file", strings.Repeat("0123456789\r\n", 100_000), "model", "whisper")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	r := new(RequestScanner)
	for b.Loop() {
		r.ResetForm(Transcriptions, Want{}, jsonscan.Limits{}, "b")
		if r.Feed(body) != nil || r.End() != nil || r.Request().Model != "whisper" {
			b.Fatal("not read")
		}
	}
}

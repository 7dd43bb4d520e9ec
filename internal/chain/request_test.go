package chain_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// encode writes text in a content coding.
func encode(t testing.TB, coding, text string) string {
	var out bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "br":
		w = brotli.NewWriter(&out)
	case "zstd":
		var err error
		w, err = zstd.NewWriter(&out)
		require.NoError(t, err)
	}
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.String()
}

func TestEncodedBodiesGoOnDecoded(t *testing.T) {
	for _, coding := range []string{"gzip", "br", "zstd"} {
		for _, edited := range []bool{false, true} {
			t.Run(fmt.Sprint(coding, " edited=", edited), func(t *testing.T) {
				r := newRig(t, "")
				r.a.request = func(x *filter.Exchange) filter.Verdict {
					require.Equal(t, "m", x.Request.Model)
					if edited {
						x.ReplaceInBody(x.Request.ModelSpan, []byte(`"other"`))
						x.ReplaceInBody(llm.Span{Start: 1, End: 1}, []byte(` `))
					}
					return filter.Next
				}
				wire := encode(t, coding, body)
				want := body
				if edited {
					want = `{ "model":"other","messages":[]}`
				}
				for cut := range wire {
					h := post("content-length", fmt.Sprint(len(wire)), "content-encoding", coding)
					s := r.chain.NewStream()
					s.Begin(h)
					require.Equal(t, chain.Hold, s.RequestHeaders(false))
					require.Equal(t, chain.Hold, s.RequestBody([]byte(wire[:cut]), false))
					require.Equal(t, chain.Continue, s.RequestBody([]byte(wire[cut:]), true))
					require.Equal(t, []string{
						"-content-encoding", fmt.Sprintf("content-length=%d", len(want)), fmt.Sprintf("body[0:%d]=%s", len(wire), want),
					}, h.log)
				}
			})
		}
	}
}

func TestEncodedBodiesThatNobodyReadsStayAsTheyAre(t *testing.T) {
	r := newRig(t, "filters: [b: {}]")
	h := post("content-encoding", "compress")
	s := r.chain.NewStream()
	s.Begin(h)
	require.Equal(t, chain.Continue, s.RequestHeaders(false))
	require.Empty(t, h.log)
}

func TestOneStreamTakesEncodedAndPlainBodies(t *testing.T) {
	r := newRig(t, "")
	s := r.chain.NewStream()
	large := `{"model":"m","x":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, text := range []string{body, large, body} {
		for _, coding := range []string{"gzip", "", "br"} {
			h, wire := post(), text
			if coding != "" {
				h, wire = post("content-encoding", coding), encode(t, coding, text)
			}
			s.Begin(h)
			s.RequestHeaders(false)
			require.Equal(t, chain.Continue, s.RequestBody([]byte(wire), true))
			if coding == "" {
				require.Empty(t, h.log)
			} else {
				require.True(t, strings.HasSuffix(h.log[1], "="+text))
			}
			s.Done()
		}
	}
}

const boundary = "multipart/form-data; boundary=b"

// upload is a form whose model comes last.
func upload(model string) string {
	return "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n\xff--\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + model + "\r\n--b--\r\n"
}

func TestForms(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(x *filter.Exchange) filter.Verdict {
		require.True(t, x.Request.Form)
		require.Equal(t, "whisper", x.Request.Model)
		x.ReplaceInBody(x.Request.ModelSpan, []byte("w2"))
		return filter.Next
	}
	form := upload("whisper")
	at := strings.Index(form, "whisper")
	h := post(":path", "/v1/audio/transcriptions", "content-type", boundary, "content-length", fmt.Sprint(len(form)))
	_, act := r.send(h, form)
	require.Equal(t, chain.Continue, act)
	require.Equal(t, []string{fmt.Sprintf("content-length=%d", len(form)-5), fmt.Sprintf("body[%d:%d]=w2", at, at+7)}, h.log)

	wire := encode(t, "gzip", form)
	h = post(":path", "/v1/images/edits", "content-type", boundary, "content-encoding", "gzip")
	_, act = r.send(h, wire)
	require.Equal(t, chain.Continue, act)
	require.Equal(t, []string{"-content-encoding", fmt.Sprintf("body[0:%d]=%s", len(wire), upload("w2"))}, h.log)
}

func TestRefusedBodies(t *testing.T) {
	audio := func(contentType string) *host {
		return post(":path", "/v1/audio/transcriptions", "content-type", contentType)
	}
	deep := `{"a":1,"tools":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + `}`
	for _, c := range []struct {
		name, options string
		host          *host
		body          string
		status        int
		reason        string
		text          string
	}{
		{"not gzip", "", post("content-encoding", "gzip"), body, 400, "invalid_content_encoding", ""},
		{"cut gzip", "", post("content-encoding", "gzip"), encode(t, "gzip", body)[:20], 400, "invalid_content_encoding", ""},
		{"bad JSON in gzip", "", post("content-encoding", "gzip"), encode(t, "gzip", "{"), 400, "invalid_json", ""},
		{"a fault in gzip", "", post("content-encoding", "gzip"), encode(t, "gzip", `{"model":"m",]`), 400, "invalid_json", ""},
		{"half a JSON in gzip", "", post("content-encoding", "gzip"), encode(t, "gzip", `{"model":"m"`), 400, "invalid_json", ""},
		{"a bomb", "limits: {body: 64KiB}", post("content-encoding", "zstd"), encode(t, "zstd", `"`+strings.Repeat("0", 1<<20)+`"`), 413, "request_too_large", ""},
		{"two codings", "", post("content-encoding", "gzip, br"), body, 415, "unsupported_content_encoding", "gzip, br, zstd"},
		{"a form without boundary", "", audio("multipart/form-data"), upload("m"), 400, "invalid_multipart", ""},
		{"a cut form", "", audio(boundary), upload("m")[:100], 400, "invalid_multipart", "unexpected end at byte 100"},
		{"model twice in a form", "", audio(boundary), strings.TrimSuffix(upload("m"), "--b--\r\n") + upload("n"), 400, "duplicate_key", `model`},
		{"a model that is not UTF-8", "", audio(boundary), upload("\xff"), 400, "invalid_multipart", `"param":"model"`},
		{"a form of another kind", "", audio("application/x-www-form-urlencoded"), "model=m", 415, "unsupported_media_type", ""},
		{"JSON that is said to be a form", "", audio(boundary), body, 400, "invalid_multipart", ""},
		{"a form that is said to be JSON", "", audio("application/json"), upload("m"), 400, "invalid_json", ""},
		{"too deep", "limits: {depth: 9}", post(), deep, 400, "limit_exceeded", `limits.depth of this gateway: too many nested containers at byte 23, in \"tools\"`},
		{"key too long", "limits: {keyLength: 9}", post(), `{"a":{"0123456789":1}}`, 400, "limit_exceeded", `limits.keyLength of this gateway: member name too long at byte 6, in \"a\"`},
		{"string too long", "limits: {stringLength: 9}", post(), `{"a":"0123456789"}`, 400, "limit_exceeded", `limits.stringLength`},
		{"too many members", "limits: {members: 2}", post(), `{"a":1,"b":2,"c":3}`, 400, "limit_exceeded", `limits.members`},
		{"too many items", "limits: {items: 2}", post(), `{"a":[1,2,3]}`, 400, "limit_exceeded", `"param":"a"`},
		{"model too long", "", post(), `{"model":"` + strings.Repeat("m", 2000) + `"}`, 400, "invalid_json", `string too long at byte 9, in \"model\"`},
		{"Anthropic's form", "", post(":path", "/v1/messages/count_tokens"), `{`, 400, "invalid_json", `{"type":"error","error":{"type":"invalid_request_error"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.options)
			s, act := r.send(c.host, c.body)
			require.Equal(t, chain.Replied, act)
			require.Equal(t, c.status, c.host.reply.Status, string(c.host.reply.Body))
			require.Contains(t, c.host.reply.Headers, [2]string{filter.ReasonHeader, c.reason})
			require.Contains(t, string(c.host.reply.Body), c.text)
			require.Empty(t, c.host.log)
			s.Done()
			require.NotContains(t, r.trace, "a.request")
			if c.status == 415 && c.reason == "unsupported_content_encoding" {
				require.Contains(t, c.host.reply.Headers, [2]string{"accept-encoding", "gzip, br, zstd"})
			}
		})
	}
}

func TestBodiesWithinTheLimits(t *testing.T) {
	r := newRig(t, "limits: {depth: 3, keyLength: 5, stringLength: 4, members: 2, items: 2}")
	h := post()
	_, act := r.send(h, `{"model":"0123","a":[[1,2],"é\n"]}`)
	require.Equal(t, chain.Continue, act)
}

func TestPathPrefix(t *testing.T) {
	r := newRig(t, "filters: [a: {}, guard: {}]\npathPrefix: [/team-a/, /b]")
	for path, status := range map[string]int{
		"/team-a/v1/chat/completions": 0, "/b/v1/completions?x": 0, "/v1/chat/completions": 0,
		"/team-b/v1/chat/completions": 404, "/x/b/v1/completions": 404,
	} {
		h := post(":path", path)
		r.send(h, body)
		if status == 0 {
			require.Nil(t, h.reply, path)
		} else {
			require.Equal(t, status, h.reply.Status, path)
		}
	}
}

func TestRespond(t *testing.T) {
	answer := &filter.Answer{Status: 200, Headers: [][2]string{{"content-type", "text/plain"}}, Body: []byte("hi")}
	respond := func(*filter.Exchange) filter.Verdict { return filter.Respond(answer) }
	for name, script := range map[string]func(r *rig){
		"headers": func(r *rig) { r.a.headers = respond },
		"request": func(r *rig) { r.a.request = respond },
		"reply": func(r *rig) {
			r.a.request = func(*filter.Exchange) filter.Verdict {
				return filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second})
			}
			r.a.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict { return respond(x) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "")
			script(r)
			var end filter.End
			r.a.done = func(_ *filter.Exchange, e filter.End) { end = e }
			h := post()
			s, act := r.send(h, body)
			if name == "reply" {
				require.Equal(t, chain.Hold, act)
				s.Reply(h.last, &filter.Reply{Status: 200})
				require.Zero(t, h.resumed)
			} else {
				require.Equal(t, chain.Replied, act)
			}
			require.Equal(t, &chain.LocalReply{Status: 200, Headers: answer.Headers, Body: answer.Body, Detail: "inlet_answered"}, h.reply)
			require.Equal(t, chain.Replied, s.RequestBody([]byte("more"), true))
			require.False(t, s.WantsRequestBody())
			s.ResponseHeaders(false)
			s.ResponseBody([]byte("hi"), true)
			s.Done()
			require.NotContains(t, strings.Join(r.trace, " "), "b.request")
			require.NotContains(t, strings.Join(r.trace, " "), "response")
			require.EqualValues(t, 1, r.metrics["inlet_request_total/,,answered"])
			require.True(t, end.Answered)
			require.False(t, end.Refused)
			require.Equal(t, 200, end.Status)
		})
	}
}

// reader is a filter that reads members by name.
type reader struct {
	filter.Base
	fields []string
	seen   []string
}

func (r *reader) Needs() filter.Needs { return filter.NeedRequest }
func (r *reader) Fields() []string    { return r.fields }
func (r *reader) OnRequest(x *filter.Exchange) filter.Verdict {
	for _, name := range r.fields {
		r.seen = append(r.seen, fmt.Sprintf("%s=%s", name, x.Request.Field(name).Value))
	}
	return filter.Next
}

func TestFieldsOfTheBody(t *testing.T) {
	one, two := &reader{fields: []string{"user", "seed"}}, &reader{fields: []string{"user", "tier"}}
	known := []filter.Factory{
		{Name: "one", FailureMode: filter.FailClosed, New: func(*conf.Object, *filter.Deps) filter.Filter { return one }},
		{Name: "two", FailureMode: filter.FailClosed, New: func(*conf.Object, *filter.Deps) filter.Filter { return two }},
	}
	r := newRig(t, "")
	deps := r.chain.Deps()
	doc := []byte("filters: [one: {}, two: {}]")
	c, err := chain.New(doc, known, deps)
	require.NoError(t, err)
	s := c.NewStream()
	s.Begin(post())
	s.RequestHeaders(false)
	require.Equal(t, chain.Continue, s.RequestBody([]byte(`{"model":"m","user":"u","tier":"t","seed":7}`), true))
	require.Equal(t, []string{"user=u", "seed=7"}, one.seen)
	require.Equal(t, []string{"user=u", "tier=t"}, two.seen)

	h := post()
	s.Begin(h)
	s.RequestHeaders(false)
	require.Equal(t, chain.Replied, s.RequestBody([]byte(`{"user":"u","us\u0065r":"v"}`), true))
	require.Contains(t, string(h.reply.Body), "duplicate_key")

	two.fields = []string{"1", "2", "3", "4", "5", "6", "7"}
	_, err = chain.New(doc, known, deps)
	require.EqualError(t, err, `filters: 1:10: read 9 members of the body by name; at most 8 can be`)

	two.fields = append([]string{"1", "2", "3", "4", "5", "6"}, llm.Partitions[:]...) // which do not count
	c, err = chain.New(doc, known, deps)
	require.NoError(t, err)
	one.seen, two.seen = nil, nil
	s = c.NewStream()
	s.Begin(post())
	s.RequestHeaders(false)
	require.Equal(t, chain.Continue, s.RequestBody([]byte(`{"model":"m","user":"u","seed":7,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"lora_path":"l","cache_salt":"s","extra_key":"e"}`), true))
	require.Equal(t, []string{"1=1", "2=2", "3=3", "4=4", "5=5", "6=6", "cache_salt=s", "extra_key=e", "lora_path=l"}, two.seen)
}

// A stream that waits to be used again keeps no large body, neither its own nor by an edit.
func TestDoneForgetsBodies(t *testing.T) {
	r := newRig(t, "")
	r.a.request = func(x *filter.Exchange) filter.Verdict { return filter.Next }
	text := `{"model":"m","messages":[],"x":"` + strings.Repeat("0123456789", 100<<10) + `"}`
	wire := encode(t, "gzip", text)
	s := r.chain.NewStream()
	uploaded(s, post("content-encoding", "gzip", "content-length", fmt.Sprint(len(wire))), []string{wire})
	require.Greater(t, s.Kept(), len(text))
	s.Done()
	require.Less(t, s.Kept(), len(text)/4)
}

// ... and none of the headers, which adapters have in memory of their own.
func TestDoneForgetsHeaders(t *testing.T) {
	r := withNeeds(t, filter.NeedRequest|filter.NeedSubset)
	var x *filter.Exchange
	r.a.request = func(its *filter.Exchange) filter.Verdict {
		x = its
		x.SetRequestHeader("x-a", x.Path)
		return filter.Next
	}
	hint := "10.0.0.1:80"
	h := post()
	h.subset = &hint
	s, _ := r.send(h, body)
	edits, subset := x.Effects().Request, x.Subset.Addresses
	require.NotEmpty(t, subset)
	s.Done()
	require.Empty(t, x.Path)
	require.Empty(t, subset[0])
	require.Equal(t, filter.HeaderEdit{}, edits[0])
}

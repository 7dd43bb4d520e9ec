package llm

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// withStrings reads a body in pieces of a size.
func withStrings(t testing.TB, scan *RequestScanner, api API, body string, size int) *Request {
	scan.Reset(api, Want{Prompt: true, Strings: true}, jsonscan.Limits{})
	for at := 0; at < len(body); at += size {
		require.NoError(t, scan.Feed([]byte(body[at:min(len(body), at+size)])))
	}
	require.NoError(t, scan.End())
	return scan.Request()
}

var spansBodies = []struct {
	api  API
	body string
}{
	{Chat, `{"messages":[{"role":"system","content":"plain"},{"role":"user","content":"a\n\"b\" \u00e9\ud83d\ude00 é😀 \\\/ end","name":"jane"}]}`},
	{Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"jane@exam"},{"type":"image_url","image_url":{"url":"data:,x"}},{"type":"text","text":"ple.com\t"}]}]}`},
	{Chat, `{"messages":[{"role":"r\u006fle of nobody that has many characters","content":""},{"role":"w\u0065ird","content":"x"}],"tools":[{"function":{"name":"f","description":"\u0041\u0042\u0043 d\n\n"}}]}`},
	{Chat, `{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":\"b\\n\\u0041\"}"}}]},{"role":"tool","content":"after"}]}`},
	{Chat, `{"messages":[{"role":"user","content":"` + strings.Repeat(`line with \"quotes\"\n and \u20ac `, 120) + `"}]}`},
	{Messages, `{"system":"s","messages":[{"role":"user","content":[{"type":"document","source":{"data":"QUJD\nQQ","type":"base64","media_type":"a/b"}},{"type":"text","text":"after\n it"}]}]}`},
	{Messages, `{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"hm\n","signature":"c2ln"},{"type":"text","text":"so"},{"type":"thinking","thinking":"h2","signature":""}]}]}`},
	{Completions, `{"prompt":["one","t\u0077o"],"suffix":"three"}`},
	{Responses, `{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"hi\u0021"}]}],"instructions":"be\tgood"}`},
}

// TestSource: what stands in the body where Source says is what stands in Prompt, however the body is cut.
func TestSource(t *testing.T) {
	var scan RequestScanner
	for _, c := range spansBodies {
		for _, size := range []int{1, 2, 3, 7, 64, 1 << 20} {
			r := withStrings(t, &scan, c.api, c.body, size)
			require.NotEmpty(t, r.Strings)
			for _, s := range r.Strings {
				text := string(r.Prompt[s.From:s.To])
				require.Equal(t, text, unquoted(t, c.body, r.Source(s.From, s.To)))
				for from := range text {
					for _, n := range []int{1, 2, 5} {
						to := from
						for range n {
							_, size := utf8.DecodeRuneInString(text[to:])
							to += size
						}
						got := unquoted(t, c.body, r.Source(s.From+from, s.From+to))
						if !strings.Contains(c.body, `r\u006fle`) {
							require.Equal(t, text[from:to], got)
						} else {
							require.Contains(t, got, text[from:to], "a word of the protocol may be taken whole")
						}
					}
				}
			}
		}
	}
}

func unquoted(t *testing.T, body string, span Span) (text string) {
	require.NoError(t, json.Unmarshal([]byte(`"`+body[span.Start:span.End]+`"`), &text), body[span.Start:span.End])
	return text
}

func TestStrings(t *testing.T) {
	var scan RequestScanner
	list := func(i int) (all []string, r *Request) {
		r = withStrings(t, &scan, spansBodies[i].api, spansBodies[i].body, 5)
		for _, s := range r.Strings {
			all = append(all, string(r.Prompt[s.From:s.To]))
		}
		return all, r
	}
	all, r := list(1)
	require.Equal(t, []string{"jane@exam", "ple.com\t"}, all)
	require.NotZero(t, r.Strings[0].Parts)
	require.Equal(t, r.Strings[0].Parts, r.Strings[1].Parts)

	all, r = list(3)
	require.Equal(t, []string{"f", `{"a":"b\n\u0041"}`, "after"}, all, "what is unpacked stands nowhere in the body")
	require.Equal(t, []bool{false, true, false}, []bool{r.Strings[0].Arguments, r.Strings[1].Arguments, r.Strings[2].Arguments})

	all, _ = list(5)
	require.Equal(t, []string{"s", "after\n it"}, all, "an image is no text")

	all, r = list(6)
	require.Equal(t, []string{"hm\n", "so", "h2"}, all)
	require.Equal(t, []bool{true, false, false}, []bool{r.Strings[0].Signed, r.Strings[1].Signed, r.Strings[2].Signed})
}

// TestStringsOfForm: the fields of a form stand bare in it.
func TestStringsOfForm(t *testing.T) {
	var scan RequestScanner
	body := "--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nmail jane@example.com\r\n--b--\r\n"
	scan.ResetForm(Transcriptions, Want{Prompt: true, Strings: true}, jsonscan.Limits{}, "b")
	require.NoError(t, scan.Feed([]byte(body)))
	require.NoError(t, scan.End())
	r := scan.Request()
	require.Len(t, r.Strings, 1)
	span := r.Source(r.Strings[0].From+5, r.Strings[0].To)
	require.Equal(t, "jane@example.com", body[span.Start:span.End])
}

// TestStringsCostNothingElse: without Want.Strings nothing is noted, and with it nothing is allocated twice.
func TestStringsCostNothingElse(t *testing.T) {
	var scan RequestScanner
	body := []byte(spansBodies[4].body)
	read := func(want Want) func() {
		return func() {
			scan.Reset(Chat, want, jsonscan.Limits{})
			if scan.Feed(body) != nil || scan.End() != nil {
				t.Fatal("refused")
			}
		}
	}
	require.Zero(t, testing.AllocsPerRun(10, read(Want{Prompt: true, Strings: true})))
	require.NotEmpty(t, scan.Request().Strings)
	require.Zero(t, testing.AllocsPerRun(10, read(Want{Prompt: true})))
	require.Empty(t, scan.Request().Strings)
}

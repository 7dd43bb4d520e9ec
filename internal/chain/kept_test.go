package chain_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

func event(data string) string { return "data: " + data + "\n\n" }

func content(text string) string {
	return event(`{"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}`)
}

// What is kept of a text stays, whatever comes before the text goes on.
func TestKeptTextWaitsForItsOwnText(t *testing.T) {
	const responses, messages, chat = "/v1/responses", "/v1/messages", "/v1/chat/completions"
	call := func(index, text string) string {
		return event(`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":` + index + `,"function":{"arguments":"` + text + `"}}]}}]}`)
	}
	for name, c := range map[string]struct{ path, first, between, second string }{
		"results of a content filter": {chat, content("a <sec"), event(`{"choices":[{"index":0,"content_filter_results":{"hate":{"severity":"safe"}}}]}`), content("ret> b")},
		"a string that always stands": {chat, content("a <sec"), event(`{"provider":"x","choices":[{"index":0,"delta":{"content":""}}]}`), content("ret> b")},
		"reasoning":                   {chat, content("a <sec"), event(`{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}`), content("ret> b")},
		"parallel tool calls":         {chat, call("0", "a <sec"), call("1", "x"), call("0", "ret> b")},
		"a citation": {
			messages, event(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a <sec"}}`),
			event(`{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{"cited_text":"x"}}}`),
			event(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ret> b"}}`),
		},
		"an annotation": {
			responses, event(`{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"a <sec"}`),
			event(`{"type":"response.output_text.annotation.added","output_index":0,"annotation":{"title":"x"}}`),
			event(`{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"ret> b"}`),
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, a, _ := screened(t, "")
			a.how, a.unit = &filter.Screening{Window: 1, Overlap: 8}, masking
			l := r.listenAt(t, c.path, events)
			l.chunk(c.first, false)
			l.chunk(c.between, false)
			require.Empty(t, l.got)
			l.chunk(c.second, true)
			require.Contains(t, string(l.got), `a [S\"]`)
			require.NotContains(t, string(l.got), "<sec")
			l.s.Done()
		})
	}
}

// What a filter wants kept is counted in the text that it has seen, whatever others make of it then.
func TestKeptTextIsCountedBeforeTheEditsOfOthers(t *testing.T) {
	for _, with := range []string{"seven, and seven again", ""} {
		r, a, b := screened(t, "")
		b.how, b.unit = &filter.Screening{}, func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
			for i := range u.Pieces {
				p := &u.Pieces[i]
				if at := bytes.IndexByte(p.Text, '<'); at >= 0 && !bytes.Contains(p.Text, []byte(">")) {
					p.Keep = len(p.Text) - at
				}
			}
			return masking(nil, u)
		}
		a.how, a.unit = &filter.Screening{}, func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
			for i := range u.Pieces {
				if at := bytes.IndexByte(u.Pieces[i].Text, '7'); at >= 0 {
					u.Replace(i, at, at+1, with)
				}
			}
			return filter.Next
		}
		l := r.listen(t, events)
		l.chunk(content("a <se"), false)
		l.chunk(content("c7"), false)
		require.Empty(t, l.got)
		l.chunk(content("et>"), true)
		require.Equal(t, "a ", said(t, string(l.got))[0][:2])
		l.s.Done()
	}
}

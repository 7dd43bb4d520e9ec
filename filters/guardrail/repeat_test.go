package guardrail_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func quoted(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

// repeated is the stream of the Responses API that says a text: in pieces, and then again three times.
func repeated(text string, draw func(int) int) string {
	events := []string{`{"type":"response.created","response":{"id":"r","output":[]}}`}
	for left := []rune(text); len(left) > 0; {
		n := min(len(left), 1+draw(12))
		events = append(events, fmt.Sprintf(`{"type":"response.output_text.delta","output_index":0,"content_index":0,"item_id":"m","delta":%s}`, quoted(string(left[:n]))))
		left = left[n:]
	}
	part := fmt.Sprintf(`{"type":"output_text","text":%s}`, quoted(text))
	events = append(events,
		fmt.Sprintf(`{"type":"response.output_text.done","output_index":0,"content_index":0,"item_id":"m","text":%s}`, quoted(text)),
		`{"type":"response.content_part.done","output_index":0,"content_index":0,"item_id":"m","part":`+part+`}`,
		`{"type":"response.output_item.done","output_index":0,"item":{"id":"m","content":[`+part+`]}}`,
		`{"type":"response.completed","response":{"id":"r","output":[{"id":"m","content":[`+part+`]}]}}`)
	return "data: " + strings.Join(events, "\n\ndata: ") + "\n\n"
}

// copies returns a text as the client has it of each of the events that say it.
func copies(t *testing.T, body string) (all [5]string) {
	type part struct{ Text string }
	type item struct{ Content []part }
	for line := range strings.Lines(body) {
		data, is := strings.CutPrefix(line, "data: ")
		if !is || strings.TrimSpace(data) == "[DONE]" {
			continue
		}
		var e struct {
			Type, Delta, Text string
			Part              part
			Item              item
			Response          struct{ Output []item }
		}
		require.NoError(t, json.Unmarshal([]byte(data), &e), data)
		switch e.Type {
		case "response.output_text.delta":
			all[0] += e.Delta
		case "response.output_text.done":
			all[1] = e.Text
		case "response.content_part.done":
			all[2] = e.Part.Text
		case "response.output_item.done":
			all[3] = e.Item.Content[0].Text
		case "response.completed":
			all[4] = e.Response.Output[0].Content[0].Text
		}
	}
	return all
}

// TestRepeatedTexts: a stream of the Responses API says each text five times, and a finding is one each time, also at the beginning
// of the text: what says it again does not go on where the one before has ended.
func TestRepeatedTexts(t *testing.T) {
	phrase := regexp.MustCompile(`\bhunter2SECRET\b`) // as services find whole words
	for _, c := range []struct {
		provider     string
		texts, wants []string
	}{
		{
			"webhook: {cluster: guard}",
			[]string{"hunter2SECRET", "hunter2SECRET is it", "The key is hunter2SECRET.", "a. hunter2SECRET and so on.\n", "nothing"},
			[]string{"[S]", "[S] is it", "The key is [S].", "a. [S] and so on.\n", "nothing"},
		},
		{
			"local: {detect: all, deny: [Project Nightfall]}",
			[]string{"Project Nightfall は秘密です", "Project Nightfall?!", "jane@example.com is hers", "+1 415 555 2671"},
			[]string{"[REMOVED] は秘密です", "[REMOVED]?!", "[EMAIL] is hers", "[PHONE]"},
		},
	} {
		g := guard(t, `{providers: [{name: p, `+c.provider+`}], policies: [{on: response, use: [p], action: redact}]}`)
		r := rand.New(rand.NewPCG(1, 2))
		for i, text := range c.texts {
			for range 40 {
				body := repeated(text, r.IntN)
				host := &guarding{judge: func(text string) string {
					if !phrase.MatchString(text) {
						return `{"action":"pass"}`
					}
					return fmt.Sprintf(`{"action":"redact","text":%s}`, quoted(phrase.ReplaceAllString(text, "[S]")))
				}}
				host.request = pairs{{":method", "POST"}, {":path", "/v1/responses"}, {"content-type", "application/json"}}
				host.play(t, g.chain.NewStream(), body, r.IntN)
				want := c.wants[i]
				require.Equal(t, [5]string{want, want, want, want, want}, copies(t, string(host.out)), "%s\n%q\n%s", body, host.asked, host.out)
				if want == text {
					require.Equal(t, body, string(host.out))
				}
			}
		}
	}
}

// TestRepeatsCostOneCallEach: a text that is repeated is asked about as often, not until it is too often.
func TestRepeatsCostOneCallEach(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: response, use: [p], action: redact}]}`)
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		host := &guarding{judge: redacting("hunter2SECRET")}
		host.request = pairs{{":method", "POST"}, {":path", "/v1/responses"}, {"content-type", "application/json"}}
		host.play(t, g.chain.NewStream(), repeated("hunter2SECRET", r.IntN), r.IntN)
		require.NotContains(t, host.why, "too_long")
		require.LessOrEqual(t, len(host.asked), 12, "%q", host.asked)
		require.NotContains(t, string(host.out), "hunter2SECRET")
	}
}

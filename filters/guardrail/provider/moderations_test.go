package provider

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModerationsRequest(t *testing.T) {
	r := of(t, "moderations", `{}`).Ask(&Question{Text: []byte("hi"), Response: true, Prompt: []byte("ho")})
	require.Equal(t, "/v1/moderations", r.Path)
	require.Equal(t, `{"model":"omni-moderation-latest","input":"hi"}`, string(r.Body))
	r = of(t, "moderations", `{path: /x, model: m}`).Ask(&Question{Text: []byte("hi")})
	require.Equal(t, Request{Path: "/x", Body: []byte(`{"model":"m","input":"hi"}`)}, r)
}

const (
	unflagged = `{"id":"modr-1","model":"omni-moderation-latest","results":[{"flagged":false,"categories":{"hate":false,"violence":false,"illicit":null},"category_scores":{"hate":1.2e-05,"violence":0.31},"category_applied_input_types":{"hate":["text"],"violence":["text"]}}]}`
	flagged   = `{"results":[{"categories":{"hate":false,"violence":true,"self-harm/intent":true,"illicit":null},"category_scores":{"hate":0.2,"violence":0.91},"flagged":true}]}`
)

func TestModerations(t *testing.T) {
	readings(t, of(t, "moderations", `{}`), []reading{
		{"clean", unflagged, "pass"},
		{"flagged", flagged, "block violence, self-harm/intent"},
		{"flagged, unknown category", `{"results":[{"flagged":true,"categories":{"new":true}}]}`, "block other"},
		{"flagged for nothing", `{"results":[{"flagged":true,"categories":{"hate":false}}]}`, "block other"},
		{"not flagged, but a category is", `{"results":[{"flagged":false,"categories":{"hate":true}}]}`, "block hate"},
		{"one of two", `{"results":[{"flagged":false},{"flagged":true}]}`, "block other"},
		{"two", `{"results":[{"flagged":false},{"flagged":false}]}`, "unreadable"},
		{"two, one empty", `{"results":[{"flagged":false},{}]}`, "unreadable"},
		{"none", `{"results":[]}`, "unreadable"},
		{"no list", `{"results":{"flagged":false}}`, "unreadable"},
		{"no verdict", `{"results":[{"categories":{"hate":false}}]}`, "unreadable"},
		{"another type", `{"results":[{"flagged":"false"}]}`, "unreadable"},
		{"another type, inner", `{"results":[{"flagged":[false]}]}`, "unreadable"},
		{"twice", `{"results":[{"flagged":false,"flagged":false}]}`, "unreadable"},
		{"twice, one flagged", `{"results":[{"flagged":true,"flagged":false}]}`, "block other"},
		{"error", `{"error":{"message":"insufficient_quota"}}`, "unreadable"},
		{"error beside", `{"error":{},"results":[{"flagged":false}]}`, "unreadable"},
	})
	readings(t, of(t, "moderations", `{categories: [hate, violence]}`), []reading{
		{"clean", unflagged, "pass"},
		{"flagged", flagged, "block violence"},
		{"flagged for another", `{"results":[{"flagged":true,"categories":{"hate":false,"violence":false,"sexual":true}}]}`, "pass"},
		{"flagged for nothing", `{"results":[{"flagged":true,"categories":{"hate":false,"violence":false}}]}`, "block other"},
		{"not judged", `{"results":[{"flagged":false,"categories":{"hate":false}}]}`, "partial: violence, lasting"},
		{"not judged, null", `{"results":[{"flagged":false,"categories":{"hate":false,"violence":null}}]}`, "partial: violence, lasting"},
	})
	readings(t, of(t, "moderations", `{thresholds: {violence: 0.3, hate: 0.5}}`), []reading{
		{"by score", unflagged, "block violence"},
		{"others by themselves", flagged, "block self-harm/intent, violence"},
		{"below", `{"results":[{"flagged":true,"categories":{"violence":true},"category_scores":{"violence":0.29,"hate":0}}]}`, "pass"},
		{"no number", `{"results":[{"flagged":false,"category_scores":{"violence":"0.9","hate":0}}]}`, "partial: violence, lasting"},
		{"no scores", `{"results":[{"flagged":false,"categories":{"violence":false,"hate":false}}]}`, "partial: hate, violence, lasting"},
	})
}

// FuzzModerations: a pass says so clearly, and what is flagged is blocked.
func FuzzModerations(f *testing.F) {
	for _, s := range []string{unflagged, flagged, `{"results":[{"flagged":false}]}`, `{"results":[]}`} {
		f.Add([]byte(s))
	}
	p := of(f, "moderations", `{}`)
	f.Fuzz(func(t *testing.T, body []byte) {
		got := outcome(t, p, &Question{Text: []byte("x")}, 200, string(body))
		var m map[string]any
		valid := json.Unmarshal(body, &m) == nil
		results, _ := m["results"].([]any)
		said := map[bool]bool{}
		for _, r := range results {
			if o, ok := r.(map[string]any); ok {
				if flagged, ok := o["flagged"].(bool); ok {
					said[flagged] = true
				}
			}
		}
		if got == "pass" {
			require.True(t, valid && len(results) == 1 && said[false] && !said[true], "%s", body)
		}
		if valid && said[true] {
			require.Regexp(t, "^block", got)
		}
	})
}

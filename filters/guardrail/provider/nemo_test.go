package provider

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNemoRequest(t *testing.T) {
	server, micro := of(t, "nemo", `{config: guard}`), of(t, "nemo", `{config: guard, model: llama, microservice: true}`)
	for _, c := range []struct {
		p    Provider
		q    Question
		path string
		want string
	}{
		{server, Question{Text: []byte("hi"), Role: "tool"}, "/v1/checks", `{"model":"none","messages":[{"role":"user","content":"hi"}],"guardrails":{"config_id":"guard","rail_types":["input"]}}`},
		{server, Question{Text: []byte("hi"), Response: true}, "/v1/checks", `{"model":"none","messages":[{"role":"assistant","content":"hi"}],"guardrails":{"config_id":"guard","rail_types":["output"]}}`},
		{server, Question{Text: []byte("hi"), Response: true, Prompt: []byte("ho")}, "/v1/checks", `{"model":"none","messages":[{"role":"user","content":"ho"},{"role":"assistant","content":"hi"}],"guardrails":{"config_id":"guard","rail_types":["output"]}}`},
		{micro, Question{Text: []byte("hi")}, "/v1/guardrail/checks", `{"model":"llama","messages":[{"role":"user","content":"hi"}],"guardrails":{"config_id":"guard"}}`},
	} {
		r := c.p.Ask(&c.q)
		require.Equal(t, c.path, r.Path)
		require.Equal(t, c.want, string(r.Body))
	}
	require.Equal(t, "/v2/x", of(t, "nemo", `{config: guard, microservice: true, path: /v2/x}`).Ask(&Question{}).Path)
}

func TestNemo(t *testing.T) {
	all := []reading{
		{"passed", `{"status":"passed","content":"mail jane@example.com"}`, "pass"},
		{"blocked", `{"status":"blocked","content":"I'm sorry, I can't respond to that.","rail":"regex check input"}`, "block regex check input"},
		{"blocked by a rail that is listed", `{"status":"blocked","content":"No.","rail":"my rail"}`, "block my rail"},
		{"blocked by another rail", `{"status":"blocked","content":"No.","rail":"their rail"}`, "block other"},
		{"blocked by none", `{"status":"blocked"}`, "block other"},
		{"a rail that failed", `{"status":"blocked","content":"I'm sorry, an internal error has occurred.","rail":"self check input"}`, "internal: self check input"},
		{"modified to nothing", `{"status":"modified","content":""}`, "unreadable"},
		{"modified to None", `{"status":"modified","content":"None"}`, "unreadable"},
		{"not modified", `{"status":"modified","content":"mail jane@example.com"}`, "unreadable"},
		{"modified, no content", `{"status":"modified"}`, "unreadable"},
		{"unknown status", `{"status":"success","content":"x"}`, "unreadable"},
		{"status of another type", `{"status":["passed"],"content":"x"}`, "unreadable"},
		{"two statuses", `{"status":"passed","status":"modified","content":"x"}`, "unreadable"},
		{"two statuses, one blocked", `{"status":"blocked","status":"passed"}`, "block other"},
		{"error", `{"error":{"message":"no"},"status":"passed"}`, "unreadable"},
	}
	readings(t, of(t, "nemo", `{config: c, masks: true, rails: [my rail]}`), append(all,
		reading{"modified", `{"status":"modified","content":"mail <EMAIL>"}`, "redact mail <EMAIL> (mask)"}))
	readings(t, of(t, "nemo", `{config: c, rails: [my rail]}`), append(all,
		reading{"modified, and no rail masks", `{"status":"modified","content":"mail <EMAIL>"}`, "unreadable"}))
}

func TestNemoMicroservice(t *testing.T) {
	readings(t, of(t, "nemo", `{config: c, microservice: true}`), []reading{
		{"success", `{"status":"success","rails_status":{"self check input":{"status":"success"}},"guardrails_data":{"log":{"activated_rails":[]}}}`, "pass"},
		{"blocked", `{"status":"blocked","rails_status":{"self check input":{"status":"blocked"},"self check output":{"status":"success"},"mine":{"status":"blocked"}}}`, "block self check input, other"},
		{"blocked, no rail", `{"status":"blocked","rails_status":{}}`, "block other"},
		{"success and a rail that blocked", `{"status":"success","rails_status":{"self check input":{"status":"blocked"}}}`, "block self check input"},
		{"success and a rail that failed", `{"status":"success","rails_status":{"self check input":{"status":"success"},"a":{"status":"error"}}}`, "unreadable"},
		{"no rails", `{"status":"success","rails_status":{}}`, "partial: none, lasting"},
		{"of the server", `{"status":"passed","content":"x"}`, "unreadable"},
		{"modified", `{"status":"modified","content":"x"}`, "unreadable"},
	})
}

// FuzzNemo: a pass says so clearly, and a block is one.
func FuzzNemo(f *testing.F) {
	for _, s := range []string{`{"status":"passed","content":"x"}`, `{"status":"blocked","rail":"r"}`, `{"status":"success","rails_status":{"r":{"status":"success"}}}`, `{"status":"modified","content":"y"}`} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	server, micro := of(f, "nemo", `{config: c, masks: true}`), of(f, "nemo", `{config: c, microservice: true}`)
	f.Fuzz(func(t *testing.T, body []byte, microservice bool) {
		p, passes := server, "passed"
		if microservice {
			p, passes = micro, "success"
		}
		got := outcome(t, p, &Question{Text: []byte("x")}, 200, string(body))
		var m map[string]any
		valid := json.Unmarshal(body, &m) == nil
		if got == "pass" {
			require.True(t, valid && m["error"] == nil && m["status"] == passes, "%s", body)
		}
		if valid && m["status"] == "blocked" {
			require.Regexp(t, "^(block|internal)", got)
		}
	})
}

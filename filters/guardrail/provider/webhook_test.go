package provider

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWebhookRequest(t *testing.T) {
	p := of(t, "webhook", `{path: /check}`)
	for _, c := range []struct {
		q    Question
		want string
	}{
		{Question{Text: []byte("hi"), Role: "user", Model: "llama"}, `{"phase":"request","role":"user","model":"llama","text":"hi"}`},
		{Question{Text: []byte("hi")}, `{"phase":"request","text":"hi"}`},
		{Question{Text: []byte("hi"), Response: true, Prompt: []byte("ho")}, `{"phase":"response","prompt":"ho","text":"hi"}`},
	} {
		r := p.Ask(&c.q)
		require.Equal(t, "/check", r.Path)
		require.Equal(t, c.want, string(r.Body))
	}
}

func TestWebhook(t *testing.T) {
	readings(t, of(t, "webhook", `{reasons: [personal]}`), []reading{
		{"pass", `{"action":"pass"}`, "pass"},
		{"pass, and more", `{"version":[1,{"a":2}],"action":"pass","text":"mail jane@example.com","reason":null,"error":null}`, "pass"},
		{"block", `{"action":"block","reason":"personal"}`, "block personal"},
		{"block, other reason", `{"reason":"your mail","action":"block"}`, "block other"},
		{"redact", `{"action":"redact","text":"mail [EMAIL]","reason":"personal"}`, "redact mail [EMAIL] (personal)"},
		{"redact to nothing", `{"text":"","action":"redact"}`, "redact  (other)"},
		{"redact, no text", `{"action":"redact"}`, "unreadable"},
		{"redact, no string", `{"action":"redact","text":null}`, "unreadable"},
		{"redact, two texts", `{"action":"redact","text":"a","text":"b"}`, "unreadable"},
		{"blocked", `{"blocked":true}`, "block other"},
		{"not blocked", `{"blocked":false}`, "pass"},
		{"both", `{"blocked":false,"action":"pass"}`, "pass"},
		{"block, and a reason of another type", `{"blocked":true,"reason":{"categories":["a",{"b":7}]}}`, "block other"},
		{"block, and a text of another type", `{"action":"block","text":{"a":[1]}}`, "block other"},
		{"block, and a text that is not valid", "{\"reason\":\"\xff\\ud800\",\"score\":NaN,\"action\":\"block\"}", "block other"},
		{"block, then cut", `{"action":"block","text":"abc`, "block other"},
		{"pass, and a text that is not valid", `{"text":"\ud800","action":"pass"}`, "unreadable"},
		{"contradiction", `{"action":"pass","blocked":true}`, "block other"},
		{"contradiction, two actions", `{"action":"pass","action":"block"}`, "block other"},
		{"contradiction, no block", `{"action":"pass","action":"redact","text":"x"}`, "unreadable"},
		{"blocked of another type", `{"action":"pass","blocked":"yes"}`, "unreadable"},
		{"blocked within", `{"action":"pass","blocked":[true]}`, "unreadable"},
		{"action of another type", `{"action":{"is":"pass"}}`, "unreadable"},
		{"action within", `{"result":{"action":"pass"}}`, "unreadable"},
		{"block within", `{"action":["block"]}`, "unreadable"},
		{"unknown action", `{"action":"allow"}`, "unreadable"},
		{"unknown case", `{"action":"PASS"}`, "unreadable"},
		{"error", `{"error":{"message":"out of memory"}}`, "unreadable"},
		{"pass and error", `{"action":"pass","error":"model not loaded"}`, "unreadable"},
	})
	p := of(t, "webhook", `{}`)
	require.Equal(t, "block other", outcome(t, p, &Question{}, 503, `{"action":"block"}`), "who says so has judged")
	require.Equal(t, "status 503", outcome(t, p, &Question{}, 503, `{"action":"redact","text":""}`))
}

// FuzzWebhook: a pass says so clearly, and a block is one.
func FuzzWebhook(f *testing.F) {
	for _, s := range []string{`{"action":"pass"}`, `{"action":"block","reason":1}`, `{"blocked":false}`, `{"action":"redact","text":"x"}`, `{"action":"pass","action":[]}`} {
		f.Add([]byte(s))
	}
	p := of(f, "webhook", `{}`)
	f.Fuzz(func(t *testing.T, body []byte) {
		got := outcome(t, p, &Question{Text: []byte("x")}, 200, string(body))
		var m map[string]any
		valid := json.Unmarshal(body, &m) == nil
		blocks := valid && (m["action"] == "block" || m["blocked"] == true)
		switch {
		case blocks:
			require.Equal(t, "block other", got)
		case got == "pass":
			require.True(t, valid && m["error"] == nil && (m["action"] == "pass" || m["action"] == nil && m["blocked"] == false), "%s", body)
		}
	})
}

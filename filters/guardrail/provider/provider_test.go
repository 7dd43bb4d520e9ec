package provider

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// of makes the provider of a protocol from its configuration.
func of(t testing.TB, protocol, doc string) Provider {
	p, err := read(protocol, doc)
	require.NoError(t, err)
	return p
}

func read(protocol, doc string) (p Provider, err error) {
	err = conf.Decode([]byte(doc), func(o *conf.Object) {
		for _, known := range Protocols {
			if known.Name == protocol {
				p = known.Read(o)
			}
		}
	})
	return p, err
}

// TestConfiguration: what cannot work is refused when it is read.
func TestConfiguration(t *testing.T) {
	for _, c := range []struct{ protocol, doc, err string }{
		{"modelArmor", `{template: projects/p/locations/us-central1/templates/t}`, ""},
		{"modelArmor", `{template: 'projects/example.com:p/locations/us/templates/t_1-a', limit: 32KiB}`, ""},
		{"modelArmor", `{}`, "missing key"},
		{"modelArmor", `{template: t}`, "is not the name of a template"},
		{"modelArmor", `{template: projects/p/locations/l/templates/}`, "is not the name of a template"},
		{"modelArmor", `{template: projects/p/locations/l/templates/t/x}`, "is not the name of a template"},
		{"modelArmor", `{template: projects/p/locations/../templates/t}`, "is not the name of a template"},
		{"modelArmor", `{template: 'projects/p/locations/l/templates/t?x'}`, "is not the name of a template"},
		{"modelArmor", `{template: projects/p/locations/l/templates/t, limit: 1}`, "out of range"},
		{"nemo", `{config: guard, masks: true, rails: [my rail]}`, ""},
		{"nemo", `{config: guard, microservice: true, model: m, path: /v2/x}`, ""},
		{"nemo", `{config: guard, microservice: true, masks: true}`, "has no text"},
		{"nemo", `{}`, "missing key"},
		{"moderations", `{}`, ""},
		{"moderations", `{categories: [violence, hate], thresholds: {hate: 0.25}, model: m, path: /m, limit: 1KiB}`, ""},
		{"moderations", `{categories: []}`, "at least one"},
		{"moderations", `{categories: [hate], thresholds: {violence: 0.5}}`, "not one of the categories"},
		{"moderations", `{thresholds: {violence: 2}}`, "out of range"},
		{"moderations", `{path: moderations}`, "does not start"},
		{"safetyModel", `{model: llama-guard, categories: {S1: crimes}}`, ""},
		{"safetyModel", `{}`, "missing key"},
		{"webhook", `{path: /check, reasons: [personal]}`, ""},
		{"webhook", `{url: x}`, "unknown key"},
	} {
		p, err := read(c.protocol, c.doc)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, "%s %s", c.protocol, c.doc)
			continue
		}
		require.NoError(t, err, "%s %s", c.protocol, c.doc)
		require.Positive(t, p.Limit())
	}
}

// TestHelp: all keys have help, and there is none for others.
func TestHelp(t *testing.T) {
	help := map[string]bool{}
	for _, h := range Help {
		require.NotEmpty(t, h.Text)
		require.False(t, help[h.Key], h.Key)
		help[h.Key] = true
	}
	for _, protocol := range Protocols {
		require.True(t, help["providers[]."+protocol.Name], protocol.Name)
		delete(help, "providers[]."+protocol.Name)
		form := conf.Describe(func(o *conf.Object) { require.NotNil(t, protocol.Read(o)) })
		for _, k := range form.Keys {
			key := "providers[]." + protocol.Name + "." + k.Name
			require.True(t, help[key], key)
			delete(help, key)
		}
	}
	require.Empty(t, help)
}

func TestHosts(t *testing.T) {
	for protocol, want := range map[string]string{
		"modelArmor": "modelarmor.europe-west4.rep.googleapis.com", "moderations": "api.openai.com", "nemo": "", "safetyModel": "", "webhook": "",
	} {
		require.Equal(t, want, of(t, protocol, minimal[protocol]).Host(), protocol)
	}
}

// minimal are configurations of all protocols.
var minimal = map[string]string{
	"modelArmor":  `{template: projects/p/locations/europe-west4/templates/t}`,
	"nemo":        `{config: guard}`,
	"moderations": `{}`,
	"safetyModel": `{model: guard}`,
	"webhook":     `{}`,
}

// nasty is text that has to be escaped.
const nasty = "a \"quoted\" \\ line\nwith \t, \x00, \u2028, é, 🙂 and </script>"

// TestRequests: requests are valid JSON, with the text as it is, whatever it is.
func TestRequests(t *testing.T) {
	for protocol, doc := range minimal {
		p := of(t, protocol, doc)
		for _, q := range []*Question{
			{Text: []byte(nasty), Role: "user", Model: "llama"},
			{Text: []byte(nasty), Response: true},
			{Text: []byte(nasty), Response: true, Prompt: []byte("why?\n")},
			{Response: true},
		} {
			r := p.Ask(q)
			require.True(t, strings.HasPrefix(r.Path, "/"))
			var body any
			require.NoError(t, json.Unmarshal(r.Body, &body), "%s: %s", protocol, r.Body)
			require.Contains(t, texts(body), string(q.Text), protocol)
		}
	}
}

// texts are all strings in a value.
func texts(v any) (all []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, item := range v {
			all = append(all, texts(item)...)
		}
	case map[string]any:
		for _, member := range v {
			all = append(all, texts(member)...)
		}
	}
	return all
}

// outcome is a verdict in short: "pass", "block a, b", "redact TEXT", or a failed check by its words.
func outcome(t testing.TB, p Provider, q *Question, status int, body string) string {
	v, err := p.Read(q, status, []byte(body))
	var f *Failed
	require.Equal(t, err != nil, errors.As(err, &f))
	require.False(t, v.Blocked && (v.Redacted || err != nil))
	require.Equal(t, v.Blocked || v.Redacted, len(v.Why) > 0)
	require.True(t, v.Redacted || v.Text == "")
	redacted := "redact " + v.Text + " (" + strings.Join(v.Why, ", ") + ")"
	switch {
	case f != nil:
		s := strings.TrimPrefix(f.Error(), "guardrail provider: ")
		if f.Lasting {
			s += ", lasting"
		}
		if v.Redacted {
			s += "; " + redacted
		}
		return s
	case v.Blocked:
		return "block " + strings.Join(v.Why, ", ")
	case v.Redacted:
		return redacted
	}
	return "pass"
}

// reading is a response and what it means.
type reading struct {
	name string
	body string
	want string
}

func readings(t *testing.T, p Provider, all []reading) {
	for _, r := range all {
		require.Equal(t, r.want, outcome(t, p, &Question{Text: []byte("mail jane@example.com")}, 200, r.body), "%s: %s", r.name, r.body)
	}
}

// TestStatus: a response of another status is a failed check, whatever its body says, unless a webhook says "block".
func TestStatus(t *testing.T) {
	passes := map[string]string{
		"modelArmor":  `{"sanitizationResult":{"filterMatchState":"NO_MATCH_FOUND","filterResults":{"csam":{"csamFilterFilterResult":{"executionState":"EXECUTION_SUCCESS","matchState":"NO_MATCH_FOUND"}}},"invocationResult":"SUCCESS"}}`,
		"nemo":        `{"status":"passed","content":"x"}`,
		"moderations": `{"results":[{"flagged":false}]}`,
		"safetyModel": `{"choices":[{"message":{"content":"safe"}}]}`,
		"webhook":     `{"action":"pass"}`,
	}
	for protocol, body := range passes {
		p := of(t, protocol, minimal[protocol])
		q := &Question{Text: []byte("x")}
		require.Equal(t, "pass", outcome(t, p, q, 200, body), protocol)
		for _, status := range []int{204, 400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 0} {
			_, err := p.Read(q, status, []byte(body))
			var f *Failed
			require.ErrorAs(t, err, &f, protocol)
			require.Equal(t, Status, f.Cause)
			require.Equal(t, status, f.Status)
			require.Equal(t, status >= 400 && status < 500 && status != 408 && status != 429, f.Lasting, "%s %d", protocol, status)
		}
		// Cut anywhere, a pass is none; nor is one with something else before or after it.
		for i := range body {
			require.Equal(t, "unreadable", outcome(t, p, q, 200, body[:i]), "%s: %s", protocol, body[:i])
		}
		for _, other := range []string{"[" + body + "]", body + body, body + "x", "data: " + body, "\ufeff" + body, "null", `""`, "[]", "{}", "<html>"} {
			require.Equal(t, "unreadable", outcome(t, p, q, 200, other), "%s: %s", protocol, other)
		}
	}
}

// TestNothingOfTheText: names in verdicts are ones that are known.
func TestNothingOfTheText(t *testing.T) {
	for protocol, body := range map[string]string{
		"modelArmor":  `{"sanitizationResult":{"filterMatchState":"MATCH_FOUND","filterResults":{"jane@example.com":{"janeFilterResult":{"matchState":"MATCH_FOUND"}},"rai":{"raiFilterResult":{"matchState":"MATCH_FOUND","raiFilterTypeResults":{"jane@example.com":{"matchState":"MATCH_FOUND"}}}}}}}`,
		"nemo":        `{"status":"blocked","content":"no","rail":"jane@example.com"}`,
		"moderations": `{"results":[{"flagged":true,"categories":{"jane@example.com":true}}]}`,
		"safetyModel": `{"choices":[{"message":{"content":"unsafe\njane@example.com"}}]}`,
		"webhook":     `{"action":"block","reason":"jane@example.com"}`,
	} {
		got := outcome(t, of(t, protocol, minimal[protocol]), &Question{Text: []byte("mail jane@example.com")}, 200, body)
		require.Contains(t, got, "block ", protocol)
		require.Contains(t, got, other, protocol)
		require.NotContains(t, got, "jane", protocol)
	}
}

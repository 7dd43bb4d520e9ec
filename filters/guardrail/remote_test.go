package guardrail_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// guarding is a host whose services answer when the test says so.
type guarding struct {
	envoy
	open   []int
	calls  map[int]*filter.Call
	asked  []string // texts, in order
	judge  func(text string) string
	out    []byte
	stream *chain.Stream
	held   bool // the response is, in Envoy
	twice  bool // it was let go where it was not held
	goes   bool // the request has gone on after it waited
}

func (g *guarding) Call(number int, c *filter.Call) error {
	if g.calls == nil {
		g.calls = map[int]*filter.Call{}
	}
	g.open, g.calls[number] = append(g.open, number), c
	return nil
}

func (g *guarding) ResumeResponse(b []byte) {
	g.twice = g.twice || !g.held
	g.out, g.held = append(g.out, b...), false
}

func (g *guarding) ResumeRequest() { g.goes = true }

// answer answers the nth open call.
func (g *guarding) answer(t require.TestingT, n int) {
	number := g.open[n]
	g.open = slices.Delete(g.open, n, n+1)
	var q struct{ Text string }
	require.NoError(t, json.Unmarshal(g.calls[number].Body, &q))
	g.asked = append(g.asked, q.Text)
	g.stream.Reply(number, &filter.Reply{Status: 200, Body: []byte(g.judge(q.Text))})
}

// redacting answers with the text without a secret.
func redacting(secret string) func(string) string {
	return func(text string) string {
		if !strings.Contains(text, secret) {
			return `{"action":"pass"}`
		}
		with, _ := json.Marshal(strings.ReplaceAll(text, secret, "[S]"))
		return fmt.Sprintf(`{"action":"redact","text":%s}`, with)
	}
}

// blocking blocks a text with a secret.
func blocking(secret string) func(string) string {
	return func(text string) string {
		if strings.Contains(text, secret) {
			return `{"action":"block"}`
		}
		return `{"action":"pass"}`
	}
}

// play sends a response in chunks, while services answer at any time.
func (g *guarding) play(t require.TestingT, s *chain.Stream, body string, draw func(int) int) {
	g.stream = s
	if g.request == nil {
		g.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
	}
	g.response = pairs{{":status", "200"}, {"content-type", "text/event-stream"}}
	s.Begin(g)
	s.RequestHeaders(false)
	s.RequestBody([]byte(`{"model":"m","stream":true,"messages":[]}`), true)
	g.held = s.ResponseHeaders(false) == chain.Hold
	for at := 0; at < len(body) || len(g.open) > 0; {
		if len(g.open) > 0 && (at == len(body) || draw(3) == 0) {
			g.answer(t, draw(len(g.open)))
			continue
		}
		end := min(len(body), at+1+draw(200))
		n, with := s.ResponseBody([]byte(body[at:end]), end == len(body))
		if g.held = s.HoldsResponse(); !g.held {
			g.out = append(append(g.out, with...), body[at+n:end]...)
		}
		at = end
	}
	s.Done()
	require.False(t, g.twice)
}

// remotely is a configuration with a webhook.
func remotely(action string, overlap int, limit string) string {
	return fmt.Sprintf(`{providers: [{name: p, webhook: {cluster: guard, limit: %s}}], policies: [{on: response, use: [p], action: %s, overlap: %d}]}`, limit, action, overlap)
}

// windowed is remotely for windows of some sizes.
func windowed(t require.TestingT, action string, overlap int, limit string) (all []*guarded) {
	for _, window := range []string{"1", "16", "100", "4KiB"} {
		all = append(all, guard(t, strings.Replace(remotely(action, overlap, limit), "overlap:", "window: "+window+", overlap:", 1)))
	}
	return all
}

// someTexts draws the texts of some choices, with a secret in some of them.
func someTexts(draw func(int) int, secret string) []string {
	words := []string{"a", "of", "hunter", "2", " ", "\n", ", ", "ä", "長い", "\U0001F600", "\"quoted\"", secret, secret[:len(secret)/2], secret[len(secret)/2:]}
	texts := make([]string, 1+draw(3))
	for i := range texts {
		for range 1 + draw(30) {
			texts[i] += words[draw(len(words))]
		}
	}
	return texts
}

// TestRemoteStreams: whatever is said and however it is cut, and whenever the service answers, nothing of the secret reaches the
// client; where there is none it gets the same bytes, and only what was asked about.
func TestRemoteStreams(t *testing.T) {
	for _, c := range []struct {
		name, action, secret string
		overlap              int
		limit                string
	}{
		{"a word is redacted", "redact", "hunter2SECRET", 0, "64KiB"},
		{"a phrase is redacted", "redact", "the launch code", 32, "64KiB"},
		{"a word is blocked", "block", "hunter2SECRET", 0, "64KiB"},
		{"a phrase is blocked", "block", "the launch code", 32, "64KiB"},
		{"in pieces", "redact", "hunter2SECRET", 0, "256"},
		{"in pieces, blocked", "block", "hunter2SECRET", 0, "256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			windows := windowed(t, c.action, c.overlap, c.limit)
			rapid.Check(t, func(t *rapid.T) {
				draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
				s := windows[draw(len(windows))].chain.NewStream()
				texts := someTexts(draw, c.secret)
				body := eventsOf(texts, draw)
				host := &guarding{judge: redacting(c.secret)}
				if c.action == "block" {
					host.judge = blocking(c.secret)
				}
				host.play(t, s, body, draw)
				if host.refused == nil {
					require.Contains(t, host.why, "screened=response:scanned")
				}
				found := slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, c.secret) })
				switch {
				case !found:
					require.Nil(t, host.refused)
					require.Equal(t, body, string(host.out))
				case c.action == "redact":
					require.Nil(t, host.refused)
					for i, text := range textsOf(t, string(host.out), len(texts)) {
						require.Equal(t, strings.ReplaceAll(texts[i], c.secret, "[S]"), text, "%s\n%q\n%s", body, host.asked, host.out)
					}
				default:
					require.True(t, host.refused != nil || strings.Contains(string(host.out), "content_policy_violation"), string(host.out))
					for i, text := range textsOf(t, string(host.out), len(texts)) {
						require.True(t, strings.HasPrefix(texts[i], text))
						if at := strings.Index(texts[i], c.secret); at >= 0 {
							require.LessOrEqual(t, len(text), at, "%q", text)
						}
					}
				}
			})
		})
	}
}

// TestRemotePrompts: what is redacted in a body is what the service says, and the rest of the body stays, whatever stands in how many
// strings and however many bytes the service takes.
func TestRemotePrompts(t *testing.T) {
	const secret = "hunter2SECRET"
	for _, limit := range []string{"64KiB", "256"} {
		g := guard(t, `{providers: [{name: p, webhook: {cluster: guard, limit: `+limit+`}}], policies: [{on: request, use: [p], action: redact}]}`)
		rapid.Check(t, func(t *rapid.T) {
			s := g.chain.NewStream()
			draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
			texts := someTexts(draw, secret)
			var body, want []string
			for i, text := range texts {
				role := []string{"user", "system", "assistant", "tool"}[draw(4)]
				if i == 0 && draw(2) == 0 {
					inner, _ := json.Marshal(map[string]any{"k": text, "n": 7})
					masked, _ := json.Marshal(map[string]any{"k": strings.ReplaceAll(text, secret, "[S]"), "n": 7})
					a, _ := json.Marshal(string(inner))
					b, _ := json.Marshal(string(masked))
					body = append(body, fmt.Sprintf(`{"role":"assistant","tool_calls":[{"function":{"arguments":%s}}]}`, a))
					want = append(want, fmt.Sprintf(`{"role":"assistant","tool_calls":[{"function":{"arguments":%s}}]}`, b))
					continue
				}
				a, _ := json.Marshal(text)
				b, _ := json.Marshal(strings.ReplaceAll(text, secret, "[S]"))
				body = append(body, fmt.Sprintf(`{"role":"%s", "content" : %s}`, role, a))
				want = append(want, fmt.Sprintf(`{"role":"%s", "content" : %s}`, role, b))
			}
			raw := `{"messages":[` + strings.Join(body, ",") + `],"seed":4111111111111111}`
			host := &guarding{judge: redacting(secret), stream: s}
			host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
			s.Begin(host)
			s.RequestHeaders(false)
			s.RequestBody([]byte(raw), true)
			for len(host.open) > 0 {
				host.answer(t, draw(len(host.open)))
			}
			s.Done()
			require.Nil(t, host.refused)
			got := string(filter.Splice(nil, []byte(raw), host.body))
			require.JSONEq(t, `{"messages":[`+strings.Join(want, ",")+`],"seed":4111111111111111}`, got)
			require.Contains(t, host.why, "screened=request:scanned")
			for _, text := range host.asked {
				require.True(t, utf8.ValidString(text))
			}
		})
	}
}

// asks sends a request and returns the texts that services were asked about, with the speaker of each.
func asks(t *testing.T, config, path, body string) (asked []string, host *guarding) {
	g := guard(t, config)
	host = &guarding{judge: func(string) string { return `{"action":"pass"}` }, stream: g.chain.NewStream()}
	host.request = pairs{{":method", "POST"}, {":path", path}, {"content-type", "application/json"}}
	host.stream.Begin(host)
	host.stream.RequestHeaders(false)
	host.stream.RequestBody([]byte(body), true)
	for len(host.open) > 0 {
		var q struct{ Role, Text string }
		require.NoError(t, json.Unmarshal(host.calls[host.open[0]].Body, &q))
		asked = append(asked, q.Role+": "+q.Text)
		host.answer(t, 0)
	}
	host.stream.Done()
	require.Nil(t, host.refused)
	return asked, host
}

// TestQuestions: what a service is asked about a prompt.
func TestQuestions(t *testing.T) {
	const chat = `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u1"},{"role":"assistant","content":"a1"},{"role":"user","content":"u2"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{\"k\":\"\\u0076\",\"n\":7}"}}]},{"role":"tool","content":"t"},{"role":"assistant","content":"prefill"}],"tools":[{"function":{"name":"tool"}}]}`
	block := `action: block`
	for _, c := range []struct {
		name, policy, path, body string
		want                     []string
	}{
		{"everybody", block, "", chat, []string{"system: s\ntool", "user: u1\nu2", "assistant: a1\nf\nprefill", "tool: t", "assistant: {\"k\":\"\\u0076\",\"n\":7}\nk: v"}},
		{"only strings, to redact", `action: redact`, "", chat, []string{"system: s\ntool", "user: u1\nu2", "assistant: a1\nf\nprefill", "tool: t", "assistant: k: v"}},
		{"the last turn", block + ", text: latest", "", chat, []string{"system: s\ntool", "user: u2", "assistant: f\nprefill", "tool: t", "assistant: {\"k\":\"\\u0076\",\"n\":7}\nk: v"}},
		{"of some", block + ", text: latest, roles: [user, tool]", "", chat, []string{"user: u2", "tool: t"}},
		{"parts", block, "", `{"messages":[{"role":"user","content":[{"type":"text","text":"jane@exam"},{"type":"text","text":"ple.com"}]},{"role":"user","content":"x"}]}`, []string{"user: jane@exam\nple.com\nx\njane@example.com"}},
		{"Messages", block, "/v1/messages", `{"system":"s","messages":[{"role":"user","content":[{"type":"tool_result","content":"t"},{"type":"text","text":"u"}]},{"role":"assistant","content":[{"type":"tool_use","name":"f","input":{"k":"v"}}]}]}`, []string{"system: s", "user: u", "tool: t", "assistant: f\nv"}},
		{"Responses", block, "/v1/responses", `{"instructions":"s","input":"u"}`, []string{"system: s", "user: u"}},
		{"completions", block, "/v1/completions", `{"prompt":["a","b"]}`, []string{"user: a\nb"}},
		{"embeddings", block, "/v1/embeddings", `{"input":["a","b"]}`, []string{"user: a\nb"}},
		{"nothing", block, "", `{"messages":[{"role":"user","content":" "}]}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.path == "" {
				c.path = "/v1/chat/completions"
			}
			asked, host := asks(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: request, use: [p], `+c.policy+`}]}`, c.path, c.body)
			require.Equal(t, c.want, asked)
			require.Empty(t, host.body)
			require.Contains(t, host.why, "screened=request:scanned")
		})
	}
}

// TestStoredHistory: what the server has of a conversation was not judged, and the audit says so.
func TestStoredHistory(t *testing.T) {
	_, host := asks(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: request, use: [p], action: block}]}`, "/v1/responses", `{"previous_response_id":"resp_1","input":"u"}`)
	require.Contains(t, host.why, "screened=request:partial")

	for _, c := range []struct{ path, body string }{
		{"/v1/responses", `{"previous_response_id":"resp_1","input":"u"}`},
		{"/v1/responses", `{"conversation":{"id":"conv_1"},"input":"u"}`},
		{"/v1/responses", `{"prompt":{"id":"pmpt_1"}}`},
		{"/v1/responses", `{"input":[{"type":"item_reference","id":"msg_1"}]}`},
		{"/v1/chat/completions", `{"messages":[{"role":"assistant","audio":{"id":"audio_1"}},{"role":"user","content":"x"}]}`},
	} {
		g := guard(t, `{providers: [{name: l, local: {detect: email}}], policies: [{on: request, use: [l], action: report, storedHistory: refuse}]}`)
		host := &guarding{stream: g.chain.NewStream()}
		host.request = pairs{{":method", "POST"}, {":path", c.path}, {"content-type", "application/json"}}
		host.stream.Begin(host)
		host.stream.RequestHeaders(false)
		host.stream.RequestBody([]byte(c.body), true)
		require.NotNil(t, host.refused, c.body)
		require.Equal(t, 400, host.refused.Status)
		require.Contains(t, string(host.refused.Body), "conversation_stored")
	}
}

// TestServicesTellNothing: what a service found stands in no refusal, log line, metric or explanation, and neither does what it says
// of it in its own words.
func TestServicesTellNothing(t *testing.T) {
	for _, action := range []string{"block", "redact", "report"} {
		for _, answer := range []string{
			`{"action":"block","reason":"078-05-1120"}`, `{"action":"redact","text":"x 078-05-1120 y"}`, `{"error":"078-05-1120"}`, `078-05-1120`,
		} {
			g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 0, breaker: {failures: 1}}], policies: [{on: request, use: [p], action: `+action+`}]}`)
			host := &guarding{judge: func(string) string { return answer }, stream: g.chain.NewStream()}
			host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
			host.stream.Begin(host)
			host.stream.RequestHeaders(false)
			host.stream.RequestBody([]byte(`{"messages":[{"role":"user","content":"her SSN is 078-05-1120"}]}`), true)
			for len(host.open) > 0 {
				host.answer(t, 0)
			}
			host.stream.Done()
			told := host.why + fmt.Sprint(g.metrics) + g.logs.String()
			if host.refused != nil {
				told += fmt.Sprint(host.refused.Headers) + string(host.refused.Body)
			}
			require.NotContains(t, told, "078")
			require.NotContains(t, told, "1120")
		}
	}
}

// TestTheTrialThatIsGone: a client that leaves while its request tries a service that was down leaves the trial to the next one.
func TestTheTrialThatIsGone(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 0, timeout: 1m, breaker: {failures: 1, open: 100ms}}], policies: [{on: request, use: [p], action: block}]}`)
	now, system := g.now, ""
	send := func() *guarding {
		host := &guarding{stream: g.chain.NewStream()}
		host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
		host.stream.Begin(host)
		host.stream.RequestHeaders(false)
		host.stream.RequestBody([]byte(`{"messages":[`+system+`{"role":"user","content":"x"}]}`), true)
		return host
	}
	down := send()
	down.stream.Reply(down.open[0], &filter.Reply{Err: fmt.Errorf("reset")})
	require.Equal(t, 503, down.refused.Status)
	require.Equal(t, 503, send().refused.Status)
	g.now = now.Add(time.Second)
	trial := send()
	require.Len(t, trial.open, 1)
	require.Equal(t, 503, send().refused.Status, "one is enough")
	trial.stream.Done()
	system = `{"role":"system","content":"y"},`
	trial = send()
	require.Len(t, trial.open, 1, "one question tries, and the other waits for it")
	trial.judge = func(string) string { return `{"action":"pass"}` }
	trial.answer(t, 0)
	require.Len(t, trial.open, 1)
	trial.answer(t, 0)
	require.Nil(t, trial.refused)
	require.Len(t, send().open, 2, "it is closed")
}

// FuzzRemoteStream is TestRemoteStreams on texts, cuts and times that the fuzzer makes up.
func FuzzRemoteStream(f *testing.F) {
	const secret = "hunter2SECRET"
	windows := windowed(f, "redact", 0, "64KiB")
	f.Add("a hunter2SECRET, b", "xhunter2SECRETy", []byte{3, 1, 4, 1, 5, 9, 2, 6})
	f.Add("長いhunter2SECRET長い", "hunter2\nSECRET", []byte{0, 0, 7})
	f.Fuzz(func(t *testing.T, one, two string, draws []byte) {
		if !utf8.ValidString(one) || !utf8.ValidString(two) || len(one)+len(two) > 1000 || len(draws) == 0 {
			return // not what a model says
		}
		at := 0
		draw := func(n int) int {
			at++
			return int(draws[at%len(draws)]) % n
		}
		texts := []string{one, two}
		body := eventsOf(texts, draw)
		host := &guarding{judge: redacting(secret)}
		host.play(t, windows[draw(len(windows))].chain.NewStream(), body, draw)
		for i, text := range textsOf(t, string(host.out), len(texts)) {
			require.Equal(t, strings.ReplaceAll(texts[i], secret, "[S]"), text)
		}
		if !strings.Contains(one+two, secret) {
			require.Equal(t, body, string(host.out))
		}
	})
}

// TestRemoteAPIs: a secret that a stream splits and repeats is gone from every place of every API, and each event is still one.
func TestRemoteAPIs(t *testing.T) {
	for _, c := range []struct {
		name, path string
		places     int
		events     []string
	}{
		{"chat", "/v1/chat/completions", 1, []string{
			`{"choices":[{"index":0,"delta":{"content":"is hunter2"}}]}`, `{"choices":[{"index":0,"delta":{"content":"SECRET."}}]}`,
			`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, `[DONE]`,
		}},
		{"reasoning, a call, a refusal", "/v1/chat/completions", 3, []string{
			`{"choices":[{"index":0,"delta":{"reasoning_content":"hunter2"}}]}`, `{"choices":[{"index":0,"delta":{"reasoning_content":"SECRET"}}]}`,
			`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"a\":\"hunt"}}]}}]}`,
			`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"er2\\u0053ECRET\",\"n\":1}"}}]}}]}`,
			`{"choices":[{"index":0,"delta":{"refusal":"hunter2S"}}]}`, `{"choices":[{"index":0,"delta":{"refusal":"ECRET"}}]}`,
			`{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`, `[DONE]`,
		}},
		{"Messages", "/v1/messages", 2, []string{
			`{"type":"message_start","message":{"id":"m","role":"assistant","content":[]}}`,
			`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`,
			`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hunter2"}}`,
			`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"SECRET"}}`, `{"type":"content_block_stop","index":0}`,
			`{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}`,
			`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\": \"hunter2SEC"}}`,
			`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"RET\"}"}}`, `{"type":"content_block_stop","index":1}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"}}`, `{"type":"message_stop"}`,
		}},
		{"Responses", "/v1/responses", 5, []string{
			`{"type":"response.output_text.delta","output_index":0,"content_index":0,"item_id":"m","delta":"is hunter2"}`,
			`{"type":"response.output_text.delta","output_index":0,"content_index":0,"item_id":"m","delta":"SECRET "}`,
			`{"type":"response.output_text.done","output_index":0,"content_index":0,"item_id":"m","text":"is hunter2SECRET "}`,
			`{"type":"response.content_part.done","output_index":0,"content_index":0,"item_id":"m","part":{"type":"output_text","text":"is hunter2SECRET "}}`,
			`{"type":"response.output_item.done","output_index":0,"item":{"id":"m","content":[{"type":"output_text","text":"is hunter2SECRET "}]}}`,
			`{"type":"response.completed","response":{"id":"r","output":[{"id":"m","content":[{"type":"output_text","text":"is hunter2SECRET "}]}]}}`,
		}},
		{"completions", "/v1/completions", 1, []string{`{"choices":[{"index":0,"text":"hunter2SEC"}]}`, `{"choices":[{"index":0,"text":"RET"}]}`, `[DONE]`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guard(t, remotely("redact", 0, "64KiB"))
			rapid.Check(t, func(t *rapid.T) {
				host := &guarding{judge: redacting("hunter2SECRET")}
				host.request = pairs{{":method", "POST"}, {":path", c.path}, {"content-type", "application/json"}}
				body := "data: " + strings.Join(c.events, "\n\ndata: ") + "\n\n"
				host.play(t, g.chain.NewStream(), body, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") })
				require.Nil(t, host.refused)
				got := strings.Split(strings.TrimSuffix(strings.TrimPrefix(string(host.out), "data: "), "\n\n"), "\n\ndata: ")
				require.Len(t, got, len(c.events))
				for i, event := range got {
					require.True(t, event == c.events[i] || json.Valid([]byte(event)), event)
				}
				all := strings.Join(got, "")
				require.NotContains(t, all, "unter2")
				require.NotContains(t, all, "ECRET")
				require.Equal(t, c.places, strings.Count(all, "[S]"), all)
				require.Contains(t, host.why, "screened=response:scanned")
			})
			open := guard(t, strings.Replace(remotely("redact", 0, "64KiB"), "webhook:", "failureMode: FailOpen, webhook:", 1))
			host := &guarding{judge: func(string) string { return "out of order" }}
			host.request = pairs{{":method", "POST"}, {":path", c.path}, {"content-type", "application/json"}}
			body := "data: " + strings.Join(c.events, "\n\ndata: ") + "\n\n"
			host.play(t, open.chain.NewStream(), body, func(n int) int { return n / 2 })
			require.Equal(t, body, string(host.out), "a failed check that stops nothing changes nothing")
			require.Contains(t, host.why, "screened=response:fail_open")
		})
	}
}

// TestRedactionsCompose: what is found here and what a service finds are both gone from a stream, and the service never reads what was
// found here.
func TestRedactionsCompose(t *testing.T) {
	const secret = "hunter2SECRET"
	g := guard(t, `{providers: [{name: l, local: {detect: [email, ssn, card]}}, {name: p, webhook: {cluster: guard}}], policies: [{on: response, use: [l, p], action: redact}]}`)
	d, wrong := detect.New(detect.Config{Kinds: detect.Of(detect.Email, detect.SSN, detect.Card)})
	require.Nil(t, wrong)
	words := []string{"jane@example.com", "078-05-1120", "4111 1111 1111 1111", secret, "a", "of", "the", "x@y"}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
		texts, want := make([]string, 1+draw(2)), []string{}
		for i := range texts {
			for range 1 + draw(12) {
				texts[i] += words[draw(len(words))] + []string{" ", "\n", ", "}[draw(3)]
			}
			want = append(want, strings.ReplaceAll(masked(d, texts[i]), secret, "[S]"))
		}
		host := &guarding{judge: redacting(secret)}
		host.play(t, g.chain.NewStream(), eventsOf(texts, draw), draw)
		require.Nil(t, host.refused)
		require.Equal(t, want, textsOf(t, string(host.out), len(texts)))
		for _, text := range host.asked {
			require.NotContains(t, text, "jane@")
		}
	})
}

// TestSignedReasoningIsNotEdited: what a service would redact in Anthropic's reasoning is blocked, in a prompt and in a response.
func TestSignedReasoningIsNotEdited(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: both, use: [p], action: redact}]}`)
	messages := pairs{{":method", "POST"}, {":path", "/v1/messages"}, {"content-type", "application/json"}}
	host := &guarding{judge: redacting("hunter2SECRET")}
	host.request = messages
	host.play(t, g.chain.NewStream(), "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hunter2SECRET \"}}\n\n", func(n int) int { return n - 1 })
	require.Equal(t, 400, host.refused.Status)

	host = &guarding{judge: redacting("hunter2SECRET"), stream: g.chain.NewStream()}
	host.request = messages
	host.stream.Begin(host)
	host.stream.RequestHeaders(false)
	host.stream.RequestBody([]byte(`{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"hunter2SECRET","signature":"c2ln"}]}]}`), true)
	host.answer(t, 0)
	require.Equal(t, 400, host.refused.Status)
	require.Contains(t, string(host.refused.Body), "signed")
}

// TestEveryCause: whatever keeps a service from judging, the failure mode decides, in a prompt and in a response; and nothing but a
// verdict is one.
func TestEveryCause(t *testing.T) {
	for _, c := range []struct {
		name    string
		late    bool // the reply comes after the deadline
		reply   filter.Reply
		outcome string
	}{
		{"unreachable", false, filter.Reply{Err: fmt.Errorf("no reply: reset")}, "unreachable"},
		{"too late", true, filter.Reply{Err: fmt.Errorf("no reply: timeout")}, "timeout"},
		{"out of order", false, filter.Reply{Status: 503}, "status"},
		{"too many requests", false, filter.Reply{Status: 429, Body: []byte(`{"action":"pass"}`)}, "status"},
		{"wrong credentials", false, filter.Reply{Status: 401, Body: []byte(`{}`)}, "status"},
		{"wrong request", false, filter.Reply{Status: 400, Body: []byte(`{}`)}, "status"},
		{"elsewhere", false, filter.Reply{Status: 302}, "status"},
		{"nothing", false, filter.Reply{Status: 200}, "unreadable"},
		{"a page", false, filter.Reply{Status: 200, Body: []byte(`<html>`)}, "unreadable"},
		{"an error in good health", false, filter.Reply{Status: 200, Body: []byte(`{"error":{"message":"x"}}`)}, "unreadable"},
		{"an unknown word", false, filter.Reply{Status: 200, Body: []byte(`{"action":"maybe"}`)}, "unreadable"},
		{"half of it", false, filter.Reply{Status: 200, Body: []byte(`{"action":"pa`)}, "unreadable"},
	} {
		for _, mode := range []string{"FailClosed", "FailOpen"} {
			for _, phase := range []string{"request", "response"} {
				t.Run(c.name+"/"+mode+"/"+phase, func(t *testing.T) {
					g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 0, failureMode: `+mode+`}], policies: [{on: `+phase+`, use: [p], action: block}]}`)
					host := &guarding{stream: g.chain.NewStream()}
					host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
					host.response = pairs{{":status", "200"}, {"content-type", "application/json"}}
					host.stream.Begin(host)
					host.stream.RequestHeaders(false)
					host.stream.RequestBody([]byte(`{"messages":[{"role":"user","content":"x"}]}`), true)
					if phase == "response" {
						host.held = host.stream.ResponseHeaders(false) == chain.Hold
						host.stream.ResponseBody([]byte(`{"choices":[{"message":{"content":"y"}}]}`), true)
					}
					require.Len(t, host.open, 1)
					if c.late {
						g.now = g.now.Add(time.Second)
					}
					host.stream.Reply(host.open[0], &c.reply)
					host.stream.Done()
					require.Equal(t, 1, g.metrics["inlet_guardrail_check_total[p "+phase+" "+c.outcome+"]"], "%v", g.metrics)
					require.Contains(t, host.why, "guardrail=p/"+c.outcome)
					if mode == "FailOpen" {
						require.Nil(t, host.refused)
						require.Contains(t, host.why, "screened="+phase+":fail_open")
						return
					}
					require.Equal(t, 503, host.refused.Status)
					require.Contains(t, string(host.refused.Body), "guardrail_unavailable")
					require.NotContains(t, string(host.refused.Body), "guard\"")
					require.Contains(t, host.why, "screened="+phase+":skipped")
				})
			}
		}
	}
}

// TestAFormIsRedacted: a field of a form stands bare in the body.
func TestAFormIsRedacted(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: request, use: [p], action: redact}]}`)
	host := &guarding{judge: func(text string) string {
		with, _ := json.Marshal(strings.ReplaceAll(text, "Jane", `"J"`))
		return fmt.Sprintf(`{"action":"redact","text":%s}`, with)
	}, stream: g.chain.NewStream()}
	const body = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nllama\r\n--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nby Jane\r\n--b--\r\n"
	host.request = pairs{{":method", "POST"}, {":path", "/v1/audio/transcriptions"}, {"content-type", "multipart/form-data; boundary=b"}}
	host.stream.Begin(host)
	host.stream.RequestHeaders(false)
	host.stream.RequestBody([]byte(body), true)
	host.answer(t, 0)
	require.Nil(t, host.refused)
	require.Equal(t, strings.Replace(body, "Jane", `"J"`, 1), string(filter.Splice(nil, []byte(body), host.body)))
}

// TestWindow: services are asked about so much text at least, and at the end of the stream about the rest.
func TestWindow(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}, {name: l, local: {detect: email}}], policies: [{on: response, use: [p], action: block, window: 20B}, {on: response, use: [l], action: redact}]}`)
	host := &guarding{judge: func(string) string { return `{"action":"pass"}` }}
	var body string
	for _, text := range []string{"one ", "two ", "three ", "four ", "five ", "six "} {
		body += fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", text)
	}
	host.play(t, g.chain.NewStream(), body+"data: [DONE]\n\n", func(n int) int { return min(n-1, 60) })
	require.Equal(t, []string{"one two three four five ", "one two three four five six "}, host.asked)
}

// TestGroupsAreRedacted: what has several words, or is of a script without spaces, has not gone on in part when it is found, however it
// comes and without an overlap in the configuration.
func TestGroupsAreRedacted(t *testing.T) {
	for _, secret := range []string{"4111 1111 1111 1111", "Jane van der Doe", "４１１１１１１１１１１１１１１１", "김민수", "李小龍", "秘密暗号"} {
		for _, window := range []string{"1", "256"} {
			g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: response, use: [p], action: redact, window: `+window+`}]}`)
			host := &guarding{judge: redacting(secret)}
			var body strings.Builder
			for _, r := range "it is " + secret + " ok" {
				fmt.Fprintf(&body, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", string(r))
			}
			host.play(t, g.chain.NewStream(), body.String()+"data: [DONE]\n\n", func(int) int { return 0 })
			require.Equal(t, []string{"it is [S] ok"}, textsOf(t, string(host.out), 1))
			require.Contains(t, host.why, "screened=response:scanned")
		}
	}
}

// TestTheEndAsksNobody: what waited only for what might follow goes on when nothing does, without another question.
func TestTheEndAsksNobody(t *testing.T) {
	g := guard(t, remotely("block", 0, "64KiB"))
	host := &guarding{judge: func(string) string { return `{"action":"pass"}` }, stream: g.chain.NewStream()}
	host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
	host.response = pairs{{":status", "200"}, {"content-type", "text/event-stream"}}
	host.stream.Begin(host)
	host.stream.RequestHeaders(false)
	host.stream.RequestBody([]byte(`{"stream":true,"messages":[]}`), true)
	host.held = host.stream.ResponseHeaders(false) == chain.Hold
	host.stream.ResponseBody([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"One two\"}}]}\n\n"), false)
	host.held = true
	host.answer(t, 0)
	_, with := host.stream.ResponseBody([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"), true)
	require.Empty(t, host.open)
	require.Contains(t, string(host.out)+string(with), "One two")
	require.Equal(t, []string{"One two"}, host.asked)
	host.stream.Done()
}

// TestAnAnswerDoesNotWaitForItsReasoning: servers of chat do not say where reasoning ends; the answer after it streams all the same.
func TestAnAnswerDoesNotWaitForItsReasoning(t *testing.T) {
	for _, config := range []string{
		remotely("block", 64, "64KiB"), `{providers: [{name: l, local: {detect: all}}], policies: [{on: response, use: [l], action: redact}]}`,
	} {
		g := guard(t, config)
		host := &guarding{judge: func(string) string { return `{"action":"pass"}` }, stream: g.chain.NewStream()}
		host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
		host.response = pairs{{":status", "200"}, {"content-type", "text/event-stream"}}
		host.stream.Begin(host)
		host.stream.RequestHeaders(false)
		host.stream.RequestBody([]byte(`{"stream":true,"messages":[]}`), true)
		host.stream.ResponseHeaders(false)
		for _, delta := range []string{`"reasoning_content":"I think"`, `"reasoning_content":" so."`, `"content":"One ` + strings.Repeat("x ", 40) + `"`, `"content":"two "`} {
			_, with := host.stream.ResponseBody([]byte(`data: {"choices":[{"index":0,"delta":{`+delta+`}}]}`+"\n\n"), false)
			host.out, host.held = append(host.out, with...), true
			for len(host.open) > 0 {
				host.answer(t, 0)
			}
		}
		require.Contains(t, string(host.out), " so.")
		host.stream.Done()
	}
}

// TestNoRequestIsStuck: whatever services do, in whatever order, a request is refused or goes on when nobody is being asked any more,
// never with more calls at once than there may be; and it is said to be scanned only if no check has failed.
func TestNoRequestIsStuck(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
		var providers, use []string
		for i := range 1 + draw(3) {
			providers = append(providers, fmt.Sprintf("{name: p%d, webhook: {cluster: guard, limit: 256}, retries: %d, timeout: 1s, failureMode: %s, breaker: {failures: %d, open: 1s}, cache: %ds}",
				i, draw(3), []string{"FailOpen", "FailClosed"}[draw(2)], draw(3), draw(2)))
			use = append(use, fmt.Sprintf("p%d", i))
		}
		how := []string{"action: redact, order: sequence", "action: redact, order: parallel", "action: block, order: parallel", "action: block, mode: parallel", "action: report"}[draw(5)]
		g := guard(t, "{providers: ["+strings.Join(providers, ", ")+"], policies: [{on: request, use: ["+strings.Join(use, ", ")+"], "+how+"}]}")
		for range 1 + draw(3) {
			var messages []string
			for _, text := range someTexts(draw, "hunter2SECRET") {
				content, _ := json.Marshal(strings.Repeat(text, 1+draw(20)))
				messages = append(messages, fmt.Sprintf(`{"role":"%s","content":%s}`, []string{"user", "system", "assistant"}[draw(3)], content))
			}
			host := &guarding{stream: g.chain.NewStream()}
			host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
			host.stream.Begin(host)
			host.stream.RequestHeaders(false)
			act := host.stream.RequestBody([]byte(`{"messages":[`+strings.Join(messages, ",")+`]}`), true)
			failed := false
			for len(host.open) > 0 && host.refused == nil {
				require.LessOrEqual(t, len(host.open), filter.MaxCalls)
				g.now = g.now.Add(time.Duration(draw(400)) * time.Millisecond)
				n := draw(len(host.open))
				number := host.open[n]
				switch draw(6) {
				case 0:
					host.judge = blocking("hunter2SECRET")
					host.answer(t, n)
				case 1, 2, 3:
					host.judge = redacting("hunter2SECRET")
					host.answer(t, n)
				default:
					failed = true
					host.open = slices.Delete(host.open, n, n+1)
					host.stream.Reply(number, []*filter.Reply{{Status: 500}, {Err: fmt.Errorf("reset")}, {Status: 200}, {Status: 401}}[draw(4)])
				}
			}
			require.True(t, host.refused != nil || host.goes || act == chain.Continue, "%s", how)
			if host.refused == nil {
				require.Contains(t, host.why, "screened=request:")
			}
			if host.refused == nil && !failed && !strings.Contains(host.why, "/breaker_open") && !strings.Contains(host.why, "/timeout") {
				require.Contains(t, host.why, "screened=request:scanned")
			}
			host.stream.Done()
		}
	})
}

// TestPoliciesOfDifferentSpeakers ask one service apart, each for its own action; those of the same ask once, for the larger one.
func TestPoliciesOfDifferentSpeakers(t *testing.T) {
	for _, c := range []struct {
		second string
		asked  []string
		status int
	}{
		{"roles: [system], action: report", []string{"ok", "bad"}, 0},
		{"roles: [user], action: report", []string{"ok"}, 0},
		{"roles: [system], action: block", []string{"ok", "bad"}, 400},
		{"text: latest, roles: [user], action: report", []string{"ok", "ok"}, 0},
	} {
		g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: request, use: [p], action: block, roles: [user]}, {on: request, use: [p], `+c.second+`}]}`)
		host := &guarding{judge: blocking("bad"), stream: g.chain.NewStream()}
		host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
		host.stream.Begin(host)
		host.stream.RequestHeaders(false)
		host.stream.RequestBody([]byte(`{"messages":[{"role":"system","content":"bad"},{"role":"user","content":"ok"}]}`), true)
		for len(host.open) > 0 {
			host.answer(t, 0)
		}
		require.Equal(t, c.asked, host.asked, c.second)
		require.Equal(t, c.status != 0, host.refused != nil, c.second)
		host.stream.Done()
	}
}

// TestAServiceThatAlwaysRedacts does not keep a request forever.
func TestAServiceThatAlwaysRedacts(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard, limit: 256}, timeout: 1m}], policies: [{on: request, use: [p], action: redact}]}`)
	host := &guarding{judge: func(text string) string {
		with, _ := json.Marshal("x" + text)
		return fmt.Sprintf(`{"action":"redact","text":%s}`, with)
	}, stream: g.chain.NewStream()}
	host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
	host.stream.Begin(host)
	host.stream.RequestHeaders(false)
	host.stream.RequestBody([]byte(`{"messages":[{"role":"user","content":"`+strings.Repeat("word ", 100)+`"}]}`), true)
	for len(host.open) > 0 && host.refused == nil {
		host.answer(t, 0)
	}
	require.Equal(t, 413, host.refused.Status)
	require.LessOrEqual(t, len(host.asked), 64)
}

// TestWaitingIsForBoth: of two policies that want the same asked, one before the model call and one beside it, the first decides when.
func TestWaitingIsForBoth(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: request, use: [p], action: block, mode: parallel}, {on: request, use: [p], action: report}]}`)
	host := &guarding{judge: blocking("bad"), stream: g.chain.NewStream()}
	host.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
	host.stream.Begin(host)
	host.stream.RequestHeaders(false)
	require.Equal(t, chain.Hold, host.stream.RequestBody([]byte(`{"messages":[{"role":"user","content":"bad"}]}`), true))
	host.answer(t, 0)
	require.Empty(t, host.open)
	require.Equal(t, 400, host.refused.Status)
}

// TestContext: a question about a stream has what went before it, so that of a short text each is a beginning, up to the end.
func TestContext(t *testing.T) {
	g := guard(t, remotely("block", 0, "64KiB"))
	s := g.chain.NewStream()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "bc ", " ", "def", "ä", "\n"}), 1, 60).Draw(t, "text"), "") + "."
		body := "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n" + eventsOf([]string{text}, draw)
		host := &guarding{judge: func(string) string { return `{"action":"pass"}` }}
		host.play(t, s, body, draw)
		require.Equal(t, body, string(host.out))
		last := ""
		for _, asked := range host.asked {
			require.True(t, strings.HasPrefix(text, asked), "%q of %q", asked, text)
			require.Greater(t, len(asked), len(last))
			last = asked
		}
		require.Equal(t, text, last)
	})
}

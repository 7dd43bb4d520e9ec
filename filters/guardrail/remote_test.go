package guardrail_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

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
	g.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
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
			g := guard(t, remotely(c.action, c.overlap, c.limit))
			rapid.Check(t, func(t *rapid.T) {
				s := g.chain.NewStream()
				draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
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

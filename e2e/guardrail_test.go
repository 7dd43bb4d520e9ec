package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/internal/lines"
)

// TestGuardrail: with the shipped configuration, no datum reaches a replica or comes from one, however the response is cut.
func TestGuardrail(t *testing.T) {
	document, err := os.ReadFile("../envoy/static/inlet-guardrail.yaml")
	require.NoError(t, err)
	kinds := detect.Set(0)
	for _, name := range []string{"email", "card", "iban", "ssn", "phone", "ip", "secrets"} {
		kinds |= detect.Groups[name]
	}
	d, wrong := detect.New(detect.Config{Kinds: kinds})
	require.Nil(t, wrong)
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			pools := stack.DefaultPools()
			for i := range pools { // some ms between events, so that they arrive one by one
				pools[i].Args = append(pools[i].Args, "--speed", "3")
			}
			s := stack.ForTest(t, stack.Options{ABI: abi, Chain: string(document), Pools: pools})
			for i, l := range lines.Generate(3)[:24] {
				want := redacted(d, l.Text)
				ask := guardAsk{url: s.URL(), text: l.Text, piece: 1 + i%7, stream: i%4 != 0}
				ask.redacted(t, want)
				if want != l.Text {
					ask.blocked(t)
				}
			}
		})
	}
}

// redacted is a text as the client and the replica are to see it.
func redacted(d *detect.Detector, text string) string {
	var s detect.Scanner
	var b strings.Builder
	at := 0
	for _, f := range d.Find(&s, []byte(text)) {
		if f.From >= at {
			b.WriteString(text[at:f.From] + f.Kind.Label())
		}
		at = max(at, f.To)
	}
	return b.String() + text[at:]
}

// guardAsk is a prompt, and what its response is to say.
type guardAsk struct {
	url, text string
	piece     int // characters in an event
	stream    bool
}

// send sends the prompt; say: the response says the same.
func (a guardAsk) send(t *testing.T, model, prompt string, say bool) (*http.Response, string) {
	content, err := json.Marshal(prompt)
	require.NoError(t, err)
	r, err := http.NewRequest("POST", a.url+"/v1/chat/completions", strings.NewReader(fmt.Sprintf(
		`{"model":%q,"stream":%v,"messages":[{"role":"user","content":%s}]}`, model, a.stream, content)))
	require.NoError(t, err)
	r.Header.Set("content-type", "application/json")
	if say {
		r.Header.Set("x-modelsim-say", base64.StdEncoding.EncodeToString([]byte(a.text)))
		r.Header.Set("x-modelsim-piece", fmt.Sprint(a.piece))
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if !say || model == "llama" {
		require.NoError(t, err)
	}
	if !strings.HasPrefix(res.Header.Get("content-type"), "text/event-stream") {
		return res, gjson.GetBytes(body, "choices.0.message.content").Str
	}
	var text strings.Builder
	for line := range strings.Lines(string(body)) {
		text.WriteString(gjson.Get(strings.TrimPrefix(line, "data: "), "choices.0.delta.content").Str)
	}
	return res, text.String()
}

func (a guardAsk) redacted(t *testing.T, want string) {
	res, got := a.send(t, "llama", a.text, true)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, want, got)
	sum := sha256.Sum256([]byte(want))
	require.Equal(t, hex.EncodeToString(sum[:]), res.Header.Get("x-modelsim-prompt-sha256"), "what the replica got of %q", a.text)
}

func (a guardAsk) blocked(t *testing.T) {
	res, _ := a.send(t, "gemma", a.text, false)
	require.Equal(t, 400, res.StatusCode)
	require.Empty(t, res.Header.Get("x-modelsim-replica"), "it does not reach a replica")
	_, got := a.send(t, "gemma", "Say it.", true)
	require.True(t, got == "" || strings.HasPrefix(a.text, got) && len(got) < len(a.text), "%q of %q", got, a.text)
}

// TestRunGuardrail runs the README's command for it, and checks what the README says of it from outside.
func TestRunGuardrail(t *testing.T) {
	port := freePort(t)
	cmd, lines, printed := startRun(t, buildProgram(t, "./cmd/inletctl"), port, stack.Module, "envoy/static/inlet-guardrail.yaml")
	tryPrinted(t, printed, `"chat.completion"`, "data: [DONE]", `"model_not_found"`, "Write to [EMAIL].", "[CARD]")
	tried := 0
	for _, command := range readmeExamples(t, fmt.Sprintf("127.0.0.1:%d", port)) {
		if strings.Contains(command, saysHeader) {
			tried++
			require.Contains(t, runExample(t, command), "[CARD]")
		}
	}
	require.Equal(t, 1, tried)
	const found = "Mail jane@example.com, card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, SSN 078-05-1120, key AKIAIOSFODNN7EXAMPLE."
	const redacted = "Mail [EMAIL], card [CARD], IBAN [IBAN], SSN [SSN], key [SECRET]."
	ask := func(model, prompt string, stream bool, headers ...string) (res *http.Response, text string, events []string) {
		r, err := http.NewRequest("POST", fmt.Sprintf("http://127.0.0.1:%d/v1/chat/completions", port), strings.NewReader(fmt.Sprintf(
			`{"model":%q,"stream":%v,"messages":[{"role":"system","content":"Be brief. "},{"role":"user","content":%q}]}`, model, stream, prompt)))
		require.NoError(t, err)
		r.Header.Set("content-type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		res, err = http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		if !stream || res.StatusCode != 200 {
			return res, gjson.GetBytes(body, "choices.0.message.content").Str + gjson.GetBytes(body, "error.code").Str, nil
		}
		for line := range strings.Lines(string(body)) {
			if piece := gjson.Get(strings.TrimPrefix(line, "data: "), "choices.0.delta.content").Str; piece != "" {
				text += piece
				events = append(events, piece)
			}
			text += gjson.Get(strings.TrimPrefix(line, "data: "), "error.code").Str
		}
		return res, text, events
	}
	say := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

	res, text, _ := ask("llama", found, false, "x-modelsim-echo", "prompt")
	require.Equal(t, redacted, text)
	sum := sha256.Sum256([]byte("Be brief. " + redacted))
	require.Equal(t, hex.EncodeToString(sum[:]), res.Header.Get("x-modelsim-prompt-sha256"))
	for _, piece := range []string{"1", "2", "7"} {
		_, text, _ = ask("llama", "Say it.", true, "x-modelsim-say", say(found), "x-modelsim-piece", piece)
		require.Equal(t, redacted, text)
	}
	_, text, events := ask("llama", "Say it.", true, "x-modelsim-say", say("äöü, as it is"), "x-modelsim-piece", "4")
	require.Equal(t, "äöü, as it is", text)
	require.Equal(t, []string{"äöü,", " as ", "it i", "s"}, events)
	for _, stream := range []bool{false, true} {
		res, text, _ = ask("gemma", found, stream, "x-modelsim-echo", "prompt")
		require.Equal(t, "400 content_policy_violation", fmt.Sprint(res.StatusCode, " ", text))
		res, text, _ = ask("gemma", "Say it.", stream, "x-modelsim-say", say("jane@example.com, "+found))
		require.Equal(t, "400 content_policy_violation", fmt.Sprint(res.StatusCode, " ", text))
	}
	before := strings.Repeat("A few words. ", 20)
	res, text, _ = ask("gemma", "Say it.", true, "x-modelsim-say", say(before+found), "x-modelsim-piece", "3")
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, before+"Mail"+"content_policy_violation", text, "the events before it, and the error's code")
	endRun(t, cmd, lines)
}

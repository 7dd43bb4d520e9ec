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
			s := stack.ForTest(t, stack.Options{ABI: abi, Chain: string(document)})
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

package sim

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"
)

// ask sends a chat and returns the headers and the text of the response, and how many events with text it had.
func ask(t *testing.T, body string, headers ...string) (http.Header, string, int) {
	server := httptest.NewServer(New(Config{}))
	defer server.Close()
	r, err := http.NewRequest("POST", server.URL+"/v1/chat/completions", strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if res.StatusCode != 200 {
		return res.Header, "", res.StatusCode
	}
	if !strings.HasPrefix(string(answer), "data:") {
		return res.Header, gjson.GetBytes(answer, "choices.0.message.content").Str, 0
	}
	var text strings.Builder
	events := 0
	for line := range strings.Lines(string(answer)) {
		if piece := gjson.Get(strings.TrimPrefix(line, "data: "), "choices.0.delta.content").Str; piece != "" {
			text.WriteString(piece)
			events++
		}
	}
	return res.Header, text.String(), events
}

func TestSay(t *testing.T) {
	const text = "Mail jane@example.com, – ünd \"so\" on, for as long as it takes to say it all 😀."
	say := base64.StdEncoding.EncodeToString([]byte(text))
	_, got, _ := ask(t, `{"model":"m","max_tokens":1,"messages":[]}`, "x-modelsim-say", say)
	require.Equal(t, text, got)
	_, got, events := ask(t, `{"model":"m","stream":true,"messages":[]}`, "x-modelsim-say", say, "x-modelsim-piece", "1")
	require.Equal(t, text, got)
	require.Equal(t, len([]rune(text)), events)
	_, got, events = ask(t, `{"model":"m","stream":true,"messages":[]}`, "x-modelsim-say", say, "x-modelsim-piece", "1000")
	require.Equal(t, text, got)
	require.Equal(t, 1, events)
	_, _, status := ask(t, `{"model":"m","messages":[]}`, "x-modelsim-say", "%")
	require.Equal(t, 400, status)
	_, _, status = ask(t, `{"model":"m","messages":[]}`, "x-modelsim-piece", "0")
	require.Equal(t, 400, status)
}

func TestPromptIsTold(t *testing.T) {
	h, got, _ := ask(t, `{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]},{"role":"assistant","content":"d"}]}`, "x-modelsim-echo", "prompt")
	sum := sha256.Sum256([]byte("abcd"))
	require.Equal(t, hex.EncodeToString(sum[:]), h.Get("x-modelsim-prompt-sha256"))
	require.Equal(t, "bc", got, "the last message of the user")
}

package quota_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const seenChat = `{"model":"seen","messages":[{"role":"user","content":"hello"}],"max_tokens":4}`

// testKeys: a key is accepted in each place, and no replica sees it; without a key nothing is served.
func testKeys(t *testing.T, s *stack.Stack, seen *recorder) {
	key := keyOf("anybody")
	for name, c := range map[string]struct {
		query   string
		headers []string
	}{
		"x-api-key":        {"", []string{"x-api-key", key}},
		"bearer":           {"", []string{"authorization", "Bearer " + key}},
		"a header":         {"", []string{"x-team-key", key}},
		"the query":        {"?key=" + key, nil},
		"among parameters": {"?a=1&key=" + key + "&b=2", nil},
		"all at once":      {"?key=" + key, []string{"x-api-key", key, "authorization", "Bearer " + key, "x-team-key", key, "cookie", "key=" + key}},
	} {
		a := must(t, s.URL()+chatPath+c.query, seenChat, c.headers...)
		require.Equal(t, http.StatusOK, a.status, "%s: %s", name, a.body)
		got := seen.take()
		require.Len(t, got, 1, name)
		require.NotContains(t, got[0].head+got[0].body, key, name)
		require.NotContains(t, fmt.Sprint(a.header)+a.body, key, name)
	}
	for name, c := range map[string]struct {
		code    string
		headers []string
	}{
		"no key":      {"missing_api_key", nil},
		"another key": {"invalid_api_key", []string{"x-api-key", "key-of-nobody"}},
		"two callers": {"conflicting_api_keys", []string{"x-api-key", key, "authorization", "Bearer " + keyOf("narrow")}},
	} {
		a := must(t, s.URL()+chatPath, seenChat, c.headers...)
		require.Equal(t, http.StatusUnauthorized, a.status, "%s: %s", name, a.body)
		require.Equal(t, c.code, gjson.Get(a.body, "error.code").Str, name)
		require.Empty(t, seen.take(), name)
	}
}

// testProducts: what a product does not include is refused, an operation before the body has come.
func testProducts(t *testing.T, s *stack.Stack, seen *recorder) {
	key := keyOf("narrow")
	a := must(t, s.URL()+chatPath, chat, "x-api-key", key)
	require.Equal(t, http.StatusOK, a.status, a.body)
	a = must(t, s.URL()+chatPath, seenChat, "x-api-key", key)
	require.Equal(t, http.StatusForbidden, a.status, a.body)
	require.Equal(t, "model_not_permitted", gjson.Get(a.body, "error.code").Str)
	require.Empty(t, seen.take())

	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintf(conn, "POST /v1/embeddings HTTP/1.1\r\nhost: inlet\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\nx-api-key: %s\r\n\r\n", key)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err, "the refusal comes before the body")
	defer func() { _ = res.Body.Close() }()
	require.Equal(t, http.StatusForbidden, res.StatusCode)
}

// testUsage: a stream whose usage nobody asked for is asked for it, and the client gets what it would have got without.
func testUsage(t *testing.T, s *stack.Stack, seen *recorder) {
	key := keyOf("anybody")
	a := must(t, s.URL()+chatPath, strings.Replace(seenChat, "{", `{"stream":true,`, 1), "x-api-key", key)
	require.Equal(t, http.StatusOK, a.status, a.body)
	got := seen.take()
	require.Len(t, got, 1)
	require.True(t, gjson.Get(got[0].body, "stream_options.include_usage").Bool(), got[0].body)

	for path, body := range map[string]string{
		chatPath:          strings.Replace(chat, "{", `{"stream":true,`, 1),
		"/v1/completions": `{"stream":true,"model":"llama","prompt":"hello","max_tokens":4}`,
	} {
		a := must(t, s.URL()+path, body, "x-api-key", key)
		require.Equal(t, http.StatusOK, a.status, a.body)
		require.NotContains(t, a.body, "usage", path)
		require.True(t, strings.HasSuffix(a.body, "data: [DONE]\n\n"), a.body)
		asked := must(t, s.URL()+path, strings.Replace(body, "{", `{"stream_options":{"include_usage":true},`, 1), "x-api-key", key)
		require.Contains(t, asked.body, `"usage":{`, path)
		require.Equal(t, strings.Count(asked.body, "\n\n")-1, strings.Count(a.body, "\n\n"), "one event less: %s", a.body)
	}
}

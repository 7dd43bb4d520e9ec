package quota_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"
)

// admin is a companion's admin API.
type admin struct{ url, config, token string }

// newAdmin chooses a port and a token.
func newAdmin(t *testing.T) *admin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	a := &admin{url: "http://" + l.Addr().String(), config: filepath.Join(t.TempDir(), "token"), token: "a-token-of-the-test-0123456789abcdef"}
	require.NoError(t, os.WriteFile(a.config, []byte(a.token+"\n"), 0o600))
	return a
}

// settings are those of the companion for this API.
func (a *admin) settings() map[string]any {
	return map[string]any{"listen": strings.TrimPrefix(a.url, "http://"), "tokenFile": a.config}
}

// try sends a request; body is JSON or nil.
func (a *admin) try(method, path string, body any) (int, string, error) {
	text := ""
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, "", err
		}
		text = string(b)
	}
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(text))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("authorization", "Bearer "+a.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	return res.StatusCode, string(got), err
}

// do expects success.
func (a *admin) do(t *testing.T, method, path string, body any) gjson.Result {
	t.Helper()
	status, got, err := a.try(method, path, body)
	require.NoError(t, err)
	require.Less(t, status, 300, "%s %s: %s", method, path, got)
	return gjson.Parse(got)
}

// used is what the account with these parts in its name has used. -1: there is none.
func (a *admin) used(parts ...string) (int64, error) {
	status, got, err := a.try(http.MethodGet, "/v1/accounts?limit=10000", nil)
	if err != nil || status != http.StatusOK {
		return 0, fmt.Errorf("the accounts: status %d %s: %w", status, got, err)
	}
	found := int64(-1)
	for _, account := range gjson.Get(got, "accounts").Array() {
		name, matches := account.Get("name").Str, true
		for _, part := range parts {
			matches = matches && strings.Contains(name, part)
		}
		if matches && found >= 0 {
			return 0, fmt.Errorf("two accounts with %q in %s", parts, got)
		}
		if matches {
			found = account.Get("used").Int()
		}
	}
	return found, nil
}

package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/inlet-proxy/inlet/e2e/process"
)

// adminToken is the token of the companion's admin API.
const adminToken = "admin-token-of-the-stack-0123456789"

// quotaSettings are the companion's settings for quotas. With Options.Admin it serves its admin API, at an address that stays.
func (s *Stack) quotaSettings() (object, error) {
	settings := maps.Clone(s.o.Quota)
	if settings == nil {
		settings = object{}
	}
	if !s.o.Admin {
		return settings, nil
	}
	if s.quotaAdmin == "" {
		port, err := process.FreePort()
		if err != nil {
			return nil, err
		}
		s.quotaAdmin = fmt.Sprintf("127.0.0.1:%d", port)
	}
	token := filepath.Join(s.Dir, "admin-token")
	settings["admin"] = object{"listen": s.quotaAdmin, "tokenFile": token}
	return settings, os.WriteFile(token, []byte(adminToken+"\n"), 0o600)
}

// AskAdmin sends a request to the companion's admin API, which Options.Admin turns on. A body is sent as JSON.
func (s *Stack) AskAdmin(ctx context.Context, method, path string, body any) (status int, text []byte, err error) {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return 0, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.quotaAdmin+path, &sent)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("authorization", "Bearer "+adminToken)
	resp, err := adminClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err = io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// Used is what the companion knows of the one account whose name has all these parts: how much was used. It is -1 if there is none.
func (s *Stack) Used(ctx context.Context, parts ...string) (int64, error) {
	status, text, err := s.AskAdmin(ctx, http.MethodGet, "/v1/accounts?limit=10000", nil)
	if err != nil || status != http.StatusOK {
		return 0, fmt.Errorf("the companion's accounts: status %d %s: %w", status, text, err)
	}
	var list struct {
		Accounts []struct {
			Name string `json:"name"`
			Used int64  `json:"used"`
		} `json:"accounts"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return 0, fmt.Errorf("%w in %s", err, text)
	}
	used := int64(-1)
	for _, a := range list.Accounts {
		matches := true
		for _, part := range parts {
			matches = matches && strings.Contains(a.Name, part)
		}
		if matches && used >= 0 {
			return 0, fmt.Errorf("several accounts have %q in their names: %s", parts, text)
		}
		if matches {
			used = a.Used
		}
	}
	return used, nil
}

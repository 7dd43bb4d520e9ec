package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
	DisableCompression: true,
	DisableKeepAlives:  true, // a connection keeps the configuration that it began with
}}

// reply is a response, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

// chat is a body of a chat.
func chat(model, prompt string) string {
	text, err := json.Marshal(object{"model": model, "max_tokens": 4, "messages": []any{object{"role": "user", "content": prompt}}})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// send sends a request; headers are name, value, …
func (r *running) send(t *testing.T, method, path, body string, headers ...string) reply {
	t.Helper()
	got, err := r.try(t, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (r *running) try(t *testing.T, method, path, body string, headers ...string) (reply, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url()+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if body != "" {
		req.Header.Set("content-type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(text)}, err
}

// chat sends a chat.
func (r *running) chat(t *testing.T, model, prompt string, headers ...string) reply {
	t.Helper()
	return r.send(t, http.MethodPost, "/v1/chat/completions", chat(model, prompt), headers...)
}

// serves waits until the gateway serves a model.
func (r *running) serves(t *testing.T, model string, headers ...string) {
	t.Helper()
	r.until(t, "serving "+model, func() bool { return r.get(t, model, headers...).status == http.StatusOK })
}

// get is a chat for conditions that are waited for: a failure is a reply without a status.
func (r *running) get(t *testing.T, model string, headers ...string) reply {
	t.Helper()
	got, err := r.try(t, http.MethodPost, "/v1/chat/completions", chat(model, "Hello"), headers...)
	if err != nil {
		return reply{}
	}
	return got
}

// knows waits until Inlet has the companion's snapshot in all workers, and so picks.
func (r *running) knows(t *testing.T, model string, headers ...string) {
	t.Helper()
	r.serves(t, model, headers...)
	picks := 0
	r.until(t, "picking", func() bool {
		got := r.get(t, model, headers...)
		if got.status == http.StatusOK && r.logged(t, got).Picked != "" {
			picks++
		} else {
			picks = 0
		}
		return picks == 10 // in a row
	})
}

// code is the code of an error in OpenAI's form, "" if the body is something else.
func (g *reply) code() string {
	var e struct {
		Error struct{ Message, Code string }
	}
	if json.Unmarshal([]byte(g.body), &e) != nil || e.Error.Message == "" {
		return ""
	}
	return e.Error.Code
}

// access is a line of the access log.
type access struct {
	RequestID string `json:"request_id"`
	Pool      string `json:"pool"`
	Cluster   string `json:"cluster"`
	Picked    string `json:"picked"`
	Replica   string `json:"replica"`
	Why       string `json:"why"`
}

// logged waits for the line of a response in Envoy's access log.
func (r *running) logged(t *testing.T, g reply) access {
	t.Helper()
	id := g.header.Get("x-request-id")
	if id == "" {
		t.Fatal("the response has no x-request-id")
	}
	var found access
	r.until(t, "logging a request", func() bool {
		text, err := os.ReadFile(r.log)
		if err != nil {
			return false
		}
		for line := range strings.Lines(string(text)) {
			var a access
			if json.Unmarshal([]byte(line), &a) == nil && a.RequestID == id {
				found = a
				return true
			}
		}
		return false
	})
	return found
}

// picked checks that a request went to the first replica of Inlet's list, and returns the replica's name.
func (r *running) picked(t *testing.T, g reply) string {
	t.Helper()
	a := r.logged(t, g)
	first, _, _ := strings.Cut(a.Picked, ",")
	if first == "" || first != a.Replica {
		t.Errorf("picked %q, served by %q (%s)", a.Picked, a.Replica, a.Why)
	}
	return g.header.Get("x-modelsim-replica")
}

package quota

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// console is a service with its admin API. Every response is compared with the OpenAPI document.
type console struct {
	*service
	admin string
	token string
}

const adminToken = "the-admin-token"

func startAdmin(t *testing.T, o Options) *console {
	t.Helper()
	c := &console{service: start(t, o), token: filepath.Join(t.TempDir(), "token")}
	require.NoError(t, os.WriteFile(c.token, []byte(adminToken+"\n"), 0o600))
	h, err := c.Admin(c.token)
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c.admin = server.URL
	return c
}

// do sends a request and returns the status and the body.
func (c *console) do(method, path, body string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, c.admin+path, strings.NewReader(body))
	require.NoError(c.t, err)
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	if resp.StatusCode != http.StatusNoContent {
		described(c.t, method, path, resp.StatusCode, text)
	}
	return resp.StatusCode, string(text)
}

// ok is do for what must succeed.
func (c *console) ok(method, path, body string) gjson.Result {
	c.t.Helper()
	status, text := c.do(method, path, body)
	require.Less(c.t, status, 300, text)
	return gjson.Parse(text)
}

var openAPI = sync.OnceValues(func() (*jsonschema.Compiler, any) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(OpenAPI))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("openapi.json", doc); err != nil {
		panic(err)
	}
	return c, doc
})

var inPath = regexp.MustCompile(`^(/v1/(?:developers|apps|products|keys))/[^/?]+`)

// described compares a response with its description.
func described(t *testing.T, method, path string, status int, body []byte) {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	path = inPath.ReplaceAllString(path, "$1/{name}")
	answer := fmt.Sprint(status)
	if status >= 400 {
		answer = "default"
	}
	pointer := fmt.Sprintf("openapi.json#/paths/%s/%s/responses/%s/content/application~1json/schema",
		strings.ReplaceAll(path, "/", "~1"), strings.ToLower(method), answer)
	compiler, _ := openAPI()
	schema, err := compiler.Compile(strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer))
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	require.NoError(t, err, string(body))
	require.NoError(t, schema.Validate(value), string(body))
}

// TestOpenAPI: every endpoint is described, and nothing else.
func TestOpenAPI(t *testing.T) {
	a := &admin{}
	a.routes()
	want := map[string]bool{"GET /v1/openapi.json": true}
	for _, pattern := range a.patterns {
		want[pattern] = true
	}
	got := map[string]bool{}
	gjson.GetBytes(OpenAPI, "paths").ForEach(func(path, methods gjson.Result) bool {
		methods.ForEach(func(method, operation gjson.Result) bool {
			got[strings.ToUpper(method.Str)+" "+path.Str] = true
			require.NotEmpty(t, operation.Get("summary").Str, path.Str)
			return true
		})
		return true
	})
	require.Equal(t, want, got)
	c := startAdmin(t, Options{Managed: true})
	require.Equal(t, "3.1.0", c.ok("GET", "/v1/openapi.json", "").Get("openapi").Str)
}

func TestOnlyWithTheToken(t *testing.T) {
	c := startAdmin(t, Options{Managed: true})
	for _, value := range []string{"", "Bearer", "Bearer x", "Basic " + adminToken, adminToken, "Bearer " + adminToken + "x", "Bearer " + adminToken[1:]} {
		for _, path := range []string{"/v1/keys", "/v1/openapi.json", "/nowhere"} {
			req, err := http.NewRequest("GET", c.admin+path, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", value)
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, resp.StatusCode, value)
			require.Equal(t, "Bearer", resp.Header.Get("WWW-Authenticate"))
			require.Contains(t, string(text), "quota.admin.tokenFile")
		}
	}
	status, _ := c.do("GET", "/v1/keys", "")
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, os.WriteFile(c.token, []byte("another"), 0o600))
	status, _ = c.do("GET", "/v1/keys", "")
	require.Equal(t, http.StatusUnauthorized, status, "the token was replaced")
	require.NoError(t, os.Remove(c.token))
	status, _ = c.do("GET", "/v1/keys", "")
	require.Equal(t, http.StatusServiceUnavailable, status)
	_, err := c.Admin(c.token)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// keysOf is what a proxy knows.
func (c *console) keysOf() gjson.Result {
	c.t.Helper()
	return gjson.ParseBytes(c.say(&account.Message{Proxy: "a"}).Keys)
}

// A directory grows, and each step reaches a proxy with its next message.
func TestDirectoryByTheAdminAPI(t *testing.T) {
	c := startAdmin(t, Options{Managed: true, Now: func() time.Time { return time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC) }})
	require.Empty(t, c.ok("GET", "/v1/keys", "").Get("keys").Array())
	c.ok("POST", "/v1/products", `{"name": "trial", "requests": "5/min", "tokens": {"total": "300/min"}, "operations": [{"pathPrefix": "/v1/", "methods": ["POST"]}]}`)
	c.ok("POST", "/v1/developers", `{"name": "ann"}`)
	c.ok("POST", "/v1/apps", `{"name": "shop", "developer": "ann", "products": ["trial"]}`)
	key := c.ok("POST", "/v1/keys", `{"name": "demo", "app": "shop", "expires": "2027-01-31T00:00:00Z"}`)
	secret := key.Get("key").Str
	require.Regexp(t, `^sk-[A-Za-z0-9_-]{43}$`, secret)
	sum := sha256.Sum256([]byte(secret))
	require.Equal(t, hex.EncodeToString(sum[:]), key.Get("sha256").Str)

	known := c.keysOf()
	require.Equal(t, key.Get("sha256").Str, known.Get("keys.0.sha256").Str)
	require.Equal(t, "approved", known.Get("apps.0.status").Str)
	require.NotContains(t, known.Raw, secret)
	require.Empty(t, c.ok("GET", "/v1/keys/demo", "").Get("key").Str, "it is shown once")

	rotated := c.ok("POST", "/v1/keys/demo/rotate", `{"overlap": "24h"}`)
	require.NotEqual(t, secret, rotated.Get("key").Str)
	known = c.keysOf()
	require.Equal(t, rotated.Get("sha256").Str, known.Get(`keys.#(name=="demo").sha256`).Str)
	require.Equal(t, key.Get("sha256").Str, known.Get(`keys.#(name=="demo.1").sha256`).Str)
	require.Equal(t, "2026-12-01T12:00:00Z", known.Get(`keys.#(name=="demo.1").expires`).Str)
	require.Equal(t, "shop", known.Get(`keys.#(name=="demo.1").app`).Str)
	c.ok("POST", "/v1/keys/demo/rotate", "")
	require.Len(t, c.keysOf().Get("keys").Array(), 2, "without an overlap the old one is gone")

	require.Equal(t, "revoked", c.ok("POST", "/v1/keys/demo/revoke", "").Get("status").Str)
	require.Equal(t, "revoked", c.keysOf().Get(`keys.#(name=="demo").status`).Str)
	c.ok("PUT", "/v1/products/trial", `{"name": "trial", "requests": "6/min"}`)
	require.Equal(t, "6/min", c.ok("GET", "/v1/products/trial", "").Get("requests").Str)
	require.Equal(t, "6/min", c.keysOf().Get("products.0.requests").Str)
	for _, path := range []string{"/v1/keys/demo", "/v1/apps/shop", "/v1/developers/ann", "/v1/products/trial"} {
		c.ok("DELETE", path, "")
	}
	require.JSONEq(t, `{"developers": [], "apps": [], "keys": [], "products": []}`, c.keysOf().Raw)

	log := c.log.String()
	require.Contains(t, log, `msg=admin action="POST /v1/keys/demo/rotate"`)
	for _, k := range []string{secret, rotated.Get("key").Str, adminToken} {
		require.NotContains(t, log, k)
	}
}

// What a rotation leaves belongs to the application of its key, so that both have one counter, and ends with the key.
func TestRotation(t *testing.T) {
	c := &clock{at: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	a := startAdmin(t, Options{Managed: true, Now: c.now})
	a.ok("POST", "/v1/products", `{"name": "p", "requests": "2/day"}`)
	a.ok("POST", "/v1/apps", `{"name": "shop"}`)
	a.ok("POST", "/v1/keys", `{"name": "alone", "products": ["p"]}`)
	a.ok("POST", "/v1/keys", `{"name": "shop", "products": ["p"]}`)
	a.ok("POST", "/v1/keys", `{"name": "other", "app": "shop", "expires": "2026-11-30T13:00:00Z"}`)
	for name, app := range map[string]string{"alone": "alone", "shop": "shop", "other": "shop"} {
		for range 2 {
			require.Equal(t, app, a.ok("POST", "/v1/keys/"+name+"/rotate", `{"overlap": "2h"}`).Get("app").Str)
		}
		known := a.keysOf()
		require.Equal(t, int64(1), known.Get(`apps.#(name=="`+app+`")#|#`).Int())
		for _, n := range []string{".1", ".2"} {
			old := known.Get(`keys.#(name=="` + name + n + `")`)
			require.Equal(t, app, old.Get("app").Str, "the same counters")
			require.Equal(t, known.Get(`keys.#(name=="`+name+`").products`).Raw, old.Get("products").Raw)
			require.Equal(t, name != "other", old.Get("expires").Str == "2026-11-30T14:00:00Z", "it does not live longer than it would have")
		}
	}
	refused := func(code, path, body, want string) {
		t.Helper()
		status, text := a.do("POST", path, body)
		require.Equal(t, http.StatusConflict, status)
		require.Equal(t, code, gjson.Get(text, "error.code").Str)
		require.Contains(t, text, want)
	}
	refused("old", "/v1/keys/alone.1/rotate", `{"overlap": "1h"}`, `what a rotation left of \"alone\"`)
	refused("name", "/v1/keys", `{"name": "alone.77"}`, "take another name")
	refused("name", "/v1/keys", `{"name": "alone.1.2"}`, "take another name")
	a.ok("POST", "/v1/keys", `{"name": "new.1"}`)
	refused("name", "/v1/keys", `{"name": "new"}`, "take another name")
	a.ok("POST", "/v1/keys", `{"name": "alone.x"}`)

	a.ok("POST", "/v1/keys/alone/revoke", "")
	for name, status := range map[string]string{"alone": "revoked", "alone.1": "revoked", "alone.2": "revoked", "alone.x": "active", "shop.1": "active", "other.2": "active"} {
		require.Equal(t, status, a.ok("GET", "/v1/keys/"+name, "").Get("status").Str, name)
	}
	before := a.keysOf().Raw
	refused("revoked", "/v1/keys/alone/rotate", "", "would not be valid either")
	c.add(time.Hour)
	refused("expired", "/v1/keys/other/rotate", "", "would not be valid either")
	require.Equal(t, before, a.keysOf().Raw)
	a.ok("DELETE", "/v1/keys/shop", "")
	require.Equal(t, int64(0), a.keysOf().Get(`keys.#(name%"shop*")#|#`).Int(), "an old key does not outlive its key")
}

func TestAdminErrors(t *testing.T) {
	c := startAdmin(t, Options{Managed: true})
	c.ok("POST", "/v1/products", `{"name": "trial"}`)
	c.ok("POST", "/v1/apps", `{"name": "shop", "products": ["trial"]}`)
	c.ok("POST", "/v1/keys", `{"name": "demo", "app": "shop"}`)
	before := c.keysOf().Raw
	for _, e := range []struct {
		method, path, body string
		status             int
		code, want         string
	}{
		{"POST", "/v1/apps", `{`, 400, "bad_body", "no JSON"},
		{"POST", "/v1/apps", `name: a`, 400, "bad_body", "no JSON"},
		{"POST", "/v1/apps", `[]`, 400, "bad_body", "1:1"},
		{"POST", "/v1/apps", ``, 400, "bad_body", `missing key \"name\"`},
		{"POST", "/v1/apps", `{"nam": "x"}`, 400, "bad_body", `did you mean \"name\"?`},
		{"POST", "/v1/apps", `{"name": "x", "status": "good"}`, 400, "bad_body", "status: 1:25"},
		{"POST", "/v1/apps", `{"name": "shop"}`, 409, "exists", "PUT /v1/apps/shop"},
		{"POST", "/v1/apps", `{"name": "x", "products": ["trail"]}`, 409, "inconsistent", `did you mean \"trial\"?`},
		{"POST", "/v1/apps", `{"name": "x", "padding": "` + strings.Repeat("x", maxAdminBody) + `"}`, 413, "too_large", "exceeds"},
		{"POST", "/v1/products", `{"name": "twice", "requests": "5/min, 6/min"}`, 400, "bad_entry", "two limits for the same period"},
		{"POST", "/v1/products", `{"name": "lower", "operations": [{"path": "/", "methods": ["post"]}]}`, 400, "bad_entry", "is not a method"},
		{"POST", "/v1/products", `{"name": "early", "start": "1900-01-01T00:00:00Z"}`, 400, "bad_body", "is not between 1970 and September 2248"},
		{"PUT", "/v1/apps/shpo", `{"name": "shpo"}`, 404, "not_found", `did you mean \"shop\"?`},
		{"PUT", "/v1/apps/shop", `{"name": "shop2"}`, 400, "bad_body", "a name does not change"},
		{"DELETE", "/v1/products/trial", ``, 409, "inconsistent", `app \"shop\": there is no product \"trial\"`},
		{"DELETE", "/v1/apps/shop", ``, 409, "inconsistent", `key \"demo\"`},
		{"DELETE", "/v1/keys/x", ``, 404, "not_found", "GET /v1/keys"},
		{"POST", "/v1/keys", `{"name": "demo"}`, 409, "exists", "rotate"},
		{"POST", "/v1/keys", `{"name": "k", "sha256": "00"}`, 400, "bad_body", "unknown key"},
		{"POST", "/v1/keys/dmeo/rotate", ``, 404, "not_found", `did you mean \"demo\"?`},
		{"POST", "/v1/keys/demo/rotate", `{"overlap": "1000000h"}`, 400, "bad_body", "out of range"},
		{"POST", "/v1/keys/x/revoke", ``, 404, "not_found", "there is no key"},
		{"GET", "/v1/accounts?limit=0", ``, 400, "bad_query", "1 to 10000"},
		{"POST", "/v1/accounts/reset", `{"account": "x"}`, 404, "not_found", "GET /v1/accounts"},
		{"POST", "/v1/accounts/grant", `{"account": "x"}`, 400, "bad_body", `missing key \"amount\"`},
		{"POST", "/v1/accounts/grant", `{"account": "x", "amount": 0}`, 400, "bad_body", "out of range"},
	} {
		status, text := c.do(e.method, e.path, e.body)
		at := e.method + " " + e.path + " " + text
		require.Equal(t, e.status, status, at)
		require.Equal(t, e.code, gjson.Get(text, "error.code").Str, at)
		require.Contains(t, text, e.want, at)
	}
	require.Equal(t, before, c.keysOf().Raw, "nothing changed")
}

func TestDirectoryInAFileIsNotEdited(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	require.NoError(t, os.WriteFile(file, []byte(directory), 0o600))
	c := startAdmin(t, Options{File: file})
	require.Len(t, c.ok("GET", "/v1/keys", "").Get("keys").Array(), 1)
	status, text := c.do("POST", "/v1/developers", `{"name": "bob"}`)
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, text, "read_only")
}

// Editors at the same time lose nothing.
func TestConcurrentEdits(t *testing.T) {
	c := startAdmin(t, Options{Managed: true})
	var editors sync.WaitGroup
	for i := range 8 {
		editors.Go(func() {
			for j := range 10 {
				body, _ := json.Marshal(map[string]string{"name": fmt.Sprintf("d%d-%d", i, j)})
				for status := 0; status != http.StatusCreated; {
					if status, _ = c.do("POST", "/v1/developers", string(body)); status != http.StatusCreated && status != http.StatusConflict {
						t.Errorf("status %d", status)
						return
					}
				}
			}
		})
	}
	editors.Wait()
	require.Len(t, c.ok("GET", "/v1/developers", "").Get("developers").Array(), 80)
}

package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// newQuota makes a filter from a setting of the places, such as "header: x-api-key"; "" is the default. Key one belongs
// to app-0 and so on.
func newQuota(t testing.TB, places string, keys ...string) *Filter {
	doc := "keys:\n  " + places + "\n  list:\n"
	for i, key := range keys {
		sum := sha256.Sum256([]byte(key))
		doc += fmt.Sprintf("    - {name: app-%d, sha256: %s}\n", i, hex.EncodeToString(sum[:]))
	}
	return load(t, doc)
}

// load makes a filter from a document.
func load(t testing.TB, doc string) *Filter {
	return newRig(t, doc).f
}

// headers are lines "name: value".
type headers []string

func (h headers) Get(name string) (string, bool) { return h.At(name, 0) }

func (h headers) At(name string, n int) (string, bool) {
	for _, line := range h {
		if key, value, _ := strings.Cut(line, ": "); key == name {
			if n == 0 {
				return value, true
			}
			n--
		}
	}
	return "", false
}

func (h headers) Line(n int) (name, value string, ok bool) {
	if n >= len(h) {
		return "", "", false
	}
	name, value, _ = strings.Cut(h[n], ": ")
	return name, value, true
}

// ask sends headers and returns the verdict and the removed headers, each once.
func ask(f *Filter, h headers) (x *filter.Exchange, v filter.Verdict, removed []string) {
	x = &filter.Exchange{}
	x.Reset(1)
	x.RequestHeaders = h
	v = f.OnRequestHeaders(x)
	for _, e := range x.Effects().Request {
		if !e.Remove {
			panic("quota sets no header")
		}
		if !slices.Contains(removed, e.Name) {
			removed = append(removed, e.Name)
		}
	}
	return x, v, removed
}

func TestOnePlace(t *testing.T) {
	for _, c := range []struct {
		name, header, value string
		code, tenant        string
	}{
		{"right", "x-api-key", "one", "", "app-0"},
		{"another", "x-api-key", "two", "", "app-1"},
		{"wrong", "x-api-key", "three", "invalid_api_key", ""},
		{"empty", "x-api-key", "", "missing_api_key", ""},
		{"missing", "x-api-key", "-", "missing_api_key", ""},
		{"with a scheme", "x-api-key", "Bearer one", "invalid_api_key", ""},
		{"bearer", "authorization", "Bearer one", "", "app-0"},
		{"bearer in capitals", "authorization", "BEARER  two ", "", "app-1"},
		{"bearer of nothing", "authorization", "Bearer ", "missing_api_key", ""},
		{"basic", "authorization", "Basic one", "missing_api_key", ""},
		{"no scheme", "authorization", "one", "missing_api_key", ""},
		{"Azure's", "api-key", "one", "", "app-0"},
		{"Google's", "x-goog-api-key", "two", "", "app-1"},
		{"one's own", "x-my-key", "two", "", "app-1"},
		{"for proxies", "proxy-authorization", "Bearer two", "", "app-1"},
	} {
		for _, places := range []string{"header: " + c.header, "from: [" + c.header + "]"} {
			t.Run(c.name+", "+places, func(t *testing.T) {
				f := newQuota(t, places, "one", "two")
				h := headers{c.header + ": " + c.value}
				if c.value == "-" {
					h = nil
				}
				x, v, removed := ask(f, h)
				require.Equal(t, c.tenant, x.Tenant.Name)
				if c.code != "" {
					require.Equal(t, 401, v.Refusal().Status)
					require.Equal(t, c.code, v.Refusal().Code)
					require.NotContains(t, v.Refusal().Message, "three", "a response never contains a key")
					require.Contains(t, v.Refusal().Message, c.header, "it names the place")
					return
				}
				require.Equal(t, filter.Next, v)
				require.Equal(t, []string{c.header}, removed)
			})
		}
	}
}

func TestSeveralPlaces(t *testing.T) {
	const foreign = "Bearer sk-of-the-provider"
	for _, c := range []struct {
		name    string
		places  string
		headers headers
		code    string
		tenant  string
		removed []string
	}{
		{name: "OpenAI's client", headers: headers{"authorization: Bearer one"}, tenant: "app-0", removed: []string{"authorization"}},
		{name: "Anthropic's client", headers: headers{"x-api-key: one"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{
			name: "the same in both", headers: headers{"x-api-key: one", "authorization: Bearer one"},
			tenant: "app-0", removed: []string{"x-api-key", "authorization"},
		},
		{name: "a foreign credential beside", headers: headers{"x-api-key: one", "authorization: " + foreign}, tenant: "app-0", removed: []string{"x-api-key"}},
		{name: "the other way round", headers: headers{"x-api-key: foreign", "authorization: Bearer two"}, tenant: "app-1", removed: []string{"authorization"}},
		{name: "no scheme beside", headers: headers{"x-api-key: one", "authorization: two"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "a scheme where none belongs", headers: headers{"x-api-key: Bearer one", "authorization: Bearer one"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "a scheme twice", headers: headers{"x-api-key: one", "authorization: Bearer Bearer one"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "another scheme", headers: headers{"x-api-key: one", "authorization: Token one"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{
			name: "in headers that do not count", headers: headers{"x-api-key: one", "api-key: one", "x-goog-api-key: two", "apikey: one", "proxy-authorization: Basic one"},
			tenant: "app-0", removed: []string{"x-api-key", "api-key", "x-goog-api-key", "apikey", "proxy-authorization"},
		},
		{name: "only in a header that does not count", headers: headers{"api-key: one"}, code: "missing_api_key"},
		{name: "two lines, both keys", headers: headers{"x-api-key: one", "x-api-key: one"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{name: "two lines, the second a key", headers: headers{"x-api-key: nothing", "x-api-key: one"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{name: "two lines of another header", headers: headers{"x-api-key: one", "authorization: " + foreign, "authorization: Bearer one"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "joined lines", headers: headers{"authorization: Bearer one,Bearer one"}, tenant: "app-0", removed: []string{"authorization"}},
		{name: "joined lines, the second a key", headers: headers{"x-api-key: nothing, one"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{name: "joined lines elsewhere", headers: headers{"x-api-key: one", "authorization: " + foreign + ", Bearer two"}, tenant: "app-0", code: "conflicting_api_keys"},
		{name: "two callers", headers: headers{"x-api-key: one", "authorization: Bearer two"}, code: "conflicting_api_keys"},
		{name: "two callers on two lines", headers: headers{"x-api-key: one", "x-api-key: two"}, code: "conflicting_api_keys"},
		{name: "two callers, joined", headers: headers{"x-api-key: one, two"}, code: "conflicting_api_keys"},
		{name: "both wrong", headers: headers{"x-api-key: nothing", "authorization: " + foreign}, code: "invalid_api_key"},
		{name: "one wrong, one empty", headers: headers{"x-api-key: nothing", "authorization: Bearer "}, code: "invalid_api_key"},
		{name: "nothing", code: "missing_api_key"},
		{
			name: "the one place that counts", places: "header: x-api-key", headers: headers{"x-api-key: one", "authorization: Bearer one"},
			tenant: "app-0", removed: []string{"x-api-key", "authorization"},
		},
		{name: "another caller's where it does not count", places: "header: x-api-key", headers: headers{"x-api-key: one", "authorization: Bearer two"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "not in the one place", places: "header: x-api-key", headers: headers{"authorization: Bearer one"}, code: "missing_api_key"},
		{name: "a key with a comma", headers: headers{"x-api-key: a,b c"}, tenant: "app-2", removed: []string{"x-api-key"}},
		{name: "a key with a comma as a token", headers: headers{"authorization: Bearer a,b c"}, tenant: "app-2", removed: []string{"authorization"}},
		{
			name: "the user of Basic credentials", headers: headers{"x-api-key: one", "authorization: Basic b25lOg=="},
			tenant: "app-0", removed: []string{"x-api-key", "authorization"},
		},
		{
			name: "the password, without padding, beside another credential", headers: headers{"x-api-key: one", "x-forwarded-authorization: " + foreign + ", basic dXNlcjpvbmU"},
			tenant: "app-0", removed: []string{"x-api-key", "x-forwarded-authorization"},
		},
		{name: "Basic credentials of nobody's", headers: headers{"x-api-key: one", "authorization: Basic dXNlcjpzb21lb25l"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{name: "quoted", headers: headers{"x-api-key: one", `authorization: Bearer "one"`}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "a parameter of a scheme", headers: headers{"x-api-key: one", "authorization: Token token=one"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "a quoted one", headers: headers{"x-api-key: one", `authorization: ApiKey id="app", key="one"`}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "a colon behind the scheme", headers: headers{"x-api-key: one", "authorization: Bearer:one"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "an equals sign behind the scheme", headers: headers{"x-api-key: one", "authorization: Bearer=one"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "a semicolon behind it", headers: headers{"x-api-key: one", "authorization: one;"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "with an escape", headers: headers{"x-api-key: one", "authorization: Bearer %6Fne"}, tenant: "app-0", removed: []string{"x-api-key", "authorization"}},
		{name: "between escapes", headers: headers{"x-api-key: one", "x-mine: %22one%22"}, tenant: "app-0", removed: []string{"x-api-key", "x-mine"}},
		{name: "behind a percent sign", headers: headers{"x-api-key: one", "x-mine: 100% %zz one"}, tenant: "app-0", removed: []string{"x-api-key", "x-mine"}},
		{name: "a part of an escaped word", headers: headers{"x-api-key: one", "x-mine: %41one"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{
			name: "headers of nobody's", headers: headers{"authorization: Bearer one", "x-auth-token: one", "ocp-apim-subscription-key: one", "x-litellm-api-key: Bearer one"},
			tenant: "app-0", removed: []string{"authorization", "x-auth-token", "ocp-apim-subscription-key", "x-litellm-api-key"},
		},
		{name: "a cookie", headers: headers{"x-api-key: one", "cookie: a=b; api_key=one; c=d"}, tenant: "app-0", removed: []string{"x-api-key", "cookie"}},
		{name: "a protocol of WebSocket", headers: headers{"x-api-key: one", "sec-websocket-protocol: openai-insecure-api-key.one"}, tenant: "app-0", removed: []string{"x-api-key", "sec-websocket-protocol"}},
		{name: "on the second line of any header", headers: headers{"x-api-key: one", "x-mine: a", "x-mine: one"}, tenant: "app-0", removed: []string{"x-api-key", "x-mine"}},
		{name: "words that have it in them", headers: headers{"x-api-key: one", "user-agent: one-two", "x-foo: someone", "x-bar: one_two phone"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{name: "headers of the message itself", headers: headers{":authority: one", "host: one", "content-type: one", "transfer-encoding: one", "x-api-key: one"}, tenant: "app-0", removed: []string{"x-api-key"}},
		{name: "a long key within a word", headers: headers{"x-api-key: sk-0123456789", "x-mine: key_sk-0123456789_x", "x-other: sk-012345678"}, tenant: "app-3", removed: []string{"x-api-key", "x-mine"}},
		{name: "a long key with escapes", headers: headers{"x-api-key: sk-0123456789", "x-mine: a%73k%2D0123456789b"}, tenant: "app-3", removed: []string{"x-api-key", "x-mine"}},
		{name: "three places", places: "from: [api-key, x-mine, authorization]", headers: headers{"x-mine: two", "x-api-key: two"}, tenant: "app-1", removed: []string{"x-api-key", "x-mine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newQuota(t, c.places, "one", "two", "a,b c", "sk-0123456789")
			x, v, removed := ask(f, c.headers)
			if c.code != "" {
				require.Equal(t, 401, v.Refusal().Status)
				require.Equal(t, c.code, v.Refusal().Code)
				for _, place := range f.places.headers {
					require.Contains(t, v.Refusal().Message, place)
				}
				require.Empty(t, x.Tenant)
				return
			}
			require.Equal(t, filter.Next, v)
			require.Equal(t, c.tenant, x.Tenant.Name)
			require.ElementsMatch(t, c.removed, removed)
		})
	}
}

// Two keys of one caller, as during a key rotation, are no conflict, and neither is forwarded.
func TestTwoKeysOfOneCaller(t *testing.T) {
	f := newQuota(t, "", "one")
	f.fixed.keys[sha256.Sum256([]byte("new"))] = f.fixed.keys[sha256.Sum256([]byte("one"))]
	x, v, removed := ask(f, headers{"x-api-key: one", "authorization: Bearer new", "x-a: one", "x-b: new", "x-c: other"})
	require.Equal(t, filter.Next, v)
	require.Equal(t, "app-0", x.Tenant.Name)
	require.ElementsMatch(t, []string{"x-api-key", "authorization", "x-a", "x-b"}, removed)
}

// Without a few headers nobody could read a request, so they stay whatever they contain. All others go, whatever their names.
func TestHeadersThatBelongToTheMessage(t *testing.T) {
	const key = "sk-0123456789"
	f := newQuota(t, "", key)
	stay := headers{"content-type: a/b; boundary=" + key, "content-length: " + key, "content-encoding: " + key, "transfer-encoding: " + key, "host: " + key}
	gone := headers{"x-api-key: " + key, "content-x: " + key, "content-disposition: form-data; name=" + key, "content-language: " + key, "content-md5: " + key, "content-digest: sha-256=:" + key + ":"}
	_, v, removed := ask(f, append(slices.Clone(stay), gone...))
	require.Equal(t, filter.Next, v)
	require.Equal(t, []string{"x-api-key", "content-x", "content-disposition", "content-language", "content-md5", "content-digest"}, removed)
}

// TestQuery: a key in the query is not accepted, and is not forwarded.
func TestQuery(t *testing.T) {
	f := newQuota(t, "", "one", "two")
	for path, want := range map[string]string{
		"/v1/chat/completions":                      "",
		"/v1/chat/completions?":                     "",
		"/v1/chat/completions?user=someone&x=two":   "",
		"/v1/chat/completions?api-key=one":          "/v1/chat/completions",
		"/v1/chat/completions?a=b&key=one&c=d":      "/v1/chat/completions?a=b&c=d",
		"/v1/chat/completions?key=one&c=d&key=one":  "/v1/chat/completions?c=d",
		"/v1/chat/completions?c=d&key=Bearer%20one": "/v1/chat/completions?c=d",
		"/v1/chat/completions?c=d&key=%6fne":        "/v1/chat/completions?c=d",
		"/v1/chat/completions?c=d&one":              "/v1/chat/completions?c=d",
	} {
		x := &filter.Exchange{Path: path}
		x.Reset(1)
		x.Path, x.RequestHeaders = path, headers{":path: " + path, "x-api-key: one"}
		require.Equal(t, filter.Next, f.OnRequestHeaders(x), path)
		edits := []filter.HeaderEdit{{Name: "x-api-key", Remove: true}}
		if want != "" {
			edits = append(edits, filter.HeaderEdit{Name: ":path", Value: want})
			path = want
		}
		require.Equal(t, edits, x.Effects().Request, path)
		require.Equal(t, path, x.Path)
	}
}

// A client without a key cannot make the filter hash for long.
func TestManyKeys(t *testing.T) {
	f := newQuota(t, "", "one")
	_, v, _ := ask(f, headers{"x-api-key: " + strings.Repeat("x,", maxKeys) + "one"})
	require.Equal(t, "invalid_api_key", v.Refusal().Code)
	_, v, _ = ask(f, headers{"x-api-key: " + strings.Repeat(" ,", 1000) + "one"})
	require.Equal(t, filter.Next, v, "what is empty is no key")
}

// Behind the filter no header contains a key: no caller's where clients send keys, and elsewhere not the request's own.
func FuzzNoKeyGoesOn(f *testing.F) {
	f.Add("one", "Bearer two", "x")
	f.Add("Bearer one, two", "one", "Basic one")
	f.Add("a", "b", "one")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		q := newQuota(t, "", "one", "two")
		h := headers{"x-api-key: " + a, "authorization: " + b, "api-key: " + c, "x-mine: " + c}
		x, v, removed := ask(q, h)
		if v != filter.Next {
			return
		}
		own := map[string]string{"app-0": "one", "app-1": "two"}[x.Tenant.Name]
		for _, line := range h {
			name, value, _ := strings.Cut(line, ": ")
			for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == ' ' }) {
				if word == own || name != "x-mine" && (word == "one" || word == "two") {
					require.Contains(t, removed, name, "%q", value)
				}
			}
		}
	})
}

func BenchmarkOnRequestHeaders(b *testing.B) {
	f := newQuota(b, "", "one", "two")
	x := &filter.Exchange{}
	var h filter.Headers = headers{"x-api-key: two"}
	b.ReportAllocs()
	for b.Loop() {
		x.Reset(1)
		x.RequestHeaders = h
		if f.OnRequestHeaders(x) != filter.Next {
			b.Fatal("refused")
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	f := newQuota(t, "", "one", "two")
	x := &filter.Exchange{}
	var h filter.Headers = headers{
		"x-api-key: two", "authorization: Bearer foreign, Bearer two", "user-agent: OpenAI/Python 1.2", "x-mine: two", "x-path: %2Ftwo", "x-other: a%20b",
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		x.Reset(1)
		x.RequestHeaders = h
		if f.OnRequestHeaders(x) != filter.Next {
			t.Fatal("refused")
		}
	}))
}

// A filter before Inlet names applications: any, unless they are listed.
func TestTrustedIdentity(t *testing.T) {
	const listed = "apps: [{name: shop, developer: ann}, {name: gone, status: revoked}]\ndevelopers: [{name: ann}]\n"
	for _, c := range []struct{ doc, app, code, developer string }{
		{"identity: {header: x-app}", "shop", "", ""},
		{"identity: {header: x-app}\nanonymous: free", "shop", "", ""},
		{"identity: {header: x-app}\nkeys: {list: [{name: k, sha256: KEY(demo)}]}", "shop", "", ""},
		{"identity: {header: x-app}\n" + listed, "shop", "", "ann"},
		{"identity: {header: x-app}\n" + listed, " shop ", "", "ann"},
		{"identity: {header: x-app}\n" + listed, "other", "unknown_app", ""},
		{"identity: {header: x-app}\n" + listed, "gone", "app_not_approved", ""},
		{"identity: {header: x-app}\n" + listed, "", "missing_api_key", ""},
	} {
		f := load(t, c.doc)
		for _, second := range []string{c.app, "real", ""} {
			_, v, _ := ask(f, headers{"x-app: " + c.app, "x-app: " + second})
			require.Equal(t, 401, v.Refusal().Status)
			require.Equal(t, "conflicting_identities", v.Refusal().Code, "one of them may be the client's")
		}
		x, v, _ := ask(f, headers{"x-app: " + c.app, "authorization: Bearer sk-of-the-provider"})
		if c.code != "" {
			require.Equal(t, c.code, v.Refusal().Code, c.app)
			continue
		}
		require.Equal(t, filter.Next, v, c.app)
		require.Equal(t, "shop", x.Tenant.App)
		require.Equal(t, c.developer, x.Tenant.Developer)
	}
}

package quota

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// lines is a log that tests read.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), what)
	}
}

// service is a service that runs over HTTP.
type service struct {
	*Service
	t   *testing.T
	url string
	log *lines
}

func start(t *testing.T, o Options) *service {
	t.Helper()
	s := &service{t: t, log: new(lines)}
	o.Log = slog.New(slog.NewTextHandler(s.log, nil))
	if o.Store == nil {
		store, err := OpenEmbedded(EmbeddedOptions{Log: o.Log})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, store.Close()) })
		o.Store = store
	}
	o.Look = 5 * time.Millisecond
	var err error
	s.Service, err = New(t.Context(), o)
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() { s.Run(t.Context()) })
	t.Cleanup(running.Wait) // the context ends before
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *service) post(body string) (int, string) {
	s.t.Helper()
	resp, err := http.Post(s.url+Path, "application/json", strings.NewReader(body))
	require.NoError(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return resp.StatusCode, string(text)
}

func (s *service) say(m *account.Message) account.Reply {
	s.t.Helper()
	status, body := s.post(string(m.Append(nil)))
	require.Equal(s.t, http.StatusOK, status, body)
	r, err := account.ParseReply([]byte(body))
	require.NoError(s.t, err)
	return r
}

func TestMessagesThatAreRefused(t *testing.T) {
	s := start(t, Options{})
	for body, want := range map[string]int{
		"":                              http.StatusBadRequest,
		"{":                             http.StatusBadRequest,
		`{"proxy":"","accounts":[]}`:    http.StatusBadRequest,
		`{"proxy":"a","accounts":[{}]}`: http.StatusBadRequest,
		`{"proxy":"a","accounts":[` + strings.Repeat(" ", maxMessage) + `]}`: http.StatusRequestEntityTooLarge,
		`{"proxy":"a","accounts":[]}`:                                        http.StatusOK,
	} {
		status, text := s.post(body)
		require.Equal(t, want, status, text)
	}
	resp, err := http.Get(s.url + Path)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
	require.Equal(t, http.MethodPost, resp.Header.Get("Allow"))
	stats := s.Stats()
	require.Equal(t, []uint64{5, 1, 0}, []uint64{stats.Refused, stats.Messages, stats.Failed})
}

const directory = `
developers: [{name: ann}]
products: [{name: trial, requests: 5/min, tokens: {total: "300/min, 1000/day", cachedWeight: 0}}, {name: gold, approval: manual, budget: 25.00/month}]
apps: [{name: shop, developer: ann, products: [trial, {name: gold, status: approved}]}]
keys: [{name: demo, app: shop, sha256: 2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea, expires: 2027-01-31T00:00:00Z}]
`

// A proxy gets the directory when it has another one, and again when it changes, within a second. A change that cannot be read changes nothing.
func TestDirectoryReachesProxies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	write := func(text string) {
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	write(directory)
	s := start(t, Options{File: file})
	r := s.say(&account.Message{Proxy: "a"})
	require.NotZero(t, r.Document)
	keys := gjson.ParseBytes(r.Keys)
	require.Equal(t, "2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea", keys.Get("keys.0.sha256").Str)
	require.JSONEq(t, `["trial", {"name": "gold", "status": "approved"}]`, keys.Get("apps.0.products").Raw)
	require.JSONEq(t, `{"total": "300/min, 1000/day", "cachedWeight": 0}`, keys.Get("products.0.tokens").Raw)
	again, err := ParseDirectory(r.Keys)
	require.NoError(t, err, "what proxies get has the form of the file")
	require.Equal(t, s.Directory(), again)

	require.Empty(t, s.say(&account.Message{Proxy: "a", Document: r.Document}).Keys, "it has this one")
	require.Empty(t, s.say(&account.Message{Proxy: "b", Document: -1}).Keys, "it wants none")
	other := start(t, Options{File: file})
	require.Equal(t, r.Document, other.say(&account.Message{Proxy: "a", Document: r.Document}).Document, "another companion with the same file")

	write("keys: [{name: demo}]")
	until(t, "the error is logged", func() bool { return strings.Contains(s.log.String(), `keys[0]: 1:8: missing key`) })
	require.Equal(t, r.Document, s.say(&account.Message{Proxy: "a"}).Document)
	require.NotZero(t, s.Stats().DirectoryErrors)
	require.NoError(t, os.Remove(file))
	until(t, "the error is logged", func() bool { return strings.Contains(s.log.String(), "no such file") })
	write(strings.Replace(directory, "name: demo", "name: demo2", 1))
	until(t, "the new one is there", func() bool {
		now := s.say(&account.Message{Proxy: "a", Document: r.Document})
		return now.Document != r.Document && strings.Contains(string(now.Keys), "demo2")
	})
	require.Contains(t, s.log.String(), "is read again")
}

// A request that waits for an account, or comes from a proxy, that does not fit is answered as if the store had failed, not with less than
// it needs. What proxies report meanwhile is taken as far as it fits.
func TestFull(t *testing.T) {
	store, err := OpenEmbedded(EmbeddedOptions{maxAccounts: 2})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	s := start(t, Options{Store: store})
	message := func(need int64, names ...string) *account.Message {
		m := &account.Message{Proxy: "p", Time: 1}
		for _, name := range names {
			m.Accounts = append(m.Accounts, account.Entry{Name: name, Period: "1mo", Limit: 5, Seq: 1, Need: need, Want: need})
		}
		return m
	}
	refused := func(m *account.Message, want string) {
		t.Helper()
		resp, err := http.Post(s.url+Path, "application/json", bytes.NewReader(m.Append(nil)))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, errors.Join(err, resp.Body.Close()))
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
		require.Equal(t, want+"\n", string(text))
	}
	require.Len(t, s.say(message(1, "a", "b")).Accounts, 2)
	refused(message(1, "a", "c"), "the companion is full: the counter of another account does not fit")
	require.Len(t, s.say(message(0, "a", "c")).Accounts, 1)
	require.Len(t, s.say(message(1, "a", "b")).Accounts, 2)
	require.Equal(t, uint64(2), s.Stats().Store.Overflow)
	for i := range maxProxies - 1 {
		_, err := store.Exchange(t.Context(), &account.Message{Proxy: fmt.Sprint(i)})
		require.NoError(t, err)
	}
	refused(&account.Message{Proxy: "more"}, "the companion keeps counters of at most 1024 proxies, and there are that many")
	require.Equal(t, uint64(2), s.Stats().Failed)
}

func TestNoDirectory(t *testing.T) {
	s := start(t, Options{})
	require.Zero(t, s.say(&account.Message{Proxy: "a"}).Document)
	require.Empty(t, s.say(&account.Message{Proxy: "a", Document: 7}).Keys)
	_, err := New(t.Context(), Options{Store: s.opts.Store, File: filepath.Join(t.TempDir(), "none")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestDirectoryFaults(t *testing.T) {
	for _, c := range [][2]string{
		{"keys: [{name: a}]", `keys[0]: 1:8: missing key "sha256"`},
		{"keys: [{name: a, sha256: ab}]", "is not a SHA-256 in hex"},
		{"apps: [{name: a b}]", `apps[0].name: 1:15: "a b" is not a name`},
		{"apps: [{name: a}, {name: a}]", `"a" is listed twice`},
		{"apps: [{name: a, developer: bbo}]\ndevelopers: [{name: bob}]", `apps: 1:7: app "a": there is no developer "bbo" (did you mean "bob"?)`},
		{"apps: [{name: a, products: [trail]}]\nproducts: [{name: trial}]", `app "a": there is no product "trail" (did you mean "trial"?)`},
		{"keys: [{name: k, app: shpo, sha256: " + strings.Repeat("0a", 32) + "}]\napps: [{name: shop}]", `key "k": there is no app "shpo" (did you mean "shop"?)`},
		{"keys: [{name: k, sha256: " + strings.Repeat("0a", 32) + "}, {name: l, sha256: " + strings.Repeat("0A", 32) + "}]", `keys "k" and "l" are the same key`},
		{"products: [{name: p, requests: often}]", "products[0].requests: 1:32: "},
		{"products: [{name: p, budget: 1}]", "products[0].budget: 1:30: "},
		{"products: [{name: p, operations: [{methods: [GET]}]}]", "want either path or pathPrefix"},
		{"products: [{name: p, zone: Mars/Olympus}]", "is not a time zone"},
		{"products: [{name: p, start: noon}]", "is neither calendar"},
		{"products: [{name: p, start: 0001-01-01T00:00:00Z}]", "products[0].start: 1:29: \"0001-01-01T00:00:00Z\" is not between 1970 and September 2248"},
		{"products: [{name: p, start: 1969-12-31T23:59:59Z}]", "is not between 1970 and September 2248"},
		{"products: [{name: p, start: 2249-01-01T00:00:00Z}]", "is not between 1970 and September 2248"},
		{"products: [{name: p, start: 9999-12-31T23:59:59Z}]", "is not between 1970 and September 2248"},
		{"products: [{name: p, concurency: 4}]", `unknown key "concurency" (did you mean "concurrency"?)`},
		{"keys: [{name: k, sha256: " + strings.Repeat("0a", 32) + ", expires: soon}]", "is not a time such as"},
	} {
		_, err := ParseDirectory([]byte(c[0]))
		require.ErrorContains(t, err, c[1], c[0])
	}
}

// Every start time that is accepted makes a window that proxies can send.
func TestStartTimes(t *testing.T) {
	for _, text := range []string{"1970-01-01T00:00:00Z", "1970-01-01T02:00:00+02:00", "2248-09-26T15:10:22Z"} {
		_, err := ParseDirectory([]byte("products: [{name: p, requests: 5/min, start: " + text + "}]"))
		require.NoError(t, err)
		at, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		w := account.Window{Unit: account.Minute, From: at}
		read, err := account.ParseWindow(string(w.Append(nil)))
		require.NoError(t, err)
		require.True(t, at.Equal(read.From))
	}
}

// The version depends on the content alone, and every reader of JSON reads it exactly.
func TestVersions(t *testing.T) {
	seen := map[int64]bool{}
	for i := range 1000 {
		v := versionOf(fmt.Append(nil, i))
		require.Equal(t, v, versionOf(fmt.Append(nil, i)))
		require.Positive(t, v)
		require.Equal(t, v, int64(float64(v)))
		require.False(t, seen[v])
		seen[v] = true
	}
}

// A proxy can read a directory of many keys. What becomes too long for it when it is sent is not taken.
func TestALargeDirectory(t *testing.T) {
	text := []byte("keys: [")
	for i := range 4_200 {
		text = fmt.Appendf(text, "{name: k%d, sha256: %064x},", i, i)
	}
	d, err := ParseDirectory(append(text, ']'))
	require.NoError(t, err)
	require.Len(t, d.Keys, 4_200)

	escaped := strings.Repeat("&", 200_000) // six bytes each in JSON
	_, err = ParseDirectory([]byte(`products: [{name: p, models: ["` + escaped + `"]}]`))
	require.ErrorContains(t, err, "as it is sent to proxies")
	require.ErrorContains(t, err, "1MiB")
}

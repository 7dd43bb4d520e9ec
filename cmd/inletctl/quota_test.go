package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/quota"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// operator returns how to run a command of inletctl quota against a real admin API: one that has to succeed, and any.
func operator(t *testing.T) (ok func(line string) string, run func(line string) (code int, stdout, stderr string), store quota.Store) {
	t.Helper()
	store, err := quota.OpenEmbedded(quota.EmbeddedOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	service, err := quota.New(t.Context(), quota.Options{Store: store, Managed: true})
	require.NoError(t, err)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("secret"), 0o600))
	h, err := service.Admin(token)
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	t.Setenv("INLET_ADMIN", server.URL)
	t.Setenv("INLET_ADMIN_TOKEN_FILE", token)
	run = func(line string) (code int, stdout, stderr string) {
		return tool(t, append([]string{"quota"}, strings.Fields(line)...)...)
	}
	ok = func(line string) string {
		code, out, errs := run(line)
		require.Equal(t, exitOK, code, line+": "+errs)
		require.Empty(t, errs)
		return out
	}
	return ok, run, store
}

// TestQuota does what an operator does.
func TestQuota(t *testing.T) {
	ok, run, store := operator(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "gold.yaml")
	require.NoError(t, os.WriteFile(file, []byte("name: gold\napproval: manual\noperations: [{pathPrefix: /v1/}]\ntokens: {cachedWeight: 0.1}\n"), 0o600))
	require.Contains(t, ok("products create trial --requests 5/min --tokens 300/min --model llama --model gemma-*"), "5/min")
	require.Contains(t, ok("products create -f "+file+" --prompt-tokens 1M/day --concurrency 4"), "prompt 1M/day")
	require.Contains(t, ok("developers create ann"), "ann")
	require.Contains(t, ok("apps create shop --developer ann --product trial --product gold=approved"), "trial, gold=approved")
	out := ok("keys create demo --app shop --expires 2027-01-31T00:00:00Z")
	key := regexp.MustCompile(`sk-\S+`).FindString(out)
	require.NotEmpty(t, key, out)
	require.NotContains(t, ok("keys list"), key)
	var rotated struct{ Key, Name string }
	require.NoError(t, json.Unmarshal([]byte(ok("keys rotate demo --overlap 24h -o json")), &rotated))
	require.NotEqual(t, key, rotated.Key)
	require.Contains(t, ok("keys list"), "demo.1")
	require.Contains(t, ok("keys revoke demo.1"), "revoked")
	require.Equal(t, "done\n", ok("keys delete demo.1"))

	const name = "trial/total-tokens:1m/app=shop"
	_, err := store.Exchange(t.Context(), &account.Message{Proxy: "p", Accounts: []account.Entry{{Name: name, Period: "1mo", Limit: 300, Need: 100, Want: 100}}})
	require.NoError(t, err)
	require.Regexp(t, `(?m)^`+regexp.QuoteMeta(name)+` +300 +- +0 `, ok("usage shop"))
	require.NotContains(t, ok("usage somebody"), name)
	require.Regexp(t, regexp.QuoteMeta(name)+` +300 +50 `, ok("grant "+name+" 50"))
	require.Contains(t, ok("reset "+name), name)

	for line, want := range map[string]string{
		"keys create demo":             "inletctl quota keys rotate demo",
		"keys delete dmeo":             `did you mean "demo"?`,
		"products create --requests x": "missing key",
		"products delete trial":        "delete or change what names it first",
		"apps create x --developer bo": "fix: create what is missing first",
		"apps create shop":             "inletctl quota apply",
		"apps approve shpo":            `did you mean "shop"?`,
		"reset nothing":                "there is no account with this name",
		"grant " + name + " 0":         "out of range",
	} {
		code, _, errs := run(line)
		require.Equal(t, exitFaults, code, line)
		require.Contains(t, errs, want, line)
	}
	for line, want := range map[string]string{
		"usage -o xml":                    "it is table or json",
		"usage --admin localhost":         "it is not a URL",
		"usage --token-file=":             "which token?",
		"grant " + name + " much":         `"much" is not an amount`,
		"grant " + name:                   "accepts 2 arg(s)",
		"products create -f " + dir + "x": "no such file",
	} {
		code, _, errs := run(line)
		require.Equal(t, exitUsage, code, line)
		require.Contains(t, errs, want, line)
	}
	code, _, errs := run("usage --token-file " + file + "x")
	require.Equal(t, exitFaults, code)
	require.Contains(t, errs, "no such file")
	code, _, errs = run("usage --admin http://127.0.0.1:1")
	require.Equal(t, exitFaults, code)
	require.Contains(t, errs, "does the companion run")
}

// TestQuotaApply changes what is in use.
func TestQuotaApply(t *testing.T) {
	ok, run, store := operator(t)
	file := filepath.Join(t.TempDir(), "quota.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("apps: [{name: shop, developer: ann, products: [trial], status: pending}]\ndevelopers: [{name: ann}]\nproducts: [{name: trial, requests: 5/min}]\n")
	require.Regexp(t, `(?s)product +trial +created.*developer +ann +created.*app +shop +created`, ok("apply -f "+file))
	ok("keys create demo --app shop")
	require.Contains(t, ok("apps approve shop"), "approved")
	require.Contains(t, ok("apps list"), "ann")
	require.Contains(t, ok("apps revoke shop"), "revoked")
	require.Contains(t, ok("apps list"), "trial", "the rest stays")

	write("products: [{name: trial, requests: 6/min}, {name: gold, budget: 25.00/month}]\n")
	require.JSONEq(t, `[{"kind": "product", "name": "trial", "result": "changed"}, {"kind": "product", "name": "gold", "result": "created"}]`, ok("apply -o json -f "+file))
	require.Contains(t, ok("products list"), "6/min")

	for text, want := range map[string]string{
		"keys: [{name: x}]":  "keys create",
		"product: []":        "want the lists products, developers and apps",
		"products: {name: x": "want the lists",
	} {
		write(text)
		code, _, errs := run("apply -f " + file)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, want)
	}
	write("products: [{name: new}, {name: bad, requests: x}, {name: later}]")
	code, out, errs := run("apply -f " + file)
	require.Equal(t, exitFaults, code)
	require.Contains(t, out, "new")
	require.Contains(t, errs, "products[1] bad: ")
	require.NotContains(t, ok("products list"), "later")
	write("products: [{requests: 1/s}]")
	_, _, errs = run("apply -f " + file)
	require.Contains(t, errs, `products[0] : missing key "name"`)

	// Budgets are in their currency.
	const name = "gold/budget:1mo/app=shop"
	_, err := store.Exchange(t.Context(), &account.Message{Proxy: "p", Accounts: []account.Entry{{Name: name, Period: "1mo", Limit: 25e9, Need: 1e9, Want: 1e9}}})
	require.NoError(t, err)
	require.Regexp(t, regexp.QuoteMeta(name)+` +25\.00 +12\.50 +0\.00 +0\.00 +37\.50 `, ok("grant "+name+" 12.50"))
	require.Contains(t, ok("usage -o json"), "12500000000")
}

// Something else at that address is not taken for the admin API.
func TestQuotaElsewhere(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("secret"), 0o600))
	code, _, errs := tool(t, "quota", "usage", "--admin", server.URL, "--token-file", token)
	require.Equal(t, exitFaults, code)
	require.Contains(t, errs, "is this the companion's admin API?")
}
